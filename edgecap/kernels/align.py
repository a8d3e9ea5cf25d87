"""The clock aligner: one call per read turns frames' device counters into rig time with an honest bound.

See docs/ALIGNMENT.md for the method. State lives in two flat arrays (align_state), nothing is allocated.
"""

from __future__ import annotations

import math

import numpy as np

from edgecap.kernels import align_state as at
from edgecap.kernels.align_band import (
    UNBOUNDED_NS,
    band_at,
    drop_bound,
    keep_bound,
    widen_until_solved,
)
from edgecap.kernels.align_filter import follow, forget_floor, note_width
from edgecap.kernels.align_state import F64, I64
from edgecap.kernels.compile import kernel

_SOLVE_EVERY_S = 0.25
_SOLVE_GAIN_NS = 2e3
"""A frame that lowers the upper bound by more than this is worth a solution at once."""
_SUSPECTS = 3
"""Contradictions in a row that end an epoch."""
_FALL_NS = 10_000_000_000
"""A counter behind the newest by this, in a newer frame, was not merely queued in the device."""
_FALL_BACK_NS = 1_000_000_000
_STEP_BACK = 64
"""The same in a frame numbered this much lower than the newest: not merely repeated or overtaken."""
_OLD_BOOT_FRAMES = 8
_GAP_MOST_S = 2.0
_GAP_SHARE = 1.0 / 16.0
"""Weight of the newest time between two answered pings, and the most that it counts."""
_KEPT_SLOPE_NS_S = 5e3
"""How far the slope may jump over a restart."""


@kernel
def _signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - 0x100000000 if value >= 0x80000000 else value


@kernel
def _nearest(value: float) -> int:
    return math.floor(value + 0.5)


@kernel
def _bin_of(delay_ns: float) -> int:
    octaves = math.log2(1.0 + max(delay_ns, 0.0) * 1e-3)
    return min(at.BINS - 1, int(4.0 * octaves))


@kernel
def _restart(whole: I64, real: F64, arrival: int) -> None:
    """Begin a new epoch; the slope survives, with room for a jump."""
    if whole[at.HAS_LOWER]:
        silent_s = min(max(arrival - whole[at.LAST_ARRIVAL], 0) * 1e-9, 3600.0)
        room = _KEPT_SLOPE_NS_S + real[at.CURVATURE] * silent_s
        real[at.SLOPE_PRIOR_HI] = min(real[at.SLOPE_HI] + room, real[at.SLOPE_MOST])
        real[at.SLOPE_PRIOR_LO] = max(real[at.SLOPE_LO] - room, -real[at.SLOPE_MOST])
        if real[at.SLOPE_PRIOR_HI] < real[at.SLOPE_PRIOR_LO]:
            real[at.SLOPE_PRIOR_HI] = real[at.SLOPE_MOST]
            real[at.SLOPE_PRIOR_LO] = -real[at.SLOPE_MOST]
    at.clear_bounds(whole)
    whole[at.EPOCH] += 1
    whole[at.EPOCH_TICK] = whole[at.LAST_TICK]
    whole[at.TWO_STEP_TICK] = at.EMPTY
    real[at.FILTER_READY] = 0.0
    real[at.KEPT_D] = -1.0
    real[at.LO] = real[at.HI] - UNBOUNDED_NS
    real[at.SLOPE] = 0.5 * (real[at.SLOPE_PRIOR_HI] + real[at.SLOPE_PRIOR_LO])


@kernel
def _cross(whole: I64, real: F64, arrival: int) -> None:
    """End an epoch whose exchanges contradict one another."""
    whole[at.N_RESTARTS] += 1
    _restart(whole, real, arrival)


