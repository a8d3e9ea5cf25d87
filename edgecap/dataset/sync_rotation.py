"""Lag between two streams that saw the same rotation: camera and gyroscope, or two gyroscopes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.sync import (
    F64,
    Bool,
    Intervals,
    LagEstimate,
    Limits,
    Signal,
    Window,
    combine,
    student_95,
)
from edgecap.errors import CalibrationError
from edgecap.kernels.lag import integrate_runs, means_between, score_lags
from edgecap.model import I64

NS = 1e-9
MIN_SECONDS = 6.0
"""Less common time than this is refused."""
WINDOWS_WANTED = 6
"""Short recordings are cut into this many windows."""
MIN_WINDOWS = 3
"""A spread needs this many."""
MIN_COVERED = 0.8
"""Share of a window's intervals that the other stream must cover."""
GAP_PERIODS = 5.0
"""Samples further apart than this many periods are a gap."""
SAMPLES_PER_BIN = 4
"""Two gyroscopes are compared by means over bins of at least so many samples of the slower one, so that the
line between samples stands for the motion."""
MIN_BIN_S, COARSE_BIN_S = 0.01, 0.05
FAR_BIN_S, FAR_BINS = 0.2, 3000
"""Where any lag is possible, every pair of instants is: long recordings are searched in bins this coarse."""
FINE_STEPS = 16
"""Each window is searched this many steps to both sides of the common lag."""
AMBIGUOUS = 1.25
"""Another lag is as good as the best one if it leaves less than this many times as much unexplained."""


@dataclass(frozen=True, slots=True)
class _Line:
    """A signal as the kernels want it, in seconds from `origin_ns`."""

    origin_ns: int
    t_s: F64
    values: F64
    integral: F64
    run: NDArray[np.int32]

    def means(self, from_s: F64, to_s: F64) -> tuple[F64, Bool]:
        out = np.empty((len(from_s), self.values.shape[1]))
        valid = np.empty(len(from_s), np.bool_)
        means_between(self.t_s, self.values, self.integral, self.run, from_s, to_s, 0.0, out, valid)
        return out, valid


@dataclass(frozen=True, slots=True)
class _Rates:
    """Means over intervals in seconds from a's origin."""

    from_s: F64
    to_s: F64
    values: F64

    def between(self, start_s: float, end_s: float) -> _Rates:
        k = slice(int(np.searchsorted(self.from_s, start_s)), int(np.searchsorted(self.from_s, end_s)))
        return _Rates(self.from_s[k], self.to_s[k], self.values[k])


def lag_of_rotation(a: Intervals, b: Signal, limits: Limits | None = None) -> LagEstimate:
    """Lag of a camera's rotation behind a gyroscope's; b's mean over each of a's intervals is compared.

    Any linear map of b's axes may explain a's, so that mounting, scale and bias need not be known.

    Raises:
        CalibrationError: too short, no motion, low R², two lags that are equally good, or the best one at
            the edge of the search.
    """
    limits = limits or Limits()
    if len(a.from_ns) < 2:
        raise CalibrationError(f"the camera's rotation is known for {len(a.from_ns)} intervals only")
    line = _line(b)
    origin_ns = int(a.from_ns[0])
    values = np.ascontiguousarray(a.values, np.float64)
    rates = _Rates(_seconds(a.from_ns, origin_ns), _seconds(a.to_ns, origin_ns), values)
    return _estimate(rates, rates, origin_ns, line, limits)


def lag_of_gyros(a: Signal, b: Signal, limits: Limits | None = None) -> LagEstimate:
    """Lag of one gyroscope behind another on the same body.

    Raises:
        CalibrationError: as `lag_of_rotation`.
    """
    limits = limits or Limits()
    line_a, line_b = _line(a), _line(b)
    period_s = max(_period_s(line_a.t_s), _period_s(line_b.t_s))
    fine_s = max(SAMPLES_PER_BIN * period_s, MIN_BIN_S)
    return _estimate(
        _bins(line_a, max(fine_s, COARSE_BIN_S)), _bins(line_a, fine_s), line_a.origin_ns, line_b, limits
    )


