"""Rig time to UTC, through the clock pairs that the rig recorded once a second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from edgecap.errors import ExportError
from edgecap.model import I64, ClockPair

STEP_PPM = 1000.0
"""Between two pairs REALTIME may deviate from RAW by this much; the kernel slews by 500 ppm at most."""
DRIFT_PPM = 50.0
"""What a rig's oscillator may be off by; widens the bound outside the recorded pairs."""
MIN_RATE_SPAN_NS = 10_000_000_000
"""A rate is taken from pairs at least this far apart; below it the kernel's own NTP frequency is used."""
UNKNOWN_NS = -1


class UtcMap:
    """One continuous mapping from rig time (RAW) to UTC for a whole session.

    The pairs are split where the wall clock was stepped (or slewed faster than `STEP_PPM`). One run of
    pairs is used: the longest that NTP vouches for, or the last one if it vouches for none; every other
    time is extrapolated from it at the rate RAW had against UTC there. So rig order stays UTC order, and
    a step while recording never tears a session apart.

    Attributes:
        trusted: Whether NTP vouches for the run in use.
        steps: How often the wall clock was stepped while recording.
        synced_share: Share of all pairs that NTP vouches for.
    """

    def __init__(self, pairs: Sequence[ClockPair]) -> None:
        if not pairs:
            raise ExportError(
                "the session has no clock pair, so its rig time cannot be put into UTC",
                fix="look at its records with `edgecap sessions show`",
            )
        unique = {pair.raw_ns: pair for pair in pairs}
        ordered = [unique[raw] for raw in sorted(unique)]
        runs = _runs(ordered)
        self.steps = len(runs) - 1
        self.synced_share = sum(p.ntp_synced for p in ordered) / len(ordered)
        synced = [run for whole in runs for run in _synced_runs(whole)]
        self.trusted = bool(synced)
        run = max(synced, key=lambda r: (r[-1].raw_ns - r[0].raw_ns, r[-1].raw_ns)) if synced else runs[-1]
        self._raw0 = run[0].raw_ns
        self._offset0 = run[0].realtime_ns - run[0].raw_ns
        self._x = np.array([p.raw_ns - self._raw0 for p in run], np.float64)
        # Differences of offsets are small, so float64 holds them exactly where UTC itself would not fit.
        self._y = np.array([p.realtime_ns - p.raw_ns - self._offset0 for p in run], np.float64)
        self._width = np.array([p.width_ns + p.ntp_max_error_us * 1000 for p in run], np.float64)
        self._rate = _rate(run)

    def to_utc_ns(self, t_ns: I64) -> I64:
        """Map rig times (n,) to UTC nanoseconds (n,); exact to a nanosecond at the pairs."""
        x = (t_ns - self._raw0).astype(np.float64)
        y = np.interp(x, self._x, self._y)
        outside = np.minimum(x - self._x[0], 0.0) + np.maximum(x - self._x[-1], 0.0)
        utc_ns: I64 = t_ns + self._offset0 + np.rint(y + outside * self._rate).astype(np.int64)
        return utc_ns

    def utc_ns(self, t_ns: int) -> int:
        """Map one rig time."""
        return int(self.to_utc_ns(np.array([t_ns], np.int64))[0])

    def u_ns(self, t_ns: I64) -> I64:
        """Half-width of UTC at rig times (n,): pair width, NTP's maximum error, drift beyond the run.

        `UNKNOWN_NS` everywhere when no NTP vouched for the wall clock.
        """
        if not self.trusted:
            return np.full(len(t_ns), UNKNOWN_NS, np.int64)
        x = (t_ns - self._raw0).astype(np.float64)
        beyond = np.maximum(self._x[0] - x, 0.0) + np.maximum(x - self._x[-1], 0.0)
        width = np.interp(x, self._x, self._width) + beyond * DRIFT_PPM * 1e-6
        u_ns: I64 = np.ceil(width).astype(np.int64)
        return u_ns


def _runs(pairs: list[ClockPair]) -> list[list[ClockPair]]:
    """Split where REALTIME did not advance as RAW did."""
    runs = [[pairs[0]]]
    for before, after in pairwise(pairs):
        raw = after.raw_ns - before.raw_ns
        deviation = abs(after.realtime_ns - before.realtime_ns - raw)
        if deviation > raw * STEP_PPM * 1e-6 + before.width_ns + after.width_ns:
            runs.append([])
        runs[-1].append(after)
    return runs


def _synced_runs(run: list[ClockPair]) -> list[list[ClockPair]]:
    """The stretches of a run in which NTP vouches for the wall clock."""
    found: list[list[ClockPair]] = []
    open_ = False
    for pair in run:
        if pair.ntp_synced and open_:
            found[-1].append(pair)
        elif pair.ntp_synced:
            found.append([pair])
        open_ = pair.ntp_synced
    return found


def _rate(run: list[ClockPair]) -> float:
    """Nanoseconds that UTC gains on RAW per nanosecond, for extrapolation."""
    span = run[-1].raw_ns - run[0].raw_ns
    if span >= MIN_RATE_SPAN_NS:
        gained = (run[-1].realtime_ns - run[0].realtime_ns) - span
        return gained / span
    return run[-1].ntp_freq_ppm * 1e-6
