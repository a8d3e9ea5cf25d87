"""Real picamera2 on real libcamera, on its virtual pipeline (see tests/camera/build_libcamera.sh).

Without that build they are skipped, unless EDGECAP_TEST_LIBCAMERA says where it has to be.
What only a camera can show: exposure, gain, line time, the V4L2 encoder, a cable that comes loose.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import time

import pytest

from edgecap.annexb import NAL_IDR, NAL_PPS, NAL_SLICE, NAL_SPS, nal_units
from edgecap.clock import now_ns
from edgecap.codec.video import decode_metadata
from edgecap.errors import SourceError
from edgecap.model import PictureReport
from edgecap.source import camera_feed
from edgecap.source.camera_exposure import ExposurePolicy
from edgecap.source.camera_jpeg import complete_jpeg
from tests.camera.virtual_camera import use_virtual_libcamera
from tests.camera.virtual_camera import virtual_camera as camera
from tests.contract.camera_taker import (
    Taker,
    assert_losses_are_stated,
    decode,
    decode_jpeg,
    play,
    record,
    replacement_limit_s,
    rig_ns,
)

FRAME_NS = 33_333_333


@pytest.fixture(autouse=True)
def virtual_libcamera(monkeypatch):
    use_virtual_libcamera(monkeypatch)


def test_frames_are_whole_ordered_and_in_rig_time():
    t0 = now_ns()
    taker, produced = record(camera(), lambda f, t: play(f, t, 65))
    t1 = now_ns()
    (info,) = taker.feed.info
    assert (info.clock, info.serial_number, info.firmware) == ("monotonic", "Front", "Virtual Front")
    assert (info.width, info.height, info.rate_hz_nominal, info.tick_ns) == (640, 480, 30.0, 1)
    frames = taker.frames
    assert produced["head"] == frames[-1].index + 1
    assert_losses_are_stated(taker, produced)
    for f in frames:
        assert t0 < rig_ns(f) <= f.arrival_ns < t1
        types = [t for t, _ in nal_units(f.data)]
        assert [t for t in types if t in (NAL_SLICE, NAL_IDR)] == [NAL_IDR if f.key else NAL_SLICE]
        assert not f.key or {NAL_SPS, NAL_PPS} <= set(types)
    # One that had to wait for its turn is later, and less certain.
    assert statistics.median(f.arrival_ns - rig_ns(f) for f in frames) < 500_000_000
    assert statistics.median(f.fit.u_ns for f in frames) < 100_000
    assert frames[0].key
    assert [k for k, f in enumerate(frames) if f.key] == list(range(0, len(frames), 30))
    assert all(p.shape == (480, 640) for p in decode(frames))


TOLD = {
    "ExposureTime": 8123,
    "AnalogueGain": 2.5,
    "DigitalGain": 1.25,
    "ColourGains": [1.5, 2.0],
    "AeLocked": True,
}


def test_what_the_camera_tells_of_each_frame_is_kept_raw():
    """The virtual camera tells a time stamp only: the rest is put in where libcamera's metadata is read."""
    taker, _ = record(camera("--tell", json.dumps(TOLD)), lambda f, t: play(f, t, 5))
    for f in taker.frames:
        assert f.exposure_ns == 8_123_000
        told = decode_metadata(f.metadata)
        assert told == {"AnalogueGain": 2.5, "DigitalGain": 1.25, "ColourGains": [1.5, 2.0]}


def test_a_second_recording_counts_anew():
    async def body(feed, taker):
        first = await play(feed, taker, 5)
        n = len(taker.frames)
        return n, first, await play(feed, taker, n + 5)

    taker, (n, first, _) = record(camera(), body)
    assert first["head"] == taker.frames[n - 1].index + 1
    assert taker.frames[n].index == 0
    assert taker.frames[n].key


def test_missed_frames_are_counted_from_the_timestamps():
    taker, produced = record(camera("--miss-ticks", "20,21,22,40"), lambda f, t: play(f, t, 60))
    # a busy machine may complete others late enough to count as lost as well: software stamps them here
    lost = iter([g.lost for g in taker.gaps])
    assert any(n >= 3 for n in lost)
    assert any(n >= 1 for n in lost)
    assert_losses_are_stated(taker, produced)


