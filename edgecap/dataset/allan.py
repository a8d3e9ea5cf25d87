"""Allan deviation of a sensor at rest: how noisy it is over which time.

Written here rather than taken from `allantools` (LGPL, needs SciPy for what are three lines of NumPy); its
tests' oracle, the data set of NIST SP 1065 § 12.4, is ours too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.errors import CalibrationError

F64 = NDArray[np.float64]

LEAST_S = 60.0
PER_DECADE = 8
WHITE_SLOPE = (-0.65, -0.35)
INSTABILITY_FACTOR = math.sqrt(2 * math.log(2) / math.pi)
"""σ_min = 0.664 · B (IEEE Std 952-1997, annex C, eq. C.15)."""
LONGEST_SHARE = 1 / 9
"""Averaging times beyond a ninth of the recording have too few differences to be read."""
RISES_BY = 1.1


@dataclass(frozen=True, slots=True)
class AllanCurve:
    """Averaging times in s, deviations in the signal's unit, their relative half-widths at 95 %."""

    tau_s: F64
    deviation: F64
    u_relative: F64


@dataclass(frozen=True, slots=True)
class NoiseFigures:
    """White noise in unit/√Hz with its half-width at 95 %, and the bias instability."""

    white: float
    u_white: float
    instability: float
    instability_at_s: float
    reached: bool


def overlapping_allan(values: F64, factors: NDArray[np.int64]) -> F64:
    """Overlapping Allan deviation.

    Args:
        values: (n,) samples at a constant rate.
        factors: (k,) samples per average, each at most (n − 1) / 2.

    Returns:
        (k,) deviations in the unit of `values`.

    Source: NIST SP 1065 (2008), eq. 11: of the integral x, the mean of (x[i+2m] − 2 x[i+m] + x[i])².
    """
    integral = np.concatenate([[0.0], np.cumsum(values - values.mean())])
    found = np.empty(len(factors))
    for k, m in enumerate(factors.tolist()):
        second = integral[2 * m :] - 2 * integral[m:-m] + integral[: -2 * m]
        found[k] = math.sqrt(float(np.mean(second**2)) / 2) / m
    return found


def allan_curve(values: F64, rate_hz: float) -> AllanCurve:
    """The curve of one axis over averaging times from one sample to a ninth of the recording.

    Args:
        values: (n,) readings without a loss, in any unit, which is that of the deviations.
        rate_hz: Of the readings.

    Raises:
        CalibrationError: shorter than a minute.
    """
    n = len(values)
    if n < LEAST_S * rate_hz:
        raise CalibrationError(
            f"{n / rate_hz:.0f} s without a loss are too short for an Allan deviation",
            fix=f"record {LEAST_S:g} s at the least, an hour for the bias instability",
        )
    most = max(1, int(n * LONGEST_SHARE))
    steps = np.logspace(0, math.log10(most), max(2, round(PER_DECADE * math.log10(most)) + 1))
    factors = np.unique(np.rint(steps).astype(np.int64))
    # n/m averages, overlapping: at least as good as that many independent differences
    u_relative = 1.96 / np.sqrt(2 * (n / factors - 1))
    return AllanCurve(factors / rate_hz, overlapping_allan(values, factors), u_relative)


def noise_figures(curve: AllanCurve) -> NoiseFigures:
    """White noise from the part of the curve that falls with the root of time, instability from its minimum.

    Raises:
        CalibrationError: no part falls like that: quantised to nothing, filtered below its rate, or moved.
    """
    if not (curve.deviation > 0).all():
        raise CalibrationError(
            "the reading does not change at all", fix="choose a smaller full scale, or check the sensor"
        )
    tau, sigma = np.log(curve.tau_s), np.log(curve.deviation)
    slopes = np.gradient(sigma, tau)
    white = (slopes > WHITE_SLOPE[0]) & (slopes < WHITE_SLOPE[1])
    if not white.any():
        raise CalibrationError(
            "no part of the Allan curve falls with the square root of time",
            fix="record it at rest, on a firm table, away from machines",
        )
    # at slope −½, σ(τ) = N / √τ: each point there is a measurement of N
    each = curve.deviation[white] * np.sqrt(curve.tau_s[white])
    weights = 1 / curve.u_relative[white] ** 2
    level = float(np.exp(np.average(np.log(each), weights=weights)))
    u = float(max(curve.u_relative[white].min(), np.std(np.log(each)) * 1.96 / math.sqrt(len(each)))) * level
    least = int(np.argmin(curve.deviation))
    after = curve.deviation[least:]
    return NoiseFigures(
        white=level,
        u_white=u,
        instability=float(curve.deviation[least]) / INSTABILITY_FACTOR,
        instability_at_s=float(curve.tau_s[least]),
        reached=bool(after.max() > RISES_BY * after[0]),
    )