@kernel
def _power_up(whole: I64, real: F64, row: I64) -> None:
    """First frame of a device boot: new counter, new reference, new epoch."""
    if whole[at.STARTED]:
        whole[at.N_RESETS] += 1
        whole[at.PREV_BOOT] = whole[at.BOOT_NOW]
        whole[at.PREV_REF_TICK] = whole[at.REF_TICK]
        whole[at.PREV_REF_NS] = whole[at.REF_NS]
        whole[at.PREV_EPOCH] = whole[at.EPOCH]
        real[at.PREV_THETA] = real[at.THETA] if whole[at.HAS_LOWER] else real[at.HI]
        real[at.PREV_SLOPE] = real[at.SLOPE]
        real[at.PREV_BAND_D] = real[at.BAND_D]
        real[at.PREV_U] = (real[at.HI] - real[at.LO]) if whole[at.HAS_LOWER] else UNBOUNDED_NS
    _restart(whole, real, row[at.ARRIVAL])
    whole[at.STARTED] = 1
    whole[at.REFERENCED] = 0
    whole[at.BOOT_NOW] = row[at.BOOT]
    whole[at.REF_TICK] = 0
    whole[at.REF_NS] = row[at.ARRIVAL]
    whole[at.LAST_TICK] = 0
    whole[at.LAST_ARRIVAL] = row[at.ARRIVAL]
    whole[at.LAST_SEQ] = (row[at.SEQ] - 1) & 0xFFFFFFFF
    whole[at.EPOCH_TICK] = at.EMPTY
    real[at.D_MOST] = 0.0
    real[at.LOWER_D_MOST] = 0.0
    real[at.BAND_D] = 0.0
    real[at.HI] = 0.0
    real[at.LO] = -UNBOUNDED_NS
    real[at.SLOPE_HI] = real[at.SLOPE_PRIOR_HI]
    real[at.SLOPE_LO] = real[at.SLOPE_PRIOR_LO]


@kernel
def _refer(whole: I64, row: I64, counter: int) -> None:
    """Take the first counter of a device boot as the reference."""
    whole[at.REFERENCED] = 1
    whole[at.REF_TICK] = counter
    whole[at.REF_NS] = row[at.ARRIVAL]
    whole[at.LAST_TICK] = counter
    whole[at.LAST_ARRIVAL] = row[at.ARRIVAL]


@kernel
def _offer(whole: I64, real: F64, lower: bool, d: float, theta: float) -> bool:
    """Take a bound in; False if it contradicts the band under every drift rate that is allowed."""
    lo, hi = band_at(real, d)
    contradicts = (theta > hi) if lower else (whole[at.HAS_LOWER] == 1 and theta < lo)
    if not contradicts:
        real[at.D_MOST] = max(real[at.D_MOST], d)
        if keep_bound(whole, real, lower, d, theta) and (lower or theta < hi - _SOLVE_GAIN_NS):
            whole[at.DUE] = 1
        return True
    had_lower = whole[at.HAS_LOWER]
    if not keep_bound(whole, real, lower, d, theta):
        return False
    if lower:
        whole[at.HAS_LOWER] = 1
    if widen_until_solved(whole, real, max(real[at.D_MOST], d), real[at.CURVATURE]):
        whole[at.DUE] = 1
        real[at.D_MOST] = max(real[at.D_MOST], d)
        return True
    drop_bound(whole, real, lower)
    whole[at.HAS_LOWER] = had_lower
    return False


@kernel
def _unwrap(whole: I64, arrival: int, counter: int) -> int:
    """The 64-bit tick whose low half is `counter`, nearest to where the device must be by now."""
    expected: int = whole[at.LAST_TICK] + (arrival - whole[at.LAST_ARRIVAL]) // whole[at.TICK_NS]
    return expected + _signed32(counter - expected)


@kernel
def _count_seq(whole: I64, seq: int) -> int:
    """Count losses and repetitions; the step from the newest frame so far."""
    step = _signed32(seq - whole[at.LAST_SEQ])
    if step > 0:
        whole[at.N_SEQ_LOST] += step - 1
        whole[at.LAST_SEQ] = seq
    elif whole[at.RING_SEQ + seq % at.RING] == seq:
        whole[at.N_REPEATED] += 1
    else:
        whole[at.N_REORDERED] += 1
        whole[at.N_SEQ_LOST] -= whole[at.N_SEQ_LOST] > 0
    return step


