"""How long the card lasts: its room divided by the rate at which recording really fills it."""

from __future__ import annotations

from collections import deque

from edgecap.errors import SessionError
from edgecap.spool import SpoolStats

WINDOW_NS = 60_000_000_000
"""The rate is that of the last minute of recording."""
LEAST_NS = 5_000_000_000
"""A rate measured for less than this says little: chunks come once a second, the first ones late."""


class RoomMeter:
    """Measures the rate while a session runs, and keeps the last one for the time between sessions."""

    def __init__(self) -> None:
        self.bytes_s: float | None = None
        """None until enough was recorded."""
        self._grown: deque[tuple[int, int]] = deque()

    def note(self, t_ns: int, stats: SpoolStats, *, recording: bool) -> None:
        """Take in how full the spool is, about once a second."""
        if not recording:
            self._grown.clear()
            return
        grown = self._grown
        grown.append((t_ns, stats.appended_bytes_total))
        while grown[0][0] < t_ns - WINDOW_NS:
            grown.popleft()
        (t0_ns, first), (t1_ns, last) = grown[0], grown[-1]
        if t1_ns - t0_ns >= LEAST_NS and last > first:
            self.bytes_s = (last - first) * 1e9 / (t1_ns - t0_ns)

    def hours_left(self, stats: SpoolStats) -> float | None:
        """Hours of recording that fit above the reserve, should nothing be delivered meanwhile."""
        if self.bytes_s is None:
            return None
        room = max(0, stats.free_bytes - stats.reserve_bytes)
        hours = room / self.bytes_s / 3600
        return round(hours, 1 if hours >= 1 else 3)


def require_room(stats: SpoolStats, directory: str) -> None:
    """Raise `SessionError` where a session would begin in the reserve."""
    if stats.free_bytes <= stats.reserve_bytes:
        raise SessionError(
            f"refused start: {directory} has {stats.free_bytes / 1e6:.0f} MB free, "
            f"{stats.reserve_bytes / 1e6:.0f} MB are kept in reserve",
            fix="let the uplink drain, or use a larger card",
        )
