"""The encoder keeps the promises that exports and chunks rely on."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.annexb import NAL_IDR, NAL_PPS, NAL_SLICE, NAL_SPS, nal_units
from edgecap.errors import SourceError
from edgecap.source.camera_encoder import H264Encoder, ParameterSets
from edgecap.source.camera_synthetic import DrawnScene, draw_index, read_index

FRAME_NS = 33_333_333


def encode_scene(n: int, ticks: list[int] | None = None) -> list[tuple[bytes, bool]]:
    scene = DrawnScene(160, 96, Fraction(30), seed=1)
    encoder = H264Encoder(160, 96, scene.rate_hz, 500)
    ticks = ticks or [k * FRAME_NS for k in range(n)]
    out = [encoder.encode(frame, tick) for (_, frame), tick in zip(scene.frames(0), ticks, strict=False)]
    assert encoder.close() == 0
    return [(e.data, e.key) for e in out]


def decode(units: list[bytes]) -> list[np.ndarray]:
    decoder = av.CodecContext.create("h264", "r")
    frames = []
    for data in [*units, b""]:
        frames += decoder.decode(av.Packet(data) if data else None)
    return [f.to_ndarray()[: f.height] for f in frames]


def test_every_packet_is_one_access_unit_and_decodes_to_its_frame():
    units = encode_scene(70)
    pictures = decode([data for data, _ in units])
    assert [read_index(p) for p in pictures] == list(range(70))
    for data, key in units:
        types = [t for t, _ in nal_units(data)]
        assert [t for t in types if t in (NAL_SLICE, NAL_IDR)] == [NAL_IDR if key else NAL_SLICE]
        assert data.startswith(b"\x00\x00\x00\x01")


def test_idr_carries_parameter_sets_and_comes_every_second_of_capture_time():
    units = encode_scene(95)
    keys = [k for k, (_, key) in enumerate(units) if key]
    assert keys == [0, 31, 62, 93]  # 30 × 33,333,333 ns is just short of a second
    for k in keys:
        types = [t for t, _ in nal_units(units[k][0])]
        assert types.index(NAL_SPS) < types.index(NAL_PPS) < types.index(NAL_IDR)


def test_skipped_frames_do_not_stretch_the_group_of_pictures():
    ticks = [k * 5 * FRAME_NS for k in range(20)]
    assert [k for k, (_, key) in enumerate(encode_scene(20, ticks)) if key] == [0, 7, 14]


def test_decoding_can_start_at_any_key_frame():
    units = encode_scene(40)
    pictures = decode([data for data, _ in units[31:]])
    assert [read_index(p) for p in pictures] == list(range(31, 40))


def test_no_b_frames_no_reordering():
    decoder = av.CodecContext.create("h264", "r")
    for data, _ in encode_scene(10):
        frames = decoder.decode(av.Packet(data))
        assert all(f.pict_type in (PictureType.I, PictureType.P) for f in frames)
    assert not decoder.has_b_frames


@pytest.mark.parametrize(
    ("width", "height", "kbps", "words"),
    [(161, 96, 500, "even"), (160, 0, 500, "even"), (160, 96, 0, "kbit/s")],
)
def test_impossible_settings_are_refused(width, height, kbps, words):
    with pytest.raises(SourceError, match=words):
        H264Encoder(width, height, Fraction(30), kbps)


def test_parameter_sets_are_put_before_an_idr_without_them():
    units = encode_scene(62)
    sets = ParameterSets()
    assert sets.complete(units[0][0]) == units[0]
    bare = b"".join(b"\x00\x00\x01" + u for t, u in nal_units(units[31][0]) if t == NAL_IDR)
    data, key = sets.complete(bare)
    assert key
    assert [t for t, _ in nal_units(data)] == [NAL_SPS, NAL_PPS, NAL_IDR]
    assert sets.complete(units[1][0]) == units[1]
    assert [read_index(p) for p in decode([data, *(d for d, _ in units[32:])])] == list(range(31, 62))


@given(st.integers(0, (1 << 24) - 1), st.sampled_from([(128, 32), (640, 480), (1280, 720)]))
@settings(max_examples=50, deadline=None)
def test_index_is_read_back(index, size):
    luma = np.full(size[::-1], 100, np.uint8)
    assert read_index(luma) is None
    draw_index(luma, index)
    noise = np.random.default_rng(index).integers(-40, 40, luma.shape)
    assert read_index(np.clip(luma + noise, 0, 255).astype(np.uint8)) == index
