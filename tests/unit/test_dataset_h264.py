"""Parameter sets stand in front of every key frame."""

from __future__ import annotations

from edgecap.annexb import nal_units
from edgecap.dataset.h264 import ParameterSets

SPS = b"\0\0\0\1\x67\x42\x00\x1e"
PPS = b"\0\0\0\1\x68\xce\x38"
IDR = b"\0\0\1\x65\x88\x84"
SLICE = b"\0\0\1\x41\x9a\x02"


def test_nal_units_of_both_start_codes():
    assert [kind for kind, _ in nal_units(SPS + PPS + IDR)] == [7, 8, 5]
    assert [unit for _, unit in nal_units(SPS + PPS + IDR)] == [SPS[4:], PPS[4:], IDR[3:]]
    assert list(nal_units(b"")) == []


def test_a_whole_key_frame_is_left_as_it_is():
    assert ParameterSets().complete(SPS + PPS + IDR, key=True) == SPS + PPS + IDR


def test_later_key_frames_get_the_sets_of_the_first():
    sets = ParameterSets()
    sets.complete(SPS + PPS + IDR, key=True)
    assert sets.complete(IDR, key=True) == SPS + PPS + IDR
    assert sets.complete(SLICE, key=False) == SLICE


def test_nothing_decodable_before_the_first_sets():
    sets = ParameterSets()
    assert sets.complete(SLICE, key=False) is None
    assert sets.complete(IDR, key=True) is None
