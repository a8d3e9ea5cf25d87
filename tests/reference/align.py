"""Slow oracle of the hard band: every pair of lines, every vertex tested against every constraint."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Band:
    lo: float
    hi: float
    slope_lo: float
    slope_hi: float


def band(uppers, lowers, d, curvature, slope_lo, slope_hi) -> Band | None:
    """All (x, s) with x <= U + s tau + a tau²/2, x >= L + s tau - a tau²/2, slope_lo <= s <= slope_hi; exact.

    Args:
        uppers: (d_i, U_i) pairs; lowers: (d_j, L_j) pairs; d not before any of them.
    """
    d, curvature = Fraction(d), Fraction(curvature)
    lines = []  # a x + b s <= c
    for d_i, bound in uppers:
        tau = d - Fraction(d_i)
        lines.append((Fraction(1), -tau, Fraction(bound) + curvature * tau * tau / 2))
    for d_j, bound in lowers:
        tau = d - Fraction(d_j)
        lines.append((Fraction(-1), tau, -(Fraction(bound) - curvature * tau * tau / 2)))
    lines.append((Fraction(0), Fraction(1), Fraction(slope_hi)))
    lines.append((Fraction(0), Fraction(-1), -Fraction(slope_lo)))
    vertices = []
    for i, (a1, b1, c1) in enumerate(lines):
        for a2, b2, c2 in lines[:i]:
            determinant = a1 * b2 - a2 * b1
            if determinant == 0:
                continue
            x = (c1 * b2 - c2 * b1) / determinant
            s = (a1 * c2 - a2 * c1) / determinant
            if all(a * x + b * s <= c for a, b, c in lines):
                vertices.append((x, s))
    if not vertices:
        return None
    xs, slopes = zip(*vertices, strict=True)
    return Band(float(min(xs)), float(max(xs)), float(min(slopes)), float(max(slopes)))


def line_above(lowers, d, slope_lo, slope_hi, slopes=40_001):
    """Offset at `d`, slope and deviation of the lines above all bounds, by weighing `slopes` of them.

    A line's likelihood is that of exponential distances from it, with the mean that the closest line shows.
    """
    age = d - np.array([d_j for d_j, _ in lowers])
    theta = np.array([bound for _, bound in lowers])
    tried = np.linspace(slope_lo, slope_hi, slopes)
    top = (theta[:, None] + age[:, None] * tried).max(axis=0)
    distance = top - tried * age.mean() - theta.mean()
    unit = max(distance.min(), 1e3) / len(lowers)
    weight = np.exp((distance.min() - distance) / unit)
    weight /= weight.sum()
    mean = (weight * (top + unit)).sum()
    deviation = np.sqrt((weight * (top + unit - mean) ** 2).sum() + unit**2)
    return mean, (weight * tried).sum(), deviation


def band_of_exchange(log, until, curvature, slope_lo, slope_hi, steps=20_001):
    """The band from every bound of a log up to frame `until`, by trying `steps` slopes.

    No rings, no buckets: all frames with a counter, all transmit stamps, all pongs. One boot, no wrap.

    Returns:
        (reference instant ns, reference counter, device seconds, lo, hi): offsets as in the kernels.
    """
    ref_ns, ref_tick = int(log.arrival_ns[0]), int(log.t_us[0])
    uppers, lowers, arrivals = [], [], {}
    for i in range(until):
        arrival, seq = int(log.arrival_ns[i]) - ref_ns, int(log.seq[i])
        uppers.append((int(log.t_us[i]) - ref_tick, arrival))
        if log.has_prev[i] and seq - 1 in arrivals:
            uppers.append((int(log.prev_tx_done_us[i]) - ref_tick, arrivals[seq - 1]))
        arrivals.setdefault(seq, arrival)
        if log.kind[i] == 1:
            lowers.append((int(log.t2_us[i]) + 1 - ref_tick, int(log.ping_sent_ns[i]) - ref_ns))
    upper, lower = np.array(uppers, float), np.array(lowers, float)
    d = max(upper[:, 0].max(), lower[:, 0].max()) * 1e-6
    age_u, age_l = d - upper[:, 0] * 1e-6, d - lower[:, 0] * 1e-6
    top = upper[:, 1] - upper[:, 0] * 1e3 + curvature * age_u**2 / 2
    bottom = lower[:, 1] - lower[:, 0] * 1e3 - curvature * age_l**2 / 2
    highest, lowest = -np.inf, np.inf
    for slope in np.linspace(slope_lo, slope_hi, steps):
        f, g = (top + slope * age_u).min(), (bottom + slope * age_l).max()
        if f >= g:
            highest, lowest = max(highest, f), min(lowest, g)
    return ref_ns, ref_tick, d, lowest, highest
