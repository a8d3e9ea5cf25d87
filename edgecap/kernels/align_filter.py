"""The likeliest offset inside the hard band: leg floors, drift watch and the 2-state filter."""

from __future__ import annotations

import math

import numpy as np

from edgecap.kernels import align_state as at
from edgecap.kernels.align_band import solve_or_widen
from edgecap.kernels.align_state import F64, I64
from edgecap.kernels.compile import kernel

_SETTLE_S = 1.0
"""Over how long the likeliest offset keeps its error."""
_WANDER = 150.0
"""Random walk of the slope that the filter assumes at least, ns/s per root second."""
_SLOPE_SIGMA_NEW = 60e3
_LOCK_PONGS = 3
_LOCK_NS = 500e3
_LOCK_PONGS_WIDE = 10
_UNLOCK_NS = 20e6
_TWO_STEP_MEMORY_S = 2.0
_SLACK = 1.4
_KNOWN_NS = 10e3
_KNOWN_SHARE = 0.4
"""One-step links: slack of the lower end, and how well it is known."""
_SHOWN_PONGS = 64.0
_USEFUL_NS = 900e3
_HOLD_S = 2.0
_SPREAD_S = 10.0
_SPREAD_EVERY_S = 1.0
_YOUNG_PONGS = 32
_SPREAD_UPPER_NS = 50e3
_SPREAD_LOWER_NS = 500e3
_SPREAD_LEAST_NS = 500.0
"""Spreads assumed until there are bounds to tell: frames are frequent, pings are rare."""
_WIDTH_MOST_NS = 3e6
_FLOOR_GUESS_NS = 80e3
_GUESS_PONGS = 6.0
"""Least latency of both legs before pongs have shown it, and how many pongs that guess is worth."""
_FLOOR_S = 240.0
"""How long the narrowest band counts, at least; at most twice that."""
_RATE_HALF_S = 12.0
_RATE_CEILING_NS = 2e6
_RATE_ROOM = 2.0
"""How much faster than seen the slope may change."""
_WANDER_PER_RATE = 1.5


