"""The bounded queue between a source and the daemon: a slow reader costs samples, and is told which."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np

from edgecap.model import ClockFit, DeviceEvent, Gap, Item, SampleBlock
from edgecap.timeline.fit import to_rig_ns

MAX_ITEMS = 2048
"""About ten seconds of a device with four streams."""


@dataclass(slots=True)
class _Dropped:
    """Samples of one stream that were dropped in a row."""

    t0_ns: int
    t1_ns: int
    lost: int


class ItemQueue:
    """FIFO of at most `max_items`; when full, the oldest sample block gives way and becomes a gap.

    The gap (cause `queue`) is yielded in its stream's place: before the stream's next block. Only when
    nothing but gaps and events is left do those give way.
    """

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        self.max_items = max_items
        self.dropped_blocks = 0
        self.dropped_others = 0
        self._items: deque[Item] = deque()
        self._dropped: dict[str, _Dropped] = {}
        self._last: dict[str, tuple[int, ClockFit]] = {}
        """Tick of the last sample yielded, by stream."""
        self._filled = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        """Append; never waits."""
        if len(self._items) >= self.max_items:
            self._make_room()
        self._items.append(item)
        self._filled.set()

    def close(self) -> None:
        """End the iteration after what is queued."""
        self._closed = True
        self._filled.set()

    async def __aiter__(self) -> AsyncIterator[Item]:
        while True:
            while self._items:
                item = self._items.popleft()
                if isinstance(item, SampleBlock):
                    gap = self._gap(item.stream, item)
                    self._last[item.stream] = (int(item.ticks[-1]), item.fit)
                    if gap is not None:
                        yield gap
                elif isinstance(item, DeviceEvent) and item.kind == "stopped":
                    for gap in self._remaining():
                        yield gap
                yield item
            for gap in self._remaining():
                yield gap
            if self._closed and not self._items:
                return
            if not self._items:
                self._filled.clear()
                await self._filled.wait()

    def _make_room(self) -> None:
        for at, item in enumerate(self._items):
            if isinstance(item, SampleBlock):
                del self._items[at]
                self.dropped_blocks += 1
                self._note(item)
                return
        self._items.popleft()
        self.dropped_others += 1

    def _note(self, block: SampleBlock) -> None:
        known = self._dropped.get(block.stream)
        last_ns = _rig_ns(block.fit, int(block.ticks[-1]))
        if known is not None:
            known.t1_ns = last_ns
            known.lost += len(block.ticks)
            return
        tick, fit = self._last.get(block.stream, (int(block.ticks[0]), block.fit))
        self._dropped[block.stream] = _Dropped(_rig_ns(fit, tick), last_ns, len(block.ticks))

    def _gap(self, stream: str, before: SampleBlock | None) -> Gap | None:
        """What was dropped of the stream until now, as a gap that ends where `before` begins."""
        dropped = self._dropped.pop(stream, None)
        if dropped is None:
            return None
        t1_ns = dropped.t1_ns if before is None else _rig_ns(before.fit, int(before.ticks[0]))
        return Gap(stream, dropped.t0_ns, max(t1_ns, dropped.t0_ns), dropped.lost, "queue")

    def _remaining(self) -> list[Gap]:
        """Gaps after which no block of their stream is queued."""
        gaps = [self._gap(stream, None) for stream in list(self._dropped)]
        return [g for g in gaps if g is not None]


def _rig_ns(fit: ClockFit, tick: int) -> int:
    return int(to_rig_ns(fit, np.array([tick], np.int64))[0])
