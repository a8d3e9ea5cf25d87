"""Slow oracles of the resampling kernels, from their definitions."""

from __future__ import annotations

import math
from fractions import Fraction


def ticks_to_rig(ticks, ref_tick, ref_ns, tick_ns, extra):
    return [ref_ns + (t - ref_tick) * tick_ns + math.floor(float(t - ref_tick) * extra + 0.5) for t in ticks]


def linear_at(t_ns, values, at_ns, max_gap_ns):
    """Per instant: a list of channel values, or None where it is not valid."""
    result = []
    for at in at_ns:
        if at in t_ns:
            result.append([float(v) for v in values[t_ns.index(at)]])
            continue
        before = [k for k, t in enumerate(t_ns) if t < at]
        after = [k for k, t in enumerate(t_ns) if t > at]
        if not before or not after or t_ns[after[0]] - t_ns[before[-1]] > max_gap_ns:
            result.append(None)
            continue
        a, b = before[-1], after[0]
        weight = Fraction(at - t_ns[a], t_ns[b] - t_ns[a])
        result.append(
            [
                float(Fraction(float(x)) + weight * (Fraction(float(y)) - Fraction(float(x))))
                for x, y in zip(values[a], values[b], strict=True)
            ]
        )
    return result


def box_over(t_ns, values, from_ns, to_ns, max_gap_ns):
    """Per window: (means, deviations), or None where it is not valid."""
    result = []
    for start, end in zip(from_ns, to_ns, strict=True):
        inside = [k for k, t in enumerate(t_ns) if start <= t <= end]
        before = [k for k, t in enumerate(t_ns) if t <= start]
        after = [k for k, t in enumerate(t_ns) if t >= end]
        if not inside or not before or not after:
            result.append(None)
            continue
        support = range(before[-1], after[0] + 1)
        if any(t_ns[k + 1] - t_ns[k] > max_gap_ns for k in support[:-1]):
            result.append(None)
            continue
        means, deviations = [], []
        for channel in range(len(values[0])):
            column = [Fraction(float(values[k][channel])) for k in inside]
            mean = sum(column) / len(column)
            means.append(float(mean))
            deviations.append(math.sqrt(sum((x - mean) ** 2 for x in column) / len(column)))
        result.append((means, deviations))
    return result
