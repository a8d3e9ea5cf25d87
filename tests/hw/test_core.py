"""COBS, CRC and frames of the C core equal the slow reading of the document."""

from __future__ import annotations

import ctypes
import itertools
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.session.machine import LEDS
from edgecap.sim.firmware_build import SOURCES, find_compiler
from edgecap.source.gpio import steps_of
from tests.reference import serial_frames as sf

STABLE_US = 5000
BYTES = st.one_of(
    st.binary(max_size=1024),
    st.lists(st.sampled_from([0, 1, 255]), max_size=1024).map(bytes),
    st.integers(250, 260).flatmap(lambda n: st.binary(max_size=3).map(lambda tail: b"\x07" * n + tail)),
    st.sampled_from([b"\x07" * n for n in (253, 254, 255, 507, 508, 509, 1016, 1024)]),
)


class FrameView(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint8),
        ("payload", ctypes.POINTER(ctypes.c_uint8)),
        ("bytes", ctypes.c_size_t),
    ]


@pytest.fixture(scope="module")
def core(build_dir: Path) -> ctypes.CDLL:
    library = build_dir / "core.so"
    sources = [str(SOURCES / "core" / f"{noun}.c") for noun in ("button", "cobs", "crc32", "frame", "light")]
    flags = [
        "-std=c11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wpedantic",
        "-Wconversion",
        "-shared",
        "-fPIC",
    ]
    subprocess.run([find_compiler(), *flags, *sources, "-o", str(library)], check=True)
    core = ctypes.CDLL(str(library))
    core.ec_crc32.restype = ctypes.c_uint32
    for function in (core.ec_cobs_encode, core.ec_cobs_decode, core.ec_frame_seal):
        function.restype = ctypes.c_size_t
    core.ec_frame_open.restype = ctypes.c_bool
    core.ec_button_settle.restype = ctypes.c_bool
    core.ec_light_update.restype = ctypes.c_bool
    core.ec_light_is_steady.restype = ctypes.c_bool
    return core


class Button(ctypes.Structure):
    _fields_ = [
        ("down", ctypes.c_bool),
        ("level", ctypes.c_bool),
        ("unsettled", ctypes.c_bool),
        ("first_edge_us", ctypes.c_uint64),
        ("last_edge_us", ctypes.c_uint64),
    ]


def open_in_core(core: ctypes.CDLL, coded: bytes) -> tuple[int, bytes] | None:
    buffer = ctypes.create_string_buffer(coded, max(len(coded), 1))
    view = FrameView()
    if not core.ec_frame_open(buffer, ctypes.c_size_t(len(coded)), ctypes.byref(view)):
        return None
    return view.type, bytes(view.payload[: view.bytes])


@given(data=BYTES)
def test_crc(core, data):
    assert core.ec_crc32(data, ctypes.c_size_t(len(data))) == sf.crc32(data)


