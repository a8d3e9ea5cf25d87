"""The likeliest offset inside the hard band: leg floors, drift watch and the 2-state filter."""

from __future__ import annotations

import math

import numpy as np

from edgecap.kernels.align_band import solve_or_widen
from edgecap.kernels.align_line import FLOOR_GUESS_NS, YOUNG_PONGS, likely_one_step
from edgecap.kernels.align_state import BUCKETS, EMPTY, LOWER, UPPER, State
from edgecap.kernels.compile import part

_SETTLE_S = 1.0
_SETTLE_ONE_STEP_S = 2.0
"""Over how long the likeliest offset keeps its error."""
_WANDER = 150.0
"""Random walk of the slope that the filter assumes at least, ns/s per root second."""
_SLOPE_SIGMA_NEW = 60e3
_LOCK_PONGS = 3
_LOCK_NS = 500e3
_LOCK_PONGS_WIDE = 10
_UNLOCK_NS = 20e6
_TWO_STEP_MEMORY_S = 2.0
_HOLD_S = 2.0
_SPREAD_S = 10.0
_SPREAD_EVERY_S = 1.0
_SPREAD_UPPER_NS = 50e3
_SPREAD_LOWER_NS = 500e3
_SPREAD_LEAST_NS = 500.0
"""Spreads assumed until there are bounds to tell: frames are frequent, pings are rare."""
_WIDTH_MOST_NS = 3e6
_GUESS_PONGS = 6.0
"""How many pongs the guess of both legs' least latency is worth."""
_FLOOR_S = 240.0
"""How long the narrowest band counts, at least; at most twice that."""
_RATE_HALF_S = 12.0
_RATE_CEILING_NS = 2e6
_RATE_ROOM = 2.0
"""How much faster than seen the slope may change."""
_WANDER_PER_RATE = 1.5


