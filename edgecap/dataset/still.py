"""Moments in which a sensor's reading holds still, and what it then reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.sync import student_95
from edgecap.model import I64

F64 = NDArray[np.float64]
BATCHES = 8


@dataclass(frozen=True, slots=True)
class Plateau:
    """A stretch of samples taken as one reading.

    Attributes:
        t0_ns, t1_ns: Its first and last sample.
        mean, sd: (c,) mean and standard deviation of a sample.
        u: (c,) half-width of the mean at 95 %, from the spread of eight batches: samples of a filtered or
            wandering sensor are not independent.
        n: Samples.
    """

    t0_ns: int
    t1_ns: int
    mean: F64
    sd: F64
    u: F64
    n: int


def plateau(t_ns: I64, values: F64) -> Plateau:
    """The reading over all of these; (n,) and (n, c), n ≥ 16."""
    n = len(values)
    batches = np.stack([part.mean(0) for part in np.array_split(values, BATCHES)])
    u = student_95(BATCHES - 1) * batches.std(0, ddof=1) / math.sqrt(BATCHES)
    return Plateau(int(t_ns[0]), int(t_ns[-1]), values.mean(0), values.std(0, ddof=1), u, n)


def rolling_deviation(values: F64, window: int) -> F64:
    """(n - window + 1, c) standard deviation over each window of consecutive samples."""
    centred = np.asarray(values - values.mean(0), np.float64)  # so that sums of squares keep their digits
    first = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(centred, 0)])
    second = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(centred**2, 0)])
    mean = (first[window:] - first[:-window]) / window
    variance = (second[window:] - second[:-window]) / window - mean**2
    deviation: F64 = np.sqrt(np.maximum(variance, 0.0))
    return deviation


def stillest(t_ns: I64, values: F64, window: int, columns: list[int]) -> Plateau | None:
    """The window of samples whose `columns` vary least; None if there are fewer samples.

    Args:
        t_ns: (n,) int64, rig time of each sample.
        values: (n, c) samples, columns in units of like size.
        window: Samples in a row.
        columns: Which columns must be still.
    """
    if len(values) < max(window, 16):
        return None
    spread = rolling_deviation(values[:, columns], window)
    at = int(np.argmin(np.sqrt((spread**2).sum(1))))
    return plateau(t_ns[at : at + window], values[at : at + window])


def still_stretches(t_ns: I64, values: F64, window: int, limit: F64) -> list[slice]:
    """Runs of samples that lie in windows of which every column varies by less than `limit` (c,)."""
    if len(values) < window:
        return []
    quiet = (rolling_deviation(values, window) < limit).all(1)
    inside = np.zeros(len(values) + 1, np.int64)
    starts = np.flatnonzero(quiet)
    np.add.at(inside, starts, 1)
    np.add.at(inside, starts + window, -1)
    covered = np.concatenate([[0], (np.cumsum(inside)[:-1] > 0).astype(np.int8), [0]])
    edges = np.diff(covered)
    pairs = zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    return [slice(a, b) for a, b in pairs]
