"""Epochs of the aligner: how one ends and the next begins, and what is left of the boot before."""

from __future__ import annotations

import math

from edgecap.kernels.align_band import UNBOUNDED_NS
from edgecap.kernels.align_state import EMPTY, State, clear_bounds
from edgecap.kernels.compile import part

_KEPT_SLOPE_NS_S = 5e3
"""How far the slope may jump over a restart."""


@part
def signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - 0x100000000 if value >= 0x80000000 else value


@part
def nearest(value: float) -> int:
    return math.floor(value + 0.5)


@part
def restart(s: State, arrival: int) -> None:
    """Begin a new epoch; the slope survives, with room for a jump."""
    if s.has_lower:
        silent_s = min(max(arrival - s.last_arrival, 0) * 1e-9, 3600.0)
        room = _KEPT_SLOPE_NS_S + s.curvature * silent_s
        s.slope_prior_hi = min(s.slope_hi + room, s.slope_most)
        s.slope_prior_lo = max(s.slope_lo - room, -s.slope_most)
        if s.slope_prior_hi < s.slope_prior_lo:
            s.slope_prior_hi = s.slope_most
            s.slope_prior_lo = -s.slope_most
    clear_bounds(s)
    s.epoch += 1
    s.epoch_tick = s.last_tick
    s.two_step_tick = EMPTY
    s.filter_ready = 0.0
    s.kept_d = -1.0
    s.lo = s.hi - UNBOUNDED_NS
    s.slope = 0.5 * (s.slope_prior_hi + s.slope_prior_lo)


@part
def cross(s: State, arrival: int) -> None:
    """End an epoch whose exchanges contradict one another."""
    s.n_restarts += 1
    restart(s, arrival)


@part
def power_up(s: State) -> None:
    """First frame of a device boot: new counter, new reference, new epoch."""
    if s.started:
        s.n_resets += 1
        s.prev_boot = s.boot_now
        s.prev_ref_tick = s.ref_tick
        s.prev_ref_ns = s.ref_ns
        s.prev_epoch = s.epoch
        s.prev_theta = s.theta if s.has_lower else s.hi
        s.prev_slope = s.slope
        s.prev_band_d = s.band_d
        s.prev_u = (s.hi - s.lo) if s.has_lower else UNBOUNDED_NS
    restart(s, s.arrival)
    s.started = 1
    s.referenced = 0
    s.boot_now = s.boot
    s.ref_tick = 0
    s.ref_ns = s.arrival
    s.last_tick = 0
    s.last_arrival = s.arrival
    s.last_seq = (s.seq - 1) & 0xFFFFFFFF
    s.epoch_tick = EMPTY
    s.d_most = 0.0
    s.lower_d_most = 0.0
    s.band_d = 0.0
    s.hi = 0.0
    s.lo = -UNBOUNDED_NS
    s.slope_hi = s.slope_prior_hi
    s.slope_lo = s.slope_prior_lo


@part
def refer(s: State, counter: int) -> None:
    """Take the first counter of a device boot as the reference."""
    s.referenced = 1
    s.ref_tick = counter
    s.ref_ns = s.arrival
    s.last_tick = counter
    s.last_arrival = s.arrival


@part
def published_old_boot(s: State, arrival: int, t_us: int) -> tuple[int, int, int]:
    """A late frame of the boot before this one: its tick, and time and bound by that boot's last fit."""
    expected = s.prev_ref_tick + (arrival - s.prev_ref_ns) // s.tick_ns
    tick = expected + signed32(t_us - expected)
    ticks = tick - s.prev_ref_tick
    d = float(ticks) * s.tick_ns * 1e-9
    age = d - s.prev_band_d
    theta = nearest(s.prev_theta + s.prev_slope * age)
    t_ns = s.prev_ref_ns + ticks * s.tick_ns + theta
    return tick, t_ns, math.ceil(s.prev_u + 20e3 * abs(age)) + s.tick_ns
