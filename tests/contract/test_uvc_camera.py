"""The V4L2 back-end with FFmpeg's own V4L2 reader, on a device whose ioctls are answered underneath both.

tests/camera/v4l2_device.c says what it does. What only a real device can show is in docs/CAMERA.md.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest

from edgecap.annexb import NAL_IDR, nal_units
from edgecap.clock import now_ns
from edgecap.errors import SourceError
from edgecap.model import PictureReport
from edgecap.source.camera_jpeg import JpegEncoder, standard_tables
from edgecap.source.camera_synthetic import DrawnScene, read_index
from edgecap.source.camera_uvc import UvcCamera
from tests.contract.camera_taker import (
    Taker,
    assert_losses_are_stated,
    decode,
    given,
    play,
    record,
    replacement_limit_s,
    rig_ns,
)

SOURCE = Path(__file__).parents[1] / "camera/v4l2_device.c"
MODES = "MJPG 640x480 30 15;MJPG 320x240 60 30;YUYV 320x240 30"
WIDTH, HEIGHT, FRAMES = 320, 240, 120


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("v4l2") / "v4l2_device.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", path, SOURCE, "-ldl"], check=True)
    return path


@pytest.fixture(scope="module")
def pictures():
    """Numbered frames, as JPEG without the standard's tables, as many cameras give them, and as YUYV."""
    scene = DrawnScene(WIDTH, HEIGHT, Fraction(30), 0)
    encoder = JpegEncoder(WIDTH, HEIGHT, quantiser=3)
    bare, raw = [], []
    for (_, frame), _ in zip(scene.frames(0), range(FRAMES), strict=False):
        bare.append(encoder.encode(frame).data.replace(standard_tables(), b""))
        raw.append(bytes(frame.reformat(format="yuyv422").planes[0]))
    return {"mjpeg": bare, "yuyv": raw}


class Device:
    """What is plugged in: a file, and the environment that makes a device of it."""

    def __init__(self, directory, library, pictures, monkeypatch):
        self.path = directory / "video7"
        self._directory, self._pictures, self._env = directory, pictures, monkeypatch
        monkeypatch.setenv("LD_PRELOAD", str(library))
        monkeypatch.setenv("V4L2_DEVICE", str(self.path))
        monkeypatch.setenv("V4L2_ONCE", str(directory / "failed"))
        self.plug()

    def plug(self, faults="", modes=MODES, given="mjpeg"):
        self.path.touch()
        frames = self._directory / given
        frames.write_bytes(b"".join(struct.pack("<I", len(p)) + p for p in self._pictures[given]))
        for name, value in (("MODES", modes), ("FAULTS", faults), ("FRAMES", str(frames))):
            self._env.setenv(f"V4L2_{name}", value)

    def camera(self, **settings):
        return UvcCamera("head", str(self.path), **{"width": WIDTH, "height": HEIGHT, **settings})


@pytest.fixture
def device(tmp_path, library, pictures, monkeypatch):
    return Device(tmp_path, library, pictures, monkeypatch)


def assert_each_is_the_one_it_says(taker, codec):
    """The device's own number, drawn into the picture, runs on with the index; returns the numbers."""
    numbers = [read_index(p) for p in decode(taker.frames, codec)]
    first = numbers[0] - taker.frames[0].index  # a slow start may cost the very first ones
    assert numbers == [(first + f.index) % FRAMES for f in taker.frames]
    return numbers


def assert_in_rig_time(taker, t0_ns):
    for f in taker.frames:
        assert t0_ns < rig_ns(f) <= f.arrival_ns < now_ns()
    # 500 ppm of half the time between two frames; wider where one had to wait for its turn
    assert statistics.median(f.fit.u_ns for f in taker.frames) < 1_000_000


