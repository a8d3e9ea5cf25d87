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

from edgecap.kernels import align_state as at
from edgecap.kernels.align_state import F64, I64
from edgecap.kernels.compile import kernel

UNBOUNDED_NS = 500e6
"""How far below the upper bound the truth is looked for while no ping has been answered."""
_FEASIBLE_NS = 0.25
_STEPS = 64
_START_ROOM = 2e3
_QUIET_S = 5.0
_WIDENINGS = 4
_ANY_SLOPE = 2e7
"""Two per cent: an RC oscillator."""


@kernel
def band_at(real: F64, d: float) -> tuple[float, float]:
    """The (lowest, highest) possible offset at device time `d`, carried over from the last solution."""
    age = d - real[at.BAND_D]
    spread = 0.5 * real[at.CURVATURE] * age * age
    if age >= 0.0:
        return real[at.LO] + real[at.SLOPE_LO] * age - spread, real[at.HI] + real[at.SLOPE_HI] * age + spread
    return real[at.LO] + real[at.SLOPE_HI] * age - spread, real[at.HI] + real[at.SLOPE_LO] * age + spread


@kernel
def keep_bound(whole: I64, real: F64, lower: bool, d: float, theta: float) -> bool:
    """Put a bound into the ring if it is the best of its bucket; remembers what it replaced."""
    ids = at.LOWER_ID if lower else at.UPPER_ID
    ds = at.LOWER_D if lower else at.UPPER_D
    thetas = at.LOWER_THETA if lower else at.UPPER_THETA
    bucket = math.floor(d / at.BUCKET_S)
    slot = bucket % at.BUCKETS
    held = whole[ids + slot]
    if held > bucket:
        return False
    if held == bucket:
        gain = (theta - real[thetas + slot]) - real[at.SLOPE] * (d - real[ds + slot])
        if (gain <= 0.0) if lower else (gain >= 0.0):
            return False
    whole[at.UNDO_SLOT] = slot
    whole[at.UNDO_ID] = held
    real[at.UNDO_D] = real[ds + slot]
    real[at.UNDO_THETA] = real[thetas + slot]
    whole[ids + slot] = bucket
    real[ds + slot] = d
    real[thetas + slot] = theta
    return True


@kernel
def drop_bound(whole: I64, real: F64, lower: bool) -> None:
    """Undo the last `keep_bound`."""
    slot = whole[at.UNDO_SLOT]
    whole[(at.LOWER_ID if lower else at.UPPER_ID) + slot] = whole[at.UNDO_ID]
    real[(at.LOWER_D if lower else at.UPPER_D) + slot] = real[at.UNDO_D]
    real[(at.LOWER_THETA if lower else at.UPPER_THETA) + slot] = real[at.UNDO_THETA]


@kernel
def _least_top(real: F64, n: int, slope: float) -> tuple[float, float]:
    """f(slope) and its derivative."""
    best = real[at.WORK_TOP] + slope * real[at.WORK_AGE_U]
    which = 0
    for k in range(1, n):
        value = real[at.WORK_TOP + k] + slope * real[at.WORK_AGE_U + k]
        if value < best:
            best = value
            which = k
    return best, real[at.WORK_AGE_U + which]


@kernel
def _most_bottom(real: F64, n: int, slope: float) -> tuple[float, float]:
    """g(slope) and its derivative."""
    best = real[at.WORK_BOTTOM] + slope * real[at.WORK_AGE_L]
    which = 0
    for k in range(1, n):
        value = real[at.WORK_BOTTOM + k] + slope * real[at.WORK_AGE_L + k]
        if value > best:
            best = value
            which = k
    return best, real[at.WORK_AGE_L + which]


