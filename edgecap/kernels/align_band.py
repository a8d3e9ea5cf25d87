"""The hard band: every offset at an instant that no exchange contradicts, as a two-variable linear program.

The device's clock obeys `theta(d)` with a slope that changes by at most `a` per second. A bound
`theta(d_i) <= U_i` then says about the offset `x` and slope `s` at `d`, with age `tau = d - d_i`:

    x <= U_i + s tau + a tau^2 / 2        (and the same from below with L_j and the last sign turned)

Every such (x, s) is possible, nothing else is. `f(s) = min_i` and `g(s) = max_j` of the right-hand sides
both rise with s, so the feasible slopes are the interval where the concave `f - g` is not negative, the
largest offset is `f` at its right end and the smallest is `g` at its left end. Newton's method from
outside a concave function meets each end from the far side, and stops after a few steps at the exact
end, since the function is piecewise linear.
"""

from __future__ import annotations

import math

from edgecap.kernels.align_state import BUCKET_S, BUCKETS, EMPTY, LOWER, NONE, State
from edgecap.kernels.compile import part

UNBOUNDED_NS = 500e6
"""How far below the upper bound the truth is looked for while no ping has been answered."""
_FEASIBLE_NS = 0.25
_STEPS = 64
_START_ROOM = 2e3
_QUIET_S = 5.0
_WIDENINGS = 4
_ANY_SLOPE = 2e7
"""Two per cent: an RC oscillator."""


@part
def band_at(s: State, d: float) -> tuple[float, float]:
    """The (lowest, highest) possible offset at device time `d`, carried over from the last solution."""
    age = d - s.band_d
    spread = 0.5 * s.curvature * age * age
    if age >= 0.0:
        return s.lo + s.slope_lo * age - spread, s.hi + s.slope_hi * age + spread
    return s.lo + s.slope_hi * age - spread, s.hi + s.slope_lo * age + spread


@part
def keep_bound(s: State, side: int, d: float, theta: float) -> bool:
    """Put a bound into its side's ring if it is the best of its bucket; remembers what it replaced."""
    bucket = math.floor(d / BUCKET_S)
    slot = side + bucket % BUCKETS
    held = s.bound_id[slot]
    if held > bucket:
        return False
    if held == bucket:
        gain = (theta - s.bound_theta[slot]) - s.slope * (d - s.bound_d[slot])
        if (gain <= 0.0) if side == LOWER else (gain >= 0.0):
            return False
    s.undo_slot = slot
    s.undo_id = held
    s.undo_d = s.bound_d[slot]
    s.undo_theta = s.bound_theta[slot]
    s.bound_id[slot] = bucket
    s.bound_d[slot] = d
    s.bound_theta[slot] = theta
    return True


@part
def drop_bound(s: State) -> None:
    """Undo the last `keep_bound`."""
    slot = s.undo_slot
    s.bound_id[slot] = s.undo_id
    s.bound_d[slot] = s.undo_d
    s.bound_theta[slot] = s.undo_theta


@part
def _least_top(s: State, n: int, slope: float) -> tuple[float, float]:
    """f(slope) and its derivative."""
    ages, thetas = s.upper_age, s.upper_theta
    best = thetas[0] + slope * ages[0]
    rise = ages[0]
    for k in range(1, n):
        value = thetas[k] + slope * ages[k]
        if value < best:
            best = value
            rise = ages[k]
    return best, rise


@part
def _most_bottom(s: State, n: int, slope: float) -> tuple[float, float]:
    """g(slope) and its derivative."""
    ages, thetas = s.lower_age, s.lower_theta
    best = thetas[0] + slope * ages[0]
    rise = ages[0]
    for k in range(1, n):
        value = thetas[k] + slope * ages[k]
        if value > best:
            best = value
            rise = ages[k]
    return best, rise


