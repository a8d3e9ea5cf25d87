"""Looks at a picture: what they measure, and that they never disturb."""

from __future__ import annotations

import socket
import time
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from edgecap.source.camera_link import PICTURE, MessageBuffer, unpack_picture
from edgecap.source.camera_outbox import Outbox
from edgecap.source.camera_pi_sink import PLANES, picture_of
from edgecap.source.camera_picture import (
    LOOK_NS,
    MAX_PREVIEW_BYTES,
    PictureWatch,
    look_at,
    preview_of,
    reduced_size,
)
from edgecap.source.camera_synthetic import DrawnScene


def naive_look(grey):
    rows = grey.tolist()
    values = [
        rows[y - 1][x] + rows[y + 1][x] + rows[y][x - 1] + rows[y][x + 1] - 4 * rows[y][x]
        for y in range(1, len(rows) - 1)
        for x in range(1, len(rows[0]) - 1)
    ]
    mean = sum(values) / len(values)
    flat = grey.ravel().tolist()
    return (
        sum((v - mean) ** 2 for v in values) / len(values),
        sum(flat) / len(flat) / 255,
        sum(v <= 3 for v in flat) / len(flat),
        sum(v >= 252 for v in flat) / len(flat),
    )


@pytest.mark.parametrize("seed", range(5))
def test_looks_agree_with_a_slow_oracle(seed):
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, rng.integers(3, 20, 2), dtype=np.uint8)
    assert look_at(grey) == pytest.approx(naive_look(grey))


def test_blur_lowers_sharpness_and_little_else():
    scene = DrawnScene(320, 240, Fraction(30), 1)
    sharp = scene.luma(0)
    blurred = sharp.astype(float)
    looks = [look_at(sharp)]
    for _ in range(3):
        blurred = (blurred + np.roll(blurred, 1, 0) + np.roll(blurred, 1, 1) + np.roll(blurred, -1, 1)) / 4
        looks.append(look_at(blurred.astype(np.uint8)))
    assert all(b.sharpness < a.sharpness * 0.8 for a, b in pairwise(looks))
    assert max(abs(look.brightness - looks[0].brightness) for look in looks) < 0.01


@pytest.mark.parametrize(
    ("width", "height", "reduced"),
    [(1920, 1080, (320, 180)), (1080, 1920, (180, 320)), (640, 480, (320, 240)), (160, 96, (160, 96))],
)
def test_reduced_size(width, height, reduced):
    assert reduced_size(width, height) == reduced


def test_a_preview_is_bounded_whatever_it_shows():
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
    assert 0 < len(preview_of(frame, 320, 240)) <= MAX_PREVIEW_BYTES


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize(("width", "stride"), [(320, 320), (322, 384)])
def test_padded_planes_come_out_as_the_picture(name, width, stride):
    """libcamera pads rows; an independent way back is FFmpeg's own array of the same format."""
    rng = np.random.default_rng(stride)
    height = 34
    pixel_format, narrower, shorter = PLANES[name]
    planes = [
        rng.integers(16, 236, (height // s, width // n), dtype=np.uint8)
        for n, s in zip(narrower, shorter, strict=True)
    ]
    padding = [stride // n - p.shape[1] for p, n in zip(planes, narrower, strict=True)]
    padded = [np.pad(p, ((0, 0), (0, more))) for p, more in zip(planes, padding, strict=True)]
    buffer = np.concatenate([p.ravel() for p in padded])
    frame = picture_of(buffer, {"format": name, "size": (width, height), "stride": stride})
    assert (frame.width, frame.height, frame.format.name) == (width, height, pixel_format)
    for plane, wanted in zip(frame.planes, planes, strict=True):
        got = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        assert (got[: wanted.shape[0], : wanted.shape[1]] == wanted).all()


@pytest.fixture
def link():
    ours, theirs = socket.socketpair()
    outbox = Outbox(theirs)
    ours.settimeout(30)
    yield ours, outbox
    ours.shutdown(socket.SHUT_RDWR)
    outbox.close(2)
    ours.close()
    theirs.close()


def received(sock, n):
    buffer, got = MessageBuffer(), []
    while len(got) < n:
        got += list(buffer.feed(sock.recv(1 << 20)))
    return got


def test_a_watch_sends_looks_and_now_and_then_a_picture(link):
    sock, outbox = link
    watch = PictureWatch(outbox, preview_s=2 * LOOK_NS / 1e9)
    frames = DrawnScene(640, 480, Fraction(2), 0).frames(0)
    for k, (_, frame) in zip(range(4), frames, strict=False):
        deadline = time.monotonic() + 30
        while not watch.due(k * LOOK_NS):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        watch.offer(k * LOOK_NS, frame)
        assert not watch.due(k * LOOK_NS + 1)
    messages = received(sock, 4)
    watch.close()
    assert {kind for kind, _ in messages} == {PICTURE}
    looks = [unpack_picture(body) for _, body in messages]
    assert [p.tick for p in looks] == [k * LOOK_NS for k in range(4)]
    assert [bool(p.jpeg) for p in looks] == [True, False, True, False]


def test_a_picture_that_cannot_be_looked_at_ends_the_looks_and_says_so(link):
    sock, outbox = link
    watch = PictureWatch(outbox, 0)
    watch.offer(0, None)
    ((_, body),) = received(sock, 1)
    assert b"no looks at the picture" in body
    watch.close()