@kernel
def _spread(whole: I64, real: F64, lower: bool) -> float:
    """How far the last ten seconds' bounds of one kind, and one assumed, typically lie from the best of them.

    Of the upper ones the median counts: one that lies far off is chance. Of the lower ones, which are few,
    the mean: two that lie close together are chance.
    """
    ids = at.LOWER_ID if lower else at.UPPER_ID
    ds = at.LOWER_D if lower else at.UPPER_D
    thetas = at.LOWER_THETA if lower else at.UPPER_THETA
    slope = min(max(real[at.SLOPE], real[at.SLOPE_LO]), real[at.SLOPE_HI])
    found = real[at.WORK_TOP : at.WORK_TOP + at.BUCKETS]
    count = 0
    for k in range(at.BUCKETS):
        age = real[at.BAND_D] - real[ds + k]
        if whole[ids + k] != at.EMPTY and age < _SPREAD_S:
            value = real[thetas + k] + slope * age
            found[count] = -value if lower else value
            count += 1
    assumed = _SPREAD_LOWER_NS if lower else _SPREAD_UPPER_NS
    if count == 0:
        return assumed
    found[count] = found[:count].min() + assumed
    count += 1
    if lower:
        mean_off: float = found[:count].mean() - found[:count].min()
        return mean_off
    for i in range(count // 2 + 1):
        for k in range(i + 1, count):
            if found[k] < found[i]:
                found[i], found[k] = found[k], found[i]
    median_off: float = found[count // 2] - found[0]
    return median_off + _SPREAD_LEAST_NS


@kernel
def forget_floor(real: F64) -> None:
    """Forget what was learnt about the link's least latency."""
    real[at.FLOOR_NOW] = np.inf
    real[at.FLOOR_BEFORE] = np.inf
    real[at.OUT_N] = 0.0
    real[at.OUT_SUM] = 0.0


@kernel
def note_width(real: F64, width_ns: float) -> None:
    """Take note of how far a pong's lower bound lies below the upper bound."""
    width_ns = min(max(width_ns, 0.0), _WIDTH_MOST_NS)
    real[at.OUT_MIN] = min(real[at.OUT_MIN], width_ns) if real[at.OUT_N] > 0.0 else width_ns
    real[at.OUT_N] += 1.0
    real[at.OUT_SUM] += width_ns


@kernel
def _floor(real: F64) -> tuple[float, float]:
    """The sum of both legs' least latency, and how far that guess may be off.

    It is the narrowest band so far, less what that should still lose.

    The least of n evenly spread delays lies 2 (mean - least) / (n + 1) above the end of their range.
    """
    width: float = real[at.HI] - real[at.LO]
    if real[at.BAND_D] - real[at.FLOOR_D] > _FLOOR_S or real[at.BAND_D] < real[at.FLOOR_D]:
        real[at.FLOOR_BEFORE] = real[at.FLOOR_NOW]
        real[at.FLOOR_NOW] = width
        real[at.FLOOR_D] = real[at.BAND_D]
    real[at.FLOOR_NOW] = min(real[at.FLOOR_NOW], width)
    floor: float = min(real[at.FLOOR_NOW], real[at.FLOOR_BEFORE])
    n = real[at.OUT_N]
    if n < 2.0:
        return min(floor, _FLOOR_GUESS_NS), 0.5 * width
    left: float = 2.0 * (real[at.OUT_SUM] / n - real[at.OUT_MIN]) / (n + 1.0)
    least = min(floor, _FLOOR_GUESS_NS)
    # a few pongs that happen to be equally late look like a floor
    seen = max(floor - left, least)
    return least + (seen - least) * n / (n + _GUESS_PONGS), left


@kernel
def _likely(whole: I64, real: F64) -> tuple[float, float]:
    """The likeliest offset in the band, and one standard deviation of it.

    Half of the least latency of both legs is taken for each. A band wider than that has a side without a
    recent prompt transfer: the offset is reckoned from the side whose bounds lie closer together.
    """
    floor, doubt = _floor(real)
    if whole[at.EPOCH_PONGS] < _YOUNG_PONGS or abs(real[at.BAND_D] - real[at.SPREAD_D]) > _SPREAD_EVERY_S:
        real[at.SPREAD_D] = real[at.BAND_D]
        real[at.SPREAD_UPPER] = _spread(whole, real, False)
        real[at.SPREAD_LOWER] = _spread(whole, real, True)
    upper = real[at.SPREAD_UPPER]
    lower = real[at.SPREAD_LOWER]
    share = upper * upper / (upper * upper + lower * lower)
    likely = (1.0 - share) * (real[at.HI] - 0.5 * floor) + share * (real[at.LO] + 0.5 * floor)
    sigma = math.hypot(0.5 * min(upper, lower), 0.5 * doubt)
    return likely, min(0.3 * (real[at.HI] - real[at.LO]), sigma)


@kernel
def _one_step(real: F64) -> tuple[float, float]:
    """The likeliest offset where frames do not say when they left, and one standard deviation of it.

    Pings leave at random moments, so that the best of them hardly waited for the line: the lower end is
    tight. Frames may wait equally long for ever. What the band is wider than both legs' least latency is
    therefore put on their side, as far as the pings have shown the line to make anybody wait; the rest is
    halved.
    """
    width: float = real[at.HI] - real[at.LO]
    n = real[at.OUT_N]
    middle = 0.5 * width
    if n < 2.0:
        return real[at.LO] + middle, 0.3 * width
    wait = max(2.0 * (real[at.OUT_SUM] / n - real[at.OUT_MIN]), 0.0)
    # a bound of age tau has lost about wait * gap / tau by waiting and slope * tau since
    slope = 0.5 * (real[at.SLOPE_HI] - real[at.SLOPE_LO])
    slack = min(_SLACK * math.sqrt(wait * slope * real[at.PONG_GAP]), 0.5 * wait)
    slack = max(slack, wait / (n + 1.0))
    floor: float = min(real[at.FLOOR_NOW], real[at.FLOOR_BEFORE], _FLOOR_GUESS_NS)
    excess = width - floor - slack
    if excess <= 0.0:
        return real[at.LO] + middle, 0.25 * width
    explained = min(max(2.0 * wait / excess - 1.0, 0.0), 1.0) * min(n / _SHOWN_PONGS, 1.0)
    sigma = _KNOWN_SHARE * slack + _KNOWN_NS
    share = max(sigma * sigma / (sigma * sigma + excess * excess / 12.0), 1.0 - explained)
    tight = 0.5 * floor + slack
    above = tight + share * (middle - tight)
    # a bound beyond a millisecond is of no use to anybody
    return real[at.LO] + max(above, min(middle, width - _USEFUL_NS)), sigma


@kernel
def _parabola(whole: I64, real: F64, ceiling: float, fit: F64) -> float:
    """Fit a parabola to the upper bounds of the last 24 s, in u = 1 - age / 12 s.

    Args:
        whole: State.
        real: State; the bounds are taken relative to HI and the band's middle slope.
        ceiling: Bounds further than this above the parabola in `fit` are left out.
        fit: View of four numbers, rewritten: constant, linear and square coefficient, residual deviation.

    Returns:
        One standard deviation of the square coefficient, or infinity if there is too little to fit.
    """
    slope = 0.5 * (real[at.SLOPE_HI] + real[at.SLOPE_LO])
    n = s1 = s2 = s3 = s4 = y0 = y1 = y2 = yy = 0.0
    for k in range(at.BUCKETS):
        if whole[at.UPPER_ID + k] == at.EMPTY:
            continue
        age = real[at.BAND_D] - real[at.UPPER_D + k]
        if age >= 2.0 * _RATE_HALF_S:
            continue
        u = 1.0 - age / _RATE_HALF_S
        y = real[at.UPPER_THETA + k] + slope * age - real[at.HI]
        if y - (fit[0] + u * (fit[1] + u * fit[2])) > ceiling:
            continue
        n += 1.0
        s1 += u
        s2 += u * u
        s3 += u * u * u
        s4 += u * u * u * u
        y0 += y
        y1 += y * u
        y2 += y * u * u
        yy += y * y
    if n < 24.0:
        return np.inf
    c11 = s2 - s1 * s1 / n
    c12 = s3 - s1 * s2 / n
    c22 = s4 - s2 * s2 / n
    d1 = y1 - s1 * y0 / n
    d2 = y2 - s2 * y0 / n
    determinant = c11 * c22 - c12 * c12
    if determinant <= 1e-6:
        return np.inf
    fit[1] = (d1 * c22 - d2 * c12) / determinant
    fit[2] = (d2 * c11 - d1 * c12) / determinant
    fit[0] = (y0 - fit[1] * s1 - fit[2] * s2) / n
    left = max(yy - y0 * y0 / n - fit[1] * d1 - fit[2] * d2, 0.0) / (n - 3.0)
    fit[3] = math.sqrt(left)
    return math.sqrt(left * c11 / determinant)


@kernel
def _watch_drift(whole: I64, real: F64) -> None:
    """Measure how fast the slope really changes, and set the allowance and the filter's agility by it.

    The upper bounds (the prompt transfers of each half second) show a drift that the band's slack hides.
    """
    if abs(real[at.BAND_D] - real[at.RATE_D]) < 1.0:
        return
    real[at.RATE_D] = real[at.BAND_D]
    fit = real[at.PARABOLA : at.PARABOLA + 4]
    fit[:] = 0.0
    if _parabola(whole, real, _RATE_CEILING_NS, fit) == np.inf:
        return
    doubt = _parabola(whole, real, 1.5 * fit[3] + 1e3, fit)
    if doubt == np.inf:
        return
    # neighbouring bounds share their delays, hence twice the formal uncertainty
    seen = 2.0 / (_RATE_HALF_S * _RATE_HALF_S) * max(abs(fit[2]) - 2.0 * doubt, 0.0)
    wanted = min(max(_RATE_ROOM * seen, real[at.CURVATURE_LEAST]), real[at.CURVATURE_MOST])
    real[at.CURVATURE] = max(real[at.CURVATURE], wanted)
    real[at.WANDER] = max(_WANDER, _WANDER_PER_RATE * seen)


@kernel
def follow(whole: I64, real: F64) -> bool:
    """Solve the band at the newest device time and move the filter into it; False if the band is crossed."""
    d = real[at.D_MOST]
    before = real[at.BAND_D]
    if not solve_or_widen(whole, real, d):
        return False
    whole[at.DUE] = 0
    hi = real[at.HI]
    lo = real[at.LO]
    if whole[at.HAS_LOWER] == 0:
        real[at.THETA] = hi
        return True
    if d - real[at.LOWER_D_MOST] < 1.0:
        real[at.KEPT_D] = d
        real[at.KEPT_SLOPE_HI] = real[at.SLOPE_HI]
        real[at.KEPT_SLOPE_LO] = real[at.SLOPE_LO]
    likely, sigma = _likely(whole, real)
    half = 0.5 * (hi - lo)
    stamp_d = float(whole[at.TWO_STEP_TICK] - whole[at.REF_TICK]) * whole[at.TICK_NS] * 1e-9
    two_step = d - stamp_d <= _TWO_STEP_MEMORY_S
    if not two_step:
        likely, sigma = _one_step(real)
    slope_half = 0.5 * (real[at.SLOPE_HI] - real[at.SLOPE_LO])
    if real[at.FILTER_READY] == 0.0:
        real[at.FILTER_READY] = 1.0
        real[at.THETA] = likely
        prior = 0.5 * (real[at.SLOPE_PRIOR_HI] + real[at.SLOPE_PRIOR_LO])
        real[at.SLOPE] = min(max(prior, real[at.SLOPE_LO]), real[at.SLOPE_HI])
        real[at.P00] = half * half / 3.0
        real[at.P01] = 0.0
        real[at.P11] = min(slope_half, _SLOPE_SIGMA_NEW) ** 2
        real[at.SLEW] = 0.0
        real[at.WANDER] = _WANDER
    else:
        step = max(d - before, 0.0)
        q = real[at.WANDER] * real[at.WANDER]
        real[at.THETA] += real[at.SLOPE] * step
        real[at.P00] += step * (2.0 * real[at.P01] + step * real[at.P11]) + q * step**3 / 3.0
        real[at.P01] += step * real[at.P11] + 0.5 * q * step * step
        real[at.P11] += q * step
        predicted = real[at.THETA]
        noise = sigma * sigma * max(1.0, _SETTLE_S / max(step, 1e-3))
        total = real[at.P00] + noise
        gain0 = real[at.P00] / total
        gain1 = real[at.P01] / total
        off = likely - real[at.THETA]
        if not two_step and d - real[at.LOWER_D_MOST] > _HOLD_S:
            gain0 = gain1 = 0.0
        real[at.THETA] += gain0 * off
        real[at.SLOPE] += gain1 * off
        p01 = real[at.P01]
        real[at.P00] *= 1.0 - gain0
        real[at.P01] *= 1.0 - gain0
        real[at.P11] -= gain1 * p01
        if not two_step and whole[at.EPOCH_PONGS] < _YOUNG_PONGS:
            # the band is still closing: nothing to smooth yet
            real[at.THETA] = likely
            real[at.SLOPE] = 0.5 * (real[at.SLOPE_HI] + real[at.SLOPE_LO])
            real[at.P00] = sigma * sigma
            real[at.P01] = 0.0
            real[at.P11] = slope_half * slope_half / 3.0
        real[at.THETA] = min(max(real[at.THETA], lo), hi)
        real[at.SLOPE] = min(max(real[at.SLOPE], real[at.SLOPE_LO]), real[at.SLOPE_HI])
        real[at.SLEW] = real[at.THETA] - predicted
    if two_step:
        _watch_drift(whole, real)
    pongs = whole[at.EPOCH_PONGS]
    if half > _UNLOCK_NS:
        whole[at.LOCKED] = 0
    elif (pongs >= _LOCK_PONGS and half <= _LOCK_NS) or pongs >= _LOCK_PONGS_WIDE:
        whole[at.LOCKED] = 1
    return True
