"""Slow, independent statistics."""

from __future__ import annotations

import math

import numpy as np


def count_saturated_slowly(values: np.ndarray, limits: np.ndarray) -> int:
    """Rows in which a channel is not a number, or not below its limit."""
    return sum(
        any(math.isnan(v) or abs(v) >= limit for v, limit in zip(map(float, row), limits, strict=True))
        for row in values.tolist()
    )
