"""The spool for the event loop: a bounded queue, a thread that writes, syncs often, and statistics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgecap import clock
from edgecap.codec.chunk import Chunk
from edgecap.errors import SpoolError
from edgecap.spool.spool import Spool

log = logging.getLogger("edgecap.spool")

QUEUE_CHUNKS = 256
SYNC_NS = 500_000_000
SYNC_BYTES = 1 << 20
AGES = 4096

_Put = tuple[Chunk, int, bool]


@dataclass(frozen=True, slots=True)
class WriterStats:
    """Counts since the writer was made; ages over the last `AGES` chunks."""

    queued: int
    waited_total: int
    """Times that `put` found the queue full and had to wait; nothing is ever dropped here."""
    durable_total: int
    refused_total: int
    age_ms_p99: float
    """From a chunk's first sample to the end of the sync that made it durable: what a power cut would have
    cost of it.
    """


class SpoolWriter:
    """Hands chunks to a spool from one event loop. `async with SpoolWriter(spool) as writer: …`

    The queue's policy is to make the caller wait. A chunk that the spool refuses (reserve, medium)
    raises `SpoolError` from the `put` that follows, and from `flush`. Nothing more of its session is then
    taken: what the spool holds of each stream ends where the loss begins, and can be closed as it is.

    Args:
        spool: Its `append` and `sync` are called from the writer's thread only. Not closed with the writer.
        durable: Called in the loop with the number of chunks that have just become durable.
        queue_chunks: Chunks that may wait for the thread.
        sync_ns: Longest time that a chunk waits for its sync.
        sync_bytes: Bytes after which a sync does not wait for that time.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        durable: Callable[[int], None] | None = None,
        queue_chunks: int = QUEUE_CHUNKS,
        sync_ns: int = SYNC_NS,
        sync_bytes: int = SYNC_BYTES,
    ) -> None:
        self.spool = spool
        self._durable = durable
        self._queue_chunks, self._sync_ns, self._sync_bytes = queue_chunks, sync_ns, sync_bytes
        self._mutex = threading.Lock()
        self._wake = threading.Condition(self._mutex)
        self._queue: deque[_Put] = deque()
        self._flushes: list[asyncio.Future[None]] = []
        self._error: SpoolError | None = None
        self._torn = ""
        """The session of which a chunk was refused last."""
        self._stop = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._waited = self._durable_total = self._refused = 0
        self._age_ns: deque[int] = deque(maxlen=AGES)

    async def __aenter__(self) -> SpoolWriter:
        self._loop = asyncio.get_running_loop()
        self._room.set()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._wake:
            self._stop = True
            self._wake.notify()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    async def put(self, chunk: Chunk, *, closing: bool = False) -> None:
        """Queue a chunk, waiting while the queue is full; with `closing` it may use the reserve.

        Raises:
            SpoolError: what befell earlier chunks.
        """
        while True:
            with self._wake:
                self._raise_error()
                if self._stop or self._loop is None:
                    raise SpoolError(f"the writer of spool {self.spool.path} is not running")
                if len(self._queue) < self._queue_chunks:
                    self._queue.append((chunk, clock.now_ns(), closing))
                    self._wake.notify()
                    return
                self._room.clear()
                self._waited += 1
            await self._room.wait()

    async def flush(self) -> None:
        """Return once everything put before is durable; raises `SpoolError` if it is not."""
        assert self._loop is not None
        done: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            if self._stop:
                raise SpoolError(f"the writer of spool {self.spool.path} is not running")
            self._flushes.append(done)
            self._wake.notify()
        await done
        with self._mutex:
            self._raise_error()

    def stats(self) -> WriterStats:
        with self._mutex:
            return WriterStats(
                queued=len(self._queue),
                waited_total=self._waited,
                durable_total=self._durable_total,
                refused_total=self._refused,
                age_ms_p99=float(np.percentile(np.array(self._age_ns), 99)) / 1e6 if self._age_ns else 0.0,
            )

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    # What follows runs in the writer's thread.

    def _run(self) -> None:
        unsynced_t0_ns: list[int] = []
        n_bytes = due_ns = 0
        while True:
            batch, flushes, stop = self._take(due_ns if unsynced_t0_ns else 0)
            for chunk, put_ns, closing in batch:
                if not self._append(chunk, closing):
                    continue
                due_ns = due_ns if unsynced_t0_ns else put_ns + self._sync_ns
                unsynced_t0_ns.append(chunk.header.t0_ns)
                n_bytes += len(chunk.packed)
                if n_bytes >= self._sync_bytes:
                    n_bytes = 0 if self._sync(unsynced_t0_ns) else n_bytes
            if unsynced_t0_ns and (flushes or stop or clock.now_ns() >= due_ns):
                n_bytes = 0 if self._sync(unsynced_t0_ns) else n_bytes
                due_ns = clock.now_ns() + self._sync_ns
            if flushes:
                self._tell(self._finish_flushes, flushes)
            if stop:
                return

    def _take(self, due_ns: int) -> tuple[list[_Put], list[asyncio.Future[None]], bool]:
        """Wait for chunks, a flush, the stop, or the time `due_ns` (0: none) of the next sync."""
        with self._wake:
            while not (self._queue or self._flushes or self._stop):
                left_ns = due_ns - clock.now_ns() if due_ns else 0
                if due_ns and left_ns <= 0:
                    break
                self._wake.wait(left_ns / 1e9 if due_ns else None)
            batch, flushes, stop = list(self._queue), self._flushes, self._stop
            self._queue.clear()
            self._flushes = []
            full = not self._room.is_set()
        if full and batch:
            self._tell(self._room.set)  # somebody waits for it; waking the loop costs more than the rest
        return batch, flushes, stop

    def _append(self, chunk: Chunk, closing: bool) -> bool:
        if chunk.header.session == self._torn:
            with self._mutex:
                self._refused += 1
            return False
        try:
            self.spool.append(chunk, closing=closing)
        except Exception as error:  # noqa: BLE001 - the boundary of one chunk: all wait for this thread
            self._torn = chunk.header.session
            self._note(error)
            with self._mutex:
                self._refused += 1
            return False
        return True

    def _note(self, error: Exception) -> None:
        """Keep the first error for whoever puts or flushes next."""
        if not isinstance(error, SpoolError):
            log.error("the spool failed", exc_info=error)
            error = SpoolError(
                f"spool {self.spool.path} failed: {type(error).__name__}: {error}",
                fix="keep the log; this program, or the file system, is at fault",
            )
        with self._mutex:
            self._error = self._error or error

    def _sync(self, t0_ns: list[int]) -> bool:
        """Sync what was appended, of which these are the first times; clears them where it succeeds."""
        try:
            self.spool.sync()
        except Exception as error:  # noqa: BLE001 - as above
            self._note(error)
            # The spool still has them and tries again with the next sync.
            return False
        now = clock.now_ns()
        with self._mutex:
            self._durable_total += len(t0_ns)
            self._age_ns.extend(now - t0 for t0 in t0_ns)
        if self._durable is not None:
            self._tell(self._durable, len(t0_ns))
        t0_ns.clear()
        return True

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            # The loop may be closed already; then nobody is left to be told.
            self._loop.call_soon_threadsafe(function, *args)

    @staticmethod
    def _finish_flushes(flushes: list[asyncio.Future[None]]) -> None:
        for done in flushes:
            if not done.done():
                done.set_result(None)
