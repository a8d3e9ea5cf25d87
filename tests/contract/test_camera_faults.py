"""What a camera does when its process hangs, dies or is not listened to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from edgecap.source import camera_feed, camera_queue, camera_standby
from edgecap.source.camera_file import FileCamera
from edgecap.source.camera_synthetic import SyntheticCamera
from tests.contract.camera_taker import assert_losses_are_stated, decode, play, record, replacement_limit_s
from tests.contract.software_cameras import CAMERAS, clip_offsets_ns
from tests.waiting import until


@pytest.mark.usefixtures("watchdog")
@pytest.mark.parametrize("make", CAMERAS)
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["hang", "crash"])
def test_a_lost_process_is_replaced_within_two_seconds(make, number):
    words = "no frame for " if number == signal.SIGSTOP else "ended by SIGKILL"

    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(10)
        # A machine so busy that the watchdog has bitten already has had it replaced before.
        await taker.until(lambda: len(taker.events("connected")) == len(taker.events("fault")))
        before = len(taker.events("fault"))
        pid, t0 = feed.pid, time.monotonic()
        os.kill(pid, number)
        await taker.until(lambda: any(words in e.text for e in taker.events("fault")[before:]))
        told = time.monotonic() - t0
        await taker.until(lambda: len(taker.events("connected")) > before)
        back = time.monotonic() - t0
        assert feed.pid not in (0, pid)
        n = len(taker.frames)
        await taker.until_frames(n + 10)
        return told, back, await feed.stop()

    taker, (told, back, produced) = record(make(), body)
    assert told < 1.5 + taker.late_s
    assert back < replacement_limit_s(taker)
    statistics = taker.feed.statistics()
    assert (statistics.frames, statistics.restarts) == (len(taker.frames), len(taker.events("fault")))
    assert statistics.lost == sum(g.lost for g in taker.gaps) > 0
    assert_losses_are_stated(taker, produced)
    if isinstance(make(), FileCamera):  # the clip went on where it would have been
        offsets = clip_offsets_ns()
        first = taker.frames[0].tick
        assert all(f.tick - first == offsets[f.index] for f in taker.frames)


@pytest.mark.parametrize("make", CAMERAS)
def test_a_short_pause_costs_stated_frames_and_no_restart(make):
    async def body(feed, taker):
        await feed.start()
        await taker.until_frames(10)
        pid = feed.pid
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.75)  # longer than a frame may be late
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
    assert took < 20  # stop waits for 2 s; a busy machine is later to notice
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
    assert time.monotonic() - t0 < 20


@pytest.fixture
def soon_on_standby(monkeypatch):
    monkeypatch.setattr(camera_standby, "AFTER_S", 0.05)


@pytest.mark.usefixtures("soon_on_standby")
def test_a_process_on_standby_takes_over():
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


@pytest.mark.usefixtures("soon_on_standby")
def test_a_process_that_dies_on_standby_is_not_missed():
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
        await feed.start()
        held = []
        for pause_s in (2, 4, 8, 16):  # nobody reads; the outbox holds 64 frames, the sockets some more
            taker._task.cancel()
            pauses, n = feed.statistics().pauses, len(taker.frames)
            await until(lambda p=pauses: feed.statistics().pauses > p)
            await asyncio.sleep(pause_s)
            held.append(len(feed._queue))
            taker._task = asyncio.create_task(taker._take())
            await taker.until_frames(n + held[-1] + 1)
            with contextlib.suppress(TimeoutError):  # a busy machine has not drawn so many frames meanwhile
                await taker.until(lambda: any(g.cause == "queue" for g in taker.gaps), 3 * pause_s)
                break
        return max(held), await feed.stop()

    taker, (held, produced) = record(SyntheticCamera("head", 640, 480, 240.0, 0, bitrate_kbps=50_000), body)
    assert held <= 60
    frames = taker.frames
    assert taker.feed.statistics().pauses > 0
    assert any(g.cause == "queue" for g in taker.gaps)
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
    deadline = time.monotonic() + 60
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except FileNotFoundError:
        return False
