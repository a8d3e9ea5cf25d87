"""Devices that begin to produce within a running session: they were away at its start, or missed it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from edgecap.daemon.recording import OpenSource, start_source, stop_sources

log = logging.getLogger("edgecap.latecomers")

START_AGAIN_S = 1.0


class Latecomers:
    """Starts, one after the other, what could not be started with the others.

    Args:
        records: Whether a session runs.
        opened: The devices that are open now.
    """

    def __init__(self, records: Callable[[], bool], opened: Callable[[], Sequence[OpenSource]]) -> None:
        self._records, self._opened = records, opened
        self._waiting: dict[str, OpenSource] = {}
        """By name, so that a device that comes and goes waits only once."""
        self._news = asyncio.Event()

    def add(self, source: OpenSource) -> None:
        """Start a device that is there now."""
        self._waiting[source.name] = source
        self._news.set()

    def add_later(self, source: OpenSource) -> None:
        """Try a sensor again that is there but did not take its start: its line may have been busy."""
        if not (source.started or source.away or source.is_camera):
            asyncio.get_running_loop().call_later(START_AGAIN_S, self.add, source)

    async def run(self) -> None:
        """Start what waits, until cancelled."""
        while True:
            await self._news.wait()
            source = self._waiting.pop(next(iter(self._waiting)))
            if not self._waiting:
                self._news.clear()
            is_open = any(source is s for s in self._opened())
            if not self._records() or source.started or not is_open:
                continue
            problem = await start_source(source)
            if problem is not None:
                log.warning("%s", problem)
                self.add_later(source)
            elif not self._records():  # the session ended meanwhile
                await stop_sources([source])
