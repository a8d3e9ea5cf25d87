"""The clock aligner: one call per read turns frames' device counters into rig time with an honest bound.

See docs/ALIGNMENT.md for the method. State is one record (align_state), nothing is allocated.
"""

from __future__ import annotations

import math

import numpy as np

from edgecap.kernels.align_band import (
    UNBOUNDED_NS,
    band_at,
    drop_bound,
    keep_bound,
    widen_until_solved,
)
from edgecap.kernels.align_epoch import (
    cross,
    nearest,
    power_up,
    published_old_boot,
    refer,
    signed32,
)
from edgecap.kernels.align_filter import follow, forget_floor, note_width
from edgecap.kernels.align_state import (
    ARRIVAL,
    BINS,
    BOOT,
    HAS_PREV,
    I64,
    KIND,
    KIND_OTHER,
    KIND_PONG,
    LOWER,
    NONE,
    OUT_EPOCH,
    OUT_LOCKED,
    OUT_T_NS,
    OUT_TICK,
    OUT_U_NS,
    OUT_WIDTH,
    PING_SENT,
    PREV_TX,
    RING,
    ROW_WIDTH,
    SEQ,
    T2_US,
    T_US,
    UPPER,
    State,
    States,
    new_state,
)
from edgecap.kernels.compile import kernel, part

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


@part
def _bin_of(delay_ns: float) -> int:
    octaves = math.log2(1.0 + max(delay_ns, 0.0) * 1e-3)
    return min(BINS - 1, int(4.0 * octaves))


@part
def _offer(s: State, side: int, d: float, theta: float) -> bool:
    """Take a bound in; False if it contradicts the band under every drift rate that is allowed."""
    lower = side == LOWER
    lo, hi = band_at(s, d)
    contradicts = (theta > hi) if lower else (s.has_lower == 1 and theta < lo)
    if not contradicts:
        s.d_most = max(s.d_most, d)
        if keep_bound(s, side, d, theta) and (lower or theta < hi - _SOLVE_GAIN_NS):
            s.due = 1
        return True
    had_lower = s.has_lower
    if not keep_bound(s, side, d, theta):
        return False
    if lower:
        s.has_lower = 1
    if widen_until_solved(s, max(s.d_most, d), s.curvature):
        s.due = 1
        s.d_most = max(s.d_most, d)
        return True
    drop_bound(s)
    s.has_lower = had_lower
    return False


@part
def _unwrap(s: State, counter: int) -> int:
    """The 64-bit tick whose low half is `counter`, nearest to where the device must be by now."""
    expected: int = s.last_tick + (s.arrival - s.last_arrival) // s.tick_ns
    return expected + signed32(counter - expected)


@part
def _count_seq(s: State) -> int:
    """Count losses and repetitions; the step from the newest frame so far."""
    seq = s.seq
    step = signed32(seq - s.last_seq)
    if step > 0:
        s.n_seq_lost += step - 1
        s.last_seq = seq
    elif s.ring_seq[seq & (RING - 1)] == seq:
        s.n_repeated += 1
    else:
        s.n_reordered += 1
        s.n_seq_lost -= s.n_seq_lost > 0
    return step


@part
def _take_pong(s: State, tick: int) -> bool:
    """The lower bound of a pong; False if the bound contradicts the band."""
    arrival = s.arrival
    sent = s.ping_sent
    turn_ticks = (s.t_us - s.t2_us) & 0xFFFFFFFF
    t2 = tick - turn_ticks
    turn_ns = float(turn_ticks) * s.tick_ns
    trip_ns = float(arrival - sent)
    if (
        sent < 0
        or sent > arrival
        or turn_ticks >= 0x80000000
        or turn_ns * 0.97 - 2.0 * s.tick_ns > trip_ns
        or t2 < s.epoch_tick
    ):
        s.n_rejected_pongs += 1
        return True
    # the counter is read after its edge: the ping was received before the edge of t2 + 1
    since_ns = float(t2 + 1 - s.ref_tick) * s.tick_ns
    d = since_ns * 1e-9
    theta = float(sent - s.ref_ns) + s.out_least - since_ns
    if not _offer(s, LOWER, d, theta):
        s.n_rejected_pongs += 1
        return False
    s.has_lower = 1
    if d > s.lower_d_most:
        gap = min(d - s.lower_d_most, _GAP_MOST_S)
        s.pong_gap += _GAP_SHARE * (gap - s.pong_gap)
        s.lower_d_most = d
    s.n_pongs += 1
    s.epoch_pongs += 1
    s.due = 1
    _, hi = band_at(s, d)
    note_width(s, hi - theta)
    if theta > hi - 5e6:
        s.suspect_lower = 0
    s.trip_bins[_bin_of(trip_ns - turn_ns)] += 1
    return True


