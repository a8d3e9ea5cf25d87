"""Opens an IIO source on a scripted tree for a test, and keeps what it yields."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from edgecap.model import DeviceEvent, Gap, Item, SampleBlock
from edgecap.source.iio import IioFeed, IioSource
from edgecap.source.iio_device import Wanted
from tests.iio_tree import IioTree

MS = 1_000_000
PERIOD = 5 * MS
LATENCY = 200_000


class Taker:
    """Takes everything that a feed yields."""

    def __init__(self, feed: IioFeed) -> None:
        self.feed = feed
        self.items: list[Item] = []
        self._came = asyncio.Event()

    async def take(self) -> None:
        async for item in self.feed:
            self.items.append(item)
            self._came.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._came.clear()
                await self._came.wait()

    @property
    def blocks(self) -> list[SampleBlock]:
        return [i for i in self.items if isinstance(i, SampleBlock)]

    @property
    def gaps(self) -> list[Gap]:
        return [i for i in self.items if isinstance(i, Gap)]

    def events(self, kind: str) -> list[str]:
        return [i.text for i in self.items if isinstance(i, DeviceEvent) and i.kind == kind]

    def samples(self) -> int:
        return sum(len(b.ticks) for b in self.blocks)


def source(tree: IioTree, wanted: Wanted | None = None, **options: Any) -> IioSource:
    wanted = wanted or Wanted(tree.name, 200.0)
    return IioSource("head-imu", wanted, sys_root=tree.sys_root, dev_root=tree.dev_root, **options)


@contextlib.asynccontextmanager
async def opened(tree: IioTree, wanted: Wanted | None = None, **options: Any) -> AsyncIterator[Taker]:
    async with source(tree, wanted, **options).open() as feed, asyncio.TaskGroup() as group:
        taker = Taker(feed)
        task = group.create_task(taker.take())
        yield taker
        task.cancel()


def run(scenario: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 60))
