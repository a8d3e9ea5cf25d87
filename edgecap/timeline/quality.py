"""What is known about the quality of one device clock, for status and telemetry."""

from __future__ import annotations

import math

import msgspec

from edgecap.kernels.align_state import I64


class ClockQuality(msgspec.Struct, frozen=True):
    """Live quality of one device clock."""

    locked: bool
    epoch: int
    u_ns: int
    """Hard half-width now."""
    sigma_ns: float
    """One standard deviation of the filter; a guess, unlike `u_ns`."""
    skew_ppm: float
    skew_half_ppm: float
    """Half the range of slopes that the exchanges allow."""
    slew_ns: float
    """Last correction of the mapping against its own prediction."""
    rtt_p50_ns: int
    rtt_p99_ns: int
    delay_p50_ns: int
    """Median delay from device to host beyond the smallest."""
    delay_p99_ns: int
    two_step: bool
    """Whether transmit stamps have come within the last two seconds."""
    frames: int
    pongs: int
    pings: int
    rejected_unknown: int
    rejected_stale: int
    rejected_duplicate: int
    rejected_impossible: int
    """Pongs whose times contradict themselves or the band."""
    suspect_frames: int
    """Frames whose counter contradicts the band; published with their arrival and an open bound."""
    resets: int
    restarts: int
    """Epochs ended by a crossed band: suspend, counter jump, false bounds."""
    widened: int
    """Times the exchanges showed faster drift than is allowed by default."""
    seq_lost: int
    repeated: int
    reordered: int
    old_boot: int


def quantiles_ns(bins: I64, *shares: float) -> list[int]:
    """Quantiles, ns, of a delay histogram (b,) of four bins per octave above 1 µs; 0 when it is empty."""
    reached = bins.cumsum()
    total = int(reached[-1])
    if total == 0:
        return [0] * len(shares)
    at = (int(reached.searchsorted(share * total)) for share in shares)
    return [round(1000.0 * (math.pow(2.0, (k + 0.5) / 4.0) - 1.0)) for k in at]
