"""What every camera promises to the daemon, and what it does when its process hangs or dies."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import edgecap
from edgecap.clock import now_ns
from edgecap.errors import NameRefused, SourceError
from edgecap.model import DeviceEvent
from edgecap.source import camera_feed, camera_queue, camera_standby, camera_watchdog
from edgecap.source.camera_encoder import NAL_IDR, NAL_PPS, NAL_SLICE, NAL_SPS, nal_units
from edgecap.source.camera_file import FileCamera
from edgecap.source.camera_synthetic import DrawnScene, SyntheticCamera, read_index
from tests.contract.camera_taker import assert_losses_are_stated, decode, play, record, replacement_limit_s

CLIP = Path(edgecap.__file__).parent / "sim/recordings/gpmf_karma.mp4"
SMALL = {"width": 160, "height": 96}
CAMERAS = [
    pytest.param(lambda: SyntheticCamera("head", 160, 96), id="synthetic"),
    pytest.param(lambda: FileCamera("head", CLIP, **SMALL), id="file"),
]


def clip_offsets_ns(path=CLIP):
    """Presentation times by an independent route: decoded frames' own pts."""
    with av.open(str(path)) as container:
        times = [Fraction(f.pts) * f.time_base for f in container.decode(video=0)]
    return [round((t - times[0]) * 10**9) for t in times]


@pytest.mark.parametrize("make", CAMERAS)
def test_frames_are_whole_ordered_counted_and_on_time(make):
    taker, produced = record(make(), lambda f, t: play(f, t, 33))
    (info,) = taker.feed.info
    assert (info.name, info.device, info.kind, info.codec) == ("head", "head", "video", "h264-annexb")
    assert (info.clock, info.tick_ns, info.width, info.height) == ("raw", 1, 160, 96)
    frames = taker.frames
    assert taker.gaps == []
    assert produced == {"head": len(frames)}
    assert [f.index for f in frames] == list(range(len(frames)))
    assert isinstance(taker.items[-1], DeviceEvent)
    assert taker.items[-1].kind == "stopped"
    for f in frames:
        types = [t for t, _ in nal_units(f.data) if t in (NAL_SLICE, NAL_IDR)]
        assert types == [NAL_IDR if f.key else NAL_SLICE]
        assert f.arrival_ns > f.tick  # delivered after it was due, never before
        assert f.fit.locked
        assert f.fit.ref_ns + (f.tick - f.fit.ref_tick) == f.tick
        assert f.fit.u_ns < 1_000_000
    keys = [f for f in frames if f.key]
    assert keys[0] is frames[0]
    assert len(keys) >= 2
    for f in keys:
        assert {NAL_SPS, NAL_PPS} <= {t for t, _ in nal_units(f.data)}
    assert len(decode(frames)) == len(frames)


def test_every_decoded_synthetic_frame_is_the_one_it_says():
    taker, _ = record(SyntheticCamera("head", 320, 240, 60.0, 3), lambda f, t: play(f, t, 40))
    assert [read_index(p) for p in decode(taker.frames)] == [f.index for f in taker.frames]
    ticks = np.array([f.tick for f in taker.frames])
    assert [t - ticks[0] for t in ticks] == [round(k * 10**9 / 60) for k in range(len(ticks))]


def test_a_file_keeps_its_own_times_exactly():
    offsets = clip_offsets_ns()
    taker, _ = record(FileCamera("head", CLIP, **SMALL), lambda f, t: play(f, t, 20))
    frames = taker.frames
    assert [f.tick - frames[0].tick for f in frames] == offsets[: len(frames)]


@pytest.fixture
def short_clip(tmp_path):
    """Twelve numbered frames at uneven times, in a container with a coarse time base."""
    path = tmp_path / "short.mkv"
    write_clip(path, [0, 16, 33, 50, 67, 83, 100, 150, 167, 183, 200, 217])
    return path


def write_clip(path, pts):
    """Numbered frames at these milliseconds."""
    with av.open(str(path), "w") as out:
        track = out.add_stream("libx264", rate=60)
        track.width, track.height, track.pix_fmt = 160, 96, "yuv420p"
        track.time_base = track.codec_context.time_base = Fraction(1, 1000)
        track.options = {"bf": "2"}  # with reordering: packets are not in presentation order
        scene = DrawnScene(160, 96, Fraction(60), 0)
        for (_, frame), at in zip(scene.frames(0), pts, strict=False):
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            out.mux(track.encode(frame))
        out.mux(track.encode(None))