@kernel
def solve_band(whole: I64, real: F64, d: float, curvature: float) -> bool:
    """Solve the band at device time `d` (not before any bound); False, changing nothing, if it is empty.

    Args:
        whole: State; the rings of bounds are read.
        real: State; HI, LO, SLOPE_HI, SLOPE_LO, BAND_D and CURVATURE are written.
        d: Device time in seconds.
        curvature: Most change of slope, ns/s per second.
    """
    uppers = 0
    lowers = 0
    half = 0.5 * curvature
    for k in range(at.BUCKETS):
        if whole[at.UPPER_ID + k] != at.EMPTY:
            age = d - real[at.UPPER_D + k]
            real[at.WORK_AGE_U + uppers] = age
            real[at.WORK_TOP + uppers] = real[at.UPPER_THETA + k] + half * age * age
            uppers += 1
        if whole[at.LOWER_ID + k] != at.EMPTY:
            age = d - real[at.LOWER_D + k]
            real[at.WORK_AGE_L + lowers] = age
            real[at.WORK_BOTTOM + lowers] = real[at.LOWER_THETA + k] - half * age * age
            lowers += 1
    if uppers == 0:
        return False
    slope_hi = real[at.SLOPE_PRIOR_HI] + curvature * max(d, 0.0)
    slope_lo = real[at.SLOPE_PRIOR_LO] - curvature * max(d, 0.0)
    if d - real[at.LOWER_D_MOST] > _QUIET_S and real[at.KEPT_D] >= 0.0:
        # no ping answered for a while: the ring forgets the upper bounds that the old lower ones need
        wander = curvature * (d - real[at.KEPT_D])
        slope_hi = min(slope_hi, real[at.KEPT_SLOPE_HI] + wander)
        slope_lo = max(slope_lo, real[at.KEPT_SLOPE_LO] - wander)
    if whole[at.HAS_LOWER] == 0 or lowers == 0:
        hi, _ = _least_top(real, uppers, slope_hi)
        lo = hi - UNBOUNDED_NS
    else:
        low_end = slope_lo
        # any slope at which the lines cross the wrong way and rise towards each other is a start from outside
        near = real[at.SLOPE_HI] + _START_ROOM
        if near < slope_hi:
            top, rise = _least_top(real, uppers, near)
            bottom, drop = _most_bottom(real, lowers, near)
            if top < bottom and rise < drop:
                slope_hi = near
        near = real[at.SLOPE_LO] - _START_ROOM
        if near > slope_lo:
            top, rise = _least_top(real, uppers, near)
            bottom, drop = _most_bottom(real, lowers, near)
            if top < bottom and rise > drop:
                slope_lo = near
        feasible = False
        hi = 0.0
        for _ in range(_STEPS):
            hi, rise = _least_top(real, uppers, slope_hi)
            bottom, drop = _most_bottom(real, lowers, slope_hi)
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
            top, rise = _least_top(real, uppers, slope_lo)
            lo, drop = _most_bottom(real, lowers, slope_lo)
            excess = top - lo
            if excess >= -_FEASIBLE_NS or slope_lo >= slope_hi:
                break
            if rise <= drop:
                break
            slope_lo -= excess / (rise - drop)
        slope_lo = min(slope_lo, slope_hi)
        lo = min(lo, hi)
    real[at.BAND_D] = d
    real[at.HI] = hi
    real[at.LO] = lo
    real[at.SLOPE_HI] = slope_hi
    real[at.SLOPE_LO] = slope_lo
    real[at.CURVATURE] = curvature
    whole[at.N_SOLVED] += 1
    return True


@kernel
def widen_until_solved(whole: I64, real: F64, d: float, curvature: float) -> bool:
    """Solve the band, allowing faster drift, then any slope, if nothing else explains the exchanges."""
    if solve_band(whole, real, d, curvature):
        return True
    faster = curvature
    for _ in range(_WIDENINGS):
        faster *= 4.0
        if faster > real[at.CURVATURE_MOST]:
            break
        if solve_band(whole, real, d, faster):
            whole[at.N_WIDENED] += 1
            return True
    prior_lo = real[at.SLOPE_PRIOR_LO]
    prior_hi = real[at.SLOPE_PRIOR_HI]
    real[at.SLOPE_PRIOR_LO] = -_ANY_SLOPE
    real[at.SLOPE_PRIOR_HI] = _ANY_SLOPE
    kept_d = real[at.KEPT_D]
    real[at.KEPT_D] = -1.0
    if solve_band(whole, real, d, curvature):
        whole[at.N_WIDENED] += 1
        real[at.SLOPE_MOST] = _ANY_SLOPE
        return True
    real[at.KEPT_D] = kept_d
    real[at.SLOPE_PRIOR_LO] = prior_lo
    real[at.SLOPE_PRIOR_HI] = prior_hi
    return False


@kernel
def solve_or_widen(whole: I64, real: F64, d: float) -> bool:
    """Solve the band at `d`; what was allowed beyond the least drift is forgotten over a minute."""
    elapsed = max(d - real[at.BAND_D], 0.0)
    least = real[at.CURVATURE_LEAST]
    curvature = least + (real[at.CURVATURE] - least) * math.exp(-elapsed / 60.0)
    return widen_until_solved(whole, real, d, curvature)
