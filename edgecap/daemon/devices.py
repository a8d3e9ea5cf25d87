"""The rig's devices, each kept open: one that is missing is tried again and never stops the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack

from edgecap.clock import now_ns
from edgecap.daemon.recording import Live, OpenSource
from edgecap.errors import SourceError
from edgecap.model import DeviceEvent, Item
from edgecap.source.protocol import Feed, Source

log = logging.getLogger("edgecap.devices")

STALL_NS = 5_000_000_000
"""While recording, the watchdog is fed only if a block came within this."""
RETRY_FIRST_S = 0.5
RETRY_LAST_S = 30.0
"""Opening a camera starts a process: a rig must not spend its time on one that is not there."""


class Devices:
    """Opens every source and carries what it yields to `take`, for as long as `run` runs.

    Args:
        sources: In the order in which they are configured.
        take: What becomes of an item of a source.
        on_change: Called when a device came, went, or told of a fault.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        take: Callable[[OpenSource, Item], Awaitable[None]],
        on_change: Callable[[], None],
    ) -> None:
        self.missing: dict[str, SourceError] = {}
        """Why a device cannot be opened, by its name."""
        self._order = {source.name: k for k, source in enumerate(sources)}
        self._sources, self._take, self._on_change = sources, take, on_change
        self._open: dict[str, OpenSource] = {}
        self._tried: set[str] = set()
        self._all_tried = asyncio.Event()

    @property
    def open(self) -> list[OpenSource]:
        """Those that are open, in the order of the configuration."""
        return sorted(self._open.values(), key=lambda s: self._order[s.name])

    @property
    def working(self) -> bool:
        """Whether any device can deliver, as far as it is known."""
        return not self._all_tried.is_set() or any(not s.away for s in self._open.values())

    async def run(self) -> None:
        """Keep all devices open until cancelled; then close them."""
        if not self._sources:
            self._all_tried.set()
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(self._keep(source), name=f"device {source.name}")

    async def all_tried(self) -> None:
        """Wait until every device is open or known to be missing."""
        await self._all_tried.wait()

    def advancing(self, now_ns: int) -> bool:
        """Whether blocks came lately from any device, or none can come."""
        # Without a device that works a new daemon would fare no better, and what is wrong has been stated.
        return not self.working or any(now_ns - s.live.last_ns < STALL_NS for s in self._open.values())

    def problems(self, t_ns: int) -> dict[str, str]:
        """What is wrong with each device at rig time `t_ns`, in a line that names the fix."""
        found = {name: str(error) for name, error in self.missing.items()}
        found |= twins(self._open.values())
        found |= {s.name: text for s in self._open.values() if (text := s.problem(t_ns))}
        return {name: found[name] for name in self._order if name in found}

    async def _keep(self, source: Source) -> None:
        wait_s = RETRY_FIRST_S
        while True:
            async with AsyncExitStack() as stack:
                try:
                    feed = await stack.enter_async_context(source.open())
                except SourceError as error:
                    self._note_missing(source.name, error)
                else:
                    wait_s = RETRY_FIRST_S
                    await self._serve(source.name, feed)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_LAST_S)

    async def _serve(self, name: str, feed: Feed) -> None:
        device = self._open[name] = OpenSource(name, feed, Live())
        was_missing = self.missing.pop(name, None) is not None
        # Told even the first time, without a text: a session may have begun before a slow device was open.
        text = "it is there now" if was_missing else ""
        await self._take(device, DeviceEvent(name, "connected", now_ns(), text))
        if (twin := twins(self._open.values()).get(name)) is not None:
            log.error("%s", twin)
        self._note_tried(name)
        try:
            async for item in feed:
                if isinstance(item, DeviceEvent):
                    if device.note(item, now_ns()):
                        self._on_change()
                    elif item.sensor and item.kind == "fault":
                        continue  # an idle device repeats a fault that lasts: it has been told once
                await self._take(device, item)
        finally:
            del self._open[name]

    def _note_missing(self, name: str, error: SourceError) -> None:
        known = self.missing.get(name)
        self.missing[name] = error
        if known is None or str(known) != str(error):
            log.error("%s", error)
        self._note_tried(name)

    def _note_tried(self, name: str) -> None:
        self._tried.add(name)
        if len(self._tried) == len(self._sources):
            self._all_tried.set()
        self._on_change()


def twins(devices: Iterable[OpenSource]) -> dict[str, str]:
    """Boards with the same serial number, by name, with what to do: after a swap they look alike."""
    boards: dict[str, list[str]] = {}
    for device in devices:
        for serial in {i.serial_number for i in device.feed.info if i.clock == "mcu" and i.serial_number}:
            boards.setdefault(serial, []).append(device.name)
    return {
        name: f"{' and '.join(sorted(names))} give the same serial number {serial!r}; "
        "give each board its own, or point each `port` at a different board"
        for serial, names in boards.items()
        if len(names) > 1
        for name in names
    }
