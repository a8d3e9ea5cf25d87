"""What a camera has yielded and the daemon has not yet taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from edgecap.model import FramePacket, Item

QUEUE_ITEMS, QUEUE_BYTES = 256, 16 << 20
"""Full above this; the link is then not read until half of it has been taken."""


class FrameQueue:
    """Queue of one consumer, measured in items and bytes.

    It takes whatever it is given: who puts items in has to stop when it `is_over` its bound, which a
    camera does by not reading its link.

    Args:
        on_room: Called after an item has been taken and the queue is at most half full.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def is_over(self, share: float) -> bool:
        """Whether more than `share` of the bound is waiting."""
        return len(self._items) > share * QUEUE_ITEMS or self._bytes > share * QUEUE_BYTES

    def put(self, item: Item) -> None:
        self._items.append(item)
        if isinstance(item, FramePacket):
            self._bytes += len(item.data)
        self._news.set()

    def close(self) -> None:
        """Nothing more will come; iteration ends after what is there."""
        self._closed = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[Item]:
        while True:
            while self._items:
                item = self._items.popleft()
                if isinstance(item, FramePacket):
                    self._bytes -= len(item.data)
                if not self.is_over(0.5):
                    self._on_room()
                yield item
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()
