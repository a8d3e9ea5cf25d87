"""JPEG from cameras: padded, cut off, without tables."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from edgecap.errors import SourceError
from edgecap.source.camera_jpeg import JpegEncoder, complete_jpeg, standard_tables
from edgecap.source.camera_synthetic import DrawnScene


def pictures(n=3, quantiser=4):
    encoder = JpegEncoder(160, 96, quantiser=quantiser)
    frames = DrawnScene(160, 96, Fraction(30), 0).frames(0)
    return [encoder.encode(frame).data for (_, frame), _ in zip(frames, range(n), strict=False)]


def decoded(data):
    (picture,) = av.CodecContext.create("mjpeg", "r").decode(av.Packet(data))
    return picture.to_ndarray()


def test_a_whole_picture_stays_as_it_is():
    for data in pictures():
        assert complete_jpeg(data) == data


def test_tables_that_a_camera_leaves_out_are_the_standards():
    for data in pictures():
        bare = data.replace(standard_tables(), b"")
        assert len(bare) < len(data)
        assert (decoded(complete_jpeg(bare)) == decoded(data)).all()


@pytest.mark.parametrize("padding", [b"\0" * 7, b"\xff" * 3, bytes(4096)])
def test_padding_is_cut_off(padding):
    (data,) = pictures(1)
    assert complete_jpeg(data + padding) == data


@pytest.mark.parametrize("seed", range(20))
def test_a_picture_without_its_end_is_no_picture(seed):
    rng = np.random.default_rng(seed)
    (data,) = pictures(1)
    assert complete_jpeg(data[: rng.integers(0, len(data) - 2)]) == b""
    noise = rng.integers(0, 256, 500, dtype=np.uint8).tobytes()
    assert complete_jpeg(noise + b"\xff\xd9") == b""
    assert complete_jpeg(b"\xff\xd8" + noise.replace(b"\xff", b"") + b"\xff\xd9") == b""


def test_the_bit_rate_is_followed():
    """Within what the quantiser can do: more is given where more is asked for."""
    scene = DrawnScene(320, 240, Fraction(30), 2)
    sizes = []
    for kbps in (1000, 30_000):
        encoder = JpegEncoder(320, 240, Fraction(30), kbps)
        frames = scene.frames(0)
        sizes.append(
            sum(len(encoder.encode(f).data) for (_, f), _ in zip(frames, range(60), strict=False)) / 60
        )
        assert encoder.close() == 0
    assert sizes[0] * 1.5 < sizes[1]


def test_a_size_that_is_none_is_refused():
    with pytest.raises(SourceError, match="0×96"):
        JpegEncoder(0, 96)
