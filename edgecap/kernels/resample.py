"""Ticks to rig time for whole blocks, and resampling that never crosses a gap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.compile import kernel

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@kernel
def ticks_to_rig(
    ticks: I64, ref_tick: int, ref_ns: int, tick_ns: int, extra_ns_per_tick: float, out: I64
) -> None:
    """Map unwrapped ticks to rig time.

    Args:
        ticks: (n,) int64.
        ref_tick: Tick of the reference.
        ref_ns: Rig time of the reference.
        tick_ns: Nominal tick length.
        extra_ns_per_tick: Difference of the true tick length from the nominal one.
        out: (n,) int64, written: nearest ns.
    """
    for i in range(ticks.shape[0]):
        ticks_off = ticks[i] - ref_tick
        out[i] = ref_ns + ticks_off * tick_ns + np.int64(np.floor(ticks_off * extra_ns_per_tick + 0.5))


@kernel
def linear_at(
    t_ns: I64, values: NDArray[np.generic], at_ns: I64, max_gap_ns: int, out: F64, valid: Bool
) -> None:
    """Linear interpolation at instants.

    Args:
        t_ns: (n,) int64, strictly rising times of the samples.
        values: (n, c) samples of any real dtype.
        at_ns: (m,) int64, rising instants.
        max_gap_ns: Neighbouring samples further apart than this are a gap.
        out: (m, c) float64, written; NaN where not valid.
        valid: (m,) bool, written: both neighbours exist and no gap lies between them.
    """
    n = t_ns.shape[0]
    channels = values.shape[1]
    j = 0
    for i in range(at_ns.shape[0]):
        at = at_ns[i]
        while j < n and t_ns[j] < at:
            j += 1
        if j < n and t_ns[j] == at:
            valid[i] = True
            for c in range(channels):
                out[i, c] = values[j, c]
            continue
        if j == 0 or j == n or t_ns[j] - t_ns[j - 1] > max_gap_ns:
            valid[i] = False
            for c in range(channels):
                out[i, c] = np.nan
            continue
        valid[i] = True
        weight = (at - t_ns[j - 1]) / (t_ns[j] - t_ns[j - 1])
        for c in range(channels):
            before = np.float64(values[j - 1, c])
            out[i, c] = before + weight * (np.float64(values[j, c]) - before)


@kernel
def box_over(
    t_ns: I64,
    values: NDArray[np.generic],
    from_ns: I64,
    to_ns: I64,
    max_gap_ns: int,
    mean: F64,
    deviation: F64,
    valid: Bool,
) -> None:
    """Mean and standard deviation of the samples within windows (an exposure), both ends included.

    A window is valid if it holds at least one sample, the samples just outside it on both sides exist, and
    no gap touches it.

    Args:
        t_ns: (n,) int64, strictly rising times of the samples.
        values: (n, c) samples of any real dtype.
        from_ns: (m,) int64, rising window starts.
        to_ns: (m,) int64, window ends.
        max_gap_ns: Neighbouring samples further apart than this are a gap.
        mean: (m, c) float64, written; NaN where not valid.
        deviation: (m, c) float64, written: population standard deviation; NaN where not valid.
        valid: (m,) bool, written.
    """
    n = t_ns.shape[0]
    channels = values.shape[1]
    first = 0
    for i in range(from_ns.shape[0]):
        while first < n and t_ns[first] < from_ns[i]:
            first += 1
        last = first
        while last < n and t_ns[last] <= to_ns[i]:
            last += 1
        whole = last > first
        # the neighbours outside belong to the support: a window that begins or ends in a gap is not covered
        if whole and t_ns[first] > from_ns[i]:
            whole = first > 0
        if whole and t_ns[last - 1] < to_ns[i]:
            whole = last < n
        if whole:
            low = first - 1 if t_ns[first] > from_ns[i] else first
            high = last if t_ns[last - 1] < to_ns[i] else last - 1
            for k in range(low + 1, high + 1):
                if t_ns[k] - t_ns[k - 1] > max_gap_ns:
                    whole = False
                    break
        valid[i] = whole
        count = last - first
        for c in range(channels):
            if not whole:
                mean[i, c] = np.nan
                deviation[i, c] = np.nan
                continue
            total = 0.0
            for k in range(first, last):
                total += values[k, c]
            middle = total / count
            square = 0.0
            for k in range(first, last):
                off = values[k, c] - middle
                square += off * off
            mean[i, c] = middle
            deviation[i, c] = np.sqrt(square / count)


def warm_up() -> None:
    """Compile what recording needs; the rest compiles for the types that it is first asked for."""
    ticks_to_rig(np.zeros(1, np.int64), 0, 0, 1000, 0.0, np.empty(1, np.int64))