@part
def _spread(s: State, side: int) -> float:
    """How far the last ten seconds' bounds of one kind, and one assumed, typically lie from the best of them.

    Of the upper ones the median counts: one that lies far off is chance. Of the lower ones, which are few,
    the mean: two that lie close together are chance.
    """
    lower = side == LOWER
    slope = min(max(s.slope, s.slope_lo), s.slope_hi)
    found = s.found
    count = 0
    least = np.inf
    total = 0.0
    for k in range(side, side + BUCKETS):
        age = s.band_d - s.bound_d[k]
        if s.bound_id[k] != EMPTY and age < _SPREAD_S:
            value = s.bound_theta[k] + slope * age
            if lower:
                value = -value
            found[count] = value
            least = min(least, value)
            total += value
            count += 1
    assumed = _SPREAD_LOWER_NS if lower else _SPREAD_UPPER_NS
    if count == 0:
        return assumed
    found[count] = least + assumed
    total += least + assumed
    count += 1
    if lower:
        return total / count - least
    for i in range(count // 2 + 1):
        for k in range(i + 1, count):
            if found[k] < found[i]:
                found[i], found[k] = found[k], found[i]
    median_off: float = found[count // 2] - found[0]
    return median_off + _SPREAD_LEAST_NS


@part
def forget_floor(s: State) -> None:
    """Forget what was learnt about the link's least latency."""
    s.floor_now = np.inf
    s.floor_before = np.inf
    s.out_n = 0.0
    s.out_sum = 0.0


@part
def note_width(s: State, width_ns: float) -> None:
    """Take note of how far a pong's lower bound lies below the upper bound."""
    width_ns = min(max(width_ns, 0.0), _WIDTH_MOST_NS)
    s.out_min = min(s.out_min, width_ns) if s.out_n > 0.0 else width_ns
    s.out_n += 1.0
    s.out_sum += width_ns


@part
def _floor(s: State) -> tuple[float, float]:
    """The sum of both legs' least latency, and how far that guess may be off.

    It is the narrowest band so far, less what that should still lose.

    The least of n evenly spread delays lies 2 (mean - least) / (n + 1) above the end of their range.
    """
    width: float = s.hi - s.lo
    if s.band_d - s.floor_d > _FLOOR_S or s.band_d < s.floor_d:
        s.floor_before = s.floor_now
        s.floor_now = width
        s.floor_d = s.band_d
    s.floor_now = min(s.floor_now, width)
    floor: float = min(s.floor_now, s.floor_before)
    n = s.out_n
    if n < 2.0:
        return min(floor, FLOOR_GUESS_NS), 0.5 * width
    left: float = 2.0 * (s.out_sum / n - s.out_min) / (n + 1.0)
    least = min(floor, FLOOR_GUESS_NS)
    # a few pongs that happen to be equally late look like a floor
    seen = max(floor - left, least)
    return least + (seen - least) * n / (n + _GUESS_PONGS), left


@part
def _likely(s: State) -> tuple[float, float]:
    """The likeliest offset in the band, and one standard deviation of it.

    Half of the least latency of both legs is taken for each. A band wider than that has a side without a
    recent prompt transfer: the offset is reckoned from the side whose bounds lie closer together.
    """
    floor, doubt = _floor(s)
    if s.epoch_pongs < YOUNG_PONGS or abs(s.band_d - s.spread_d) > _SPREAD_EVERY_S:
        s.spread_d = s.band_d
        s.spread_upper = _spread(s, UPPER)
        s.spread_lower = _spread(s, LOWER)
    upper = s.spread_upper
    lower = s.spread_lower
    share = upper * upper / (upper * upper + lower * lower)
    likely = (1.0 - share) * (s.hi - 0.5 * floor) + share * (s.lo + 0.5 * floor)
    sigma = math.hypot(0.5 * min(upper, lower), 0.5 * doubt)
    return likely, min(0.3 * (s.hi - s.lo), sigma)


@part
def _parabola(s: State, ceiling: float) -> float:
    """Fit a parabola to the upper bounds of the last 24 s, in u = 1 - age / 12 s.

    Args:
        s: The bounds are taken relative to hi and the band's middle slope; `parabola` is rewritten.
        ceiling: Bounds further than this above the parabola so far are left out.

    Returns:
        One standard deviation of the square coefficient, or infinity if there is too little to fit.
    """
    slope = 0.5 * (s.slope_hi + s.slope_lo)
    fit = s.parabola
    n = s1 = s2 = s3 = s4 = y0 = y1 = y2 = yy = 0.0
    for k in range(BUCKETS):
        if s.bound_id[k] == EMPTY:
            continue
        age = s.band_d - s.bound_d[k]
        if age >= 2.0 * _RATE_HALF_S:
            continue
        u = 1.0 - age / _RATE_HALF_S
        y = s.bound_theta[k] + slope * age - s.hi
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


@part
def _watch_drift(s: State) -> None:
    """Measure how fast the slope really changes, and set the allowance and the filter's agility by it.

    The upper bounds (the prompt transfers of each half second) show a drift that the band's slack hides.
    """
    if abs(s.band_d - s.rate_d) < 1.0:
        return
    s.rate_d = s.band_d
    fit = s.parabola
    for k in range(4):
        fit[k] = 0.0
    if _parabola(s, _RATE_CEILING_NS) == np.inf:
        return
    doubt = _parabola(s, 1.5 * fit[3] + 1e3)
    if doubt == np.inf:
        return
    # neighbouring bounds share their delays, hence twice the formal uncertainty
    seen = 2.0 / (_RATE_HALF_S * _RATE_HALF_S) * max(abs(fit[2]) - 2.0 * doubt, 0.0)
    wanted = min(max(_RATE_ROOM * seen, s.curvature_least), s.curvature_most)
    s.curvature = max(s.curvature, wanted)
    s.wander = max(_WANDER, _WANDER_PER_RATE * seen)


@part
def follow(s: State) -> bool:
    """Solve the band at the newest device time and move the filter into it; False if the band is crossed."""
    d = s.d_most
    before = s.band_d
    if not solve_or_widen(s, d):
        return False
    s.due = 0
    hi = s.hi
    lo = s.lo
    if s.has_lower == 0:
        s.theta = hi
        return True
    if d - s.lower_d_most < 1.0:
        s.kept_d = d
        s.kept_slope_hi = s.slope_hi
        s.kept_slope_lo = s.slope_lo
    likely, sigma = _likely(s)
    half = 0.5 * (hi - lo)
    stamp_d = float(s.two_step_tick - s.ref_tick) * s.tick_ns * 1e-9
    two_step = d - stamp_d <= _TWO_STEP_MEMORY_S
    if not two_step:
        likely, sigma = likely_one_step(s)
    slope_half = 0.5 * (s.slope_hi - s.slope_lo)
    if s.filter_ready == 0.0:
        s.filter_ready = 1.0
        s.theta = likely
        prior = 0.5 * (s.slope_prior_hi + s.slope_prior_lo)
        s.slope = min(max(prior, s.slope_lo), s.slope_hi)
        s.p00 = half * half / 3.0
        s.p01 = 0.0
        s.p11 = min(slope_half, _SLOPE_SIGMA_NEW) ** 2
        s.slew = 0.0
        s.wander = _WANDER
    else:
        step = max(d - before, 0.0)
        q = s.wander * s.wander
        s.theta += s.slope * step
        s.p00 += step * (2.0 * s.p01 + step * s.p11) + q * step**3 / 3.0
        s.p01 += step * s.p11 + 0.5 * q * step * step
        s.p11 += q * step
        predicted = s.theta
        settle = _SETTLE_S if two_step else _SETTLE_ONE_STEP_S
        noise = sigma * sigma * max(1.0, settle / max(step, 1e-3))
        total = s.p00 + noise
        gain0 = s.p00 / total
        gain1 = s.p01 / total
        off = likely - s.theta
        if not two_step and d - s.lower_d_most > _HOLD_S:
            gain0 = gain1 = 0.0
        s.theta += gain0 * off
        s.slope += gain1 * off
        p01 = s.p01
        s.p00 *= 1.0 - gain0
        s.p01 *= 1.0 - gain0
        s.p11 -= gain1 * p01
        if not two_step and s.epoch_pongs < YOUNG_PONGS:
            # the band is still closing: nothing to smooth yet
            s.theta = likely
            s.slope = 0.5 * (s.slope_hi + s.slope_lo)
            s.p00 = sigma * sigma
            s.p01 = 0.0
            s.p11 = slope_half * slope_half / 3.0
        s.theta = min(max(s.theta, lo), hi)
        s.slope = min(max(s.slope, s.slope_lo), s.slope_hi)
        s.slew = s.theta - predicted
    if two_step:
        _watch_drift(s)
    pongs = s.epoch_pongs
    if half > _UNLOCK_NS:
        s.locked = 0
    elif (pongs >= _LOCK_PONGS and half <= _LOCK_NS) or pongs >= _LOCK_PONGS_WIDE:
        s.locked = 1
    return True
