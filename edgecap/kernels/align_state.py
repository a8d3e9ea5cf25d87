"""Layout of the aligner's state: one record of int64 and float64 fields.

Device time `d` is in seconds since the reference tick, offsets `theta` in ns since the reference instant
(`rig time = ref_ns + (tick - ref_tick) * tick_ns + theta`), slopes in ns/s (1000 ns/s are 1 ppm).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.compile import part

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

BUCKETS = 80
"""Slots of the ring that holds the best bound of each kind per bucket of device time."""
BUCKET_S = 0.5
RING = 256
"""Frames whose arrival is remembered for the transmit stamp in the next one."""
BINS = 80
"""Histogram bins, four per octave above 1 µs."""
PONG_GAP_S = 0.1
"""Time between answered pings, assumed until seen."""
EMPTY = -(1 << 62)
NONE: Any = np.int64(0)
"""numpy's, like what follows: a function is compiled anew for each Python constant that it is given."""
UPPER: Any = np.int64(0)
LOWER: Any = np.int64(BUCKETS)
"""Where the slots of a side's bounds begin."""

# columns of an input row (int64)
KIND, ARRIVAL, SEQ, T_US, PREV_TX, HAS_PREV, PING_SENT, T2_US, BOOT, ROW_WIDTH = range(10)
KIND_SAMPLES, KIND_PONG, KIND_OTHER = range(3)
NO_PING = -1
"""`PING_SENT` of a pong whose ping is unknown: it bounds from above like any frame, but not from below."""

# columns of an output row (int64)
OUT_TICK, OUT_T_NS, OUT_U_NS, OUT_EPOCH, OUT_LOCKED, OUT_WIDTH = range(6)


class State:
    """Names and types of the record's fields; `STATE` is its dtype. Never instantiated."""

    tick_ns: int
    started: int
    referenced: int
    boot_now: int
    epoch: int
    ref_tick: int
    ref_ns: int
    last_tick: int
    last_arrival: int
    last_seq: int
    has_lower: int
    locked: int
    two_step_tick: int
    epoch_tick: int
    epoch_pongs: int
    suspect_upper: int
    suspect_lower: int
    suspect_back: int
    suspect_boot: int
    prev_boot: int
    prev_ref_tick: int
    prev_ref_ns: int
    prev_epoch: int
    due: int
    # counters
    n_frames: int
    n_pongs: int
    n_two_step: int
    n_rejected_pongs: int
    n_suspect_frames: int
    n_resets: int
    n_restarts: int
    n_seq_lost: int
    n_repeated: int
    n_reordered: int
    n_old_boot: int
    n_solved: int
    n_widened: int
    undo_slot: int
    undo_id: int
    line_n: int
    # the frame being taken in: an input row
    kind: int
    arrival: int
    seq: int
    t_us: int
    prev_tx: int
    has_prev: int
    ping_sent: int
    t2_us: int
    boot: int
    tick: int
    """Its unwrapped `t_us`."""

    curvature: float
    curvature_least: float
    curvature_most: float
    slope_most: float
    slope_prior_lo: float
    slope_prior_hi: float
    out_least: float
    in_least: float
    band_d: float
    hi: float
    lo: float
    slope_hi: float
    slope_lo: float
    theta: float
    slope: float
    p00: float
    p01: float
    p11: float
    filter_ready: float
    d_most: float
    slew: float
    floor_now: float
    floor_before: float
    floor_d: float
    out_n: float
    out_sum: float
    out_min: float
    spread_d: float
    spread_upper: float
    spread_lower: float
    lower_d_most: float
    kept_d: float
    kept_slope_hi: float
    kept_slope_lo: float
    rate_d: float
    wander: float
    undo_d: float
    undo_theta: float
    prev_theta: float
    prev_slope: float
    prev_band_d: float
    prev_u: float
    pong_gap: float
    line_d: float
    line_theta: float
    line_slope: float
    line_sigma: float
    wait_mean: float

    ring_seq: I64
    ring_arrival: I64
    delay_bins: I64
    trip_bins: I64
    parabola: F64
    """Constant, linear and square coefficient, residual deviation."""
    # the best bound of each bucket, by side
    bound_id: I64
    bound_d: F64
    bound_theta: F64
    # scratch of the solver: age and offset of each bound in use
    upper_age: F64
    upper_theta: F64
    lower_age: F64
    lower_theta: F64
    found: F64


