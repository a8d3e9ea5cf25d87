"""The serial protocol, read from hw/PROTOCOL.md line by line and slowly; shares no code with the package."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

HELLO, SAMPLES, PONG, EVENT, ACK, LOG, PING, COMMAND = 1, 2, 3, 4, 5, 6, 0x81, 0x82
OP_HELLO, OP_START, OP_STOP, OP_RATE, OP_TARE, OP_LED, OP_RESET = range(1, 8)
BUTTON_DOWN, BUTTON_UP, OVERRUN, SENSOR_FAULT, SENSOR_OK, LED_ON, LED_OFF = range(1, 8)
DTYPE = {1: "<i2", 3: "<i4", 4: "<f4"}
WIDTH = {1: 2, 2: 3, 3: 4, 4: 4}


class Broken(Exception):
    """A frame that is to be discarded; says for which cause."""


def crc32(data: bytes) -> int:
    """Bit by bit, from the polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def cobs_encode(body: bytes) -> bytes:
    """Cut after every 0 (one is imagined at the end) and after every 254 bytes without one."""
    pieces: list[tuple[bytes, bool]] = []
    run = bytearray()
    for byte in body:
        if byte == 0:
            pieces.append((bytes(run), True))
            run.clear()
        else:
            run.append(byte)
            if len(run) == 254:
                pieces.append((bytes(run), False))
                run.clear()
    if run or not pieces or pieces[-1][1]:
        pieces.append((bytes(run), True))
    return b"".join(bytes([len(piece) + 1]) + piece for piece, _ in pieces)


def cobs_decode(coded: bytes) -> bytes:
    out = bytearray()
    at = 0
    while at < len(coded):
        code = coded[at]
        piece = coded[at + 1 : at + code]
        if code == 0 or len(piece) != code - 1 or 0 in piece:
            raise Broken("cobs")
        out += piece
        at += code
        if code != 255 and at < len(coded):
            out.append(0)
    return bytes(out)


def seal(kind: int, seq: int, payload: bytes, prev_tx_done_us: int | None = None) -> bytes:
    """A frame as it goes on the line."""
    body = (
        struct.pack("<BBBBII", 1, kind, prev_tx_done_us is not None, 0, seq, prev_tx_done_us or 0) + payload
    )
    return cobs_encode(body + struct.pack("<I", crc32(body))) + b"\0"


@dataclass
class Frame:
    kind: int
    seq: int
    prev_tx_done_us: int | None
    payload: bytes
    arrival_ns: int = 0


def open_frame(coded: bytes) -> Frame:
    """Read the bytes before a delimiter; raises `Broken`."""
    if len(coded) > 1029:
        raise Broken("long")
    body = cobs_decode(coded)
    if not 16 <= len(body) <= 1024:
        raise Broken("length")
    if struct.unpack("<I", body[-4:])[0] != crc32(body[:-4]):
        raise Broken("crc")
    version, kind, flags, reserved, seq, prev = struct.unpack("<BBBBII", body[:12])
    if version != 1:
        raise Broken("version")
    assert flags in (0, 1)
    assert reserved == 0
    assert flags or prev == 0
    return Frame(kind, seq, prev if flags else None, body[12:-4])


@dataclass
class Deframer:
    """Collects bytes and splits them at delimiters."""

    frames: list[Frame] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    _rest: bytes = b""

    def feed(self, data: bytes, arrival_ns: int = 0) -> None:
        *pieces, self._rest = (self._rest + data).split(b"\0")
        for piece in pieces:
            if not piece:
                continue
            try:
                frame = open_frame(piece)
            except Broken as cause:
                self.broken[str(cause)] += 1
                continue
            frame.arrival_ns = arrival_ns
            self.frames.append(frame)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, form: str) -> tuple:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def text(self) -> str:
        (n,) = self.take("B")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def done(self) -> None:
        assert self.at == len(self.data), "bytes left over"


@dataclass
class Channel:
    name: str
    unit: str
    scale: float
    full_scale: float


@dataclass
class Hello:
    boot_id: int
    part: int
    parts: int
    firmware: str
    serial: str
    stream: int = -1
    kind: int = 0
    dtype: int = 0
    rate_mhz: int = 0
    lag_us: int = 0
    name: str = ""
    channels: list[Channel] = field(default_factory=list)


def parse_hello(payload: bytes) -> Hello:
    r = _Reader(payload)
    hello = Hello(*r.take("IBB"), r.text(), r.text())
    if hello.parts:
        hello.stream, hello.kind, hello.dtype, hello.rate_mhz, hello.lag_us = r.take("BBBIi")
        hello.name = r.text()
        (n,) = r.take("B")
        hello.channels = [Channel(r.text(), r.text(), *r.take("ff")) for _ in range(n)]
    r.done()
    return hello


@dataclass
class Samples:
    stream: int
    mode: int
    index: int
    t_us: list[int]
    """Counter at each sample, modulo 2^32."""
    values: np.ndarray


def parse_samples(payload: bytes, dtype: int, channels: int) -> Samples:
    r = _Reader(payload)
    stream, n, mode, reserved, index, t0 = r.take("BBBBII")
    assert n >= 1
    assert mode in (0, 1)
    assert reserved == 0
    steps = list(r.take("H")) * (n - 1) if mode == 0 else list(r.take(f"{n - 1}H"))
    t_us = [t0]
    for step in steps:
        t_us.append((t_us[-1] + step) % 2**32)
    data = payload[r.at : r.at + n * channels * WIDTH[dtype]]
    r.at += n * channels * WIDTH[dtype]
    r.done()
    if dtype == 2:
        values = np.array(
            [int.from_bytes(data[i : i + 3], "little", signed=True) for i in range(0, len(data), 3)]
        )
    else:
        values = np.frombuffer(data, DTYPE[dtype])
    return Samples(stream, mode, index, t_us, values.reshape(n, channels))


@dataclass
class Event:
    code: int
    stream: int
    t_us: int
    arg: int
    text: str


def parse_event(payload: bytes) -> Event:
    r = _Reader(payload)
    event = Event(*r.take("BBII"), r.text())
    r.done()
    return event


@dataclass
class Ack:
    id: int
    status: int
    text: str
    numbers: list[int]


def parse_ack(payload: bytes) -> Ack:
    r = _Reader(payload)
    number, status = r.take("HB")
    text = r.text()
    (n,) = r.take("B")
    ack = Ack(number, status, text, list(r.take(f"{n}I")))
    r.done()
    return ack