def test_a_cameras_own_jpeg_is_kept(device, pictures):
    t0_ns = now_ns()
    taker, produced = record(device.camera(codec="mjpeg", preview_s=1.0), lambda f, t: play(f, t, 40))
    video, preview = taker.feed.info
    assert (video.codec, video.clock, video.rate_hz_nominal) == ("mjpeg", "monotonic", 30.0)
    assert (video.firmware, video.serial_number) == ("Test Camera", "usb-test-1")
    assert preview.name == "head-preview"
    assert all(f.key for f in taker.frames)
    numbers = assert_each_is_the_one_it_says(taker, "mjpeg")
    assert [f.data.replace(standard_tables(), b"") for f in taker.frames] == [
        pictures["mjpeg"][n] for n in numbers
    ]
    assert_losses_are_stated(taker, produced, "mjpeg")
    assert_in_rig_time(taker, t0_ns)
    looks = [i for i in taker.items if isinstance(i, PictureReport)]
    assert looks[0].jpeg
    assert looks[0].sharpness > 100


@pytest.mark.parametrize("given", ["mjpeg", "yuyv"])
def test_pictures_are_encoded(device, given):
    device.plug(given=given)
    t0_ns = now_ns()
    taker, produced = record(device.camera(wanted=given, fps=30), lambda f, t: play(f, t, 40))
    assert taker.feed.info[0].codec == "h264-annexb"
    assert_each_is_the_one_it_says(taker, "h264")
    assert all(f.key == (NAL_IDR in {t for t, _ in nal_units(f.data)}) for f in taker.frames)
    assert_losses_are_stated(taker, produced)
    assert_in_rig_time(taker, t0_ns)


def test_raw_pictures_become_jpeg(device):
    device.plug(given="yuyv")
    taker, _ = record(
        device.camera(wanted="yuyv", codec="mjpeg", bitrate_kbps=20_000), lambda f, t: play(f, t, 10)
    )
    assert_each_is_the_one_it_says(taker, "mjpeg")


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_lost_and_damaged_frames_are_gaps(device, codec):
    device.plug("miss=20,21 cut=30 error=33")
    taker, produced = record(device.camera(codec=codec), lambda f, t: play(f, t, 50))
    numbers = assert_each_is_the_one_it_says(taker, codec)
    assert not {20, 21, 30, 33} & set(numbers)
    assert_losses_are_stated(taker, produced, codec)
    # Two; one, if a busy machine made the driver lose the other.
    assert re.match("[12] frames came damaged", taker.events("log")[0].text)


@pytest.mark.usefixtures("watchdog")
def test_a_camera_that_falls_silent_is_replaced(device):
    device.plug("freeze=20")

    async def body(feed, taker):
        await feed.start()
        await taker.until(lambda: taker.events("connected"), 30)
        n = len(taker.frames)
        await taker.until_frames(n + 10)
        return await feed.stop()

    taker, produced = record(device.camera(), body)
    assert "no frame for " in taker.events("fault")[0].text
    assert max(g.t1_ns - g.t0_ns for g in taker.gaps) < replacement_limit_s(taker) * 1e9
    assert_losses_are_stated(taker, produced)


def test_an_unplugged_camera_is_awaited_and_used_again(device):
    device.plug("unplug=20")

    async def body(feed, taker):
        await feed.start()
        await taker.until(lambda: taker.events("fault"), 30)
        assert not device.path.exists()
        device.path.touch()
        await taker.until(lambda: taker.events("connected"), 30)
        n = len(taker.frames)
        await taker.until_frames(n + 10)
        return await feed.stop()

    taker, produced = record(device.camera(), body)
    assert "unplugged" in taker.events("fault")[0].text
    assert_losses_are_stated(taker, produced)


def test_a_second_recording_counts_anew_and_between_them_the_device_is_free(device):
    async def body(feed, taker):
        first = await play(feed, taker, 5)
        await taker.until(lambda: taker.events("stopped"))
        assert first == {"head": given(taker)}
        n, at = len(taker.frames), len(taker.items)
        async with UvcCamera("other", str(device.path), WIDTH, HEIGHT).open() as other:
            await play(other, beside := Taker(other), 3)
            assert len(beside.frames) >= 3
        await beside.end()
        return n, at, await play(feed, taker, n + 5)

    taker, (n, at, second) = record(device.camera(), body)
    assert second == {"head": given(taker, at)}
    assert taker.frames[n].index == 0