def orientation_rates(t_ns: I64, quaternions: F64) -> Intervals:
    """Body rates between successive orientations.

    Args:
        t_ns: (n,) int64, times of the orientations.
        quaternions: (n, 4) float64, w x y z, body to world.

    Returns:
        Mean rates over the n − 1 intervals, rad/s, in body axes.
    """
    a, b = quaternions[:-1], quaternions[1:]
    scalar = (a * b).sum(axis=1)
    vector = a[:, :1] * b[:, 1:] - b[:, :1] * a[:, 1:] - np.cross(a[:, 1:], b[:, 1:])
    # q and −q are one orientation: take the shorter way
    vector = np.where(scalar[:, None] < 0, -vector, vector)
    norm = np.linalg.norm(vector, axis=1)
    angle = 2 * np.arctan2(norm, np.abs(scalar))
    axis = vector / np.maximum(norm, 1e-300)[:, None]
    seconds = np.diff(t_ns) * NS
    return Intervals(t_ns[:-1], t_ns[1:], axis * (angle / seconds)[:, None])


def _line(signal: Signal) -> _Line:
    t_ns = np.asarray(signal.t_ns, np.int64)
    values = np.ascontiguousarray(signal.values, np.float64)
    if len(t_ns) < 2:
        raise CalibrationError(f"a stream holds {len(t_ns)} samples only")
    if not (np.diff(t_ns) > 0).all():
        raise CalibrationError("time stamps do not rise", fix="sort the samples and drop duplicates")
    if not np.isfinite(values).all():
        raise CalibrationError("a stream holds values that are not numbers", fix="drop those samples")
    t_s = _seconds(t_ns, int(t_ns[0]))
    integral, run = np.empty_like(values), np.empty(len(t_s), np.int32)
    integrate_runs(t_s, values, GAP_PERIODS * _period_s(t_s), integral, run)
    return _Line(int(t_ns[0]), t_s, values, integral, run)


def _seconds(t_ns: I64, origin_ns: int) -> F64:
    return np.asarray((t_ns - origin_ns) * NS, np.float64)


def _period_s(t_s: F64) -> float:
    return float(np.median(np.diff(t_s)))


def _bins(line: _Line, width_s: float) -> _Rates:
    edges = np.arange(0.0, line.t_s[-1], width_s)
    means, valid = line.means(edges[:-1], edges[1:])
    return _Rates(edges[:-1][valid], edges[1:][valid], np.ascontiguousarray(means[valid]))


def _merged(rates: _Rates, width_s: float) -> _Rates:
    """Means over wider intervals, each of several that follow one another without a gap."""
    widths = rates.to_s - rates.from_s
    k = int(width_s / float(np.median(widths)))
    if k < 2:
        return rates
    n = len(widths) // k
    size = widths[: n * k].reshape(n, k)
    start, end = rates.from_s[: n * k : k], rates.to_s[k - 1 : n * k : k]
    total = size.sum(axis=1)
    area = (rates.values[: n * k] * widths[: n * k, None]).reshape(n, k, -1).sum(axis=1)
    whole = end - start < 1.01 * total
    return _Rates(start[whole], end[whole], np.ascontiguousarray((area / total[:, None])[whole]))


