"""A deadline that every sign of life moves on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watchdog:
    """Calls `on_expiry(limit_s)` when nothing re-arms it in time, unless the silence is our own doing.

    Arming costs a clock reading; the timer itself is moved only when it runs out.

    Args:
        is_excused: Whether the silence is explained by our side (a full queue, a loop that was busy).
        on_expiry: What to do about a silence that is not.
    """

    def __init__(self, is_excused: Callable[[], bool], on_expiry: Callable[[float], None]) -> None:
        self._is_excused, self._on_expiry = is_excused, on_expiry
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_s = 0.0
        self._limit_s = 0.0

    def arm(self, limit_s: float) -> None:
        """Allow `limit_s` from now."""
        loop = asyncio.get_running_loop()
        self._limit_s, self._deadline_s = limit_s, loop.time() + limit_s
        if self._timer is not None and self._timer.when() > self._deadline_s:
            self.disarm()
        if self._timer is None:
            self._timer = loop.call_at(self._deadline_s, self._check)

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._is_excused():
            self._deadline_s = loop.time() + self._limit_s
        if loop.time() < self._deadline_s:
            self._timer = loop.call_at(self._deadline_s, self._check)
        else:
            self._on_expiry(self._limit_s)
