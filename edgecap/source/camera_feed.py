"""A camera as the daemon's source: its process is watched, restarted, and its losses are stated."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from edgecap.clock import now_ns
from edgecap.errors import SourceError
from edgecap.model import DeviceEvent, Item, StreamInfo
from edgecap.source.camera_link import (
    Alive,
    Ended,
    LinkFrame,
    LinkPicture,
    Loaded,
    Note,
    Open,
    Opened,
    Refused,
    Reply,
    Started,
    Stop,
    Stopped,
)
from edgecap.source.camera_process import CHILD, CameraProcess, Listener
from edgecap.source.camera_queue import FrameQueue
from edgecap.source.camera_standby import Standby
from edgecap.source.camera_take import CameraTake
from edgecap.source.camera_watchdog import MOST_S, Patience, Watchdog

LOAD_LIMIT_S = 60.0
"""For the process to start and load its libraries: a matter of the processor and the card, which are busy
when everything starts at once. Giving up means starting over, which on a busy machine would never end."""
OPEN_LIMIT_S = 10.0
"""From then on, for the camera to open."""
FIRST_FRAME_LIMIT_S = 3.0
START_LIMIT_S = 8.0
STOP_LIMIT_S = 2.0
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 10.0


class CameraStatistics(msgspec.Struct):
    """What a camera's feed counts about itself."""

    frames: int = 0
    lost: int = 0
    restarts: int = 0
    """Processes that had to be replaced."""
    pauses: int = 0
    """Times that the daemon did not take frames fast enough."""


@asynccontextmanager
async def open_camera(
    name: str, spec: msgspec.Struct, command: Sequence[str] = CHILD, *, preview_s: float = 0.0
) -> AsyncIterator[CameraFeed]:
    """Start the camera's process and have it open the camera; raises `SourceError`.

    Args:
        name: Stream and device name.
        spec: The camera, as its process understands it.
        command: Program of the camera's process.
        preview_s: Seconds between small pictures, as `spec` asks for them; 0 for none.
    """
    feed = CameraFeed(name, spec, command, preview_s)
    try:
        await feed.launch()
        yield feed
    finally:
        await feed.close()