@kernel
def _take_pong(whole: I64, real: F64, row: I64, tick: int) -> bool:
    """The lower bound of a pong; False if the bound contradicts the band."""
    arrival = row[at.ARRIVAL]
    sent = row[at.PING_SENT]
    turn_ticks = (row[at.T_US] - row[at.T2_US]) & 0xFFFFFFFF
    t2 = tick - turn_ticks
    turn_ns = float(turn_ticks) * whole[at.TICK_NS]
    trip_ns = float(arrival - sent)
    if (
        sent < 0
        or sent > arrival
        or turn_ticks >= 0x80000000
        or turn_ns * 0.97 - 2.0 * whole[at.TICK_NS] > trip_ns
        or t2 < whole[at.EPOCH_TICK]
    ):
        whole[at.N_REJECTED_PONGS] += 1
        return True
    # the counter is read after its edge: the ping was received before the edge of t2 + 1
    since_ns = float(t2 + 1 - whole[at.REF_TICK]) * whole[at.TICK_NS]
    d = since_ns * 1e-9
    theta = float(sent - whole[at.REF_NS]) + real[at.OUT_LEAST] - since_ns
    if not _offer(whole, real, True, d, theta):
        whole[at.N_REJECTED_PONGS] += 1
        return False
    whole[at.HAS_LOWER] = 1
    if d > real[at.LOWER_D_MOST]:
        gap = min(d - real[at.LOWER_D_MOST], _GAP_MOST_S)
        real[at.PONG_GAP] += _GAP_SHARE * (gap - real[at.PONG_GAP])
        real[at.LOWER_D_MOST] = d
    whole[at.N_PONGS] += 1
    whole[at.EPOCH_PONGS] += 1
    whole[at.DUE] = 1
    _, hi = band_at(real, d)
    note_width(real, hi - theta)
    if theta > hi - 5e6:
        whole[at.SUSPECT_LOWER] = 0
    whole[at.TRIP_BINS + _bin_of(trip_ns - turn_ns)] += 1
    return True


@kernel
def _remember(whole: I64, row: I64) -> None:
    """Keep the first arrival of a frame for the transmit stamp in the next one."""
    slot = row[at.SEQ] % at.RING
    if whole[at.RING_SEQ + slot] != row[at.SEQ]:
        whole[at.RING_SEQ + slot] = row[at.SEQ]
        whole[at.RING_ARRIVAL + slot] = row[at.ARRIVAL]


@kernel
def _take_frame(whole: I64, real: F64, row: I64, tick: int) -> bool:
    """All bounds of one frame; False if the frame contradicts the band."""
    arrival = row[at.ARRIVAL]
    since_ns = float(tick - whole[at.REF_TICK]) * whole[at.TICK_NS]
    d = since_ns * 1e-9
    in_least = real[at.IN_LEAST] if row[at.KIND] == at.KIND_PONG else 0.0
    theta = float(arrival - whole[at.REF_NS]) - in_least - since_ns
    if row[at.KIND] != at.KIND_OTHER and not _offer(whole, real, False, d, theta):
        return False
    delay_theta = theta
    delay_d = d
    seq = row[at.SEQ]
    agrees = True
    if row[at.HAS_PREV]:
        before = (seq - 1) & 0xFFFFFFFF
        slot = before % at.RING
        if whole[at.RING_SEQ + slot] == before:
            tx = tick + _signed32(row[at.PREV_TX] - row[at.T_US])
            delay_d = float(tx - whole[at.REF_TICK]) * whole[at.TICK_NS] * 1e-9
            delay_theta = float(whole[at.RING_ARRIVAL + slot] - whole[at.REF_NS])
            delay_theta -= float(tx - whole[at.REF_TICK]) * whole[at.TICK_NS]
            agrees = _offer(whole, real, False, delay_d, delay_theta)
            if agrees:
                whole[at.TWO_STEP_TICK] = tick
                whole[at.N_TWO_STEP] += 1
    _remember(whole, row)
    if row[at.KIND] == at.KIND_PONG and not _take_pong(whole, real, row, tick):
        whole[at.SUSPECT_LOWER] += 1
    elif whole[at.HAS_LOWER] and row[at.KIND] != at.KIND_OTHER:
        _, hi = band_at(real, delay_d)
        whole[at.DELAY_BINS + _bin_of(delay_theta - hi)] += 1
    return agrees


@kernel
def _decay_bins(whole: I64) -> None:
    """Halve the histograms about once a minute, so that quantiles speak of the recent past."""
    for k in range(2 * at.BINS):
        whole[at.DELAY_BINS + k] //= 2