def test_a_clip_with_a_long_pause_is_no_fault(tmp_path):
    write_clip(tmp_path / "pause.mkv", [0, 17, 2000, 2017])
    taker, _ = record(FileCamera("head", tmp_path / "pause.mkv"), lambda f, t: play(f, t, 4))
    assert [f.tick - taker.frames[0].tick for f in taker.frames[:4]] == [
        0,
        17_000_000,
        2 * 10**9,
        2_017_000_000,
    ]
    assert not taker.events("fault")


def test_a_loop_goes_on_one_frame_later(short_clip):
    taker, _ = record(FileCamera("head", short_clip), lambda f, t: play(f, t, 30))
    frames = taker.frames
    period = frames[12].tick - frames[0].tick
    once = [f.tick - frames[0].tick for f in frames[:12]]
    assert once == [t * 10**6 for t in [0, 16, 33, 50, 67, 83, 100, 150, 167, 183, 200, 217]]
    assert 15 * 10**6 <= period - once[-1] <= 18 * 10**6
    assert [f.tick - frames[0].tick - period for f in frames[12:24]] == once
    assert [read_index(p) for p in decode(frames)] == [f.index % 12 for f in frames]


def test_a_file_that_is_not_looped_ends_without_a_fault(short_clip):
    async def body(feed, taker):
        await feed.start()
        await taker.until(lambda: taker.events("log"))
        assert feed.pid
        return await feed.stop()

    taker, produced = record(FileCamera("head", short_clip, loop=False), body)
    assert produced == {"head": 12}
    assert len(taker.frames) == 12
    assert taker.events("fault") == []


def test_fps_replaces_the_clips_times(short_clip):
    taker, _ = record(FileCamera("head", short_clip, fps=100), lambda f, t: play(f, t, 20))
    assert [f.tick - taker.frames[0].tick for f in taker.frames] == [
        k * 10**7 for k in range(len(taker.frames))
    ]
    assert taker.feed.info[0].rate_hz_nominal == 100


@pytest.mark.parametrize("make", CAMERAS)
def test_a_second_recording_counts_anew(make):
    async def body(feed, taker):
        first = await play(feed, taker, 5)
        n = len(taker.frames)
        second = await play(feed, taker, n + 5)
        assert await feed.stop() == {}  # nothing runs, and the consumer is told all the same
        await taker.until(lambda: len(taker.events("stopped")) == 3)
        return n, first, second

    taker, (n, first, second) = record(make(), body)
    assert first == {"head": n}
    assert second == {"head": len(taker.frames) - n}
    assert [f.index for f in taker.frames[n:]] == list(range(len(taker.frames) - n))
    assert taker.frames[n].key


def test_starting_twice_is_refused():
    async def body(feed, taker):
        await feed.start()
        with pytest.raises(SourceError, match="already running"):
            await feed.start()
        await feed.stop()

    record(SyntheticCamera("head", 160, 96), body)


# -- faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", CAMERAS)
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["hang", "crash"])
def test_a_lost_process_is_replaced_within_two_seconds(make, number):
    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(10)
        pid, t0 = feed.pid, time.monotonic()
        os.kill(pid, number)
        await taker.until(lambda: taker.events("fault"))
        told = time.monotonic() - t0
        await taker.until(lambda: taker.events("connected"))
        back = time.monotonic() - t0
        assert feed.pid not in (0, pid)
        n = len(taker.frames)
        await taker.until_frames(n + 10)
        return told, back, await feed.stop()

    taker, (told, back, produced) = record(make(), body)
    assert told < 1.5
    assert back < replacement_limit_s(taker)
    (fault,) = taker.events("fault")
    assert ("no frame for " if number == signal.SIGSTOP else "ended by SIGKILL") in fault.text
    statistics = taker.feed.statistics()
    assert (statistics.frames, statistics.restarts) == (len(taker.frames), 1)
    assert statistics.lost == sum(g.lost for g in taker.gaps) > 0
    assert_losses_are_stated(taker, produced)
    if isinstance(make(), FileCamera):  # the clip went on where it would have been
        offsets = clip_offsets_ns()
        first = taker.frames[0].tick
        assert all(f.tick - first == offsets[f.index] for f in taker.frames)


