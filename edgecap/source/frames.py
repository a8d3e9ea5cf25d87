"""The serial protocol, I/O-free: bytes ↔ typed frames. hw/PROTOCOL.md § 1 and 2 are the specification.

SAMPLES and PONG, which are frequent, are read as arrays by edgecap/kernels/framing.py instead.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from edgecap.errors import FrameError
from edgecap.kernels import framing

PROTOCOL_VERSION = framing.PROTOCOL_VERSION
NO_STREAM = 0xFF
MAX_TEXT = 63
MAX_LOG_TEXT = 200


class Kind(IntEnum):
    """Type byte of a frame."""

    HELLO = framing.TYPE_HELLO
    SAMPLES = framing.TYPE_SAMPLES
    PONG = framing.TYPE_PONG
    EVENT = framing.TYPE_EVENT
    ACK = framing.TYPE_ACK
    LOG = framing.TYPE_LOG
    PING = framing.TYPE_PING
    COMMAND = framing.TYPE_COMMAND


class EventCode(IntEnum):
    """What an EVENT tells."""

    BUTTON_DOWN = 1
    BUTTON_UP = 2
    OVERRUN = 3
    SENSOR_FAULT = 4
    SENSOR_OK = 5
    LED_ON = 6
    LED_OFF = 7


class Op(IntEnum):
    """What a COMMAND asks for."""

    HELLO = 1
    START = 2
    STOP = 3
    SET_RATE = 4
    TARE = 5
    LED = 6
    RESET = 7


class AckStatus(IntEnum):
    """How a COMMAND ended."""

    OK = 0
    UNKNOWN_OP = 1
    BAD_ARGUMENT = 2
    FAILED = 3


class _Cursor:
    """Reads a payload field by field; raises FrameError naming the frame when it ends too early."""

    def __init__(self, kind: Kind, payload: bytes) -> None:
        self._kind, self._payload, self._at = kind, payload, 0

    def take(self, layout: str) -> tuple[int, ...]:
        end = self._at + struct.calcsize(layout)
        if end > len(self._payload):
            raise self.error(f"ends after {len(self._payload)} bytes, {end} are needed")
        fields = struct.unpack_from(layout, self._payload, self._at)
        self._at = end
        return fields

    def number(self, layout: str) -> int:
        return self.take(layout)[0]

    def real(self) -> float:
        return float(self.take("<f")[0])

    def text(self, limit: int = MAX_TEXT) -> str:
        length = self.number("<B")
        if length > limit:
            raise self.error(f"has a text of {length} bytes, at most {limit} are allowed")
        raw = bytes(self.take(f"<{length}B"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.error(f"has a text that is not UTF-8: {raw!r}") from None

    def error(self, what: str) -> FrameError:
        return FrameError(f"{self._kind.name} frame {what}", frame=self._payload.hex(" "))


def _pack_text(text: str, limit: int = MAX_TEXT) -> bytes:
    """The text with its length; too long a text is cut between characters."""
    raw = text.encode()[:limit].decode(errors="ignore").encode()
    return bytes([len(raw)]) + raw


@dataclass(frozen=True, slots=True)
class Channel:
    """One column of a stream: `value_in_unit = raw * scale`."""

    name: str
    unit: str
    scale: float
    full_scale: float


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A stream as the device describes it; numbers are not yet checked for sense."""

    stream: int
    kind: int
    dtype: int
    rate_mhz: int
    lag_us: int
    name: str
    channels: tuple[Channel, ...]


