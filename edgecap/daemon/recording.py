"""Starts and stops all sources of a session so that sensors bracket video."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgecap.clock import now_ns
from edgecap.errors import SessionError, SourceError
from edgecap.model import DeviceEvent, FramePacket, Gap, PictureReport, SampleBlock
from edgecap.session.machine import Led
from edgecap.source.protocol import Feed

log = logging.getLogger("edgecap.recording")

SESSION_EVENTS = ("connected", "disconnected", "reset", "fault")
FIRST_SAMPLE_S = 2.0
"""Cameras start once every sensor stream has delivered, or after this."""
BRACKET_NS = 20_000_000
"""Sensors run on until their samples reach this far beyond the last frame …"""
BRACKET_S = 0.5
"""… or for this long."""
FAULT_SHOWN_NS = 10_000_000_000
"""A fault after which the device went on is shown for this long. So is a sensor's fault that an idle device
keeps repeating, from the moment it no longer does."""
STOP_S = 5.0
"""A source that has not stopped by then is left behind; its samples so far are kept."""


_STEADY, _SLOW, _FAST, _BREATHE = range(4)
_BOARD_PATTERN = {
    "idle": _BREATHE,
    "recording": _STEADY,
    "draining": _FAST,
    "sensor-fault": _FAST,
    "low-disk": _SLOW,
    "low-battery": _SLOW,
    "no-consent": _SLOW,
    "fault": _FAST,
}
"""For firmware that knows only four patterns (hw/PROTOCOL.md, COMMAND LED): what is good never blinks
like what is bad. Others show the very rhythm of `edgecap.session.machine.LEDS`."""


@dataclass(slots=True)
class Live:
    """What the daemon saw of a source lately."""

    last_ns: int = 0
    """Arrival of the last block or frame."""
    seen: set[str] = field(default_factory=set)
    """Streams that have delivered since the start."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def saw(self, item: SampleBlock | FramePacket) -> None:
        """Note samples or a frame."""
        self.last_ns = item.arrival_ns if isinstance(item, FramePacket) else int(item.arrival_ns[-1])
        self.seen.add(item.stream)
        self.arrived.set()

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that depends on what arrived or on what the device told."""
        while not holds():
            self.arrived.clear()
            await self.arrived.wait()


@dataclass(slots=True)
class OpenSource:
    """A source of this rig, opened."""

    name: str
    feed: Feed
    live: Live
    started: bool = False
    """Whether it was told to produce, and could; one that could not is started when it comes back."""
    away: bool = False
    """It was lost, and its source is trying to get it back."""
    _fault: str = ""
    _fault_ns: int = 0
    _sensors: dict[str, tuple[str, int]] = field(default_factory=dict)
    """What is wrong with single sensors of the device, by stream, and when it was last told."""
    _shown: Led | None = None
    _borrowed: bool = False

    @property
    def is_camera(self) -> bool:
        return any(i.kind == "video" for i in self.feed.info)

    @property
    def able(self) -> set[str]:
        """Streams that can deliver: the device was started and is there, and the sensor is not dead."""
        if self.away or not self.started:
            return set()
        return {i.name for i in self.feed.info} - self._sensors.keys()

    def told_ns(self) -> int:
        """Rig time up to which everything that the device said has been read."""
        return getattr(self.feed, "told_ns", None) or now_ns()

    def saw(self, item: SampleBlock | FramePacket | PictureReport | Gap) -> None:
        """Take note of what it delivered: a sensor that gives samples is well."""
        if isinstance(item, SampleBlock | FramePacket):
            self._sensors.pop(item.stream, None)
            self.live.saw(item)

    async def first_samples(self) -> None:
        """Wait until every stream that can deliver has delivered."""
        await self.live.wait_until(lambda: self.able <= self.live.seen)

    async def samples_beyond(self, t_ns: int) -> None:
        """Wait until something arrived after `t_ns`, unless nothing can come."""
        await self.live.wait_until(lambda: not self.able or self.live.last_ns > t_ns)

    def note(self, event: DeviceEvent, heard_ns: int) -> bool:
        """Take in what the device reported; returns whether that changes what is wrong with it."""
        changed = self._note(event, heard_ns)
        self.live.arrived.set()  # whoever waits for samples may wait in vain
        return changed

    def _note(self, event: DeviceEvent, heard_ns: int) -> bool:
        if event.sensor or event.kind == "reset":
            return self._note_sensor(event, heard_ns)
        if event.kind == "connected":
            self.away, self._fault = False, ""
            self._sensors.clear()
        elif event.kind in ("disconnected", "fault"):
            # A camera's fault lasts until it is `connected` again; a board's may be a single overrun.
            self.away |= event.kind == "disconnected" or self.is_camera
            what = event.text or event.kind
            fix = "" if "; " in what else "; plug it in again"
            self._fault = what if event.kind == "fault" else f"{self.name} is disconnected: {what}{fix}"
            self._fault_ns = event.t_ns
        else:
            return False
        return True

    def _note_sensor(self, event: DeviceEvent, heard_ns: int) -> bool:
        before = self._ailing(heard_ns)
        if event.kind == "fault":
            known, _ = self._sensors.get(event.sensor, ("", 0))
            # That it is silent adds nothing to what the device itself said of it.
            text = known if known and event.text == f"{event.sensor} is silent" else event.text
            self._sensors[event.sensor] = text, heard_ns
        elif event.sensor:
            self._sensors.pop(event.sensor, None)
        else:
            self._sensors.clear()
        return self._ailing(heard_ns) != before

    def _ailing(self, t_ns: int) -> dict[str, str]:
        """Sensors that are known to be dead, and why; while idle, only what the device keeps repeating."""
        return {
            sensor: text
            for sensor, (text, told_ns) in self._sensors.items()
            if self.started or t_ns - told_ns < FAULT_SHOWN_NS
        }

    async def start(self) -> None:
        """Produce samples or frames; raises `SourceError`."""
        known = self._ailing(now_ns())
        self._sensors = {s: told for s, told in self._sensors.items() if s in known}
        await self.feed.start()
        self.started = True

    async def stop(self) -> dict[str, int]:
        """Stop, and wait for all that came before; returns how many the device says it sent, by stream."""
        # A sensor that is dead stays so, but from here on the device has to tell it again.
        self._sensors = {s: (text, now_ns()) for s, (text, _) in self._sensors.items()}
        self.started = False
        sent = await self.feed.stop()
        await self.live.stopped.wait()
        return sent

    def problem(self, t_ns: int) -> str:
        """What is wrong with it at rig time `t_ns`; empty if nothing is."""
        if self.away:
            return self._fault
        ailing = self._ailing(t_ns)
        found = list(ailing.values())
        if t_ns - self._fault_ns < FAULT_SHOWN_NS and not any(s in self._fault for s in ailing):
            found.append(self._fault)
        return in_one(found, "check wiring and power of what is named" if ailing else "")

    def missing(self) -> SourceError:
        """Why one that is away cannot be started."""
        what, _, fix = self._fault.partition("; ")
        return SourceError(what, fix=fix)

    @property
    def has_light(self) -> bool:
        return hasattr(self.feed, "set_led")

    def show(self, led: Led) -> None:
        """Pass a light pattern on to a device that has a light."""
        if led == self._shown:
            return
        self._shown = led
        set_led = getattr(self.feed, "set_led", None)
        if set_led is not None and not self._borrowed:
            set_led(led.rgb, _BOARD_PATTERN[led.name], (led.on_ms, led.off_ms, led.flashes))

    @contextlib.contextmanager
    def borrowed_light(self) -> Iterator[Callable[[tuple[int, int, int]], None]]:
        """Take the light away from the rig's state, to show steady colours, and give it back afterwards."""
        if self._borrowed:
            raise SessionError(f"refused blink: {self.name} is blinking already", fix="wait for its end")
        self._borrowed = True
        try:
            yield getattr(self.feed, "set_led", lambda _: None)
        finally:
            self._borrowed = False
            led, self._shown = self._shown, None
            if led is not None:
                self.show(led)

    def statistics(self) -> dict[str, Any]:
        """What the source counts about itself, for status."""
        found = getattr(self.feed, "statistics", None)
        return dict(msgspec.to_builtins(found())) if found is not None else {}