@pytest.mark.parametrize("make", CAMERAS)
def test_a_short_pause_costs_stated_frames_and_no_restart(make, monkeypatch):
    monkeypatch.setattr(camera_watchdog, "LEAST_S", 1.0)

    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(10)
        pid = feed.pid
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.75)  # longer than a frame may be late, shorter than the watchdog's patience
        os.kill(pid, signal.SIGCONT)
        n = len(taker.frames)
        await taker.until_frames(n + 30)
        assert feed.pid == pid
        return await feed.stop()

    taker, produced = record(make(), body)
    assert sum(g.lost for g in taker.gaps) >= 3
    assert not taker.events("fault")
    assert_losses_are_stated(taker, produced)


def test_stop_returns_in_time_when_the_process_hangs():
    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(3)
        os.kill(feed.pid, signal.SIGSTOP)
        t0 = time.monotonic()
        produced = await feed.stop()
        took = time.monotonic() - t0
        await taker.until(lambda: taker.events("stopped"))
        n = len(taker.frames)
        again = await play(feed, taker, n + 5)  # and the camera is usable again
        return produced, took, again

    taker, (produced, took, again) = record(SyntheticCamera("head", 160, 96), body)
    assert produced == {}
    assert took < 2.6
    assert [g.lost for g in taker.gaps] == [-1]
    assert again["head"] >= 5


def test_start_replaces_a_process_that_hung_while_idle(monkeypatch):
    monkeypatch.setattr(camera_feed, "FIRST_FRAME_LIMIT_S", 1.2)

    async def body(feed, taker):
        os.kill(feed.pid, signal.SIGSTOP)
        return await play(feed, taker, 3)

    taker, produced = record(SyntheticCamera("head", 160, 96), body)
    assert produced == {"head": len(taker.frames)}


def test_a_start_that_is_cancelled_leaves_the_camera_usable():
    async def body(feed, taker):
        os.kill(feed.pid, signal.SIGSTOP)
        starting = asyncio.create_task(feed.start())
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled()
        assert await feed.stop() == {}
        return await play(feed, taker, 3)

    taker, produced = record(SyntheticCamera("head", 160, 96), body)
    assert produced == {"head": len(taker.frames)}
    assert not taker.gaps


def test_closing_a_hung_camera_leaves_nothing():
    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(1)
        os.kill(feed.pid, signal.SIGSTOP)

    t0 = time.monotonic()
    record(SyntheticCamera("head", 160, 96), body)
    assert time.monotonic() - t0 < 3


def test_a_process_on_standby_takes_over(monkeypatch):
    monkeypatch.setattr(camera_standby, "AFTER_S", 0.05)

    async def body(feed, taker):
        await feed.start()
        await until(lambda: feed.standby_pid)
        ready = feed.standby_pid
        await taker.until_frames(5)
        os.kill(feed.pid, signal.SIGKILL)
        await taker.until(lambda: taker.events("connected"))
        assert feed.pid == ready
        n = len(taker.frames)
        await taker.until_frames(n + 5)
        await until(lambda: feed.standby_pid not in (0, ready))  # and another one stands by
        return await feed.stop()

    taker, produced = record(SyntheticCamera("head", 160, 96), body)
    assert_losses_are_stated(taker, produced)


def test_a_process_that_dies_on_standby_is_not_missed(monkeypatch):
    monkeypatch.setattr(camera_standby, "AFTER_S", 0.05)

    async def body(feed, taker):
        await feed.start()
        await until(lambda: feed.standby_pid)
        ready = feed.standby_pid
        os.kill(ready, signal.SIGKILL)
        await until(lambda: not feed.standby_pid)
        await taker.until_frames(5)
        os.kill(feed.pid, signal.SIGKILL)
        await taker.until(lambda: taker.events("connected"))
        assert feed.pid not in (0, ready)
        return await feed.stop()

    taker, _ = record(SyntheticCamera("head", 160, 96), body)
    assert len(taker.events("fault")) == 1


