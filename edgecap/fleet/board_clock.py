"""How well the clocks of a rig's boards are known, from its status."""

from __future__ import annotations

from typing import Any

import msgspec

from edgecap.status import RigStatus


class BoardClock(msgspec.Struct, frozen=True):
    """The part of `edgecap.timeline.quality.ClockQuality` an operator needs; rigs may be older or newer."""

    locked: bool = False
    u_ns: int = 0
    """Hard half-width of the time bound."""
    sigma_ns: float = 0.0
    skew_ppm: float = 0.0
    slew_ns: float = 0.0
    """Last correction of the mapping against its own prediction."""
    rtt_p50_ns: int = 0
    rtt_p99_ns: int = 0
    delay_p50_ns: int = 0
    """Median delay from board to host beyond the smallest."""
    delay_p99_ns: int = 0
    rejected_unknown: int = 0
    rejected_stale: int = 0
    rejected_duplicate: int = 0
    rejected_impossible: int = 0
    restarts: int = 0
    """Epochs ended by a crossed band."""
    resets: int = 0
    seq_lost: int = 0

    @property
    def rejected(self) -> int:
        """Answers to pings that were not taken."""
        return (
            self.rejected_unknown + self.rejected_stale + self.rejected_duplicate + self.rejected_impossible
        )


def board_clocks(status: RigStatus) -> dict[str, BoardClock]:
    """By device; those without a clock of their own, and what cannot be understood, are left out."""
    found: dict[str, BoardClock] = {}
    for name, statistics in status.devices.items():
        clock: Any = statistics.get("clock")
        if isinstance(clock, dict) and "u_ns" in clock:
            try:
                found[name] = msgspec.convert(clock, BoardClock)
            except msgspec.ValidationError:
                continue  # of another version, or garbage
    return found