def _estimate(coarse: _Rates, fine: _Rates, origin_ns: int, b: _Line, limits: Limits) -> LagEstimate:
    """Search the whole recording, then refine in windows; lags inside are between the two origins."""
    shorter_s = min(fine.to_s[-1] - fine.from_s[0] if len(fine.to_s) else 0.0, float(b.t_s[-1]))
    if shorter_s < MIN_SECONDS:
        raise CalibrationError(
            f"the recording is too short: {shorter_s:.1f} s, at least {MIN_SECONDS:.0f} s are needed",
            fix="record a minute of motion",
        )
    moving = float(np.sqrt(b.values.var(axis=0).sum()))
    if moving < limits.min_motion:
        raise _no_motion(moving, limits)
    offset_ns = origin_ns - b.origin_ns
    if limits.max_lag_s is None:
        coarse = _merged(coarse, min(FAR_BIN_S, max(shorter_s, float(b.t_s[-1])) / FAR_BINS))
    common, step_s = _search(coarse, b, offset_ns * NS, limits)
    common = _peak(fine, b, common, step_s / 2)[0]
    length_s = min(limits.window_s, shorter_s / WINDOWS_WANTED)
    start_s = max(float(fine.from_s[0]), common)
    end_s = min(float(fine.to_s[-1]), float(b.t_s[-1]) + common)
    count = max(MIN_WINDOWS, round((end_s - start_s) / length_s))
    edges = np.linspace(start_s, end_s, count + 1)
    still, best_r2 = 0, 0.0
    found: list[Window] = []
    step_s = min(step_s / 2, 0.005)
    for low, high in pairwise(edges.tolist()):
        part = fine.between(low, high)
        covered = b.t_s[(b.t_s >= low - common) & (b.t_s <= high - common)]
        first = int(np.searchsorted(b.t_s, low - common))
        inside = b.values[first : first + len(covered)]
        if not len(inside) or math.sqrt(float(inside.var(axis=0).sum())) < limits.min_motion:
            still += 1
            continue
        lag_s, sigma_s, left, centred = _peak(part, b, common, step_s)
        r2 = _r2(left)
        best_r2 = max(best_r2, r2)
        if r2 >= limits.min_r2 and centred:
            residual = math.sqrt(float((left * part.values.var(axis=0)).sum()))
            middle_ns = origin_ns + int((low + high) / 2 / NS)
            found.append(Window(middle_ns, offset_ns + round(lag_s / NS), sigma_s / NS, r2, residual))
    if len(found) < MIN_WINDOWS:
        if still > count - MIN_WINDOWS:
            raise _no_motion(moving, limits, f"in {still} of {count} windows ")
        raise CalibrationError(
            f"R² is too low: {len(found)} of {count} windows reach {limits.min_r2}, the best {best_r2:.2f}",
            fix="turn left, right, up and down, far from things; check that the streams belong together",
        )
    return _summary(found, count)


def _summary(found: list[Window], count: int) -> LagEstimate:
    # differences keep whole nanoseconds where the clocks' origins are far apart
    first = found[0].lag_ns
    mean, u, sd, keep = combine([w.lag_ns - first for w in found], [w.sigma_ns for w in found])
    kept = [w for w, ok in zip(found, keep.tolist(), strict=True) if ok]
    drift, u_drift = _drift(kept)
    return LagEstimate(
        lag_ns=first + round(mean),
        u_ns=math.ceil(u),
        sd_ns=round(sd),
        n=len(kept),
        n_rejected=count - len(kept),
        r2=float(np.median([w.r2 for w in kept])),
        residual=math.sqrt(float(np.mean([w.residual**2 for w in kept]))),
        drift_ppm=drift,
        u_drift_ppm=u_drift,
        windows=tuple(kept),
    )


def _search(a: _Rates, b: _Line, offset_s: float, limits: Limits) -> tuple[float, float]:
    """The best lag of all on a grid, and the grid's step; refuses where another is as good."""
    width_s = float(np.median(a.to_s - a.from_s))
    span_a, span_b = float(a.to_s[-1] - a.from_s[0]), float(b.t_s[-1])
    step_s = width_s / 2
    if limits.max_lag_s is None:
        half = 0.5 * min(span_a, span_b)
        low, high = half - span_b, span_a - half
    else:
        low, high = -limits.max_lag_s - offset_s, limits.max_lag_s - offset_s
    lags = np.arange(low - step_s, high + 1.5 * step_s, step_s)
    pairs_wanted = int(0.4 * min(span_a, span_b) / width_s)
    left, pairs = _score(a, b, lags, pairs_wanted)
    if not (pairs >= pairs_wanted).any():
        raise CalibrationError(
            "the two streams have too little time in common",
            fix="check that both cover the same motion; --any-lag if their clocks are unrelated",
        )
    r2 = np.array([_r2(row) for row in left])
    best = int(r2.argmax())
    if r2[best] < limits.min_r2 / 2:
        raise CalibrationError(
            f"R² is too low: no lag explains more than {r2[best]:.2f} of the motion",
            fix="check that both streams saw one motion; widen --max-lag-s or use --any-lag",
        )
    if best in (0, len(lags) - 1):
        raise CalibrationError(
            f"the best lag is at the edge of the search, {lags[best] + offset_s:+.3f} s",
            fix="widen --max-lag-s",
        )
    rival = _rival(r2, best)
    if rival is not None and 1 - r2[rival] < AMBIGUOUS * (1 - r2[best]):
        raise CalibrationError(
            f"two lags are equally good: {lags[best] + offset_s:+.3f} s and {lags[rival] + offset_s:+.3f} s",
            fix="move irregularly: a steady rhythm looks the same a beat later",
        )
    return float(lags[best]), step_s


