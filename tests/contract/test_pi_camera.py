"""Real picamera2 on real libcamera, on its virtual pipeline (see tests/camera/build_libcamera.sh).

Without that build they are skipped, unless EDGECAP_TEST_LIBCAMERA says where it has to be.
What only a camera can show: exposure, gain, line time, the V4L2 encoder, a cable that comes loose.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from edgecap.clock import now_ns
from edgecap.errors import SourceError
from edgecap.source.camera_encoder import NAL_IDR, NAL_PPS, NAL_SLICE, NAL_SPS, nal_units
from edgecap.source.camera_pi import PiCamera
from tests.contract.camera_taker import (
    assert_losses_are_stated,
    decode,
    play,
    record,
    replacement_limit_s,
    rig_ns,
)

PREFIX = Path(os.environ.get("EDGECAP_TEST_LIBCAMERA", "/var/cache/edgecap-libcamera"))
PYTHON = PREFIX / "venv/bin/python"
ROOT = Path(__file__).parents[2]
CHILD = ROOT / "tests/camera/virtual_child.py"
FRAME_NS = 33_333_333


@pytest.fixture(autouse=True)
def virtual_libcamera(monkeypatch):
    if not PYTHON.exists():
        reason = f"no libcamera in {PREFIX}: run tests/camera/build_libcamera.sh {PREFIX}"
        pytest.fail(reason) if "EDGECAP_TEST_LIBCAMERA" in os.environ else pytest.skip(reason)
    packages = next(PREFIX.glob("lib/python3*/site-packages"))
    library = next(PREFIX.glob("lib/*/libcamera.so")).parent
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{packages}")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("LIBCAMERA_PIPELINES_MATCH_LIST", "virtual")
    monkeypatch.setenv("LIBCAMERA_LOG_LEVELS", "*:FATAL")


def camera(*faults, camera_id="Front", width=640, height=480, **settings):
    child = (str(PYTHON), str(CHILD), *map(str, faults))
    return PiCamera("head", camera_id, width, height, child=child, **settings)


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
        assert f.arrival_ns - rig_ns(f) < 500_000_000
        assert f.fit.u_ns < 100_000
        types = [t for t, _ in nal_units(f.data)]
        assert [t for t in types if t in (NAL_SLICE, NAL_IDR)] == [NAL_IDR if f.key else NAL_SLICE]
        assert not f.key or {NAL_SPS, NAL_PPS} <= set(types)
    assert frames[0].key
    assert [k for k, f in enumerate(frames) if f.key] == list(range(0, len(frames), 30))
    assert all(p.shape == (480, 640) for p in decode(frames))


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


@pytest.mark.parametrize("fault", ["--freeze-at", "--die-at"])
def test_a_camera_that_falls_silent_is_replaced(fault, tmp_path):
    """A freeze of the pipeline, and an exception that ends picamera2's event thread: both look alive."""

    async def body(feed, taker):
        await feed.start()
        await taker.until(lambda: taker.events("fault"))
        await taker.until(lambda: taker.events("connected"))
        n = len(taker.frames)
        await taker.until_frames(n + 10)
        return await feed.stop()

    taker, produced = record(camera(fault, 20, "--once", tmp_path / "failed"), body)
    (silence_ns,) = [g.t1_ns - g.t0_ns for g in taker.gaps if g.t1_ns - g.t0_ns > 1_000_000_000]
    assert silence_ns < replacement_limit_s(taker) * 1e9  # from the last frame before to the first one after
    assert_losses_are_stated(taker, produced)
    (event,) = taker.events("fault")
    assert "no frame for 1 s" in event.text
    if fault == "--die-at":
        assert "encoder broke" in event.text


def test_stop_returns_although_picamera2_hangs_in_it(tmp_path):
    """With its event thread dead, stop_recording() waits for ever; the daemon does not."""

    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(18)
        await asyncio.sleep(0.3)  # the thread dies at frame 20, the watchdog would tell at 1 s
        t0 = time.monotonic()
        return await feed.stop(), time.monotonic() - t0

    taker, (produced, took) = record(camera("--die-at", 20), body)
    assert produced == {}
    assert took < 2.6
    assert [g.lost for g in taker.gaps] == [-1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: camera(camera_id=""), "several cameras"),
        (lambda: camera(camera_id="Back"), "no camera is 'Back'"),
        (lambda: camera(encoder="hardware"), "no hardware encoder"),
        (lambda: camera(fps=0), "is not possible"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_line(make, words):
    with pytest.raises(SourceError, match=words) as caught:
        record(make(), lambda f, t: play(f, t, 1))
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_no_camera_connected(monkeypatch):
    monkeypatch.setenv("LIBCAMERA_PIPELINES_MATCH_LIST", "none")
    with pytest.raises(SourceError, match="finds no camera"):
        record(camera(), lambda f, t: play(f, t, 1))


def test_both_cameras_at_once():
    async def body():
        front, side = camera(camera_id="Virtual Front"), camera(camera_id="Side")
        async with front.open() as one, side.open() as two:
            await asyncio.gather(one.start(), two.start())
            await asyncio.sleep(1)
            return await asyncio.gather(one.stop(), two.stop())

    one, two = asyncio.run(body())
    assert one["head"] >= 20
    assert two["head"] >= 20