_SHAPES: dict[str, tuple[int, ...]] = {
    "ring_seq": (RING,),
    "ring_arrival": (RING,),
    "delay_bins": (BINS,),
    "trip_bins": (BINS,),
    "parabola": (4,),
    "bound_id": (2 * BUCKETS,),
    "bound_d": (2 * BUCKETS,),
    "bound_theta": (2 * BUCKETS,),
    "upper_age": (BUCKETS,),
    "upper_theta": (BUCKETS,),
    "lower_age": (BUCKETS,),
    "lower_theta": (BUCKETS,),
    "found": (BUCKETS + 1,),
}
# np.record, so that fields are attributes without the compiler, too
STATE = np.dtype(
    (
        np.record,
        [
            (name, "f8" if kind in ("float", "F64") else "i8", _SHAPES.get(name, ()))
            for name, kind in State.__annotations__.items()
        ],
    )
)
States = NDArray[Any]
"""(1,) STATE"""
_WHOLE = [name for name, kind in State.__annotations__.items() if kind == "int"]
_REAL = [name for name, kind in State.__annotations__.items() if kind == "float"]


def snapshot(states: States) -> State:
    """All scalars as they are now, in Python's types: a record's own attributes take microseconds each."""
    # all of `whole` come first, then all of `real`
    whole = states.view(np.int64)[: len(_WHOLE)].tolist()
    real = states.view(np.float64)[len(_WHOLE) : len(_WHOLE) + len(_REAL)].tolist()
    return cast("State", SimpleNamespace(**dict(zip(_WHOLE + _REAL, whole + real, strict=True))))


def new_state(
    tick_ns: int,
    max_skew_ppm: float,
    drift_ppm_s: float,
    ping_least_ns: int = 0,
    reply_least_ns: int = 0,
) -> States:
    """Fresh (1,) state.

    Args:
        tick_ns: Nanoseconds per tick of the device's counter.
        max_skew_ppm: The crystal's slope lies within ± this, until the data prove otherwise.
        drift_ppm_s: The slope changes by at most this per second, until the data prove otherwise.
        ping_least_ns: Known least time from `ping_sent` to `t2` (serialisation of the ping on a UART).
        reply_least_ns: Known least time from `t3` to the pong's arrival.
    """
    states = np.zeros(1, STATE)
    s: State = states[0]  # a view
    s.tick_ns = tick_ns
    s.epoch = -1
    s.prev_boot = EMPTY
    s.ring_seq[:] = EMPTY
    s.bound_id[:] = EMPTY
    s.curvature = s.curvature_least = drift_ppm_s * 1e3
    s.curvature_most = drift_ppm_s * 256e3
    s.slope_most = max_skew_ppm * 1e3
    s.slope_prior_hi = max_skew_ppm * 1e3
    s.slope_prior_lo = -max_skew_ppm * 1e3
    s.floor_now = s.floor_before = np.inf
    s.kept_d = -1.0
    s.pong_gap = PONG_GAP_S
    s.out_least = ping_least_ns
    s.in_least = reply_least_ns
    return states


@part
def clear_bounds(s: State) -> None:
    """Forget every bound and every remembered arrival."""
    for k in range(2 * BUCKETS):
        s.bound_id[k] = EMPTY
    for k in range(RING):
        s.ring_seq[k] = EMPTY
    s.has_lower = 0
    s.locked = 0
    s.epoch_pongs = 0
    s.suspect_upper = 0
    s.suspect_lower = 0
    s.suspect_back = 0
    s.suspect_boot = 0