@kernel
def _publish(whole: I64, real: F64, row: I64, tick: int, out: I64) -> None:
    """What is known about one frame's counter at this moment."""
    tick_ns = whole[at.TICK_NS]
    d = float(tick - whole[at.REF_TICK]) * tick_ns * 1e-9
    lo, hi = band_at(real, d)
    arrival = row[at.ARRIVAL]
    locked = whole[at.LOCKED]
    theta = real[at.THETA] + real[at.SLOPE] * (d - real[at.BAND_D]) if whole[at.HAS_LOWER] else hi
    theta = min(max(theta, lo), hi)
    t_ns = whole[at.REF_NS] + (tick - whole[at.REF_TICK]) * tick_ns + _nearest(theta)
    u_ns = max(hi - theta, theta - lo) + tick_ns
    if t_ns - u_ns > arrival or whole[at.REFERENCED] == 0:
        # the counter says "after its arrival": not this clock, so arrival is all that is known
        t_ns = arrival
        u_ns = UNBOUNDED_NS
        locked = 0
    elif whole[at.HAS_LOWER] == 0 or whole[at.SUSPECT_BACK] > 0:
        u_ns += max(arrival - t_ns, 0)
        locked = 0
    out[at.OUT_TICK] = tick
    out[at.OUT_T_NS] = t_ns
    out[at.OUT_U_NS] = int(min(u_ns, 9e18)) + 1
    out[at.OUT_EPOCH] = whole[at.EPOCH]
    out[at.OUT_LOCKED] = locked


@kernel
def _publish_old_boot(whole: I64, real: F64, row: I64, out: I64) -> None:
    """A frame of the boot before this one, delivered late: mapped by that boot's last fit."""
    elapsed = row[at.ARRIVAL] - whole[at.PREV_REF_NS]
    expected = whole[at.PREV_REF_TICK] + elapsed // whole[at.TICK_NS]
    tick = expected + _signed32(row[at.T_US] - expected)
    ticks = tick - whole[at.PREV_REF_TICK]
    d = float(ticks) * whole[at.TICK_NS] * 1e-9
    age = d - real[at.PREV_BAND_D]
    out[at.OUT_TICK] = tick
    theta = _nearest(real[at.PREV_THETA] + real[at.PREV_SLOPE] * age)
    out[at.OUT_T_NS] = whole[at.PREV_REF_NS] + ticks * whole[at.TICK_NS] + theta
    out[at.OUT_U_NS] = math.ceil(real[at.PREV_U] + 20e3 * abs(age)) + whole[at.TICK_NS]
    out[at.OUT_EPOCH] = whole[at.PREV_EPOCH]
    out[at.OUT_LOCKED] = 0


