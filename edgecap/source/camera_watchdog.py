"""How long a camera may be silent, and a deadline that every sign of life moves on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LEAST_S, MOST_S = 0.5, 1.0
FRAMES = 15
"""A camera that misses so many frames has stopped, within the two limits above."""
PAUSES = 2.0
"""A pause this many times the longest recent one is nothing unusual on this machine."""
REMEMBERED_S = 60.0


class Patience:
    """How long to wait for the next frame before its camera counts as silent.

    As short as the frame rate allows, so that a replacement is there within 2 s of the last frame; longer on
    a machine that is so busy that frames come late, where a needless replacement would cost even more.
    """

    def __init__(self, rate_hz: float) -> None:
        self._most_s = max(MOST_S, 2.5 / rate_hz)
        self._least_s = min(max(LEAST_S, FRAMES / rate_hz, 2.5 / rate_hz), self._most_s)
        self._longest_s = 0.0
        self._last_s: float | None = None

    def see(self, t_s: float) -> float:
        """A frame at time `t_s`; returns how long the next one may take."""
        if self._last_s is not None:
            pause_s = t_s - self._last_s
            self._longest_s = max(pause_s, self._longest_s * (1 - pause_s / REMEMBERED_S))
        self._last_s = t_s
        return min(max(self._least_s, PAUSES * self._longest_s), self._most_s)

    def begin_anew(self) -> None:
        """Another process follows: the pause until its first frame does not count."""
        self._last_s = None

    def lose(self) -> None:
        """It was lost: if that was because the machine is too busy, the next one must be given more time."""
        self._longest_s = self._most_s


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
