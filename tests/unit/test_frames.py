import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.errors import FrameError
from edgecap.source import frames
from edgecap.source.frames import Ack, Channel, Command, Descriptor, Event, Hello, Log, Ping, seal
from edgecap.source.intake import PING_WIRE_BYTES, PONG_WIRE_BYTES
from edgecap.source.serial_port import wire_byte_ns
from tests.reference import framing as reference

u8, u16, u32 = st.integers(0, 255), st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
f32 = st.floats(width=32, allow_nan=False)
text = st.text(max_size=15)
channels = st.lists(st.builds(Channel, text, text, f32, f32), max_size=4).map(tuple)


@st.composite
def hellos(draw: st.DrawFn) -> Hello:
    parts = draw(st.integers(0, 8))
    part = draw(st.integers(0, max(parts - 1, 0)))
    lag = st.integers(-(2**31), 2**31 - 1)
    stream = st.builds(Descriptor, st.just(part), u8, u8, u32, lag, text, channels)
    return Hello(draw(u32), part, parts, draw(text), draw(text), draw(stream) if parts else None)


any_frame = st.one_of(
    hellos(),
    st.builds(Event, u8, u8, u32, u32, text),
    st.builds(Ack, u16, u8, text, st.lists(u32, max_size=8).map(tuple)),
    st.builds(Log, u8, u32, st.text(max_size=50)),
    st.builds(Ping, u32),
    st.builds(Command, u16, u8, st.binary(max_size=8)),
)


@settings(deadline=None)
@given(any_frame, u32)
def test_frames_come_back_and_are_sealed_as_the_reference_seals_them(frame: frames.Frame, seq: int) -> None:
    kind = frames.Kind[type(frame).__name__.upper()]
    assert frames.parse_frame(kind, frame.pack()) == frame
    assert frames.seal(frame, seq) == reference.wire(kind, frame.pack(), seq=seq)


@settings(deadline=None)
@given(st.sampled_from(list(frames.Kind)), st.binary(max_size=80))
def test_any_bytes_are_parsed_or_refused_with_the_offending_frame(kind: frames.Kind, payload: bytes) -> None:
    try:
        frames.parse_frame(kind, payload)
    except FrameError as error:
        assert error.evidence["frame"] == payload.hex(" ")
        assert str(error).startswith(f"{kind.name} frame ")


@settings(deadline=None)
@given(any_frame, st.data())
def test_a_frame_cut_short_never_passes_as_itself(frame: frames.Frame, data: st.DataObject) -> None:
    whole = frame.pack()
    short = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with contextlib.suppress(FrameError):
        assert frames.parse_frame(frames.Kind[type(frame).__name__.upper()], short) != frame


def test_fields_that_a_later_version_appends_are_ignored() -> None:
    event = Event(1, 255, 1000, 0, "x")
    assert frames.parse_frame(frames.Kind.EVENT, event.pack() + b"more") == event


def test_the_example_of_the_specification() -> None:
    wire = "03 01 81 01 02 05 01 01 01 01 01 01 09 04 03 02 01 9d fd 19 e5 00"
    assert frames.seal(Ping(0x01020304), 5) == bytes.fromhex(wire)


def test_unknown_types_are_no_frame() -> None:
    assert frames.parse_frame(0x77, b"") is None


def test_texts_are_cut_between_characters() -> None:
    log = frames.parse_frame(frames.Kind.LOG, Log(20, 0, "µ" * 150).pack())
    assert isinstance(log, Log)
    assert log.text == "µ" * 100


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (Hello(1, 2, 2, "f", "s", Descriptor(2, 1, 1, 1, 0, "x", ())).pack(), "part 2 of 2"),
        (Hello(1, 0, 2, "f", "s", Descriptor(1, 1, 1, 1, 0, "x", ())).pack(), "describes stream 1"),
        (Hello(1, 0, 0, "f", "s", None).pack()[:-1], "ends after"),
        (b"\1\0\0\0\0\0\1\xff" + bytes(1), "not UTF-8"),
        (b"\1\0\0\0\0\0\x40" + bytes(64), "text of 64 bytes"),
    ],
)
def test_hello_is_refused_with_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        Hello.parse(payload)


def test_too_long_a_command_is_refused() -> None:
    with pytest.raises(FrameError, match="exceeds 1024"):
        frames.seal(Command(1, 1, bytes(np.zeros(1200, np.uint8))), 0)


def test_a_uart_has_a_wire_and_usb_has_none(tmp_path):
    (tmp_path / "left-hand").symlink_to("/dev/ttyAMA0")
    assert wire_byte_ns(str(tmp_path / "left-hand"), 1_000_000) == 9_500
    assert wire_byte_ns("/dev/ttyUSB0", 115_200) == 82_465
    assert wire_byte_ns("/dev/ttyACM0", 115_200) == 0
    assert wire_byte_ns("/dev/pts/3", 115_200) == 0
    # What the least wire times are computed from is what is truly sent.
    assert len(seal(Ping(1), 0)) == PING_WIRE_BYTES
    pong = bytes([1, 3, 0, 0]) + bytes(8) + bytes(12) + bytes(4)
    assert len(pong) + 2 == PONG_WIRE_BYTES
