"""What a device says it is: HELLO parts put together, checked for sense, turned into stream infos."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from edgecap.errors import SourceError
from edgecap.kernels.framing import CRC_BYTES, HEADER_BYTES, MAX_BODY, SAMPLES_FIXED
from edgecap.model import ChannelInfo, SampleDtype, StreamInfo, StreamKind
from edgecap.source.frames import Descriptor, Hello
from edgecap.topics import NAME_PATTERN

TICK_NS = 1000
"""The protocol's counter counts microseconds."""

_KINDS: dict[int, StreamKind] = {1: "imu", 2: "force", 3: "tactile", 4: "magnetic", 5: "scalar"}
_DTYPES: dict[int, tuple[SampleDtype, int]] = {
    1: ("int16", 2),
    2: ("int24", 3),
    3: ("int32", 4),
    4: ("float32", 4),
}
_MAX_PAYLOAD = MAX_BODY - HEADER_BYTES - CRC_BYTES
_MAX_STREAMS = 8


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """All parts of one HELLO."""

    boot_id: int
    firmware: str
    serial_number: str
    streams: tuple[Descriptor, ...]

    def is_same_device(self, other: DeviceInfo) -> bool:
        """Same board with the same streams; boots, firmware versions and set rates may differ."""
        return self.serial_number == other.serial_number and [
            replace(s, rate_mhz=0) for s in self.streams
        ] == [replace(s, rate_mhz=0) for s in other.streams]


class HelloParts:
    """Collects the parts of a HELLO; parts of another boot, or of another device, start it anew."""

    def __init__(self) -> None:
        self._parts: dict[int, Hello] = {}

    def clear(self) -> None:
        self._parts.clear()

    def add(self, hello: Hello) -> DeviceInfo | None:
        """Take a part; returns the device once every part is there."""
        for known in self._parts.values():
            if _whose(known) != _whose(hello):
                self._parts.clear()
                break
        self._parts[hello.part] = hello
        if len(self._parts) < hello.parts:
            return None
        parts = [self._parts[k] for k in sorted(self._parts)]
        streams = tuple(p.stream for p in parts if p.stream is not None)
        return DeviceInfo(hello.boot_id, hello.firmware, hello.serial_number, streams)

    def missing(self) -> str:
        """Which parts have come, if some have and some have not."""
        if not self._parts:
            return ""
        of = next(iter(self._parts.values())).parts
        return f"of {of} parts of its HELLO only {', '.join(map(str, sorted(self._parts)))} came"


def _whose(hello: Hello) -> tuple[object, ...]:
    return hello.boot_id, hello.parts, hello.firmware, hello.serial_number


def value_bytes(descriptor: Descriptor) -> int:
    """Bytes of one value on the wire."""
    return _DTYPES[descriptor.dtype][1]


def stream_infos(device: DeviceInfo, name: str, where: str) -> tuple[StreamInfo, ...]:
    """The device's streams, named `{name}-{stream}`.

    Args:
        device: What it said in HELLO.
        name: Name of the device on this rig.
        where: How to call it in errors.

    Raises:
        SourceError: a descriptor contradicts itself or hw/PROTOCOL.md; says which and why.
    """

    def refuse(what: str) -> SourceError:
        return SourceError(
            f"{where} describes itself wrongly: {what}",
            fix=f"update its firmware ({device.firmware or 'version unknown'})",
        )

    if len(device.streams) > _MAX_STREAMS:
        raise refuse(f"{len(device.streams)} streams, at most {_MAX_STREAMS} are allowed")
    infos: list[StreamInfo] = []
    for number, stream in enumerate(device.streams):
        reason = _contradiction(stream)
        full_name = f"{name}-{stream.name}"
        if not reason and stream.stream != number:
            reason = f"it has number {stream.stream}, {number} is expected"
        if not reason and not re.fullmatch(NAME_PATTERN, full_name):
            reason = f"{full_name!r} is no stream name (1 to 64 of a-z, 0-9 and '-')"
        if not reason and any(full_name == i.name for i in infos):
            reason = "its name is that of an earlier stream"
        if reason:
            raise refuse(f"stream {number} {stream.name!r}: {reason}")
        infos.append(
            StreamInfo(
                name=full_name,
                kind=_KINDS[stream.kind],
                device=name,
                rate_hz_nominal=stream.rate_mhz / 1e3,
                dtype=_DTYPES[stream.dtype][0],
                channels=tuple(
                    ChannelInfo(c.name, c.unit, _decimal(c.scale), _decimal(c.full_scale))
                    for c in stream.channels
                ),
                lag_ns=stream.lag_us * 1000,
                tick_ns=TICK_NS,
                serial_number=device.serial_number,
                firmware=device.firmware,
            )
        )
    return tuple(infos)


def _contradiction(stream: Descriptor) -> str:
    """Why the descriptor cannot be true; empty if it can."""
    if stream.kind not in _KINDS:
        return f"kind {stream.kind} is unknown"
    if stream.dtype not in _DTYPES:
        return f"dtype {stream.dtype} is unknown"
    if stream.rate_mhz == 0:
        return "its rate is 0"
    if not stream.channels:
        return "it has no channels"
    row = len(stream.channels) * value_bytes(stream)
    if SAMPLES_FIXED + 2 + row > _MAX_PAYLOAD:
        return f"one sample of {row} bytes does not fit a frame"
    names = [c.name for c in stream.channels]
    if not all(names) or len(set(names)) != len(names):
        return f"its channels need distinct names, not {names}"
    for c in stream.channels:
        if not math.isfinite(c.scale) or c.scale == 0:
            return f"channel {c.name!r} has scale {c.scale:g}"
        if not math.isfinite(c.full_scale) or c.full_scale < 0:
            return f"channel {c.name!r} has full scale {c.full_scale:g}"
    return ""


def _decimal(value: float) -> float:
    """The shortest decimal that is this float32: what the firmware's author wrote."""
    return float(f"{value:.7g}")
