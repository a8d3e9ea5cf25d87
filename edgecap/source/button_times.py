"""Rig times of one board's button edges, as far apart as its own counter says."""

from __future__ import annotations

NEAR_US = 5_000_000
"""Edges at most this far apart are placed by their distance on the board's counter: longer than a hold."""
_TURN_NS = 60_000_000_000
"""Between edges that arrive further apart than this, the counter may have wrapped."""


class ButtonTimes:
    """Places each edge by the one before, within one boot of the board.

    What a press is follows from the time between edges. While the clock of a board begins anew (it has just
    come, or come back), each answer may move what is known of its offset by as much as the line and a busy
    host took: by more than a press lasts, and its release would come before it.
    """

    def __init__(self) -> None:
        self._t_us = self._t_ns = self._arrival_ns = 0
        self._down: bool | None = None

    def place(self, down: bool, t_us: int, t_ns: int, arrival_ns: int) -> int | None:
        """Rig time of an edge; None if it was told before: boards tell each more than once.

        Args:
            down: Of the button.
            t_us: Counter of the board at the edge; 32 bits, wraps.
            t_ns: Its rig time by the clock as it is known now.
            arrival_ns: When it was told.
        """
        since_us = (t_us - self._t_us) & 0xFFFFFFFF
        if self._down is not None and since_us < NEAR_US and arrival_ns - self._arrival_ns < _TURN_NS:
            if since_us == 0 and down == self._down:
                return None
            t_ns = self._t_ns + 1000 * since_us
        self._t_us, self._t_ns, self._arrival_ns, self._down = t_us, t_ns, arrival_ns, down
        return t_ns
