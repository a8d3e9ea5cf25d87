"""Video payloads: frames, cut and joined."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.codec import wire
from edgecap.codec.video import (
    CONTINUATION,
    CONTINUES,
    KEY,
    VideoUnit,
    decode_metadata,
    decode_units,
    encode_units,
    join_units,
    split_unit,
)
from edgecap.errors import ChunkError


def unit(index, data, flags=0):
    return VideoUnit(index, 10 * index, 11 * index, 8000, 18, flags, data)


@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=8))
def test_units_come_back(frames):
    units = [unit(i, data, KEY if key else 0) for i, (data, key) in enumerate(frames)]
    assert decode_units(encode_units(units)) == units
    assert list(join_units(units)) == units


@given(st.binary(max_size=200), st.integers(1, 60), st.integers(1, 60), st.sampled_from([0, KEY]))
def test_a_cut_frame_is_joined_again(data, first_bytes, part_bytes, flags):
    whole = unit(3, data, flags)
    parts = list(split_unit(whole, first_bytes, part_bytes))
    assert len(parts[0].data) <= first_bytes
    assert all(len(p.data) <= part_bytes for p in parts[1:])
    assert [bool(p.flags & CONTINUES) for p in parts] == [True] * (len(parts) - 1) + [False]
    assert [bool(p.flags & CONTINUATION) for p in parts] == [False] + [True] * (len(parts) - 1)
    assert list(join_units(parts)) == [whole]


@given(st.data())
def test_a_frame_with_a_part_missing_is_left_out(data):
    cut = list(split_unit(unit(1, bytes(100), KEY), 30, 20))
    lost = data.draw(st.integers(0, len(cut) - 1))
    units = [unit(0, b"a"), *cut[:lost], *cut[lost + 1 :], unit(2, b"b")]
    assert [u.index for u in join_units(units)] == [0, 2]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        wire.pack({}),
        wire.pack([1]),
        wire.pack([[1, 2, 3]]),
        wire.pack([[1, 2, 3, 4, 5, "6", b""]]),
        wire.pack([[1, 2, 3, 4, 5, 6, "text"]]),
        wire.pack([[1, 2, 3, 4, 5, True, b""]]),
        wire.pack([[1, 2**63, 3, 4, 5, 6, b""]]),
    ],
)
def test_other_bytes_are_refused(payload):
    with pytest.raises(ChunkError):
        decode_units(payload)


def test_further_elements_are_ignored():
    row = [1, 2, 3, 4, 5, KEY, b"data", "future"]
    assert decode_units(wire.pack([row])) == [VideoUnit(1, 2, 3, 4, 5, KEY, b"data")]


def test_metadata_travels_with_a_frames_first_part_only():
    whole = VideoUnit(3, 30, 33, 0, 0, KEY, b"x" * 100, wire.pack({"AnalogueGain": 2.5}))
    parts = list(split_unit(whole, 40, 40))
    assert [bool(p.metadata) for p in parts] == [True, False, False]
    assert list(join_units(decode_units(encode_units(parts)))) == [whole]
    assert decode_metadata(whole.metadata) == {"AnalogueGain": 2.5}
    assert decode_metadata(b"") == {}


def test_a_payload_without_metadata_is_what_it_was_before_there_was_any():
    assert wire.unpack(encode_units([unit(1, b"a")]), what="", max_bytes=99) == [
        [1, 10, 11, 8000, 18, 0, b"a"]
    ]


def test_an_eighth_element_of_another_kind_is_ignored():
    row = [1, 10, 11, 8000, 18, 0, b"a", {"later": 1}, 7]
    assert decode_units(wire.pack([row])) == [unit(1, b"a")]


@pytest.mark.parametrize("metadata", [b"\xc1", b"\x93\x01\x02\x03", b"\x81", bytes(2000)])
def test_metadata_that_is_no_map_is_refused(metadata):
    with pytest.raises(ChunkError, match="frame metadata"):
        decode_metadata(metadata)