@part
def _remember(s: State) -> None:
    """Keep the first arrival of a frame for the transmit stamp in the next one."""
    slot = s.seq & (RING - 1)
    if s.ring_seq[slot] != s.seq:
        s.ring_seq[slot] = s.seq
        s.ring_arrival[slot] = s.arrival


@part
def _take_frame(s: State, tick: int) -> bool:
    """All bounds of one frame; False if the frame contradicts the band."""
    arrival = s.arrival
    since_ns = float(tick - s.ref_tick) * s.tick_ns
    d = since_ns * 1e-9
    in_least = s.in_least if s.kind == KIND_PONG else 0.0
    theta = float(arrival - s.ref_ns) - in_least - since_ns
    if s.kind != KIND_OTHER and not _offer(s, UPPER, d, theta):
        return False
    delay_theta = theta
    delay_d = d
    seq = s.seq
    agrees = True
    if s.has_prev:
        before = (seq - 1) & 0xFFFFFFFF
        slot = before & (RING - 1)
        if s.ring_seq[slot] == before:
            tx = tick + signed32(s.prev_tx - s.t_us)
            delay_d = float(tx - s.ref_tick) * s.tick_ns * 1e-9
            delay_theta = float(s.ring_arrival[slot] - s.ref_ns)
            delay_theta -= float(tx - s.ref_tick) * s.tick_ns
            agrees = _offer(s, UPPER, delay_d, delay_theta)
            if agrees:
                s.two_step_tick = tick
                s.n_two_step += 1
    _remember(s)
    if s.kind == KIND_PONG and not _take_pong(s, tick):
        s.suspect_lower += 1
    elif s.has_lower and s.kind != KIND_OTHER:
        _, hi = band_at(s, delay_d)
        s.delay_bins[_bin_of(delay_theta - hi)] += 1
    return agrees


@part
def _decay_bins(s: State) -> None:
    """Halve the histograms about once a minute, so that quantiles speak of the recent past."""
    for k in range(BINS):
        s.delay_bins[k] >>= 1
        s.trip_bins[k] >>= 1


@part
def _published(s: State, arrival: int, tick: int) -> tuple[int, int, int]:
    """What is known at this moment about a frame's counter: rig time, hard half-width, locked."""
    tick_ns = s.tick_ns
    d = float(tick - s.ref_tick) * tick_ns * 1e-9
    lo, hi = band_at(s, d)
    locked = s.locked
    theta = s.theta + s.slope * (d - s.band_d) if s.has_lower else hi
    theta = min(max(theta, lo), hi)
    t_ns = s.ref_ns + (tick - s.ref_tick) * tick_ns + nearest(theta)
    u_ns = max(hi - theta, theta - lo) + tick_ns
    if t_ns - u_ns > arrival or s.referenced == 0:
        # the counter says "after its arrival": not this clock, so arrival is all that is known
        t_ns = arrival
        u_ns = UNBOUNDED_NS
        locked = NONE
    elif s.has_lower == 0 or s.suspect_back > 0:
        u_ns += max(arrival - t_ns, 0)
        locked = NONE
    return t_ns, int(min(u_ns, 9e18)) + 1, locked


@part
def _publish(s: State, rows: I64, out: I64, first: int, last: int) -> None:
    """Solve if anything calls for it, then publish rows `first` to `last` - 1."""
    if first >= last:
        return
    due = s.due == 1 or s.d_most - s.band_d > _SOLVE_EVERY_S
    if due and not follow(s):
        forget_floor(s)
        cross(s, s.last_arrival)
    for i in range(first, last):
        arrival = rows[i, ARRIVAL]
        if out[i, OUT_LOCKED] == -1:
            tick, t_ns, u_ns = published_old_boot(s, arrival, rows[i, T_US])
            out[i, OUT_TICK] = tick
            out[i, OUT_EPOCH] = s.prev_epoch
            out[i, OUT_LOCKED] = 0
        else:
            t_ns, u_ns, locked = _published(s, arrival, out[i, OUT_TICK])
            out[i, OUT_EPOCH] = s.epoch
            out[i, OUT_LOCKED] = locked
        out[i, OUT_T_NS] = t_ns
        out[i, OUT_U_NS] = u_ns