async def until(condition, timeout_s=30.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_crash_while_idle_is_mended():
    async def body(feed, taker):
        pid = feed.pid
        os.kill(pid, signal.SIGKILL)
        await taker.until(lambda: taker.events("connected"))
        assert feed.pid not in (0, pid)
        return await play(feed, taker, 3)

    taker, produced = record(SyntheticCamera("head", 160, 96), body)
    assert produced == {"head": len(taker.frames)}


def test_a_slow_consumer_costs_stated_frames_not_memory(monkeypatch):
    monkeypatch.setattr(camera_queue, "QUEUE_ITEMS", 20)

    async def body(feed, taker):
        taker._task.cancel()
        await feed.start()
        await until(lambda: feed.statistics().pauses)
        await asyncio.sleep(2)  # nobody reads; the outbox holds 64 frames, the sockets some more
        held = len(feed._queue)
        taker._task = asyncio.create_task(taker._take())
        await taker.until_frames(held + 1)
        await taker.until(lambda: any(g.cause == "queue" for g in taker.gaps), 30)
        return held, await feed.stop()

    taker, (held, produced) = record(SyntheticCamera("head", 640, 480, 240.0, 0, bitrate_kbps=50_000), body)
    assert held <= 60
    frames = taker.frames
    assert taker.feed.statistics().pauses > 0
    assert len(frames) + sum(g.lost for g in taker.gaps) == produced["head"]
    assert len(decode(frames)) == len(frames)  # skipped before the encoder: all that came decodes


def test_the_process_dies_with_the_daemon():
    code = (
        "import asyncio, os\n"
        "from edgecap.source.camera_synthetic import SyntheticCamera\n"
        "async def main():\n"
        "    async with SyntheticCamera('head', 160, 96).open() as feed:\n"
        "        await feed.start()\n"
        "        os.kill(feed.pid, 19)\n"
        "        print(feed.pid, flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )

    async def run():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return int(out)

    pid = asyncio.run(run())
    deadline = time.monotonic() + 5
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except FileNotFoundError:
        return False


# -- refusals ----------------------------------------------------------------------------------------


def refused(camera):
    with pytest.raises(SourceError) as caught:
        record(camera, lambda f, t: play(f, t, 1))
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.fix
    return message


def test_files_that_are_no_video_are_refused(tmp_path):
    text = tmp_path / "notes.mp4"
    text.write_text("not a video\n" * 100)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(CLIP.read_bytes()[:2000])
    strange = tmp_path / "strange.mp4"
    strange.write_bytes(CLIP.read_bytes().replace(b"avc1", b"qqq1"))
    sound = tmp_path / "sound.wav"
    sound.write_bytes(
        b"RIFF"
        + struct.pack("<I", 36 + 8000)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
        + b"data"
        + struct.pack("<I", 8000)
        + b"\x80" * 8000
    )
    assert "is not a file" in refused(FileCamera("head", tmp_path / "missing.mp4"))
    assert "is not a file" in refused(FileCamera("head", tmp_path))
    assert "is not a video" in refused(FileCamera("head", text))
    assert "is not a video" in refused(FileCamera("head", cut))
    assert "unknown codec" in refused(FileCamera("head", strange))
    assert "no video track" in refused(FileCamera("head", sound))


def test_bad_settings_are_refused():
    assert "even" in refused(SyntheticCamera("head", 100, 96))
    assert "frames per second" in refused(SyntheticCamera("head", 160, 96, fps=0))
    with pytest.raises(NameRefused):
        SyntheticCamera("Head Camera")


def test_a_file_that_vanishes_is_a_fault_and_a_return_is_noticed(short_clip):
    async def body(feed, taker):
        away = short_clip.with_suffix(".away")
        short_clip.rename(away)
        with pytest.raises(SourceError, match="is not a file"):
            await feed.start()
        await taker.until(lambda: taker.events("fault"))
        away.rename(short_clip)
        await taker.until(lambda: taker.events("connected"))
        return await play(feed, taker, 3)

    taker, produced = record(FileCamera("head", short_clip), body)
    assert produced["head"] >= 3
    assert "is not a file" in taker.events("fault")[0].text


def test_ticks_are_rig_time():
    t0 = now_ns()
    taker, _ = record(SyntheticCamera("head", 160, 96), lambda f, t: play(f, t, 3))
    assert t0 < taker.frames[0].tick < taker.frames[-1].tick < now_ns()
