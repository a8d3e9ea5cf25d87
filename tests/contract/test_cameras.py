"""What every camera promises to the daemon."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from edgecap.annexb import NAL_IDR, NAL_PPS, NAL_SLICE, NAL_SPS, nal_units
from edgecap.clock import now_ns
from edgecap.errors import NameRefused, SourceError
from edgecap.model import DeviceEvent
from edgecap.source.camera_file import FileCamera
from edgecap.source.camera_synthetic import DrawnScene, SyntheticCamera, read_index
from tests.contract.camera_taker import assert_losses_are_stated, decode, given, held_up, play, record
from tests.contract.software_cameras import CAMERAS, CLIP, SMALL, clip_offsets_ns


@pytest.mark.parametrize("make", CAMERAS)
def test_frames_are_whole_ordered_counted_and_on_time(make):
    taker, produced = record(make(), lambda f, t: play(f, t, 33))
    (info,) = taker.feed.info
    assert (info.name, info.device, info.kind, info.codec) == ("head", "head", "video", "h264-annexb")
    assert (info.clock, info.tick_ns, info.width, info.height) == ("raw", 1, 160, 96)
    frames = taker.frames
    assert taker.gaps == [] or held_up(taker)
    assert_losses_are_stated(taker, produced)
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
    assert [t - ticks[0] for t in ticks] == [round(f.index * 10**9 / 60) for f in taker.frames]


def test_a_file_keeps_its_own_times_exactly():
    offsets = clip_offsets_ns()
    taker, _ = record(FileCamera("head", CLIP, **SMALL), lambda f, t: play(f, t, 20))
    frames = taker.frames
    assert [f.tick - frames[0].tick for f in frames] == [offsets[f.index] for f in frames]


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
    once = [t * 10**6 for t in [0, 16, 33, 50, 67, 83, 100, 150, 167, 183, 200, 217]]
    later = next(f for f in frames if f.index >= 12)  # a busy machine may skip some
    turns, at = divmod(later.index, 12)
    period = (later.tick - frames[0].tick - once[at]) // turns
    assert 15 * 10**6 <= period - once[-1] <= 18 * 10**6
    assert [f.tick - frames[0].tick for f in frames] == [
        f.index // 12 * period + once[f.index % 12] for f in frames
    ]
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
    assert [f.tick - taker.frames[0].tick for f in taker.frames] == [f.index * 10**7 for f in taker.frames]
    assert taker.feed.info[0].rate_hz_nominal == 100


@pytest.mark.parametrize("make", CAMERAS)
def test_a_second_recording_counts_anew(make):
    async def body(feed, taker):
        first = await play(feed, taker, 5)
        await taker.until(lambda: taker.events("stopped"))
        assert first == {"head": given(taker)}
        n, at = len(taker.frames), len(taker.items)
        second = await play(feed, taker, n + 5)
        assert await feed.stop() == {}  # nothing runs, and the consumer is told all the same
        await taker.until(lambda: len(taker.events("stopped")) == 3)
        return n, at, second

    taker, (n, at, second) = record(make(), body)
    assert second == {"head": given(taker, at)}
    assert taker.frames[n].index == 0
    assert taker.frames[n].key


def test_starting_twice_is_refused():
    async def body(feed, taker):
        await feed.start()
        with pytest.raises(SourceError, match="already running"):
            await feed.start()
        await feed.stop()

    record(SyntheticCamera("head", 160, 96), body)


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
