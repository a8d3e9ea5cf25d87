"""The clock aligner: one call per read turns frames' device counters into rig time with an honest bound.

See docs/ALIGNMENT.md for the method. State is one record (align_state), nothing is allocated.
"""

from __future__ import annotations

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
from edgecap.kernels.align_line import note_wait
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
from edgecap.kernels.bits import i8
from edgecap.kernels.compile import inlined, kernel, part

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
_QUARTERS = tuple(int((2.0 ** (k / 4) - 1.0) * 2**52) for k in (1, 2, 3))
_SAME_BOOT, _OLD_BOOT, _NEW_BOOT, _FALLEN_BACK = range(4)
"""A frame goes on with a boot, is a late one of the boot before, or begins another (by its id or counter)."""
_GAP_MOST_S = 2.0
_GAP_SHARE = 1.0 / 16.0
"""Weight of the newest time between two answered pings, and the most that it counts."""


@inlined
def _bin_of(delay_ns: float) -> int:
    """Four bins per octave of 1 + delay in µs, from the exponent and the mantissa: a logarithm is slow."""
    bits = int(np.float64(1.0 + max(delay_ns, 0.0) * 1e-3).view(np.int64))
    mantissa = bits & 0xFFFFFFFFFFFFF
    quarter = (mantissa >= _QUARTERS[0]) + (mantissa >= _QUARTERS[1]) + (mantissa >= _QUARTERS[2])
    return min(BINS - 1, 4 * ((bits >> 52) - 1023) + quarter)


@part
def _offer_against(s: State, side: int, d: float, theta: float) -> bool:
    """Take in a bound that contradicts the band; False if no drift rate that is allowed reconciles them."""
    had_lower = s.has_lower
    if not keep_bound(s, side, d, theta):
        return False
    if side == LOWER:
        s.has_lower = 1
    if widen_until_solved(s, max(s.d_most, d), s.curvature):
        s.due = 1
        s.d_most = max(s.d_most, d)
        return True
    drop_bound(s)
    s.has_lower = had_lower
    return False


@inlined
def _offer(s: State, side: int, d: float, theta: float) -> bool:
    """Take a bound in; False if it contradicts the band under every drift rate that is allowed."""
    lower = side == LOWER
    lo, hi = band_at(s, d)
    if (theta > hi) if lower else (s.has_lower == 1 and theta < lo):
        return _offer_against(s, side, d, theta)
    s.d_most = max(s.d_most, d)
    if keep_bound(s, side, d, theta) and (lower or theta < hi - _SOLVE_GAIN_NS):
        s.due = 1
    return True


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
    note_wait(s, d, theta)
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


@inlined
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


@inlined
def _take(s: State) -> int:
    """Take in the frame at hand and set its `tick`, unless it is of another boot than the last one."""
    s.n_frames += 1
    if s.n_frames & 0xFFFF == 0:
        _decay_bins(s)
    if s.started == 0 or s.boot != s.boot_now:
        if s.started == 0 or s.boot != s.prev_boot:
            return _NEW_BOOT
        s.suspect_boot += 1
        if s.suspect_boot >= _OLD_BOOT_FRAMES:
            return _NEW_BOOT
        s.n_old_boot += 1
        return _OLD_BOOT
    s.suspect_boot = 0
    return _take_own(s)


@inlined
def _take_own(s: State) -> int:
    """The same for a frame of this boot; it may prove that another one has begun."""
    step = _count_seq(s)
    # frames of other kinds may carry no counter of their own (HELLO): trust only their transmit stamp
    other = s.kind == KIND_OTHER
    counter = s.prev_tx if other else s.t_us
    if other and s.has_prev == 0:
        s.tick = _unwrap(s, s.t_us) if s.referenced == 1 else s.t_us
        _remember(s)
        return _SAME_BOOT
    if s.referenced == 0:
        refer(s, counter)
    tick = _unwrap(s, counter)
    if other:
        tick += signed32(s.t_us - counter)
    s.tick = tick
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
        return _FALLEN_BACK
    if s.suspect_upper >= _SUSPECTS or s.suspect_lower >= _SUSPECTS:
        cross(s, s.arrival)
        s.epoch_tick = tick
        _take_frame(s, tick)
        s.due = 1
    return _SAME_BOOT


@part
def _begin_boot(s: State, evidence: int) -> None:
    """Take in the frame at hand as the first of a boot."""
    if evidence == _FALLEN_BACK:
        s.n_restarts += 1
        power_up(s)
        s.n_resets -= 1
        refer(s, s.t_us)
        s.tick = s.t_us
        _take_frame(s, s.t_us)
        s.due = 1
    else:
        power_up(s)
        _take_own(s)


@part
def _settle(s: State) -> None:
    """Solve if anything calls for it: before what has been taken in is published."""
    due = s.due == 1 or s.d_most - s.band_d > _SOLVE_EVERY_S
    if due and not follow(s):
        forget_floor(s)
        cross(s, s.last_arrival)


@kernel
def feed(states: States, rows: I64, out: I64, by_arrival: bool) -> int:
    """Take in frames and publish their times, causally, read by read.

    Args:
        states: (1,) STATE.
        rows: (m, ROW_WIDTH) int64, one frame per row in order of arrival; columns as in align_state.
        out: (m, OUT_WIDTH) int64, written: unwrapped tick, rig time and hard half-width of the frame's
            `t_us`, epoch, locked.
        by_arrival: Whether consecutive rows of equal arrival are a read (a recording); else all rows are one.

    Returns:
        Number of reads.
    """
    # no array is given to a part: counting its references would take longer than most frames do
    s = states[0]
    n = rows.shape[0]
    i = first = reads = 0
    boot = _SAME_BOOT
    while first < n:
        if boot >= _NEW_BOOT:
            _begin_boot(s, i8(boot))
            boot = _SAME_BOOT
            out[i, OUT_TICK] = s.tick
            i += 1
        while i < n and (i == first or not by_arrival or rows[i, ARRIVAL] == s.arrival):
            s.kind = rows[i, KIND]
            s.arrival = rows[i, ARRIVAL]
            s.seq = rows[i, SEQ]
            s.t_us = rows[i, T_US]
            s.prev_tx = rows[i, PREV_TX]
            s.has_prev = rows[i, HAS_PREV]
            s.ping_sent = rows[i, PING_SENT]
            s.t2_us = rows[i, T2_US]
            s.boot = rows[i, BOOT]
            boot = _take(s)
            out[i, OUT_LOCKED] = boot
            if boot >= _NEW_BOOT:
                break
            out[i, OUT_TICK] = s.tick
            i += 1
        else:
            reads += 1
        if first < i:
            _settle(s)
        for k in range(first, i):
            if out[k, OUT_LOCKED] == _OLD_BOOT:
                tick, t_ns, u_ns = published_old_boot(s, rows[k, ARRIVAL], rows[k, T_US])
                epoch = s.prev_epoch
                locked = 0
                out[k, OUT_TICK] = tick
            else:
                t_ns, u_ns, locked = _published(s, rows[k, ARRIVAL], out[k, OUT_TICK])
                epoch = s.epoch
            out[k, OUT_T_NS] = t_ns
            out[k, OUT_U_NS] = u_ns
            out[k, OUT_EPOCH] = epoch
            out[k, OUT_LOCKED] = locked
        first = i
    return reads


def warm_up() -> None:
    """Compile the kernels of this module."""
    states = new_state(1000, 300.0, 0.3)
    rows = np.zeros((2, ROW_WIDTH), np.int64)
    out = np.zeros((2, OUT_WIDTH), np.int64)
    feed(states, rows, out, False)
