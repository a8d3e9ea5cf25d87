"""What every source is to the daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from edgecap.model import Item, StreamInfo


class Feed(Protocol):
    """An opened source. Iterate it for as long as it is open; samples flow between `start` and `stop`."""

    @property
    def info(self) -> tuple[StreamInfo, ...]:
        """The streams it produces; final once `open()` has been entered."""

    async def start(self) -> None:
        """Begin to produce samples or frames; counters start anew. Raises `SourceError`."""

    async def stop(self) -> dict[str, int]:
        """Stop producing. On return every item is in the iterator's queue, and behind them, as the last,
        a `DeviceEvent` of kind `stopped` by which the consumer knows that it has seen them all.

        Returns:
            What the device itself says it produced per stream since `start`; empty if it cannot say.
        """

    def __aiter__(self) -> AsyncIterator[Item]:
        """Yield items in order of arrival; ends only when the source is closed.

        Losses, resets and unplugging are yielded as `Gap` and `DeviceEvent` items while the source
        recovers by itself; they never end the iteration.
        """


class Source(Protocol):
    """A configured device that can be opened."""

    name: str

    def open(self) -> AbstractAsyncContextManager[Feed]:
        """Connect; raises `SourceError` naming the device and the fix."""
