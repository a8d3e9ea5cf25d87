"""Long recordings as envelopes: the extremes of every channel in each of a fixed number of time bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.model import I64


class Envelope:
    """Smallest and largest value per bin and channel, collected block by block.

    Attributes:
        low, high: (bins, c) float64; NaN where no sample fell.
        n: Samples taken.
    """

    def __init__(self, t0_ns: int, t1_ns: int, bins: int, channels: int) -> None:
        self._t0_ns = t0_ns
        self._width_ns = max(t1_ns - t0_ns, 1) / bins
        self.low = np.full((bins, channels), np.nan)
        self.high = np.full((bins, channels), np.nan)
        self.n = 0

    def add(self, t_ns: I64, values: NDArray[np.float64]) -> None:
        """Take samples at (n,) rig times with (n, c) values; those outside the range are left out."""
        bins = np.floor((t_ns - self._t0_ns) / self._width_ns).astype(np.int64)
        inside = (bins >= 0) & (bins < len(self.low))
        bins, values = bins[inside], values[inside]
        if not len(bins):
            return
        self.n += len(bins)
        starts = np.flatnonzero(np.r_[True, np.diff(bins) != 0])
        low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
        # A clock correction may bring a bin up twice: take them one after the other.
        for i, b in enumerate(bins[starts].tolist()):
            self.low[b] = np.fmin(self.low[b], low[i])
            self.high[b] = np.fmax(self.high[b], high[i])

    def line(self, channel: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(2 b,) seconds from the start, and (2 b,) values: two points per bin, to show every extreme."""
        bins = len(self.low)
        edges = (np.arange(bins) + 0.5) * self._width_ns * 1e-9
        y = np.column_stack([self.low[:, channel], self.high[:, channel]])
        # Rising and falling in turn keeps the line from zigzagging where the signal is smooth.
        middle = y.mean(axis=1)
        falling = np.r_[False, np.diff(middle) < 0]
        y[falling] = y[falling, ::-1]
        quarter = self._width_ns * 1e-9 / 4
        return np.column_stack([edges - quarter, edges + quarter]).ravel(), y.ravel()
