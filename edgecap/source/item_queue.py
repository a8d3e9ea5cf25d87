"""The bounded queue between a source and the daemon: a slow reader costs samples, and is told which."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from edgecap.model import ClockFit, DeviceEvent, Gap, Item, SampleBlock

MAX_ITEMS = 2048
"""About ten seconds of a device with four streams."""
QUEUE = "queue"


@dataclass(slots=True)
class _Dropped:
    """What one stream lost in a row and was not told yet."""

    t0_ns: int
    t1_ns: int
    lost: int
    """-1 when it cannot be counted."""
    cause: str

    def join(self, t0_ns: int, t1_ns: int, lost: int) -> None:
        """Take in a further loss; it is the queue's then, whatever else it was."""
        self.t0_ns, self.t1_ns = min(self.t0_ns, t0_ns), max(self.t1_ns, t1_ns)
        self.lost = -1 if min(self.lost, lost) < 0 else self.lost + lost
        self.cause = QUEUE


class ItemQueue:
    """FIFO of at most `max_items`; when full, the oldest sample block gives way and becomes a gap.

    The gap (cause `queue`) is yielded in its stream's place: before the stream's next block. Only when no
    block is left do events give way, and are counted; gaps are joined into one: no loss is ever forgotten.
    """

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        self.max_items = max_items
        self.dropped_blocks = 0
        self.dropped_events = 0
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
                elif isinstance(item, Gap) and (known := self._dropped.get(item.stream)) is not None:
                    known.join(item.t0_ns, item.t1_ns, item.lost)
                    continue
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
        """Let go of the oldest block; without one, of the oldest event; without one, of the oldest gap."""
        for kind in (SampleBlock, DeviceEvent, Gap):
            for at, item in enumerate(self._items):
                if isinstance(item, kind) and not (isinstance(item, DeviceEvent) and item.kind == "stopped"):
                    del self._items[at]
                    self._drop(item)
                    return

    def _drop(self, item: Item) -> None:
        if isinstance(item, SampleBlock):
            self.dropped_blocks += 1
            self._note(item)
        elif isinstance(item, Gap):
            self._lose(item.stream, _Dropped(item.t0_ns, item.t1_ns, item.lost, item.cause))
        else:
            self.dropped_events += 1

    def _note(self, block: SampleBlock) -> None:
        tick, fit = self._last.get(block.stream, (int(block.ticks[0]), block.fit))
        t0_ns, t1_ns = fit.rig_ns(tick), block.fit.rig_ns(int(block.ticks[-1]))
        self._lose(block.stream, _Dropped(t0_ns, t1_ns, len(block.ticks), QUEUE))

    def _lose(self, stream: str, dropped: _Dropped) -> None:
        known = self._dropped.setdefault(stream, dropped)
        if known is not dropped:
            known.join(dropped.t0_ns, dropped.t1_ns, dropped.lost)

    def _gap(self, stream: str, before: SampleBlock | None) -> Gap | None:
        """What was dropped of the stream until now, as a gap that ends where `before` begins."""
        dropped = self._dropped.pop(stream, None)
        if dropped is None:
            return None
        t1_ns = dropped.t1_ns if before is None else before.fit.rig_ns(int(before.ticks[0]))
        return Gap(stream, dropped.t0_ns, max(t1_ns, dropped.t0_ns), dropped.lost, dropped.cause)

    def _remaining(self) -> list[Gap]:
        """Gaps after which no block of their stream is queued."""
        gaps = [self._gap(stream, None) for stream in list(self._dropped)]
        return [g for g in gaps if g is not None]
