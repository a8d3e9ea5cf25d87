"""Device ticks to rig time by a published fit."""

from __future__ import annotations

import numpy as np

from edgecap.kernels.resample import ticks_to_rig
from edgecap.model import I64, ClockFit


def to_rig_ns(fit: ClockFit, ticks: I64) -> I64:
    """Rig time of each unwrapped tick, in a new (n,) int64 array."""
    ticks = np.ascontiguousarray(ticks, np.int64)
    t_ns = np.empty(ticks.shape, np.int64)
    ticks_to_rig(ticks, fit.ref_tick, fit.ref_ns, fit.tick_ns, fit.drift_ppm * 1e-6 * fit.tick_ns, t_ns)
    return t_ns