@part
def _take_read(s: State, rows: I64, out: I64, begin: int, end: int) -> None:
    """Take in rows `begin` to `end` - 1 as one read and publish their times."""
    first = begin
    for i in range(begin, end):
        s.kind = rows[i, KIND]
        s.arrival = rows[i, ARRIVAL]
        s.seq = rows[i, SEQ]
        s.t_us = rows[i, T_US]
        s.prev_tx = rows[i, PREV_TX]
        s.has_prev = rows[i, HAS_PREV]
        s.ping_sent = rows[i, PING_SENT]
        s.t2_us = rows[i, T2_US]
        s.boot = rows[i, BOOT]
        s.n_frames += 1
        if s.n_frames & 0xFFFF == 0:
            _decay_bins(s)
        if s.started and s.boot != s.boot_now and s.boot == s.prev_boot:
            s.suspect_boot += 1
            if s.suspect_boot < _OLD_BOOT_FRAMES:
                s.n_old_boot += 1
                out[i, OUT_LOCKED] = -1
                continue
        if s.started == 0 or s.boot != s.boot_now:
            _publish(s, rows, out, first, i)
            first = i
            power_up(s)
        s.suspect_boot = 0
        step = _count_seq(s)
        # frames of other kinds may carry no counter of their own (HELLO): trust only their transmit stamp
        other = s.kind == KIND_OTHER
        counter = s.prev_tx if other else s.t_us
        out[i, OUT_LOCKED] = 0
        if other and s.has_prev == 0:
            out[i, OUT_TICK] = _unwrap(s, s.t_us) if s.referenced == 1 else s.t_us
            _remember(s)
            continue
        if s.referenced == 0:
            refer(s, counter)
        tick = _unwrap(s, counter)
        if other:
            tick += signed32(s.t_us - counter)
        out[i, OUT_TICK] = tick
        # a counter that falls back is a repeated old frame, or a reset whose HELLO was lost, or garbage
        fallen_ns = (s.last_tick - tick) * s.tick_ns
        gone_back = (step > 0 and fallen_ns > _FALL_NS) or (step < -_STEP_BACK and fallen_ns > _FALL_BACK_NS)
        s.suspect_back = s.suspect_back + 1 if gone_back else 0
        agrees = _take_frame(s, tick)
        if agrees:
            s.suspect_upper = 0
        else:
            s.suspect_upper += 1
            s.n_suspect_frames += 1
        if agrees or s.suspect_upper >= _SUSPECTS:
            stamp = tick - signed32(s.t_us - counter) if other else tick
            if stamp > s.last_tick:
                s.last_tick = stamp
                s.last_arrival = s.arrival
        if s.suspect_back >= _SUSPECTS:
            _publish(s, rows, out, first, i)
            s.n_restarts += 1
            power_up(s)
            s.n_resets -= 1
            refer(s, s.t_us)
            out[i, OUT_TICK] = s.t_us
            first = i
            _take_frame(s, s.t_us)
            s.due = 1
        elif s.suspect_upper >= _SUSPECTS or s.suspect_lower >= _SUSPECTS:
            cross(s, s.arrival)
            s.epoch_tick = tick
            _take_frame(s, tick)
            s.due = 1
    _publish(s, rows, out, first, end)


@kernel
def feed_read(states: States, rows: I64, out: I64) -> None:
    """Take in the frames of one read and publish their times.

    Args:
        states: (1,) STATE.
        rows: (m, ROW_WIDTH) int64, one frame per row in order of arrival; columns as in align_state.
        out: (m, OUT_WIDTH) int64, written: unwrapped tick, rig time and hard half-width of the frame's
            `t_us`, epoch, locked.
    """
    _take_read(states[0], rows, out, NONE, rows.shape[0])


@kernel
def feed_log(states: States, rows: I64, out: I64) -> int:
    """Feed a whole recording causally, read by read: consecutive rows of equal arrival are one read.

    Returns:
        Number of reads.
    """
    s = states[0]
    reads = 0
    first = NONE
    for i in range(1, rows.shape[0] + 1):
        if i == rows.shape[0] or rows[i, ARRIVAL] != rows[first, ARRIVAL]:
            _take_read(s, rows, out, first, i)
            first = i
            reads += 1
    return reads


def warm_up() -> None:
    """Compile the kernels of this module."""
    states = new_state(1000, 300.0, 0.3)
    rows = np.zeros((2, ROW_WIDTH), np.int64)
    out = np.zeros((2, OUT_WIDTH), np.int64)
    feed_read(states, rows, out)
    feed_log(states, rows, out)