async def outage(feed, taker):
    """Record through a fault and its repair."""
    await feed.start()
    await taker.until(lambda: taker.events("fault"))
    await taker.until(lambda: len(taker.events("connected")) == len(taker.events("fault")))
    n = len(taker.frames)
    await taker.until_frames(n + 10)
    return await feed.stop()


def assert_was_replaced(taker, produced):
    """From the last frame before to the first one after; every frame between is in a gap."""
    silence_ns = max(g.t1_ns - g.t0_ns for g in taker.gaps)
    assert silence_ns < replacement_limit_s(taker) * 1e9
    assert taker.feed.statistics().restarts == len(taker.events("fault"))
    assert_losses_are_stated(taker, produced)


@pytest.mark.usefixtures("watchdog")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("--freeze-at", "no frame for "),  # the pipeline falls silent
        (
            "--die-at",
            "encoder broke",
        ),  # an exception ends picamera2's event thread, and everything looks alive
        ("--callback-raises-at", "metadata broke"),
        ("--starve-at", "no frame for "),  # no buffer comes back to the camera
    ],
)
def test_a_camera_that_fails_is_replaced(fault, words, tmp_path):
    failing = camera(fault, 20, "--once", tmp_path / "failed")
    taker, produced = record(failing, outage)
    assert_was_replaced(taker, produced)
    # A machine so busy that it holds processes up may have had it replaced before it could fail.
    assert any(words in e.text for e in taker.events("fault")) or taker.late_s > 0.2


@pytest.mark.usefixtures("watchdog")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_process_that_is_lost_is_replaced(number):
    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(10)
        pid = feed.pid
        os.kill(pid, number)
        await taker.until(lambda: feed.pid not in (0, pid))
        await taker.until(lambda: len(taker.events("connected")) == len(taker.events("fault")) > 0)
        n = len(taker.frames)
        await taker.until_frames(n + 10)
        return await feed.stop()

    taker, produced = record(camera(), body)
    assert_was_replaced(taker, produced)


@pytest.mark.usefixtures("watchdog")
def test_an_unplugged_camera_is_awaited_and_used_again(tmp_path):
    """As near as the virtual pipeline comes: requests are cancelled, then libcamera lists no camera."""
    cable = tmp_path / "unplugged"

    async def body(feed, taker):
        await feed.start()
        await taker.until(lambda: taker.events("fault"), 30)
        tried = set()
        async with asyncio.timeout(30):
            while len(tried) < 2:  # processes that look for it, and end
                tried |= {feed.pid} - {0}
                await asyncio.sleep(0.01)
        n = len(taker.frames)
        cable.unlink()
        await taker.until(lambda: len(taker.events("connected")) == len(taker.events("fault")))
        await taker.until_frames(n + 10)
        return await feed.stop()

    settings = ("--unplug-at", 20, "--unplugged", cable, "--once", tmp_path / "failed")
    taker, produced = record(camera(*settings), body)
    # One outage, one fault, however often it was tried; a busy machine may have made one before.
    assert len(taker.events("fault")) == len(taker.events("connected"))
    assert_losses_are_stated(taker, produced)


def test_two_cameras_at_once_and_neither_disturbs_the_other():
    async def body():
        front, side = camera(), camera(camera_id="Side")
        async with front.open() as one, side.open() as two:
            takers = Taker(one), Taker(two)
            await asyncio.gather(one.start(), two.start())
            await asyncio.gather(*(t.until_frames(5) for t in takers))
            os.kill(one.pid, signal.SIGKILL)
            await takers[0].until(lambda: takers[0].events("connected"), 30)
            n = len(takers[1].frames)
            await takers[1].until_frames(n + 10)
            await asyncio.gather(one.stop(), two.stop())
        for taker in takers:
            await taker.end()
        return takers

    one, two = asyncio.run(body())
    assert one.events("fault")
    assert not two.events("fault")
    assert (one.feed.statistics().restarts, two.feed.statistics().restarts) == (1, 0)


def test_stop_returns_although_picamera2_hangs_in_it(tmp_path):
    """With its event thread dead, stop_recording() waits for ever; the daemon does not."""

    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(20)
        await asyncio.sleep(0.3)  # the thread dies at frame 20
        t0 = time.monotonic()
        return await feed.stop(), time.monotonic() - t0

    taker, (produced, took) = record(camera("--die-at", 20), body)
    assert produced == {}
    assert took < 20  # stop waits for 2 s; a busy machine is later to notice
    assert taker.gaps[-1].lost == -1


