"""Layout of the aligner's state: two flat arrays, `whole` (int64) and `real` (float64).

Device time `d` is in seconds since the reference tick, offsets `theta` in ns since the reference instant
(`rig time = REF_NS + (tick - REF_TICK) * tick_ns + theta`), slopes in ns/s (1000 ns/s are 1 ppm).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.compile import kernel

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

# columns of an input row (int64)
KIND, ARRIVAL, SEQ, T_US, PREV_TX, HAS_PREV, PING_SENT, T2_US, BOOT, ROW_WIDTH = range(10)
KIND_SAMPLES, KIND_PONG, KIND_OTHER = range(3)
NO_PING = -1
"""`PING_SENT` of a pong whose ping is unknown: it bounds from above like any frame, but not from below."""

# columns of an output row (int64)
OUT_TICK, OUT_T_NS, OUT_U_NS, OUT_EPOCH, OUT_LOCKED, OUT_WIDTH = range(6)

# scalars at the start of `whole`
(
    TICK_NS,
    STARTED,
    REFERENCED,
    BOOT_NOW,
    EPOCH,
    REF_TICK,
    REF_NS,
    LAST_TICK,
    LAST_ARRIVAL,
    LAST_SEQ,
    HAS_LOWER,
    LOCKED,
    TWO_STEP_TICK,
    EPOCH_TICK,
    EPOCH_PONGS,
    SUSPECT_UPPER,
    SUSPECT_LOWER,
    SUSPECT_BACK,
    SUSPECT_BOOT,
    PREV_BOOT,
    PREV_REF_TICK,
    PREV_REF_NS,
    PREV_EPOCH,
    DUE,
    # counters
    N_FRAMES,
    N_PONGS,
    N_TWO_STEP,
    N_REJECTED_PONGS,
    N_SUSPECT_FRAMES,
    N_RESETS,
    N_RESTARTS,
    N_SEQ_LOST,
    N_REPEATED,
    N_REORDERED,
    N_OLD_BOOT,
    N_SOLVED,
    N_WIDENED,
    UNDO_SLOT,
    UNDO_ID,
    WHOLE_SCALARS,
) = range(40)
RING_SEQ = WHOLE_SCALARS
RING_ARRIVAL = RING_SEQ + RING
UPPER_ID = RING_ARRIVAL + RING
LOWER_ID = UPPER_ID + BUCKETS
DELAY_BINS = LOWER_ID + BUCKETS
TRIP_BINS = DELAY_BINS + BINS
WHOLE_WIDTH = TRIP_BINS + BINS

# scalars at the start of `real`
(
    CURVATURE,
    CURVATURE_LEAST,
    CURVATURE_MOST,
    SLOPE_MOST,
    SLOPE_PRIOR_LO,
    SLOPE_PRIOR_HI,
    OUT_LEAST,
    IN_LEAST,
    BAND_D,
    HI,
    LO,
    SLOPE_HI,
    SLOPE_LO,
    THETA,
    SLOPE,
    P00,
    P01,
    P11,
    FILTER_READY,
    D_MOST,
    SLEW,
    FLOOR_NOW,
    FLOOR_BEFORE,
    FLOOR_D,
    OUT_N,
    OUT_SUM,
    OUT_MIN,
    SPREAD_D,
    SPREAD_UPPER,
    SPREAD_LOWER,
    LOWER_D_MOST,
    KEPT_D,
    KEPT_SLOPE_HI,
    KEPT_SLOPE_LO,
    RATE_D,
    WANDER,
    UNDO_D,
    UNDO_THETA,
    PREV_THETA,
    PREV_SLOPE,
    PREV_BAND_D,
    PREV_U,
    PONG_GAP,
    REAL_SCALARS,
) = range(44)
PARABOLA = REAL_SCALARS
UPPER_D = PARABOLA + 4
UPPER_THETA = UPPER_D + BUCKETS
LOWER_D = UPPER_THETA + BUCKETS
LOWER_THETA = LOWER_D + BUCKETS
WORK_AGE_U = LOWER_THETA + BUCKETS
WORK_TOP = WORK_AGE_U + BUCKETS
WORK_AGE_L = WORK_TOP + BUCKETS
WORK_BOTTOM = WORK_AGE_L + BUCKETS
REAL_WIDTH = WORK_BOTTOM + BUCKETS


def new_state(
    tick_ns: int,
    max_skew_ppm: float,
    drift_ppm_s: float,
    ping_least_ns: int = 0,
    reply_least_ns: int = 0,
) -> tuple[I64, F64]:
    """Fresh (whole, real) state.

    Args:
        tick_ns: Nanoseconds per tick of the device's counter.
        max_skew_ppm: The crystal's slope lies within ± this, until the data prove otherwise.
        drift_ppm_s: The slope changes by at most this per second, until the data prove otherwise.
        ping_least_ns: Known least time from `ping_sent` to `t2` (serialisation of the ping on a UART).
        reply_least_ns: Known least time from `t3` to the pong's arrival.
    """
    whole = np.zeros(WHOLE_WIDTH, np.int64)
    real = np.zeros(REAL_WIDTH, np.float64)
    whole[TICK_NS] = tick_ns
    whole[EPOCH] = -1
    whole[PREV_BOOT] = EMPTY
    whole[RING_SEQ : RING_SEQ + RING] = EMPTY
    whole[UPPER_ID : UPPER_ID + BUCKETS] = EMPTY
    whole[LOWER_ID : LOWER_ID + BUCKETS] = EMPTY
    real[CURVATURE] = real[CURVATURE_LEAST] = drift_ppm_s * 1e3
    real[CURVATURE_MOST] = drift_ppm_s * 256e3
    real[SLOPE_MOST] = max_skew_ppm * 1e3
    real[SLOPE_PRIOR_HI] = max_skew_ppm * 1e3
    real[SLOPE_PRIOR_LO] = -max_skew_ppm * 1e3
    real[FLOOR_NOW] = real[FLOOR_BEFORE] = np.inf
    real[KEPT_D] = -1.0
    real[PONG_GAP] = PONG_GAP_S
    real[OUT_LEAST] = ping_least_ns
    real[IN_LEAST] = reply_least_ns
    return whole, real


@kernel
def clear_bounds(whole: I64) -> None:
    """Forget every bound and every remembered arrival."""
    for k in range(BUCKETS):
        whole[UPPER_ID + k] = EMPTY
        whole[LOWER_ID + k] = EMPTY
    for k in range(RING):
        whole[RING_SEQ + k] = EMPTY
    whole[HAS_LOWER] = 0
    whole[LOCKED] = 0
    whole[EPOCH_PONGS] = 0
    whole[SUSPECT_UPPER] = 0
    whole[SUSPECT_LOWER] = 0
    whole[SUSPECT_BACK] = 0
    whole[SUSPECT_BOOT] = 0