def _rival(r2: F64, best: int) -> int | None:
    """The best lag outside the lobe around the best one."""
    low, high = best, best
    while low > 0 and r2[low - 1] <= r2[low]:
        low -= 1
    while high < len(r2) - 1 and r2[high + 1] <= r2[high]:
        high += 1
    outside = np.concatenate([np.arange(low), np.arange(high + 1, len(r2))])
    return int(outside[r2[outside].argmax()]) if len(outside) else None


def _peak(a: _Rates, b: _Line, around_s: float, step_s: float) -> tuple[float, float, F64, bool]:
    """Lag of the least residual near `around_s`: its value, sigma, share left per channel, is it inside.

    Each channel counts by its own residual; the parabola through three points is that of the weighted
    residual, which is smooth where the likelihood is a spike.
    """
    grid = np.linspace(around_s - FINE_STEPS * step_s, around_s + FINE_STEPS * step_s, 2 * FINE_STEPS + 1)
    wanted = int(MIN_COVERED * len(a.values))
    left, _ = _score(a, b, grid, wanted)
    best = int(np.log(left).sum(axis=1).argmin())
    inside = 0 < best < len(grid) - 1
    lag_s = float(grid[best])
    sigma_s = math.inf
    width_s = step_s
    for _ in range(5):
        left, pairs = _score(a, b, np.array([lag_s - width_s, lag_s, lag_s + width_s]), wanted)
        before, here, after = (left / left[1]).sum(axis=1)
        curvature = (before - 2 * here + after) / width_s**2
        if curvature <= 0:
            return lag_s, math.inf, left[1], False
        lag_s -= float(np.clip((after - before) / (2 * width_s * curvature), -width_s, width_s))
        sigma_s = 1.0 / math.sqrt(0.5 * float(pairs[1]) * curvature)
        width_s = max(width_s / 2, 2e-4)
    return lag_s, sigma_s, left[1], inside


def _score(a: _Rates, b: _Line, lags_s: F64, min_pairs: int) -> tuple[F64, NDArray[np.int32]]:
    left = np.empty((len(lags_s), a.values.shape[1]))
    pairs = np.empty(len(lags_s), np.int32)
    score_lags(a.values, a.from_s, a.to_s, lags_s, b.t_s, b.values, b.integral, b.run, min_pairs, left, pairs)
    return left, pairs


def _r2(left: F64) -> float:
    """One R² of all channels, each weighted by what is left of it: dead channels lower it but do not rule."""
    return float(1.0 - len(left) / (1.0 / left).sum())


def _drift(windows: list[Window]) -> tuple[float | None, float | None]:
    """Slope of the lags over time and its half-width, ppm."""
    n = len(windows)
    if n < 4:
        return None, None
    t_s = np.array([w.t_ns - windows[0].t_ns for w in windows]) * NS
    lag_us = np.array([w.lag_ns - windows[0].lag_ns for w in windows]) * 1e-3
    t_s = t_s - t_s.mean()
    square = float((t_s**2).sum())
    slope = float((t_s * lag_us).sum()) / square
    rest = lag_us - lag_us.mean() - slope * t_s
    return slope, student_95(n - 2) * math.sqrt(float((rest**2).sum()) / (n - 2) / square)


def _no_motion(moving: float, limits: Limits, where: str = "") -> CalibrationError:
    return CalibrationError(
        f"there is no motion {where}to compare: {moving:.4f} rad/s overall, {limits.min_motion} are needed",
        fix="turn the sensors together, irregularly, for a minute; or lower --min-motion",
    )
