"""Statistics of sample blocks for the live verdicts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.compile import kernel

F64 = NDArray[np.float64]


@kernel
def count_saturated(values: F64, limits: F64) -> int:
    """Count samples of which at least one channel is at or beyond its limit.

    Args:
        values: (n, c) float64 raw counts: one type, so that it is compiled once.
        limits: (c,) float64 raw magnitude that means full scale; inf where unknown.

    Returns:
        Number of rows, 0 to n. NaN counts as saturated: the sensor did not measure.
    """
    n, c = values.shape
    found = 0
    for i in range(n):
        for j in range(c):
            value = values[i, j]
            if not abs(value) < limits[j]:
                found += 1
                break
    return found


@kernel
def add_moments(
    values: F64,
    shift: F64,
    sums: F64,
    squares: F64,
) -> None:
    """Add each channel's sum and sum of squares, about `shift` so that the difference keeps its digits.

    Args:
        values: (n, c) float64 raw counts.
        shift: (c,) a value near the mean.
        sums, squares: (c,) of `values - shift`; added to in place.
    """
    n, c = values.shape
    for i in range(n):
        for j in range(c):
            x = values[i, j] - shift[j]
            sums[j] += x
            squares[j] += x * x


def warm_up() -> None:
    """Compile the kernels of this module."""
    count_saturated(np.zeros((1, 2)), np.ones(2))
    add_moments(np.zeros((1, 2)), np.zeros(2), np.zeros(2), np.zeros(2))
