"""Lag between two signals: means of a piecewise linear signal over intervals, and how well they explain
another signal's means at each candidate lag.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.compile import kernel

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

RIDGE = 1e-12
"""Added to the diagonal of the normal equations, relative to it, so that a dead channel does no harm."""
TINY = 1e-12
"""Smallest share of a channel's variance that counts as unexplained: bounds the score of exact copies."""


@kernel
def integrate_runs(t_s: F64, values: F64, max_gap_s: float, integral: F64, run: I32) -> None:
    """Integral of the line through the samples, and which samples belong together.

    Args:
        t_s: (n,) float64, strictly rising, s.
        values: (n, c) float64.
        max_gap_s: Neighbouring samples further apart than this are a gap.
        integral: (n, c) float64, written: from the first sample to each, unit · s.
        run: (n,) int32, written: number of the gapless stretch that the sample is in.
    """
    n, channels = values.shape
    if n == 0:
        return
    run[0] = 0
    for c in range(channels):
        integral[0, c] = 0.0
    for i in range(1, n):
        step = t_s[i] - t_s[i - 1]
        run[i] = run[i - 1] + (1 if step > max_gap_s else 0)
        for c in range(channels):
            integral[i, c] = integral[i - 1, c] + 0.5 * step * (values[i - 1, c] + values[i, c])


@kernel
def _last_at_or_before(t_s: F64, at: float) -> int:
    """Index of the last sample not after `at`; −1 if there is none."""
    low, high = 0, t_s.shape[0]
    while low < high:
        middle = (low + high) // 2
        if t_s[middle] <= at:
            low = middle + 1
        else:
            high = middle
    return low - 1


@kernel
def means_between(
    t_s: F64,
    values: F64,
    integral: F64,
    run: I32,
    from_s: F64,
    to_s: F64,
    shift_s: float,
    out: F64,
    valid: Bool,
) -> None:
    """Mean of the line through the samples over each interval, moved by `shift_s`.

    An interval of no length gives the line's value there.

    Args:
        t_s: (n,) float64, strictly rising, s.
        values: (n, c) float64.
        integral: (n, c) float64, from `integrate_runs`.
        run: (n,) int32, from `integrate_runs`.
        from_s: (m,) float64, starts of the intervals.
        to_s: (m,) float64, their ends, not before their starts.
        shift_s: Added to starts and ends.
        out: (m, c) float64, written; 0 where not valid.
        valid: (m,) bool, written: samples of one run lie on both sides of the interval.
    """
    n, channels = values.shape
    for i in range(from_s.shape[0]):
        start = from_s[i] + shift_s
        end = to_s[i] + shift_s
        first = _last_at_or_before(t_s, start)
        last = first if end == start else _last_at_or_before(t_s, end)
        for c in range(channels):
            out[i, c] = 0.0
        valid[i] = False
        if first < 0 or end > t_s[n - 1]:
            continue
        # an interval that ends on a sample needs none after it
        beyond = last if t_s[last] == end else last + 1
        if run[first] != run[beyond]:
            continue
        valid[i] = True
        for c in range(channels):
            at_start = values[first, c]
            if start > t_s[first]:
                weight = (start - t_s[first]) / (t_s[first + 1] - t_s[first])
                at_start += weight * (values[first + 1, c] - values[first, c])
            if end == start:
                out[i, c] = at_start
                continue
            at_end = values[last, c]
            if end > t_s[last]:
                weight = (end - t_s[last]) / (t_s[last + 1] - t_s[last])
                at_end += weight * (values[last + 1, c] - values[last, c])
            area = integral[last, c] - integral[first, c]
            area -= 0.5 * (start - t_s[first]) * (values[first, c] + at_start)
            area += 0.5 * (end - t_s[last]) * (values[last, c] + at_end)
            out[i, c] = area / (end - start)


@kernel
def _solve(matrix: F64, right: F64, size: int) -> None:
    """Solve a positive definite system in place by Cholesky's method; `right` becomes the solution."""
    for j in range(size):
        for k in range(j):
            matrix[j, j] -= matrix[j, k] * matrix[j, k]
        matrix[j, j] = np.sqrt(max(matrix[j, j], 1e-300))
        for i in range(j + 1, size):
            for k in range(j):
                matrix[i, j] -= matrix[i, k] * matrix[j, k]
            matrix[i, j] /= matrix[j, j]
    for c in range(right.shape[1]):
        for j in range(size):
            for k in range(j):
                right[j, c] -= matrix[j, k] * right[k, c]
            right[j, c] /= matrix[j, j]
        for j in range(size - 1, -1, -1):
            for k in range(j + 1, size):
                right[j, c] -= matrix[k, j] * right[k, c]
            right[j, c] /= matrix[j, j]


