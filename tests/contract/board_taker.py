"""A board behind a pty and everything that its feed yields."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecap.model import DeviceEvent, Gap, Item, SampleBlock
from edgecap.sim.firmware import (
    FirmwareStream,
    HostFirmware,
    grasp_force,
    motion_imu,
)
from edgecap.source.serial_feed import SerialFeed
from edgecap.source.serial_mcu import SerialSource

TWO = (motion_imu(), grasp_force())


@dataclass
class Taker:
    """Takes everything that a feed yields."""

    feed: SerialFeed
    device: HostFirmware
    items: list[Item] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self) -> None:
        async for item in self.feed:
            self.items.append(item)
            self.came.set()

    async def until(self, condition: Callable[[], Any], limit_s: float = 60.0) -> None:
        """Wait, item by item, until the condition holds."""
        async with asyncio.timeout(limit_s):
            while not condition():
                self.came.clear()
                await self.came.wait()

    def blocks(self, stream: str) -> list[SampleBlock]:
        return [i for i in self.items if isinstance(i, SampleBlock) and i.stream == stream]

    def received(self, stream: str) -> int:
        return sum(len(b.ticks) for b in self.blocks(stream))

    def gaps(self, stream: str = "") -> list[Gap]:
        return [i for i in self.items if isinstance(i, Gap) and i.stream.endswith(stream)]

    def planned_gaps(self, stream: str = "") -> list[Gap]:
        """Without those of a board or reader that a busy machine held up for longer than its buffer lasts."""
        return [g for g in self.gaps(stream) if g.cause != "overrun"]

    def events(self, kind: str) -> list[DeviceEvent]:
        return [i for i in self.items if isinstance(i, DeviceEvent) and i.kind == kind]

    async def until_samples(self, n: int) -> None:
        """Until each stream has had `n` more samples."""
        wanted = {i.name: self.received(i.name) + n for i in self.feed.info}
        await self.until(lambda: all(self.received(s) >= k for s, k in wanted.items()))

    async def stop(self) -> dict[str, int]:
        """Stop and take all that was queued."""
        sent = await self.feed.stop()
        await self.until(lambda: self.events("stopped"))
        # An idle board goes on telling of its sensors.
        after = self.items[self.items.index(self.events("stopped")[-1]) + 1 :]
        assert all(isinstance(i, DeviceEvent) for i in after), after
        return sent

    def assert_accounted(self, sent: dict[str, int]) -> None:
        """Every sample that the device produced was received or is in a gap, in order, without overlap."""
        assert set(sent) == {i.name for i in self.feed.info}
        for stream, total in sent.items():
            position, t_ns = 0, 0
            for item in self.items:
                if isinstance(item, Gap) and item.stream == stream:
                    assert item.lost >= 0
                    assert t_ns <= item.t0_ns <= item.t1_ns
                    position, t_ns = position + item.lost, item.t0_ns
                elif isinstance(item, SampleBlock) and item.stream == stream:
                    assert item.index == position
                    assert len(item.ticks) == len(item.values) == item.frame_n.sum() > 0
                    assert len(item.frame_n) == len(item.arrival_ns)
                    assert (np.diff(item.ticks) > 0).all()
                    position += len(item.ticks)
            assert position == total


@contextlib.asynccontextmanager
async def recording(
    tmp_path: Path, *streams: FirmwareStream, max_items: int | None = None, **options: Any
) -> AsyncIterator[Taker]:
    async with HostFirmware(streams or TWO, link=tmp_path / "mcu", **options) as device:
        source = SerialSource("hand", device.port, max_items=max_items)
        async with source.open() as feed:
            taker = Taker(feed, device)
            task = asyncio.create_task(taker.take())
            yield taker
        await asyncio.wait_for(task, 60)


def joined(taker: Taker, stream: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index, tick and values of all samples."""
    blocks = taker.blocks(stream)
    index = np.concatenate([b.index + np.arange(len(b.ticks)) for b in blocks])
    return index, np.concatenate([b.ticks for b in blocks]), np.concatenate([b.values for b in blocks])
