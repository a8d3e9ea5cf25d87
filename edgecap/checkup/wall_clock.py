"""The kernel's NTP state: whether times of day on this rig can be trusted."""

from __future__ import annotations

from edgecap.checkup.exam import Exam
from edgecap.checkup.finding import Facts, Finding, fail, ok

LOOSE_US = 1_000_000
"""A synchronised clock that may still be wrong by this much tells the day, not the second."""


async def check_wall_clock(exam: Exam) -> list[Finding]:
    """Synchronised, and how well (adjtimex(2)). Alignment never depends on it; times of day do."""
    pair = exam.read_pair()
    error_ms = pair.ntp_max_error_us / 1e3
    facts: Facts = {
        "synced": pair.ntp_synced,
        "max_error_ms": error_ms,
        "freq_ppm": round(pair.ntp_freq_ppm, 3),
    }
    fix = "sudo timedatectl set-ntp true (or install chrony); without a network fit a real-time clock"
    if not pair.ntp_synced:
        text = "the wall clock is not synchronised: sessions will say that their times of day are untrusted"
        return [fail("ntp", text, fix, **facts)]
    if pair.ntp_max_error_us > LOOSE_US:
        return [fail("ntp", f"synchronised, but only to ± {error_ms / 1e3:.1f} s", fix, **facts)]
    return [ok("ntp", f"synchronised to ± {error_ms:.1f} ms", **facts)]
