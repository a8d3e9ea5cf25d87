"""A sensor on this computer's own bus (I2C, SPI) through Linux IIO: buffered capture, kernel time stamps."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgecap.clock import now_ns, read_pair
from edgecap.errors import SourceError
from edgecap.kernels import resample
from edgecap.model import DeviceEvent, Item, StreamInfo
from edgecap.source.iio_device import DEV_ROOT, SYS_ROOT, IioDevice, Ready, Wanted, find_device
from edgecap.source.iio_track import IioTrack
from edgecap.source.item_queue import MAX_ITEMS, ItemQueue

READ_BYTES = 65536
WATCH_S = 0.25
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 2.0


class IioStatistics(msgspec.Struct, frozen=True):
    """What an IIO source counts about itself, since it was opened."""

    reads: int
    bytes: int
    samples: int
    stray_bytes: int
    """Read while nothing was recorded."""
    torn_bytes: int
    """Left over of a scan when the device went away."""
    backward: int
    """Times at which the kernel's stamps did not rise."""
    reconnects: int
    rate_hz: float
    """As the stamps have it."""
    u_ns: int
    queued: int
    queue_dropped: int
    """Sample blocks lost because the daemon did not take them."""
    queue_dropped_events: int
    """Events lost for the same reason, once no block was left to lose."""


class IioSource:
    """One IIO device; it produces one stream, of the source's name.

    Args:
        name: Of the stream and device on this rig.
        wanted: Which device, and how it is to be set.
        latency_ns: What the driver's time stamps may be late by: interrupt latency.
        lag_ns: Known constant delay of the sensor itself, from its data sheet.
        sys_root, dev_root: Where devices and their nodes are.
        max_items: Items that may wait for the daemon.
    """

    def __init__(
        self,
        name: str,
        wanted: Wanted,
        *,
        latency_ns: int = 200_000,
        lag_ns: int = 0,
        sys_root: Path = SYS_ROOT,
        dev_root: Path = DEV_ROOT,
        max_items: int = MAX_ITEMS,
    ) -> None:
        self.name = name
        self.wanted = wanted
        self.latency_ns, self.lag_ns = latency_ns, lag_ns
        self.sys_root, self.dev_root = sys_root, dev_root
        self._max_items = max_items

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[IioFeed]:
        """Find the device and set it up; raises `SourceError`."""
        feed = IioFeed(self, ItemQueue(self._max_items))
        try:
            await feed.connect()
            yield feed
        finally:
            await feed.close()


@dataclass(frozen=True, slots=True)
class _Attached:
    """An opened device node, and how its bytes are to be read."""

    device: IioDevice
    fd: int
    ready: Ready


