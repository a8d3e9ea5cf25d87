"""What a lag between two streams is: signals, limits, the estimate, and how values become one.

A positive lag says that stream a's time stamps are late: what b stamps t, a stamps t + lag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.model import I64

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

OUTLIER_SIGMAS = 5.0
OUTLIERS_FROM = 8
"""With fewer values, their spread does not tell which one is wrong."""
# fmt: off
STUDENT_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
"""97.5 % quantiles of Student's t for 1 … 30 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Samples of a sensor: `t_ns` (n,) int64, strictly rising; `values` (n, c) float64."""

    t_ns: I64
    values: F64


@dataclass(frozen=True, slots=True)
class Intervals:
    """Means over intervals, as of a camera's rotation between two frames.

    Attributes:
        from_ns, to_ns: (m,) int64, rising, on the stream's clock.
        values: (m, c) float64, mean rate over each interval.
    """

    from_ns: I64
    to_ns: I64
    values: F64


@dataclass(frozen=True, slots=True)
class Limits:
    """What data must be like to be used.

    Attributes:
        max_lag_s: Searched to both sides of zero; None where the two clocks have nothing to do with each
            other: then every lag that leaves half of the shorter recording in common.
        window_s: Length of a window; shorter where the recording is.
        min_r2: Least share of a's variance that b must explain.
        min_motion: Least standard deviation of b in a window, in b's unit (rad/s).
    """

    max_lag_s: float | None = 0.5
    window_s: float = 10.0
    min_r2: float = 0.5
    min_motion: float = 0.01


@dataclass(frozen=True, slots=True)
class Window:
    """The lag in one window; `t_ns` is its middle on a's clock, `sigma_ns` what its own curvature says."""

    t_ns: int
    lag_ns: int
    sigma_ns: float
    r2: float
    residual: float


@dataclass(frozen=True, slots=True)
class LagEstimate:
    """A lag and how far to trust it.

    Attributes:
        lag_ns: How late a's time stamps are.
        u_ns: Half-width at 95 %, from the spread between windows or events.
        sd_ns: Standard deviation of a single window or event.
        n, n_rejected: Windows or events used, and those that were not fit for use.
        r2: Median share of a's variance explained; None for events.
        residual: Root mean square of what is left, in a's unit; for events their deviation in ns.
        drift_ppm, u_drift_ppm: Trend of the lag over the recording and its half-width at 95 %; None with
            fewer than four windows.
        windows: Each one used.
    """

    lag_ns: int
    u_ns: int
    sd_ns: int
    n: int
    n_rejected: int
    r2: float | None
    residual: float
    drift_ppm: float | None = None
    u_drift_ppm: float | None = None
    windows: tuple[Window, ...] = ()


def combine(values: Sequence[float] | F64, sigmas: Sequence[float] | F64) -> tuple[float, float, float, Bool]:
    """Mean, half-width at 95 %, deviation of one value, and which values were used, (n,) bool.

    `values` and `sigmas`, their standard deviations, are (n,), in one unit. Values whose spread exceeds their
    own sigmas share the excess (random effects); the half-width is Student's, from the weighted spread, and
    never below what the sigmas alone imply.

    Source: DerSimonian and Laird 1986, eq. 8 (excess variance); Hartung and Knapp 2001 (half-width).
    """
    x, s = np.asarray(values, np.float64), np.asarray(sigmas, np.float64)
    keep = np.ones(len(x), np.bool_)
    if len(x) >= OUTLIERS_FROM:
        off = np.abs(x - np.median(x))
        keep = off <= np.maximum(OUTLIER_SIGMAS * 1.4826 * np.median(off), OUTLIER_SIGMAS * s)
    x, s = x[keep], np.maximum(s[keep], 1e-3)
    n = len(x)
    weights = 1.0 / s**2
    mean = float(np.average(x, weights=weights))
    excess = float((weights * (x - mean) ** 2).sum()) - (n - 1)
    between = max(0.0, excess / float(weights.sum() - (weights**2).sum() / weights.sum())) if n > 1 else 0.0
    weights = 1.0 / (s**2 + between)
    mean = float(np.average(x, weights=weights))
    least = 1.0 / float(weights.sum())
    spread = float((weights * (x - mean) ** 2).sum()) / ((n - 1) * float(weights.sum())) if n > 1 else least
    u = student_95(n - 1) * math.sqrt(max(spread, least))
    return mean, u, float(x.std(ddof=1)) if n > 1 else math.sqrt(least), keep


def student_95(degrees: int) -> float:
    """97.5 % quantile of Student's t."""
    if degrees < 1:
        return math.inf
    return STUDENT_95[degrees - 1] if degrees <= len(STUDENT_95) else 1.960 + 2.45 / degrees
