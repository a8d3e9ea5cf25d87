"""What a board tells and shows that nobody talks to: the core alone, on a clock that the test turns."""

from __future__ import annotations

import ctypes
import itertools
import struct
import subprocess
from collections.abc import Callable
from ctypes import (
    POINTER,
    c_bool,
    c_char_p,
    c_float,
    c_int32,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.sim.firmware_build import SOURCES, find_compiler
from tests.reference import serial_frames as sf

S = 1_000_000
LOOK_US, TELL_AGAIN_US = 250_000, 4_000_000
KNOWN_US = 3 * LOOK_US
"""By then a change of a sensor is told: two looks, and one before that came too early."""
DEVICE_BYTES = 1 << 18

HAL = [
    ("micros", ctypes.CFUNCTYPE(c_uint32, c_void_p)),
    ("boot_id", ctypes.CFUNCTYPE(c_uint32, c_void_p)),
    ("transmit", ctypes.CFUNCTYPE(None, c_void_p, POINTER(c_uint8), c_size_t)),
    ("read_sensor", ctypes.CFUNCTYPE(c_bool, c_void_p, c_uint8, c_uint32, c_uint64, POINTER(c_uint8))),
    ("alive", ctypes.CFUNCTYPE(c_bool, c_void_p, c_uint8)),
    ("sampling", ctypes.CFUNCTYPE(None, c_void_p, c_bool)),
    ("rate", ctypes.CFUNCTYPE(c_bool, c_void_p, c_uint8, c_uint32)),
    ("tare", ctypes.CFUNCTYPE(c_bool, c_void_p, c_uint8)),
    ("led", ctypes.CFUNCTYPE(None, c_void_p, c_uint8, c_uint8, c_uint8)),
    ("reset", ctypes.CFUNCTYPE(None, c_void_p)),
]


class Hal(ctypes.Structure):
    _fields_ = [("ctx", c_void_p), *HAL]


class Channel(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("unit", c_char_p), ("scale", c_float), ("full_scale", c_float)]


class Stream(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("channels", POINTER(Channel)),
        ("rate_mhz", c_uint32),
        ("lag_us", c_int32),
        ("kind", c_uint8),
        ("dtype", c_uint8),
        ("n_channels", c_uint8),
        ("given", c_bool),
    ]


@pytest.fixture(scope="module")
def core(build_dir: Path) -> ctypes.CDLL:
    library = build_dir / "device.so"
    flags = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    sources = map(str, sorted((SOURCES / "core").glob("*.c")))
    subprocess.run([find_compiler(), *flags, *sources, "-o", str(library)], check=True)
    core = ctypes.CDLL(str(library))
    core.ec_init.restype = c_char_p
    core.ec_next_wake_us.restype = c_uint64
    return core


class Rig:
    """A device of two sensors, polled whenever it asks to be."""

    def __init__(self, core: ctypes.CDLL) -> None:
        self.core = core
        self.t_us = 0
        self.dead = [False, False]
        self.reads = True
        self.told: list[tuple[int, int, int, str]] = []
        """When, code, stream, text."""
        self.shown: list[tuple[int, tuple[int, ...]]] = []
        """When the light changed, and to what."""
        self._deframer = sf.Deframer()
        self._taken = self._commands = 0
        self._sent = b""
        calls: dict[str, Callable[..., object]] = {
            "micros": lambda _: self.t_us & 0xFFFFFFFF,
            "boot_id": lambda _: 7,
            "transmit": self._transmit,
            "read_sensor": lambda _, stream, *__: not self.dead[stream],
            "alive": lambda _, stream: not self.dead[stream],
            "sampling": lambda *_: None,
            "rate": lambda *_: True,
            "tare": lambda *_: True,
            "led": lambda _, *rgb: self.shown.append((self.t_us, rgb)),
            "reset": lambda *_: None,
        }
        self._hal = Hal(None, *(kind(calls[name]) for name, kind in HAL))
        self._channel = (Channel * 1)(Channel(b"x", b"N", 1.0, 0.0))
        self._streams = (Stream * 2)(
            *(Stream(n, self._channel, 100_000, 0, 2, 1, 1, False) for n in (b"a", b"b"))
        )
        self._device = ctypes.create_string_buffer(DEVICE_BYTES)
        assert core.ec_init(self._device, ctypes.byref(self._hal), self._streams, c_uint8(2), b"test") is None

    def _transmit(self, _: object, data: object, n: int) -> None:
        self._sent = ctypes.string_at(data, n)  # type: ignore[arg-type]

    def run(self, for_us: int) -> None:
        until = self.t_us + for_us
        while self.t_us < until:
            self._poll()
            self.t_us = max(self.t_us + 1, min(until, self.core.ec_next_wake_us(self._device)))

    def _poll(self) -> None:
        self.core.ec_poll(self._device)
        while self._sent and self.reads:
            sent, self._sent = self._sent, b""
            self._deframer.feed(sent, self.t_us)
            self.core.ec_transmitted(self._device, c_uint32(self.t_us & 0xFFFFFFFF))
            self.core.ec_poll(self._device)
        for frame in self._deframer.frames[self._taken :]:
            if frame.kind == sf.EVENT:
                event = sf.parse_event(frame.payload)
                self.told.append((self.t_us, event.code, event.stream, event.text))
        self._taken = len(self._deframer.frames)

    def receive(self, kind: int, payload: bytes) -> None:
        self._commands += 1
        for byte in sf.seal(kind, self._commands, payload):
            self.core.ec_receive(self._device, c_uint8(byte), c_uint32(self.t_us & 0xFFFFFFFF))
        self._poll()

    def command(self, op: int, arguments: bytes = b"") -> bool:
        """Whether it is acknowledged at once."""
        self.receive(sf.COMMAND, struct.pack("<HB", self._commands + 1, op) + arguments)
        acks = [sf.parse_ack(f.payload) for f in self._deframer.frames if f.kind == sf.ACK]
        return any(ack.id == self._commands for ack in acks)


def test_a_sensor_that_dies_while_idle_is_told_of_again_and_again_until_it_is_back(core: ctypes.CDLL) -> None:
    rig = Rig(core)
    rig.run(10 * S)
    assert rig.told == []
    died_us, rig.dead[1] = rig.t_us, True
    rig.run(60 * S)
    codes = {(code, stream, text) for _, code, stream, text in rig.told}
    assert codes == {(sf.SENSOR_FAULT, 1, "sensor gives no data")}
    times = [t for t, *_ in rig.told]
    assert times[0] - died_us <= KNOWN_US
    steps = [b - a for a, b in itertools.pairwise(times)]
    assert len(steps) >= 14
    assert max(steps) <= TELL_AGAIN_US + LOOK_US
    back_us, rig.dead[1] = rig.t_us, False
    rig.told.clear()
    rig.run(60 * S)
    ((t_us, code, stream, _),) = rig.told
    assert (code, stream, t_us - back_us <= LOOK_US) == (sf.SENSOR_OK, 1, True)


def test_whoever_comes_later_is_told_soon(core: ctypes.CDLL) -> None:
    rig = Rig(core)
    rig.dead[0] = True
    rig.run(5 * S)
    for _ in range(3):
        rig.told.clear()
        assert rig.command(sf.OP_HELLO)
        rig.run(2 * LOOK_US)
        assert [told[1:3] for told in rig.told] == [(sf.SENSOR_FAULT, 0)]
    for _ in range(20):  # asked all the while it still comes to telling
        rig.command(sf.OP_HELLO)
        rig.run(LOOK_US // 5)
    assert len(rig.told) >= 3


def test_a_fault_of_a_session_is_told_on_after_it_and_a_start_begins_anew(core: ctypes.CDLL) -> None:
    rig = Rig(core)
    rig.run(S)
    assert rig.command(sf.OP_START)
    rig.run(S)
    rig.dead[0] = True
    rig.run(S)
    assert [told[1:3] for told in rig.told] == [(sf.SENSOR_FAULT, 0)]  # while sampling, once
    assert rig.command(sf.OP_STOP)
    rig.run(TELL_AGAIN_US + LOOK_US)
    assert [told[1:3] for told in rig.told[1:]][:1] == [(sf.SENSOR_FAULT, 0)]
    rig.told.clear()
    assert rig.command(sf.OP_START)
    rig.run(S)
    assert [told[1:3] for told in rig.told] == [(sf.SENSOR_FAULT, 0)]
    rig.dead[0] = False
    rig.run(S)
    assert [told[1:3] for told in rig.told[1:]] == [(sf.SENSOR_OK, 0)]


def test_nobody_reads_for_an_hour_and_the_queue_is_free_all_the_same(core: ctypes.CDLL) -> None:
    rig = Rig(core)
    rig.run(S)
    rig.reads = False
    for k in range(24):
        rig.dead[k % 2] = not rig.dead[k % 2]
        rig.run(150 * S)
    rig.reads = True
    assert rig.command(sf.OP_HELLO)
    assert len(rig.told) <= 4  # what was on its way; nothing of the hour's news is kept


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 3 * S)), max_size=12), st.integers(0, 2**32 - 1))
def test_what_was_told_last_is_how_it_is(
    core: ctypes.CDLL, changes: list[tuple[int, int]], start: int
) -> None:
    rig = Rig(core)
    for stream, later_us in changes:
        rig.dead[stream] = not rig.dead[stream]
        rig.run(later_us)
    rig.run(KNOWN_US)
    last = {stream: code for _, code, stream, _ in rig.told}
    for stream in range(2):
        assert last.get(stream, sf.SENSOR_OK) == (sf.SENSOR_FAULT if rig.dead[stream] else sf.SENSOR_OK)