class CameraFeed:
    """Implements `protocol.Feed` for any camera that lives in a process of its own."""

    def __init__(
        self, name: str, spec: msgspec.Struct, command: Sequence[str], preview_s: float = 0.0
    ) -> None:
        self.name = name
        self._preview_s = preview_s
        self.info: tuple[StreamInfo, ...] = ()
        self._spec, self._command = spec, command
        self._process: CameraProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[Opened] | None = None
        self._limit: asyncio.Timeout | None = None
        """How long `_opened` is waited for."""
        self._started: asyncio.Future[None] | None = None
        self._stopped: asyncio.Future[int | None] | None = None
        self._attention = asyncio.Event()
        self._queue = FrameQueue(self._make_room)
        self._watchdog = Watchdog(self._is_excused, self._expire)
        self._patience = Patience(1.0)
        self._standby = Standby(self._make_process)
        self._statistics = CameraStatistics()
        self._running = False
        self._refusal = ""
        self._down = False
        self._fruitless = 0
        self._take = CameraTake(name)

    @property
    def pid(self) -> int:
        """Of the camera's present process; 0 while there is none."""
        return self._process.pid if self._process is not None and not self._process.gone else 0

    @property
    def standby_pid(self) -> int:
        """Of the process that waits to replace it; 0 while there is none."""
        return self._standby.pid

    async def launch(self) -> None:
        """Open the camera for the first time; afterwards a supervisor keeps it open."""
        opened = await self._spawn()
        self.info = opened.streams(self.name, self._preview_s)
        self._patience = Patience(opened.rate_hz)
        self._supervisor = asyncio.create_task(self._supervise(), name=f"camera {self.name}")

    async def close(self) -> None:
        """End the process, whatever state it is in, and the iteration."""
        self._watchdog.disarm()
        self._running = False
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        await self._end_process()
        await self._standby.close()
        self._queue.close()

    async def start(self) -> None:
        if self._running:
            raise SourceError(f"camera {self.name} is already running", fix="stop it first")
        self._take = CameraTake(self.name)
        self._refusal = ""
        self._running = True
        self._started = asyncio.get_running_loop().create_future()
        if self.pid and self._opened is None:
            self._send_start()
        self._attention.set()  # a supervisor that waits to try again tries now
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self._started
        except (TimeoutError, asyncio.CancelledError) as error:
            self._give_up()
            if self._process is not None and self._opened is None:
                self._process.kill("its start was given up")  # or it would go on producing
            if isinstance(error, TimeoutError):
                raise self._error("did not start", "check its cable and the log") from None
            raise
        except SourceError:
            self._give_up()
            raise
        finally:
            self._started = None

    def _give_up(self) -> None:
        self._running = False
        self._watchdog.disarm()

    async def stop(self) -> dict[str, int]:
        was_running, self._running = self._running, False
        self._watchdog.disarm()
        produced = await self._stop_process() if was_running else None
        if was_running and produced != self._take.next_index:
            gap = self._take.gap_at_end(produced, now_ns())
            self._statistics.lost += max(gap.lost, 0)
            self._queue.put(gap)
        self._event("stopped", "")
        return {} if produced is None else {self.name: produced}

    def __aiter__(self) -> AsyncIterator[Item]:
        return aiter(self._queue)

    def statistics(self) -> CameraStatistics:
        """Counters since the camera was opened, for status."""
        return self._statistics

    # -- the process ------------------------------------------------------------------------------

    async def _spawn(self) -> Opened:
        """Start a process and wait until it has opened the camera."""
        self._refusal = ""
        opened: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self._opened = opened
        process = self._process = await self._standby.take(self) or self._make_process(self)
        # The clock of the stamps is known, unless the last process with that knowledge gave no frame.
        process.send(Open(self.info[0].clock if self.info and self._fruitless <= 1 else ""))
        try:
            async with asyncio.timeout(OPEN_LIMIT_S if process.loaded else LOAD_LIMIT_S) as self._limit:
                return await opened
        except TimeoutError:
            if not opened.cancelled():  # the loop was late: it came in the very turn in which patience ended
                return opened.result()
            what, fix = f"did not open within {OPEN_LIMIT_S:g} s", "check its cable and the log"
            if not process.loaded:
                what = f"its program was not loaded within {LOAD_LIMIT_S:g} s"
                fix = "see what keeps the processor or the card busy, and the log"
            raise self._error(what, fix) from None
        finally:
            self._opened = self._limit = None

    def _make_process(self, listener: Listener) -> CameraProcess:
        return CameraProcess(self._command, self._spec, listener)

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None and not await process.end():
            self._event("fault", f"process {process.pid} cannot be ended: its driver hangs in the kernel")

    async def _supervise(self) -> None:
        """Replace the process whenever it is gone."""
        while True:
            self._attention.clear()
            if self._process is not None and self._process.gone:
                await self._end_process()
            if self._process is not None:
                await self._attention.wait()
                continue
            await self._wait_to_retry()
            try:
                await self._reopen()
            except SourceError as error:
                self._note_down(str(error))
                if self._started is not None and not self._started.done():
                    self._started.set_exception(error)
                await self._end_process()
                self._fruitless += 1

    async def _wait_to_retry(self) -> None:
        """Wait ever longer while processes give no frame; the first two attempts follow at once."""
        if self._fruitless > 1:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(RETRY_FIRST_S * 2**self._fruitless, RETRY_MAX_S)):
                    await self._attention.wait()

    async def _reopen(self) -> None:
        opened = await self._spawn()
        was = self.info[0]
        if (opened.width, opened.height, opened.clock, opened.codec) != (
            *(was.width, was.height, was.clock, was.codec),
        ):
            raise SourceError(
                f"camera {self.name} is another one now: {opened.width}×{opened.height} on {opened.clock}, "
                f"it was {was.width}×{was.height} on {was.clock}",
                fix="restart the daemon to use it",
            )
        if self._running:
            self._send_start()
        else:
            self._note_up()

    def _send_start(self) -> None:
        assert self._process is not None
        self._standby.arm(self.name)
        self._patience.begin_anew()
        self._process.send(self._take.start_word())
        self._watchdog.arm(FIRST_FRAME_LIMIT_S)

    async def _stop_process(self) -> int | None:
        """Have the process stop; `None` when it cannot say how many frames there were."""
        process = self._process
        if process is None or process.gone or self._opened is not None:
            return None
        self._stopped = asyncio.get_running_loop().create_future()
        process.resume()
        process.send(Stop())
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                return await asyncio.shield(self._stopped)
        except TimeoutError:
            reason = f"did not stop within {STOP_LIMIT_S:g} s"
            process.kill(reason)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_LIMIT_S / 4):
                    await self._stopped
            return None
        finally:
            self._stopped = None

    # -- what comes from it (called by the loop's reader, in order) --------------------------------

    def take_word(self, word: Reply) -> None:
        match word:
            case Loaded():
                if self._limit is not None and not self._limit.expired():
                    self._limit.reschedule(asyncio.get_running_loop().time() + OPEN_LIMIT_S)
            case Opened():
                if self._opened is not None and not self._opened.done():
                    self._opened.set_result(word)
            case Refused(what, fix):
                error = SourceError(what, fix=fix)
                self._refusal = str(error)
                for waiting in (self._opened, self._started):
                    if waiting is not None and not waiting.done():
                        waiting.set_exception(error)
            case Started(anchor_ns):
                self._take.anchor_ns = anchor_ns
                if self._started is not None and not self._started.done():
                    self._started.set_result(None)
            case Stopped(produced):
                if self._stopped is not None and not self._stopped.done():
                    self._stopped.set_result(produced)
            case Alive():
                if self._running:
                    self._watchdog.arm(MOST_S)
            case Ended():
                self._watchdog.disarm()
                self._event("log", "the clip is over")
            case Note(text):
                self._event("log", text)

    def take_frame(self, frame: LinkFrame, arrival_ns: int) -> None:
        lost = frame.index - self._take.next_index
        if lost < 0 or not self._expects_frames:
            return
        self._statistics.frames += 1
        self._statistics.lost += lost
        if lost:
            self._queue.put(self._take.gap_before(frame))
        self._fruitless = 0
        self._note_up()
        self._queue.put(self._take.add(frame, arrival_ns))
        if self._running:
            self._watchdog.arm(self._patience.see(arrival_ns * 1e-9))
            if self._process is not None and self._queue.is_over(1.0):
                self._statistics.pauses += 1
                self._process.pause()

    def take_picture(self, picture: LinkPicture) -> None:
        report = self._take.report(picture)
        if report is not None and self._expects_frames:
            self._queue.put(report)

    def take_loss(self, reason: str) -> None:
        self._watchdog.disarm()
        said = self._process.last_words if self._process is not None else ""
        error = self._error(f"{reason} ({said})" if said else reason, "")
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)
        else:
            self._note_down(self._refusal or str(error))
            self._fruitless += 1
            self._statistics.restarts += 1
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)
        self._attention.set()

    @property
    def _expects_frames(self) -> bool:
        """Until `stop` has given up waiting: what comes later is lost, and stated as such."""
        return self._running or self._stopped is not None

    # -- watchdog and events -----------------------------------------------------------------------

    def _is_excused(self) -> bool:
        """Whether frames are missing because of us: a full queue, or a loop that had no time to read."""
        process = self._process
        return self._queue.is_over(0.5) or (process is not None and process.has_unread())

    def _expire(self, limit_s: float) -> None:
        self._patience.lose()
        if self._process is not None and not self._process.gone:
            self._process.kill(f"gave no frame for {limit_s:.1f} s")

    def _make_room(self) -> None:
        if self._process is not None:
            self._process.resume()

    def _event(self, kind: str, text: str) -> None:
        self._queue.put(DeviceEvent(self.name, kind, now_ns(), text))

    def _note_down(self, text: str) -> None:
        """State once per outage that the camera is not there."""
        if not self._down:
            self._down = True
            self._event("fault", text)

    def _note_up(self) -> None:
        if self._down:
            self._down = False
            self._event("connected", f"camera {self.name} is back")

    def _error(self, what: str, fix: str) -> SourceError:
        tail = self._process.stderr_tail if self._process is not None else ""
        return SourceError(f"camera {self.name}: {what}", fix=fix, stderr=tail)