def in_one(texts: Iterable[str], otherwise: str) -> str:
    """Several texts in one line; their fixes, or else `otherwise`, come at its end, each once."""
    parts = [text.partition("; ") for text in texts if text]
    fixes = dict.fromkeys(fix for *_, fix in parts if fix) or dict.fromkeys([otherwise])
    line = ", ".join(dict.fromkeys(what for what, *_ in parts))
    return "; ".join([line, *filter(None, fixes)])


async def start_sources(sources: Sequence[OpenSource]) -> list[SourceError]:
    """Start sensors, wait for their first samples, then start cameras; returns what failed.

    A sensor that is known to be missing delays nobody: it joins in when it comes back.
    """
    for source in sources:
        source.live.seen.clear()
        source.live.stopped.clear()
    sensors = [s for s in sources if not s.is_camera]
    problems = [s.missing() for s in sensors if s.away]
    problems += await _start([s for s in sensors if not s.away])
    try:
        async with asyncio.timeout(FIRST_SAMPLE_S):
            await asyncio.gather(*(s.first_samples() for s in sensors))
    except TimeoutError:
        pass  # The verdict names the silent stream; the others are worth recording.
    return problems + await _start([s for s in sources if s.is_camera])


async def _start(sources: Sequence[OpenSource]) -> list[SourceError]:
    found = await asyncio.gather(*(start_source(s) for s in sources))
    return [e for e in found if e is not None]


async def start_source(source: OpenSource) -> SourceError | None:
    """Start one source; what went wrong is returned, so that the others can go on."""
    try:
        await source.start()
    except SourceError as error:
        return error
    return None


async def stop_sources(sources: Sequence[OpenSource]) -> dict[str, int]:
    """Stop cameras, let sensors outlast the last frame, stop them; returns what the devices say they sent."""
    cameras = [s for s in sources if s.is_camera]
    sensors = [s for s in sources if not s.is_camera]
    sent = await _stop(cameras)
    if cameras and sensors:
        until_ns = now_ns() + BRACKET_NS
        try:
            async with asyncio.timeout(BRACKET_S):
                await asyncio.gather(*(s.samples_beyond(until_ns) for s in sensors))
        except TimeoutError:
            pass  # A sensor that fell silent has its gap; nothing more will come of waiting.
    return sent | await _stop(sensors)


async def _stop(sources: Sequence[OpenSource]) -> dict[str, int]:
    async def one(source: OpenSource) -> dict[str, int]:
        try:
            async with asyncio.timeout(STOP_S):
                return await source.stop()
        except TimeoutError:
            log.error("%s did not stop within %g s: what it sent last may be missing", source.name, STOP_S)
        except SourceError as error:
            log.error("%s", error)
        return {}

    found = await asyncio.gather(*(one(s) for s in sources))
    return {stream: n for sent in found for stream, n in sent.items()}
