"""Statistics of sample blocks for the live verdicts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.compile import kernel


@kernel
def count_saturated(values: NDArray[np.generic], limits: NDArray[np.float64]) -> int:
    """Count samples of which at least one channel is at or beyond its limit.

    Args:
        values: (n, c) int16, int32 or float32 raw counts.
        limits: (c,) float64 raw magnitude that means full scale; inf where unknown.

    Returns:
        Number of rows, 0 to n. NaN counts as saturated: the sensor did not measure.
    """
    n, c = values.shape
    found = 0
    for i in range(n):
        for j in range(c):
            value = float(values[i, j])
            if not abs(value) < limits[j]:
                found += 1
                break
    return found


@kernel
def add_moments(
    values: NDArray[np.generic],
    shift: NDArray[np.float64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    """Add each channel's sum and sum of squares, about `shift` so that the difference keeps its digits.

    Args:
        values: (n, c) int16, int32 or float32 raw counts.
        shift: (c,) a value near the mean.
        sums, squares: (c,) of `values - shift`; added to in place.
    """
    n, c = values.shape
    for i in range(n):
        for j in range(c):
            x = float(values[i, j]) - shift[j]
            sums[j] += x
            squares[j] += x * x


def warm_up() -> None:
    """Compile for every dtype that streams have."""
    for dtype in (np.int16, np.int32, np.float32):
        count_saturated(np.zeros((1, 2), dtype), np.ones(2))
        add_moments(np.zeros((1, 2), dtype), np.zeros(2), np.zeros(2), np.zeros(2))