GREEN, DARK, VERMILION = (0, 158, 115), (0, 0, 0), (213, 94, 0)


def test_a_light_lapses_when_its_host_falls_silent_and_holds_again_when_it_speaks(core: ctypes.CDLL) -> None:
    rig = Rig(core)
    assert rig.command(sf.OP_LED, bytes((*GREEN, 0)))
    for n in range(50):
        rig.run(S // 5)
        rig.receive(sf.PING, struct.pack("<I", n))
    assert [rgb for _, rgb in rig.shown] == [GREEN]
    heard_us = rig.t_us
    rig.run(10 * S)
    flashes = [t for t, rgb in rig.shown if rgb == VERMILION]
    assert flashes[0] - heard_us == 3 * S
    steps = [b - a for a, b in itertools.pairwise(flashes)]
    assert steps[:8] == [240_000, 240_000, 240_000, 1_120_000] * 2  # as docs/BUTTON.md has `fault`
    assert {rgb for t, rgb in rig.shown if t > heard_us} == {VERMILION, DARK}
    rig.receive(sf.PING, struct.pack("<I", 99))
    assert rig.shown[-1] == (rig.t_us, GREEN)
    rig.run(2 * S)
    assert rig.shown[-1][1] == GREEN
    rig.run(2 * S)
    assert rig.shown[-1][1] != GREEN
    assert rig.command(sf.OP_LED, bytes((0, 0, 40, 0)))
    assert rig.shown[-1] == (rig.t_us, (0, 0, 40))
    led_events = [code for _, code, *_ in rig.told]
    assert led_events == [sf.LED_ON], "what lapses was not switched by the host"


def test_a_dark_light_stays_dark(core: ctypes.CDLL) -> None:
    rig = Rig(core)
    rig.run(10 * S)
    assert rig.command(sf.OP_LED, bytes((*GREEN, 0)))
    assert rig.command(sf.OP_LED, bytes((*GREEN, 0, 0, 0, 1, 0, 1)))  # a rhythm that is never lit
    rig.run(10 * S)
    assert [rgb for _, rgb in rig.shown] == [GREEN, DARK]