@part
def solve_band(s: State, d: float, curvature: float) -> bool:
    """Solve the band at device time `d` (not before any bound); False, changing nothing, if it is empty.

    Args:
        s: The rings of bounds are read; hi, lo, slope_hi, slope_lo, band_d and curvature are written.
        d: Device time in seconds.
        curvature: Most change of slope, ns/s per second.
    """
    uppers = lowers = NONE
    half = 0.5 * curvature
    ids, ds, thetas = s.bound_id, s.bound_d, s.bound_theta
    for k in range(BUCKETS):
        if ids[k] != EMPTY:
            age = d - ds[k]
            s.upper_age[uppers] = age
            s.upper_theta[uppers] = thetas[k] + half * age * age
            uppers += 1
        low = LOWER + k
        if ids[low] != EMPTY:
            age = d - ds[low]
            s.lower_age[lowers] = age
            s.lower_theta[lowers] = thetas[low] - half * age * age
            lowers += 1
    if uppers == 0:
        return False
    slope_hi = s.slope_prior_hi + curvature * max(d, 0.0)
    slope_lo = s.slope_prior_lo - curvature * max(d, 0.0)
    if d - s.lower_d_most > _QUIET_S and s.kept_d >= 0.0:
        # no ping answered for a while: the ring forgets the upper bounds that the old lower ones need
        wander = curvature * (d - s.kept_d)
        slope_hi = min(slope_hi, s.kept_slope_hi + wander)
        slope_lo = max(slope_lo, s.kept_slope_lo - wander)
    if s.has_lower == 0 or lowers == 0:
        hi, _ = _least_top(s, uppers, slope_hi)
        lo = hi - UNBOUNDED_NS
    else:
        low_end = slope_lo
        # any slope at which the lines cross the wrong way and rise towards each other is a start from outside
        near = s.slope_hi + _START_ROOM
        if near < slope_hi:
            top, rise = _least_top(s, uppers, near)
            bottom, drop = _most_bottom(s, lowers, near)
            if top < bottom and rise < drop:
                slope_hi = near
        near = s.slope_lo - _START_ROOM
        if near > slope_lo:
            top, rise = _least_top(s, uppers, near)
            bottom, drop = _most_bottom(s, lowers, near)
            if top < bottom and rise > drop:
                slope_lo = near
        feasible = False
        hi = 0.0
        for _ in range(_STEPS):
            hi, rise = _least_top(s, uppers, slope_hi)
            bottom, drop = _most_bottom(s, lowers, slope_hi)
            excess = hi - bottom
            if excess >= -_FEASIBLE_NS:
                feasible = True
                break
            if rise >= drop:
                return False
            slope_hi -= excess / (rise - drop)
            if slope_hi < low_end:
                return False
        if not feasible:
            return False
        lo = 0.0
        for _ in range(_STEPS):
            top, rise = _least_top(s, uppers, slope_lo)
            lo, drop = _most_bottom(s, lowers, slope_lo)
            excess = top - lo
            if excess >= -_FEASIBLE_NS or slope_lo >= slope_hi:
                break
            if rise <= drop:
                break
            slope_lo -= excess / (rise - drop)
        slope_lo = min(slope_lo, slope_hi)
        lo = min(lo, hi)
    s.band_d = d
    s.hi = hi
    s.lo = lo
    s.slope_hi = slope_hi
    s.slope_lo = slope_lo
    s.curvature = curvature
    s.n_solved += 1
    return True


@part
def widen_until_solved(s: State, d: float, curvature: float) -> bool:
    """Solve the band, allowing faster drift, then any slope, if nothing else explains the exchanges."""
    if solve_band(s, d, curvature):
        return True
    faster = curvature
    for _ in range(_WIDENINGS):
        faster *= 4.0
        if faster > s.curvature_most:
            break
        if solve_band(s, d, faster):
            s.n_widened += 1
            return True
    prior_lo = s.slope_prior_lo
    prior_hi = s.slope_prior_hi
    s.slope_prior_lo = -_ANY_SLOPE
    s.slope_prior_hi = _ANY_SLOPE
    kept_d = s.kept_d
    s.kept_d = -1.0
    if solve_band(s, d, curvature):
        s.n_widened += 1
        s.slope_most = _ANY_SLOPE
        return True
    s.kept_d = kept_d
    s.slope_prior_lo = prior_lo
    s.slope_prior_hi = prior_hi
    return False


@part
def solve_or_widen(s: State, d: float) -> bool:
    """Solve the band at `d`; what was allowed beyond the least drift is forgotten over a minute."""
    elapsed = max(d - s.band_d, 0.0)
    least = s.curvature_least
    curvature = least + (s.curvature - least) * math.exp(-elapsed / 60.0)
    return widen_until_solved(s, d, curvature)