class IioFeed:
    """An opened device; see `edgecap.source.protocol.Feed`."""

    def __init__(self, source: IioSource, queue: ItemQueue) -> None:
        self.name = source.name
        self._source = source
        self._where = f"{source.name} ({source.wanted.device})"
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._attached: _Attached | None = None
        self._track: IioTrack | None = None
        self._info: StreamInfo | None = None
        self._rest = b""
        self._running = False
        self._control = asyncio.Lock()
        self._attention = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._watcher: asyncio.TimerHandle | None = None
        self._reads = self._bytes = self._stray = self._torn = self._reconnects = 0

    @property
    def info(self) -> tuple[StreamInfo, ...]:
        return (self._info,) if self._info is not None else ()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self._queue.__aiter__()

    async def connect(self) -> None:
        """Open for the first time; afterwards a supervisor reopens the device whenever it went away."""
        await asyncio.to_thread(resample.warm_up)
        self._attach(await asyncio.to_thread(self._open_device))
        self._watch()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"iio {self.name}")

    async def close(self) -> None:
        """Stop the capture, let go of the device and end the iteration."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        attached = self._attached
        if attached is not None and self._running:
            with contextlib.suppress(SourceError):
                await asyncio.to_thread(attached.device.enable, on=False)
        self._running = False
        self._detach()
        self._queue.close()

    async def start(self) -> None:
        async with self._control:
            if self._running:
                raise SourceError(f"{self._where} is already sampling", fix="stop it first")
            attached, track = self._attached, self._track
            if attached is None or track is None:
                raise SourceError(f"{self._where} is disconnected", fix="plug it in again")
            self._on_readable()  # what an earlier capture left in the kernel is not of this recording
            track.begin(now_ns())
            self._running = True
            try:
                await asyncio.to_thread(attached.device.enable, on=True)
            except SourceError:
                self._running = False
                raise

    async def stop(self) -> dict[str, int]:
        """See `Feed.stop`; IIO does not tell how many samples there were, so the result is empty."""
        async with self._control:
            if self._running and self._attached is not None:
                with contextlib.suppress(SourceError):  # gone meanwhile: the gap says so
                    await asyncio.to_thread(self._attached.device.enable, on=False)
                while self._read_once():
                    pass
            if self._running and self._track is not None:
                for item in self._track.end(now_ns()):
                    self._queue.put(item)
            self._running = False
            self._tell("stopped")
        return {}

    def statistics(self) -> IioStatistics:
        """Every count, and how well the stream is placed in time."""
        track = self._track
        return IioStatistics(
            reads=self._reads,
            bytes=self._bytes,
            samples=track.samples if track else 0,
            stray_bytes=self._stray,
            torn_bytes=self._torn,
            backward=track.backward if track else 0,
            reconnects=self._reconnects,
            rate_hz=round(track.rate_hz, 3) if track else 0.0,
            u_ns=track.u_ns if track else 0,
            queued=len(self._queue),
            queue_dropped=self._queue.dropped_blocks,
            queue_dropped_events=self._queue.dropped_events,
        )

    # ── the device ──────────────────────────────────────────────────────────────────────────────────

    def _open_device(self) -> _Attached:
        """Find the device, wherever it is now, and set it up (in a thread: a bus may take milliseconds)."""
        source = self._source
        path = find_device(source.sys_root, source.wanted.device, source.name)
        device = IioDevice(path, source.dev_root, self._where)
        fd = device.open_node()  # first: whoever holds it must not have its settings changed under it
        try:
            return _Attached(device, fd, device.set_up(source.wanted))
        except BaseException:
            os.close(fd)
            raise

    def _attach(self, attached: _Attached) -> None:
        ready = attached.ready
        info = StreamInfo(
            name=self.name,
            kind=ready.kind,
            device=self.name,
            rate_hz_nominal=ready.rate_hz,
            dtype=ready.layout.dtype,
            channels=ready.channels,
            lag_ns=self._source.lag_ns,
            tick_ns=1,
            clock=ready.clock,
        )
        if self._info is not None and info != self._info:
            os.close(attached.fd)
            raise SourceError(
                f"{self._where} came back with other channels, scales or rate",
                fix="stop the session, restart the daemon",
            )
        if self._track is None:
            self._track = IioTrack(info, ready.clock, self._source.latency_ns)
        self._info, self._attached, self._rest = info, attached, b""
        self._loop.add_reader(attached.fd, self._on_readable)

    def _detach(self) -> None:
        attached, self._attached = self._attached, None
        if attached is not None:
            self._loop.remove_reader(attached.fd)
            os.close(attached.fd)
        self._torn += len(self._rest)
        self._rest = b""

    def _on_readable(self) -> None:
        self._read_once()

    def _read_once(self) -> bool:
        """Take what the kernel has, at most `READ_BYTES`; whether there may be more."""
        attached, track = self._attached, self._track
        if attached is None or track is None:
            return False
        try:
            data = os.read(attached.fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lose(error.strerror or str(error))
            return False
        arrival_ns = now_ns()
        if not data:
            self._lose("end of data")
            return False
        self._reads += 1
        self._bytes += len(data)
        if not self._running:
            self._stray += len(data)
            return True
        if self._rest:
            data = self._rest + data
        whole = len(data) - len(data) % attached.ready.layout.scan_bytes
        self._rest = data[whole:]
        if whole:
            ticks, values = attached.ready.layout.decode(data[:whole])
            for item in track.add(ticks, values, arrival_ns, read_pair()):
                self._queue.put(item)
        return True

    def _lose(self, reason: str) -> None:
        """The device is gone: have the supervisor look for it."""
        assert self._attached is not None
        node = self._attached.device.node
        self._detach()
        if self._track is not None and self._running:
            self._track.interrupt("unplugged")
        self._tell("disconnected", f"{node}: {reason}")
        self._attention.set()

    # ── what happens by itself ──────────────────────────────────────────────────────────────────────

    def _tell(self, kind: str, text: str = "", sensor: str = "") -> None:
        self._queue.put(DeviceEvent(self.name, kind, now_ns(), text, sensor))

    def _watch(self) -> None:
        """Look for silence a few times a second."""
        if self._running and self._track is not None and self._track.check_silent(now_ns()):
            self._tell("fault", f"{self.name} is silent", self.name)
        self._watcher = self._loop.call_later(WATCH_S, self._watch)

    async def _reopen(self) -> _Attached:
        """Open in a thread; a node that is opened only after we were cancelled is closed again."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._open_device))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with contextlib.suppress(SourceError):
                os.close((await opening).fd)
            raise

    async def _supervise(self) -> None:
        """Reopen the device after it went away, and let it sample again if it did."""
        while True:
            await self._attention.wait()
            self._attention.clear()
            wait_s, told = BACKOFF_FIRST_S, ""
            while self._attached is None:
                try:
                    attached = await self._reopen()
                    async with self._control:
                        self._attach(attached)
                        if self._running:  # with the session that it left
                            await asyncio.to_thread(attached.device.enable, on=True)
                except SourceError as error:
                    self._detach()
                    # That it is not there is no news: it was said to be disconnected.
                    if wait_s > BACKOFF_FIRST_S and str(error) != told:
                        told = str(error)
                        self._tell("fault", told)
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, BACKOFF_LAST_S)
                else:
                    self._reconnects += 1
                    self._tell("connected", f"{attached.device.node} is back")
