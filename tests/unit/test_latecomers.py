"""Devices that come late are started once each, however often they say that they are there."""

from __future__ import annotations

import asyncio

from edgecap.daemon.latecomers import Latecomers
from edgecap.daemon.recording import Live, OpenSource
from edgecap.model import StreamInfo


class Device:
    """Counts its starts; the first one does not end before `go`."""

    info = (StreamInfo("imu", "imu", "glove", 100.0),)

    def __init__(self) -> None:
        self.starts = 0
        self.go = asyncio.Event()

    async def start(self) -> None:
        self.starts += 1
        await self.go.wait()


def test_a_device_that_flaps_waits_once() -> None:
    async def run() -> None:
        flapping, other = Device(), Device()
        sources = [OpenSource("a", flapping, Live()), OpenSource("b", other, Live())]  # type: ignore[arg-type]
        late = Latecomers(lambda: True, lambda: sources)
        task = asyncio.create_task(late.run())
        late.add(sources[0])
        async with asyncio.timeout(30):
            while not flapping.starts:
                await asyncio.sleep(0)
            for _ in range(10_000):
                late.add(sources[0])
            late.add(sources[1])
            assert len(late._waiting) == 2
            flapping.go.set()
            other.go.set()
            while not other.starts:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (flapping.starts, other.starts) == (1, 1)

    asyncio.run(run())
