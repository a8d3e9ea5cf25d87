"""Runs a camera for a test, keeps what it yields, and sees that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from itertools import pairwise
from pathlib import Path

import av

from edgecap.model import DeviceEvent, FramePacket, Gap


class Taker:
    """Iterates a feed into lists, and lets a test wait for what it needs."""

    def __init__(self, feed):
        self.feed = feed
        self.items = []
        self.late_s = 0.0
        """How much later than asked for this process had its turn, at worst: so busy is the machine."""
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._take())
        self._looks = asyncio.create_task(self._look())

    async def _take(self):
        async for item in self.feed:
            self.items.append(item)
            self._news.set()

    async def _look(self):
        loop = asyncio.get_running_loop()
        while not self._task.done():
            due_s = loop.time() + 0.02
            await asyncio.sleep(0.02)
            self.late_s = max(self.late_s, loop.time() - due_s)

    @property
    def frames(self):
        return [i for i in self.items if isinstance(i, FramePacket)]

    @property
    def gaps(self):
        return [i for i in self.items if isinstance(i, Gap)]

    def events(self, kind):
        return [i for i in self.items if isinstance(i, DeviceEvent) and i.kind == kind]

    async def until(self, condition, timeout_s=60.0):
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_frames(self, n):
        await self.until(lambda: len(self.frames) >= n)

    async def end(self):
        async with asyncio.timeout(60):
            await self._task


def record(camera, body):
    """Open `camera`, run `body(feed, taker)`, close; return the taker and what `body` returned."""

    async def run():
        t0 = time.monotonic()
        async with camera.open() as feed:
            taker = Taker(feed)
            taker.open_s = time.monotonic() - t0
            result = await body(feed, taker)
        await taker.end()
        return taker, result

    before = open_fds()
    try:
        return asyncio.run(run())
    finally:
        assert open_fds() == before
        assert not children()


def open_fds():
    """What our descriptors are; the one that lists them is gone by the time it is read."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(fd.readlink())
    return found


def children():
    return [p for t in Path("/proc/self/task").iterdir() for p in (t / "children").read_text().split()]


def decode_jpeg(data):
    (picture,) = av.CodecContext.create("mjpeg", "r").decode(av.Packet(data))
    return picture.to_ndarray()[: picture.height]


def decode(frames, codec="h264"):
    decoder = av.CodecContext.create(codec, "r")
    pictures = []
    for data in [*(f.data for f in frames), None]:
        pictures += decoder.decode(av.Packet(data) if data else None)
    return [p.to_ndarray()[: p.height] for p in pictures]


async def play(feed, taker, n=20):
    await feed.start()
    await taker.until_frames(n)
    return await feed.stop()


def replacement_limit_s(taker):
    """Two seconds; more only where the machine is so busy that processes start or go on late."""
    return max(2.0, 1.2 + 4 * taker.open_s) + 4 * taker.late_s


def assert_losses_are_stated(taker, produced, codec="h264"):
    """Frames and gaps together are all that the camera counted, and gaps lie between frames."""
    frames, gaps = taker.frames, taker.gaps
    assert len(frames) + sum(g.lost for g in gaps) == produced["head"]
    for a, b in pairwise(frames):
        if b.index != a.index + 1:
            assert Gap("head", rig_ns(a), rig_ns(b), b.index - a.index - 1, "camera") in gaps
    assert len(decode(frames, codec)) == len(frames)


def given(taker, since=0):
    """Frames of the recordings from the item at `since` on: those that came, and those stated as lost."""
    items = taker.items[since:]
    return sum(isinstance(i, FramePacket) for i in items) + sum(i.lost for i in items if isinstance(i, Gap))


def held_up(taker):
    """Whether a busy machine drew frames late; those that would be half a second late are skipped."""
    return max(f.arrival_ns - rig_ns(f) for f in taker.frames) > 300_000_000


def rig_ns(frame):
    elapsed = frame.tick - frame.fit.ref_tick
    return frame.fit.ref_ns + elapsed + round(elapsed * frame.fit.drift_ppm * 1e-6)