@given(data=BYTES)
def test_cobs_round_trip(core, data):
    out = ctypes.create_string_buffer(len(data) + len(data) // 254 + 1)
    n = core.ec_cobs_encode(data, ctypes.c_size_t(len(data)), out)
    coded = out.raw[:n]
    assert coded == sf.cobs_encode(data)
    assert 0 not in coded
    assert sf.cobs_decode(coded) == data
    back = ctypes.create_string_buffer(coded, n)
    size = core.ec_cobs_decode(back, ctypes.c_size_t(n))
    assert back.raw[:size] == data


@given(coded=BYTES)
def test_cobs_decodes_anything_like_the_reference(core, coded):
    buffer = ctypes.create_string_buffer(coded, max(len(coded), 1))
    n = core.ec_cobs_decode(buffer, ctypes.c_size_t(len(coded)))
    try:
        expected = sf.cobs_decode(coded)
    except sf.Broken:
        expected = b""
    assert buffer.raw[:n] == expected


@given(
    payload=st.binary(max_size=1008),
    seq=st.integers(0, 2**32 - 1),
    prev=st.one_of(st.none(), st.integers(0, 2**32 - 1)),
)
def test_frames_are_sealed_and_opened(core, payload, seq, prev):
    body = ctypes.create_string_buffer(b"\xaa" * 12 + payload, 1024)
    line = ctypes.create_string_buffer(1030)
    n = core.ec_frame_seal(
        body,
        ctypes.c_size_t(len(payload)),
        ctypes.c_uint8(sf.EVENT),
        ctypes.c_uint32(seq),
        ctypes.c_bool(prev is not None),
        ctypes.c_uint32(prev or 0),
        line,
    )
    assert line.raw[:n] == sf.seal(sf.EVENT, seq, payload, prev)
    assert open_in_core(core, line.raw[: n - 1]) == (sf.EVENT, payload)


@given(payload=st.binary(max_size=200), data=st.data())
def test_damaged_frames_are_refused(core, payload, data):
    coded = bytearray(sf.seal(sf.COMMAND, 3, payload)[:-1])
    at = data.draw(st.integers(0, 8 * len(coded) - 1))
    coded[at // 8] ^= 1 << at % 8
    assert open_in_core(core, bytes(coded)) is None


def test_other_versions_and_wrong_lengths_are_refused(core):
    body = struct.pack("<BBBBII", 2, sf.PING, 0, 0, 0, 0)
    assert open_in_core(core, sf.cobs_encode(body + struct.pack("<I", sf.crc32(body)))) is None
    short = bytes(11)
    assert open_in_core(core, sf.cobs_encode(short + struct.pack("<I", sf.crc32(short)))) is None
    assert open_in_core(core, b"") is None


def debounce(edges: list[int]) -> list[tuple[int, bool]]:
    """Edges toggle the contact; those less than 5 ms apart are one burst, which counts if it is odd."""
    bursts: list[list[int]] = []
    for t_us in edges:
        if bursts and t_us - bursts[-1][-1] < STABLE_US:
            bursts[-1].append(t_us)
        else:
            bursts.append([t_us])
    changes, down = [], False
    for burst in bursts:
        if len(burst) % 2:
            down = not down
            changes.append((burst[0], down))
    return changes


@given(
    gaps=st.lists(
        st.one_of(st.integers(1, 300), st.integers(4990, 5010), st.integers(1, 30_000)), max_size=30
    ),
    start=st.integers(0, 2**40),
)
def test_debouncing(core, gaps, start):
    edges = [start + t for t in itertools.accumulate(gaps)]
    button, found = Button(), []

    def settle(now_us):
        t_us = ctypes.c_uint64()
        if core.ec_button_settle(ctypes.byref(button), ctypes.c_uint64(now_us), ctypes.byref(t_us)):
            found.append((t_us.value, button.down))

    for i, t_us in enumerate(edges):
        settle(t_us)
        core.ec_button_edge(ctypes.byref(button), ctypes.c_bool(i % 2 == 0), ctypes.c_uint64(t_us))
        settle(t_us + 4)
    settle(start + sum(gaps) + STABLE_US)
    assert found == debounce(edges)


class Light(ctypes.Structure):
    _fields_ = [
        ("rgb", ctypes.c_uint8 * 3),
        ("pattern", ctypes.c_uint8),
        ("has_rhythm", ctypes.c_bool),
        ("on_ms", ctypes.c_uint16),
        ("off_ms", ctypes.c_uint16),
        ("flashes", ctypes.c_uint8),
        ("start_us", ctypes.c_uint64),
        ("change_us", ctypes.c_uint64),
        ("shown", ctypes.c_uint8 * 3),
    ]


def switchings(core, light: Light, until_us: int) -> list[tuple[int, bool]]:
    """Every change of the light, as it says itself when to look again."""
    changes = []
    while light.change_us < until_us:
        now_us = light.change_us
        if core.ec_light_update(ctypes.byref(light), ctypes.c_uint64(now_us)):
            changes.append((now_us, bytes(light.shown) == bytes(light.rgb)))
    return changes


@pytest.mark.parametrize("led", LEDS.values(), ids=LEDS)
@given(start_us=st.integers(0, 2**40))
def test_a_board_shows_the_very_rhythms_of_the_rig(core, led, start_us):
    light = Light()
    rgb = (ctypes.c_uint8 * 3)(*led.rgb)
    core.ec_light_rhythm(
        ctypes.byref(light),
        rgb,
        ctypes.c_uint16(led.on_ms),
        ctypes.c_uint16(led.off_ms),
        ctypes.c_uint8(led.flashes),
        ctypes.c_uint64(start_us),
    )
    assert not core.ec_light_is_steady(ctypes.byref(light))  # a state's light is no LED event
    expected, t_us = [], start_us
    for step in itertools.cycle(steps_of(led)):
        expected.append((t_us, step.on))
        if step.seconds is None or t_us > start_us + 20_000_000:
            break
        t_us += round(step.seconds * 1e6)
    assert switchings(core, light, start_us + 20_000_000) == [
        e for e in expected if e[0] < start_us + 20_000_000
    ]


@pytest.mark.parametrize(("pattern", "half_us"), [(0, None), (1, 1_000_000), (2, 100_000), (9, 100_000)])
def test_patterns_of_a_light(core, pattern, half_us):
    light = Light()
    core.ec_light_pattern(
        ctypes.byref(light), (ctypes.c_uint8 * 3)(9, 0, 200), ctypes.c_uint8(pattern), ctypes.c_uint64(77)
    )
    assert core.ec_light_is_steady(ctypes.byref(light)) == (pattern == 0)
    changes = switchings(core, light, 77 + 5_000_000)
    if half_us is None:
        assert changes == [(77, True)]
    else:
        assert changes == [(77 + k * half_us, k % 2 == 0) for k in range(5_000_000 // half_us)]


def test_a_light_breathes_up_and_down(core):
    light = Light()
    core.ec_light_pattern(
        ctypes.byref(light), (ctypes.c_uint8 * 3)(255, 0, 0), ctypes.c_uint8(3), ctypes.c_uint64(0)
    )
    levels = []
    for t_us in range(0, 6_000_000, 20_000):
        core.ec_light_update(ctypes.byref(light), ctypes.c_uint64(t_us))
        levels.append(light.shown[0])
    assert levels[:150] == levels[150:]
    assert levels[:76] == sorted(levels[:76])
    assert levels[75:150] == sorted(levels[75:150], reverse=True)
    assert (levels[0], levels[75]) == (0, 255)