@kernel
def feed_read(whole: I64, real: F64, rows: I64, out: I64) -> None:
    """Take in the frames of one read and publish their times.

    Args:
        whole: (WHOLE_WIDTH,) int64 state.
        real: (REAL_WIDTH,) float64 state.
        rows: (m, ROW_WIDTH) int64, one frame per row in order of arrival; columns as in align_state.
        out: (m, OUT_WIDTH) int64, written: unwrapped tick, rig time and hard half-width of the frame's
            `t_us`, epoch, locked.
    """
    first = 0
    for i in range(rows.shape[0]):
        row = rows[i]
        whole[at.N_FRAMES] += 1
        if whole[at.N_FRAMES] & 0xFFFF == 0:
            _decay_bins(whole)
        if whole[at.STARTED] and row[at.BOOT] != whole[at.BOOT_NOW] and row[at.BOOT] == whole[at.PREV_BOOT]:
            whole[at.SUSPECT_BOOT] += 1
            if whole[at.SUSPECT_BOOT] < _OLD_BOOT_FRAMES:
                whole[at.N_OLD_BOOT] += 1
                out[i, at.OUT_LOCKED] = -1
                continue
        if whole[at.STARTED] == 0 or row[at.BOOT] != whole[at.BOOT_NOW]:
            _publish_until(whole, real, rows, out, first, i)
            first = i
            _power_up(whole, real, row)
        whole[at.SUSPECT_BOOT] = 0
        step = _count_seq(whole, row[at.SEQ])
        # frames of other kinds may carry no counter of their own (HELLO): trust only their transmit stamp
        other = row[at.KIND] == at.KIND_OTHER
        counter = row[at.PREV_TX] if other else row[at.T_US]
        if other and row[at.HAS_PREV] == 0:
            known = whole[at.REFERENCED] == 1
            out[i, at.OUT_TICK] = _unwrap(whole, row[at.ARRIVAL], row[at.T_US]) if known else row[at.T_US]
            out[i, at.OUT_LOCKED] = 0
            _remember(whole, row)
            continue
        if whole[at.REFERENCED] == 0:
            _refer(whole, row, counter)
        tick = _unwrap(whole, row[at.ARRIVAL], counter)
        if other:
            tick += _signed32(row[at.T_US] - counter)
        out[i, at.OUT_TICK] = tick
        out[i, at.OUT_LOCKED] = 0
        # a counter that falls back is a repeated old frame, or a reset whose HELLO was lost, or garbage
        fallen_ns = (whole[at.LAST_TICK] - tick) * whole[at.TICK_NS]
        gone_back = (step > 0 and fallen_ns > _FALL_NS) or (step < -_STEP_BACK and fallen_ns > _FALL_BACK_NS)
        whole[at.SUSPECT_BACK] = whole[at.SUSPECT_BACK] + 1 if gone_back else 0
        agrees = _take_frame(whole, real, row, tick)
        if agrees:
            whole[at.SUSPECT_UPPER] = 0
        else:
            whole[at.SUSPECT_UPPER] += 1
            whole[at.N_SUSPECT_FRAMES] += 1
        if agrees or whole[at.SUSPECT_UPPER] >= _SUSPECTS:
            stamp = tick - _signed32(row[at.T_US] - counter) if other else tick
            if stamp > whole[at.LAST_TICK]:
                whole[at.LAST_TICK] = stamp
                whole[at.LAST_ARRIVAL] = row[at.ARRIVAL]
        if whole[at.SUSPECT_BACK] >= _SUSPECTS:
            _publish_until(whole, real, rows, out, first, i)
            whole[at.N_RESTARTS] += 1
            _power_up(whole, real, row)
            whole[at.N_RESETS] -= 1
            _refer(whole, row, row[at.T_US])
            out[i, at.OUT_TICK] = row[at.T_US]
            tick = row[at.T_US]
            first = i
            _take_frame(whole, real, row, tick)
            whole[at.DUE] = 1
        elif whole[at.SUSPECT_UPPER] >= _SUSPECTS or whole[at.SUSPECT_LOWER] >= _SUSPECTS:
            _cross(whole, real, row[at.ARRIVAL])
            whole[at.EPOCH_TICK] = tick
            _take_frame(whole, real, row, tick)
            whole[at.DUE] = 1
    _publish_until(whole, real, rows, out, first, rows.shape[0])


@kernel
def _publish_until(whole: I64, real: F64, rows: I64, out: I64, first: int, last: int) -> None:
    """Solve if anything calls for it, then publish rows `first` to `last` - 1."""
    if first >= last:
        return
    due = whole[at.DUE] == 1 or real[at.D_MOST] - real[at.BAND_D] > _SOLVE_EVERY_S
    if due and not follow(whole, real):
        forget_floor(real)
        _cross(whole, real, whole[at.LAST_ARRIVAL])
    for i in range(first, last):
        if out[i, at.OUT_LOCKED] == -1:
            _publish_old_boot(whole, real, rows[i], out[i])
        else:
            _publish(whole, real, rows[i], out[i, at.OUT_TICK], out[i])


@kernel
def feed_log(whole: I64, real: F64, rows: I64, out: I64) -> int:
    """Feed a whole recording causally, read by read: consecutive rows of equal arrival are one read.

    Returns:
        Number of reads.
    """
    reads = 0
    first = 0
    for i in range(1, rows.shape[0] + 1):
        if i == rows.shape[0] or rows[i, at.ARRIVAL] != rows[first, at.ARRIVAL]:
            feed_read(whole, real, rows[first:i], out[first:i])
            first = i
            reads += 1
    return reads


def warm_up() -> None:
    """Compile the kernels of this module."""
    whole, real = at.new_state(1000, 300.0, 0.3)
    rows = np.zeros((2, at.ROW_WIDTH), np.int64)
    out = np.zeros((2, at.OUT_WIDTH), np.int64)
    feed_read(whole, real, rows, out)
    feed_log(whole, real, rows, out)
