"""The ingest worker: receive, verify, store durably, and only then give receipts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgecap import clock, topics
from edgecap.codec.chunk import MAX_CHUNK_BYTES, Chunk, ChunkId
from edgecap.codec.receipt import encode_receipts
from edgecap.errors import ChunkError, NameRefused
from edgecap.ingest.metrics import IngestMetrics
from edgecap.ingest.receipt import ReceiptBook, Rig
from edgecap.ingest.refused import RefusedBin
from edgecap.ingest.store import CommitGroup, Store, Stored
from edgecap.ingest.verify import verify_message
from edgecap.mqtt import Backoff, Broker, Connection, Message, is_permanent, keep_connected

log = logging.getLogger("edgecap.ingest")

RECEIPT_WINDOW = 128
"""Receipts on their way to the broker at a time; each is for one rig."""
STOP_POLL_S = 0.25
QUIET_S = 60.0
"""After so long without a chunk the store may put in order what it likes."""
REPORT_S = 10.0
LEAVE_S = 5.0
SLICE = 64
"""Chunks of a batch that are decoded at a time: in memory one takes several times what was received."""
_REASONS_TOLD = 20
"""Refusals logged one by one per report; the rest are only counted."""


@dataclass(slots=True)
class _Batch:
    messages: list[Message] = field(default_factory=list)
    n_bytes: int = 0


class _Kept(NamedTuple):
    """What became of a valid chunk."""

    rig: Rig
    id: ChunkId
    outcome: Stored


class IngestWorker:
    """Serves every rig of a broker; any number of workers may share the load.

    Args:
        broker: Where chunks come from and receipts go.
        store: Where chunks are kept.
        name: Name of this worker, unique among its broker's.
        share: Divide the chunks among the workers that share (`$share`, MQTT 5).
        refused_dir: Where refused payloads are kept for a person to look at; None keeps none.
        receipt_after_s: Longest wait between durable commit and receipt.
        commit_group: When a group of chunks is committed at the latest; by default as the store likes it.
        backoff: Waits between attempts to connect.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store,
        *,
        name: str,
        share: bool = False,
        refused_dir: Path | None = None,
        receipt_after_s: float = 0.5,
        commit_group: CommitGroup | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.broker = broker
        self.name = topics.check_name("worker", name)
        self.metrics = IngestMetrics()
        self.connected = asyncio.Event()
        """Set while subscribed."""
        self._store = store
        self._filter = topics.subscription(topics.UP, share=topics.INGEST_GROUP if share else "")
        self._refused = RefusedBin(refused_dir)
        self._receipts = ReceiptBook(after_s=receipt_after_s)
        self._group = commit_group or store.commit_group
        self._backoff = backoff
        self._stop = asyncio.Event()
        self._tell = asyncio.Event()
        self._drained = False
        """Everything received before `stop` has been committed."""
        self._reasons_told = 0

    def stop(self) -> None:
        """Finish what has been received, give receipts for it, and let `run` return."""
        self._stop.set()
        self._tell.set()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            StoreError: the store cannot be written.
            BrokerError: the broker refuses in a way that only another configuration can change.
        """
        link = asyncio.create_task(self._stay_connected(), name="ingest-link")
        stop = asyncio.create_task(self._stop.wait(), name="ingest-stop")
        report = asyncio.create_task(self._report(), name="ingest-report")
        try:
            await asyncio.wait([link, stop], return_when=asyncio.FIRST_COMPLETED)
            if not link.done():
                # Bodies end by themselves; a link that is down, or a broker that hangs, is cut short.
                await asyncio.wait([link], timeout=LEAVE_S if self.connected.is_set() else 0)
        finally:
            for task in (link, stop, report):
                task.cancel()
            await asyncio.wait([link, stop, report])
        if not link.cancelled():
            link.result()

    async def _stay_connected(self) -> None:
        await keep_connected(
            self.broker,
            self._serve,
            client_id=f"edgecap-ingest-{self.name}",
            subscribe=[self._filter],
            window=RECEIPT_WINDOW,
            # While a group is being committed the next one comes. Brokers drop what exceeds this and their
            # own queue (mosquitto: 1000), so it holds a second of 500 rigs' sensors.
            inbox=2 * self._group.n_chunks,
            receive_maximum=2 * self._group.n_chunks,
            max_packet_bytes=MAX_CHUNK_BYTES + 4096,
            manual_ack=True,
            backoff=self._backoff,
            on_state=self._on_state,
            give_up=is_permanent,
        )

    def _on_state(self, connected: bool, reason: str) -> None:
        if connected:
            self.metrics.connections += 1
            self.connected.set()
            log.info("connected to %s as %s", self.broker.name, self.name)
        else:
            self.connected.clear()
            log.warning("%s", reason)

    async def _serve(self, connection: Connection) -> None:
        batches: asyncio.Queue[_Batch | None] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._gather(connection, batches), name="ingest-gather")
            group.create_task(self._commit_all(connection, batches), name="ingest-commit")
            group.create_task(self._give_receipts(connection), name="ingest-receipts")

    # ── chunks in ───────────────────────────────────────────────────────────────────────────────────

    async def _gather(self, connection: Connection, batches: asyncio.Queue[_Batch | None]) -> None:
        """Group messages into batches; while one is being committed the next one grows."""
        leaving = False
        while True:
            batch = await self._next_batch(connection)
            if batch.messages:
                await batches.put(batch)
            elif leaving:
                await batches.put(None)
                return
            if self._stop.is_set() and not leaving:
                leaving = True  # what the broker has already taken for us still arrives
                await connection.unsubscribe([self._filter])

    async def _next_batch(self, connection: Connection) -> _Batch:
        """What arrives until the batch is full, old enough, or nothing more comes."""
        batch, since, wait_s = _Batch(), 0.0, STOP_POLL_S
        while not self._full(batch):
            try:
                if connection.waiting:
                    message = await connection.receive()
                else:
                    async with asyncio.timeout(wait_s):
                        message = await connection.receive()
            except TimeoutError:
                break
            now = time.monotonic()
            if not batch.messages:
                since = now
            batch.messages.append(message)
            batch.n_bytes += len(message.payload)
            left_s = self._group.seconds - (now - since)
            if left_s <= 0:
                break
            wait_s = min(self._group.quiet_s, left_s)
        return batch

    def _full(self, batch: _Batch) -> bool:
        return batch.n_bytes >= self._group.n_bytes or len(batch.messages) >= self._group.n_chunks

    async def _commit_all(self, connection: Connection, batches: asyncio.Queue[_Batch | None]) -> None:
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    batch = await batches.get()
            except TimeoutError:
                await _whole(asyncio.to_thread(self._store.commit))  # the store lets go of what is idle
                continue
            if batch is None:
                break
            await _whole(self._commit(batch))
            for message in batch.messages:
                connection.acknowledge(message)
        self._drained = True
        self._tell.set()

    async def _commit(self, batch: _Batch) -> None:
        metrics = self.metrics
        started = time.perf_counter()
        kept, invalid = await asyncio.to_thread(self._store_batch, batch.messages)
        metrics.commit_s += time.perf_counter() - started
        metrics.commits += 1
        metrics.received += len(batch.messages)
        metrics.received_bytes += batch.n_bytes
        now_ns = clock.now_ns()
        for rig, id_, outcome in kept:
            if outcome == "conflict":
                # The store keeps both, durably, so the rig may let go of its own; a person must say which
                # one is true.
                metrics.conflicts += 1
                self._note_refusal(
                    f"conflict: another chunk is stored as {'/'.join(rig)} {id_.session}/"
                    f"{id_.stream}/{id_.seq} of boot {id_.boot}"
                )
            elif outcome == "stored":
                metrics.stored += 1
            elif outcome == "erased":
                metrics.erased += 1  # receipted all the same: the rig must not keep what nobody wants
            else:
                metrics.duplicates += 1
            self._receipts.add(rig, [id_], now_ns)
        metrics.receipts_forgotten = self._receipts.forgotten
        metrics.invalid += len(invalid)
        for reason in invalid:
            self._note_refusal(reason)
        self._tell.set()

    def _store_batch(self, messages: Sequence[Message]) -> tuple[list[_Kept], list[str]]:
        """Verify, append and commit; runs in a thread, one call at a time."""
        kept: list[_Kept] = []
        invalid: list[str] = []
        for at in range(0, len(messages), SLICE):
            chunks = self._verify(messages[at : at + SLICE], invalid)
            outcomes = self._store.append(chunks) if chunks else []
            for chunk, outcome in zip(chunks, outcomes, strict=True):
                rig = (chunk.header.site, chunk.header.rig)
                kept.append(_Kept(rig, chunk.id, outcome))
        if kept:
            self._store.commit()
        return kept, invalid

    def _verify(self, messages: Sequence[Message], invalid: list[str]) -> list[Chunk]:
        """The valid chunks among the messages; the reasons of the others are added to `invalid`."""
        chunks: list[Chunk] = []
        for message in messages:
            try:
                chunks.append(verify_message(message.topic, message.payload))
            except (ChunkError, NameRefused) as error:
                invalid.append(f"invalid chunk on {message.topic[:200]!r}: {error}")
                self._keep(message, str(error))
        return chunks

    def _keep(self, message: Message, reason: str) -> None:
        try:
            self._refused.keep(message.payload, topic=message.topic, reason=reason, t_utc_ns=time.time_ns())
        except OSError as error:
            log.warning("a refused payload could not be kept: %s", error)

    def _note_refusal(self, reason: str) -> None:
        self._reasons_told += 1
        if self._reasons_told <= _REASONS_TOLD:
            log.warning("%s", reason)

    # ── receipts out ────────────────────────────────────────────────────────────────────────────────

    async def _give_receipts(self, connection: Connection) -> None:
        while True:
            done = self._drained
            now_ns = clock.now_ns()
            due_ns = self._receipts.due_ns()
            if done or (due_ns is not None and due_ns <= now_ns):
                # Side by side: one after the other, each rig would wait for the broker's word on the last.
                async with asyncio.TaskGroup() as group:
                    for rig, ids in self._receipts.take(now_ns, everything=done):
                        group.create_task(self._tell_rig(connection, rig, ids))
                if done:
                    return
                continue
            self._tell.clear()
            wait_s = None if due_ns is None else (due_ns - now_ns) / 1e9
            try:
                async with asyncio.timeout(wait_s):
                    await self._tell.wait()
            except TimeoutError:
                continue

    async def _tell_rig(self, connection: Connection, rig: Rig, ids: list[ChunkId]) -> None:
        for payload in encode_receipts(ids, worker=self.name, t_utc_ns=time.time_ns()):
            await connection.publish(
                topics.topic(*rig, topics.RECEIPT),
                payload,
                qos=topics.RECEIPT.qos,
                content_type=topics.RECEIPT.content_type,
            )
            self.metrics.receipts += 1
        self.metrics.receipted += len(ids)

    async def _report(self) -> None:
        """A log line every `REPORT_S` in which something happened."""
        before, since = msgspec.structs.replace(self.metrics), time.monotonic()
        while True:
            await asyncio.sleep(REPORT_S)
            now = time.monotonic()
            if self.metrics != before:
                log.info("%s", self.metrics.line(before, now - since))
            if self._reasons_told > _REASONS_TOLD:
                log.warning("%s more refusals were not listed", self._reasons_told - _REASONS_TOLD)
            self._reasons_told = 0
            before, since = msgspec.structs.replace(self.metrics), now


async def _whole(commit: Coroutine[Any, Any, None]) -> None:
    """A commit under way is finished whatever happens to the connection: what became durable must get its
    receipt, and two commits must never overlap.
    """
    task = asyncio.create_task(commit, name="ingest-batch")
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.result()
        raise
