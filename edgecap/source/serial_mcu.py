"""A microcontroller on a serial line as a source of samples."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType

from edgecap.source.item_queue import ItemQueue
from edgecap.source.serial_feed import SerialFeed

NO_RATES: Mapping[str, float] = MappingProxyType({})


class SerialSource:
    """A device on a serial port; its streams are named `{name}-{stream}` by its own descriptors.

    Args:
        name: Of the device on this rig.
        port: Path, best one that names the device (/dev/serial/by-id/…).
        baud: For a UART; USB and ptys ignore it.
        rates: Hz by stream, in the board's own words (`imu`); streams that are not named keep theirs.
        max_items: Items that may wait for the daemon.
    """

    def __init__(
        self,
        name: str,
        port: str,
        baud: int = 1_000_000,
        rates: Mapping[str, float] = NO_RATES,
        *,
        max_items: int | None = None,
    ) -> None:
        self.name = name
        self._port, self._baud, self._rates = port, baud, rates
        self._max_items = max_items

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[SerialFeed]:
        """Connect, and wait until the device has said who it is; raises `SourceError`."""
        queue = ItemQueue() if self._max_items is None else ItemQueue(self._max_items)
        feed = SerialFeed(self.name, self._port, self._baud, queue)
        try:
            await feed.connect()
            for stream, rate_hz in self._rates.items():
                await feed.set_rate(f"{self.name}-{stream}", rate_hz)
            yield feed
        finally:
            await feed.close()