@kernel
def score_lags(
    a: F64,
    from_s: F64,
    to_s: F64,
    lags_s: F64,
    t_s: F64,
    values: F64,
    integral: F64,
    run: I32,
    min_pairs: int,
    unexplained: F64,
    pairs: I32,
) -> None:
    """How much of signal `a` is left after the best linear map of signal b, at each lag.

    At lag τ, a's interval [from, to] is compared with b's mean over [from − τ, to − τ]: a positive lag says
    that a's time stamps are late. The map is any matrix and any constant, so that mounting, axis order,
    scale and bias need not be known.

    Args:
        a: (m, ca) float64, means of signal a over its intervals.
        from_s: (m,) float64, starts of a's intervals, s on a's clock.
        to_s: (m,) float64, their ends.
        lags_s: (k,) float64, candidate lags.
        t_s: (n,) float64, strictly rising, s on b's clock.
        values: (n, cb) float64, samples of signal b.
        integral: (n, cb) float64, from `integrate_runs`.
        run: (n,) int32, from `integrate_runs`.
        min_pairs: Fewer intervals than this covered by b: the lag is not scored.
        unexplained: (k, ca) float64, written: share of each channel's variance that the map leaves; 1
            where the lag is not scored or the channel does not move.
        pairs: (k,) int32, written: intervals that b covers.
    """
    m, ca = a.shape
    cb = values.shape[1]
    b = np.empty((m, cb))
    valid = np.empty(m, np.bool_)
    mean_a = np.empty(ca)
    mean_b = np.empty(cb)
    total = np.empty(ca)
    gram = np.empty((cb, cb))
    cross = np.empty((cb, ca))
    weights = np.empty((cb, ca))
    for k in range(lags_s.shape[0]):
        means_between(t_s, values, integral, run, from_s, to_s, -lags_s[k], b, valid)
        count = 0
        mean_a[:] = 0.0
        mean_b[:] = 0.0
        for i in range(m):
            if valid[i]:
                count += 1
                for c in range(ca):
                    mean_a[c] += a[i, c]
                for c in range(cb):
                    mean_b[c] += b[i, c]
        pairs[k] = count
        unexplained[k] = 1.0
        if count < min_pairs or count <= cb + 1:
            continue
        mean_a /= count
        mean_b /= count
        total[:] = 0.0
        gram[:] = 0.0
        cross[:] = 0.0
        for i in range(m):
            if not valid[i]:
                continue
            for p in range(cb):
                off = b[i, p] - mean_b[p]
                for q in range(p + 1):
                    gram[p, q] += off * (b[i, q] - mean_b[q])
                for c in range(ca):
                    cross[p, c] += off * (a[i, c] - mean_a[c])
            for c in range(ca):
                total[c] += (a[i, c] - mean_a[c]) ** 2
        for p in range(cb):
            gram[p, p] += RIDGE * gram[p, p] + 1e-300
            for c in range(ca):
                weights[p, c] = cross[p, c]
        _solve(gram, weights, cb)
        for c in range(ca):
            explained = 0.0
            for p in range(cb):
                explained += weights[p, c] * cross[p, c]
            if total[c] > 0.0:
                unexplained[k, c] = min(1.0, max(TINY, 1.0 - explained / total[c]))


def warm_up() -> None:
    """Compile the kernels of this module."""
    t_s = np.arange(8.0)
    values = np.sin(t_s)[:, None] * np.ones((1, 3))
    integral, run = np.empty((8, 3)), np.empty(8, np.int32)
    integrate_runs(t_s, values, 2.0, integral, run)
    means_between(
        t_s, values, integral, run, t_s[1:5], t_s[2:6], 0.0, np.empty((4, 3)), np.empty(4, np.bool_)
    )
    left, pairs = np.empty((1, 3)), np.empty(1, np.int32)
    score_lags(values[:4], t_s[1:5], t_s[2:6], np.zeros(1), t_s, values, integral, run, 2, left, pairs)