@dataclass(frozen=True, slots=True)
class Hello:
    """Part `part` of `parts`: who the device is, and one of its streams (None if it has none)."""

    boot_id: int
    part: int
    parts: int
    firmware: str
    serial_number: str
    stream: Descriptor | None

    def pack(self) -> bytes:
        out = struct.pack("<IBB", self.boot_id, self.part, self.parts)
        out += _pack_text(self.firmware) + _pack_text(self.serial_number)
        s = self.stream
        if s is None:
            return out
        out += struct.pack("<BBBIi", s.stream, s.kind, s.dtype, s.rate_mhz, s.lag_us)
        out += _pack_text(s.name) + bytes([len(s.channels)])
        for c in s.channels:
            out += _pack_text(c.name) + _pack_text(c.unit) + struct.pack("<ff", c.scale, c.full_scale)
        return out

    @classmethod
    def parse(cls, payload: bytes) -> Hello:
        at = _Cursor(Kind.HELLO, payload)
        boot_id, part, parts = at.take("<IBB")
        firmware, serial_number = at.text(), at.text()
        if parts == 0:
            return cls(boot_id, part, parts, firmware, serial_number, None)
        stream, kind, dtype, rate_mhz, lag_us = at.take("<BBBIi")
        name = at.text()
        channels = tuple(Channel(at.text(), at.text(), at.real(), at.real()) for _ in range(at.number("<B")))
        if part >= parts or stream != part:
            raise at.error(f"is part {part} of {parts} and describes stream {stream}")
        found = Descriptor(stream, kind, dtype, rate_mhz, lag_us, name, channels)
        return cls(boot_id, part, parts, firmware, serial_number, found)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the device; `arg` counts lost samples of an overrun."""

    code: int
    stream: int
    t_us: int
    arg: int = 0
    text: str = ""

    def pack(self) -> bytes:
        return struct.pack("<BBII", self.code, self.stream, self.t_us, self.arg) + _pack_text(self.text)

    @classmethod
    def parse(cls, payload: bytes) -> Event:
        at = _Cursor(Kind.EVENT, payload)
        code, stream, t_us, arg = at.take("<BBII")
        return cls(code, stream, t_us, arg, at.text())


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to the command with the same id; to STOP, `numbers` are the samples per stream."""

    id: int
    status: int = AckStatus.OK
    text: str = ""
    numbers: tuple[int, ...] = ()

    def pack(self) -> bytes:
        out = struct.pack("<HB", self.id, self.status) + _pack_text(self.text)
        return out + struct.pack(f"<B{len(self.numbers)}I", len(self.numbers), *self.numbers)

    @classmethod
    def parse(cls, payload: bytes) -> Ack:
        at = _Cursor(Kind.ACK, payload)
        number, status = at.take("<HB")
        text = at.text()
        return cls(number, status, text, at.take(f"<{at.number('<B')}I"))


@dataclass(frozen=True, slots=True)
class Log:
    """A line of the device's log; levels as in Python's logging."""

    level: int
    t_us: int
    text: str

    def pack(self) -> bytes:
        return struct.pack("<BI", self.level, self.t_us) + _pack_text(self.text, MAX_LOG_TEXT)

    @classmethod
    def parse(cls, payload: bytes) -> Log:
        at = _Cursor(Kind.LOG, payload)
        level, t_us = at.take("<BI")
        return cls(level, t_us, at.text(MAX_LOG_TEXT))


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a PONG with the same id."""

    id: int

    def pack(self) -> bytes:
        return struct.pack("<I", self.id)

    @classmethod
    def parse(cls, payload: bytes) -> Ping:
        return cls(_Cursor(Kind.PING, payload).number("<I"))


@dataclass(frozen=True, slots=True)
class Command:
    """Asks the device to do something; answered by an ACK with the same id."""

    id: int
    op: int
    arguments: bytes = b""

    def pack(self) -> bytes:
        return struct.pack("<HB", self.id, self.op) + self.arguments

    @classmethod
    def parse(cls, payload: bytes) -> Command:
        at = _Cursor(Kind.COMMAND, payload)
        number, op = at.take("<HB")
        return cls(number, op, payload[3:])


Frame = Hello | Event | Ack | Log | Ping | Command

_KINDS: dict[type[Frame], Kind] = {
    Hello: Kind.HELLO,
    Event: Kind.EVENT,
    Ack: Kind.ACK,
    Log: Kind.LOG,
    Ping: Kind.PING,
    Command: Kind.COMMAND,
}
_TYPES: dict[int, type[Frame]] = {kind: frame for frame, kind in _KINDS.items()}


def parse_frame(kind: int, payload: bytes) -> Frame | None:
    """The typed frame of a payload; None for a type that is not one of these.

    Raises:
        FrameError: the payload does not match its type; `evidence["frame"]` holds its bytes.
    """
    found = _TYPES.get(kind)
    return None if found is None else found.parse(payload)


def seal(frame: Frame, seq: int) -> bytes:
    """The frame as it goes onto the line from the host: header, CRC, COBS, delimiter."""
    body = (
        struct.pack("<BBBBII", PROTOCOL_VERSION, _KINDS[type(frame)], 0, 0, seq & 0xFFFFFFFF, 0)
        + frame.pack()
    )
    body += struct.pack("<I", zlib.crc32(body))
    if len(body) > framing.MAX_BODY:
        raise FrameError(
            f"{type(frame).__name__} of {len(body)} bytes exceeds {framing.MAX_BODY}", frame=body
        )
    out = np.empty(framing.MAX_ENCODED + 1, np.uint8)
    return out[: framing.cobs_encode(np.frombuffer(body, np.uint8), out)].tobytes()