def refusal(camera):
    with pytest.raises(SourceError) as caught:
        record(camera, lambda f, t: play(f, t, 1))
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 330}, "has no 330×240; the nearest is width = 320, height = 240"),
        ({"width": 1920, "height": 1080}, "the nearest is width = 640, height = 480"),
        ({"fps": 25}, "has no 25 fps at 320×240; set fps = 30; it has 30, 60"),
        ({"width": 640, "height": 480, "wanted": "yuyv"}, "has no 640×480"),
        ({"fps": 0}, "0 fps is not possible"),
    ],
)
def test_a_mode_that_the_camera_lacks_is_refused_with_the_nearest(device, settings, words):
    assert words in refusal(device.camera(**settings))


def test_a_size_on_the_drivers_grid_is_taken_and_the_nearest_is_named(device):
    device.plug("grid")
    taker, _ = record(device.camera(), lambda f, t: play(f, t, 3))
    assert len(taker.frames) >= 3
    assert "the nearest is width = 336, height = 240" in refusal(device.camera(width=330))


def test_the_camera_is_told_to_keep_its_rate_in_the_dark(device, tmp_path, monkeypatch):
    monkeypatch.setenv("V4L2_SET", str(tmp_path / "set"))
    record(device.camera(), lambda f, t: play(f, t, 1))
    assert (tmp_path / "set").read_text().split() == ["9a0903", "0"]


@pytest.mark.parametrize(
    ("faults", "modes", "words"),
    [
        ("eacces", MODES, "may not be opened by this user; add it to the group video"),
        ("output", MODES, "is not a capture device"),
        ("mplane", MODES, 'is not a capture device; use backend = "picamera2"'),
        ("", "H264 320x240 30", "gives neither MJPEG nor YUYV; it has H264"),
    ],
)
def test_what_is_no_camera_for_us_is_refused(device, faults, modes, words):
    device.plug(faults, modes)
    assert words in refusal(device.camera())


def test_a_device_that_is_not_there_or_none_is_refused(device, tmp_path):
    device.path.unlink()
    assert f"there is no {device.path}" in refusal(device.camera())
    text = tmp_path / "notes.txt"
    text.write_text("not a camera")
    assert "is not a video device" in refusal(UvcCamera("head", str(text)))


def test_a_camera_in_use_names_who_uses_it(device):
    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(1)
        with pytest.raises(SourceError) as caught:
            async with UvcCamera("other", str(device.path), WIDTH, HEIGHT).open():
                pass
        await feed.stop()
        return str(caught.value), feed.pid

    _, (words, pid) = record(device.camera(), body)
    assert "is in use by another process; end " in words
    assert f"(pid {pid})" in words


def test_two_cameras_at_once(library, pictures, tmp_path, monkeypatch):
    """Each process has one device of its own, as each camera has one process."""
    device = Device(tmp_path, library, pictures, monkeypatch)

    async def body():
        async with device.camera().open() as one:
            other = tmp_path / "video8"
            other.touch()
            monkeypatch.setenv("V4L2_DEVICE", str(other))
            async with UvcCamera("side", str(other), WIDTH, HEIGHT, 60, codec="mjpeg").open() as two:
                takers = Taker(one), Taker(two)
                await asyncio.gather(one.start(), two.start())
                await asyncio.gather(*(t.until_frames(20) for t in takers))
                await asyncio.gather(one.stop(), two.stop())
        for taker in takers:
            await taker.end()
        return takers

    one, two = asyncio.run(body())
    assert (one.feed.info[0].rate_hz_nominal, two.feed.info[0].rate_hz_nominal) == (30.0, 60.0)
    assert not one.events("fault") + two.events("fault")