def test_stop_returns_although_stop_recording_hangs():
    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(10)
        produced = await feed.stop()
        n = len(taker.frames)
        return produced, await play(feed, taker, n + 5)  # another process, another recording

    taker, (produced, again) = record(camera("--hang-in-stop", 1), body)
    assert (produced, again) == ({}, {})
    assert taker.gaps[-1].lost == -1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: camera(camera_id=""), "several cameras"),
        (lambda: camera(camera_id="Back"), "no camera is 'Back'"),
        (lambda: camera(encoder="hardware"), "no hardware encoder"),
        (lambda: camera(fps=0), "is not possible"),
        (lambda: camera("--held", 1), "is in use by another process"),
        (lambda: camera(exposure=ExposurePolicy(exposure_us=5000)), "no control ExposureTime"),
        (lambda: camera(exposure=ExposurePolicy(exposure_us=50_000)), "does not fit a frame"),
        (lambda: camera(exposure=ExposurePolicy(max_exposure_us=5000)), "needs the tuning file"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_line(make, words):
    with pytest.raises(SourceError, match=words) as caught:
        record(make(), lambda f, t: play(f, t, 1))
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_a_camera_that_hangs_while_it_is_opened_is_given_up(monkeypatch):
    monkeypatch.setattr(camera_feed, "OPEN_LIMIT_S", 1.0)
    with pytest.raises(SourceError, match="did not open within 1 s; check its cable"):
        record(camera("--hang-in-open", 1), lambda f, t: play(f, t, 1))


def test_no_camera_connected(monkeypatch):
    monkeypatch.setenv("LIBCAMERA_PIPELINES_MATCH_LIST", "none")
    with pytest.raises(SourceError, match="finds no camera; .*connect one") as caught:
        record(camera(), lambda f, t: play(f, t, 1))
    assert "\n" not in str(caught.value)


def test_longest_exposure_reaches_libcamera_as_a_tuning(tmp_path, monkeypatch):
    """The virtual camera has no automatic exposure; what shows is the file that libcamera is started with."""
    mode = {"shutter": [100, 10_000, 30_000], "gain": [1.0, 2.0, 4.0]}
    agc = {"rpi.agc": {"channels": [{"exposure_modes": {"normal": mode}}]}}
    for platform in ("vc4", "pisp"):
        tunings = tmp_path / f"libcamera/src/ipa/rpi/{platform}/data"
        tunings.mkdir(parents=True)
        (tunings / "Virtual Front.json").write_text(json.dumps({"version": 2.0, "algorithms": [agc]}))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    seen = tmp_path / "seen"
    limited = camera("--keep-tuning", seen, exposure=ExposurePolicy(max_exposure_us=8000))
    taker, _ = record(limited, lambda f, t: play(f, t, 5))
    assert len(taker.frames) >= 5
    assert not list(tmp_path.glob("*.json"))
    found = json.loads(seen.read_text())["algorithms"][0]["rpi.agc"]["channels"][0]
    assert found["exposure_modes"]["normal"]["shutter"] == [100, 8000, 8000]


def test_motion_jpeg_and_small_pictures():
    taker, produced = record(
        camera(codec="mjpeg", bitrate_kbps=20_000, preview_s=0.5), lambda f, t: play(f, t, 40)
    )
    video, preview = taker.feed.info
    assert (video.codec, preview.name, preview.kind) == ("mjpeg", "head-preview", "preview")
    assert all(f.key and f.data == complete_jpeg(f.data) for f in taker.frames)
    assert {p.shape for p in decode(taker.frames, "mjpeg")} == {(480, 640)}
    assert_losses_are_stated(taker, produced, "mjpeg")
    looks = [i for i in taker.items if isinstance(i, PictureReport)]
    assert len(looks) >= 2
    shown = [p for p in looks if p.jpeg]
    assert shown
    assert decode_jpeg(shown[0].jpeg).shape == (240, 320)
    frames_ns = [rig_ns(f) for f in taker.frames]
    for p in looks:  # each is a look at a frame of the recording, at that frame's time
        assert min(abs(p.t_ns - t) for t in frames_ns) < 100_000
        # colour bars from white to black
        assert 0.3 < p.brightness < 0.7
        assert min(p.clipped, p.crushed) > 0.05
