"""Slow oracles of the lag kernels, from their definitions."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np


def value_at(t, values, at):
    """The line through the samples, or None outside."""
    if at < t[0] or at > t[-1]:
        return None
    for i in range(len(t) - 1):
        if t[i] <= at <= t[i + 1]:
            weight = (at - t[i]) / (t[i + 1] - t[i])
            return values[i] + weight * (values[i + 1] - values[i])
    return values[-1]


def mean_between(t, values, start, end, max_gap):
    """Mean of the line over [start, end] in exact fractions; None where samples are missing."""
    t, values = [Fraction(x) for x in t], [Fraction(x) for x in values]
    start, end = Fraction(start), Fraction(end)
    first, last = value_at(t, values, start), value_at(t, values, end)
    if first is None or last is None:
        return None
    for before, after in pairwise(t):
        inside = (before < end and after > start) if end > start else (before < start < after)
        if inside and after - before > max_gap:
            return None
    if start == end:
        return float(first)
    knots = [start, *(x for x in t if start < x < end), end]
    heights = [value_at(t, values, x) for x in knots]
    sides = zip(pairwise(knots), pairwise(heights), strict=True)
    area = sum((b - a) * (p + q) / 2 for (a, b), (p, q) in sides)
    return float(area / (end - start))


def unexplained(a, b):
    """Share of each channel's variance of `a` (n, ca) that the best affine map of `b` (n, cb) leaves."""
    design = np.column_stack([np.ones(len(b)), b])
    fitted = design @ np.linalg.lstsq(design, a, rcond=None)[0]
    left = ((a - fitted) ** 2).sum(axis=0)
    total = ((a - a.mean(axis=0)) ** 2).sum(axis=0)
    return np.where(total > 0, left / np.where(total > 0, total, 1), 1.0)
