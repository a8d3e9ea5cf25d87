"""The likeliest offset where frames do not say when they left: from how little pings waited."""

from __future__ import annotations

import math

import numpy as np

from edgecap.kernels.align_state import BUCKETS, EMPTY, LOWER, State
from edgecap.kernels.bits import i8
from edgecap.kernels.compile import part

FLOOR_GUESS_NS = 80e3
"""Least latency of both legs before pongs have shown it."""
YOUNG_PONGS = 32
_LINE_S = 20.0
"""How much of the past the line is drawn through: longer, and drift bends it."""
_LINE_EVERY_S = 0.5
_LINE_BOUNDS = 8
"""Bounds that make a line: four seconds. Before, the lower end of the band counts, less a slack."""
_SLACK = 1.4
_SLACK_KNOWN = 0.4
_SLACK_KNOWN_NS = 10e3
_HALVINGS = 16
_SPREADINGS = 8
_SLOPES = 16
_UNLIKELY = 5.0
"""Slopes less likely than exp(-5) times the likeliest are left out."""
_UNIT_LEAST_NS = 1e3
_TRUST = 1.8
"""Errors of lines are larger than they say by this: waits are not quite exponential, and clocks drift."""
_SIGMA_LEAST_NS = 1e3
_SHOWN_PONGS = 64.0
_MEAN_PONGS = 256.0
_WAIT_MOST_NS = 3e6
_USEFUL_NS = 980e3


@part
def note_wait(s: State, d: float, theta: float) -> None:
    """Take note of how far a pong's lower bound lies below the published offset, after `note_width`."""
    waited = s.theta + s.slope * (d - s.band_d) - theta
    s.wait_mean += (min(max(waited, 0.0), _WAIT_MOST_NS) - s.wait_mean) / min(s.out_n, _MEAN_PONGS)


@part
def _touch(s: State, n: int, slope: float) -> tuple[float, float]:
    """The lowest line of this slope above all `n` bounds: its offset now, the age of the bound it touches."""
    best = -np.inf
    rise = 0.0
    for k in range(n):
        value = s.lower_theta[k] + slope * s.lower_age[k]
        if value > best:
            best = value
            rise = s.lower_age[k]
    return best, rise


@part
def draw_line(s: State) -> None:
    """Where lower bounds without any wait would lie now, from those of the last seconds.

    With waits taken for exponential of mean m, the likelihood of a line above all n bounds falls as
    exp(-n (distance from their mean) / m). `line_theta`, `line_slope` and `line_sigma` are the mean over all
    such lines and its deviation, every slope within the band being equally likely beforehand.
    """
    n: int = i8(0)
    age_sum = theta_sum = 0.0
    for k in range(LOWER, LOWER + BUCKETS):
        age = s.band_d - s.bound_d[k]
        if s.bound_id[k] != EMPTY and age < _LINE_S:
            s.lower_age[n] = age
            s.lower_theta[n] = s.bound_theta[k]
            age_sum += age
            theta_sum += s.bound_theta[k]
            n += 1
    s.line_d = s.band_d
    s.line_n = n
    if n < _LINE_BOUNDS:
        return
    # distance from the mean, at the mean's age, is convex in the slope
    age = age_sum / n
    left = s.slope_lo
    right = s.slope_hi
    for _ in range(_HALVINGS):
        slope = 0.5 * (left + right)
        _, rise = _touch(s, n, slope)
        if rise < age:
            left = slope
        else:
            right = slope
    slope = 0.5 * (left + right)
    top, _ = _touch(s, n, slope)
    least = top - slope * age
    unit = max(least - theta_sum / n, _UNIT_LEAST_NS) / n
    below = above = unit / max(age, 0.1)
    for _ in range(_SPREADINGS):
        top, _ = _touch(s, n, slope - below)
        if top - (slope - below) * age > least + _UNLIKELY * unit:
            break
        below *= 1.6
    for _ in range(_SPREADINGS):
        top, _ = _touch(s, n, slope + above)
        if top - (slope + above) * age > least + _UNLIKELY * unit:
            break
        above *= 1.6
    below = min(below, slope - s.slope_lo)
    above = min(above, s.slope_hi - slope)
    weights = mean = square = slopes = 0.0
    for i in range(_SLOPES):
        tried = slope - below + (below + above) * (i + 0.5) / _SLOPES
        top, _ = _touch(s, n, tried)
        weight = math.exp((least - (top - tried * age)) / unit)
        # a line of this slope lies by `unit` higher than it must, on average
        off = top + unit - s.lo
        weights += weight
        mean += weight * off
        square += weight * off * off
        slopes += weight * tried
    mean /= weights
    s.line_theta = s.lo + mean
    s.line_slope = slopes / weights
    s.line_sigma = math.sqrt(max(square / weights - mean * mean, 0.0) + unit * unit)


@part
def likely_one_step(s: State) -> tuple[float, float]:
    """The likeliest offset where frames do not say when they left, and one standard deviation of it.

    Pings leave at random moments, so that the best of them hardly waited for the line: the lower end is
    tight. Frames may wait equally long for ever. What the band is wider than both legs' least latency is
    therefore put on their side, as far as the pings have shown the line to make anybody wait; the rest is
    halved.
    """
    width: float = s.hi - s.lo
    middle = 0.5 * width
    if s.epoch_pongs < YOUNG_PONGS or abs(s.band_d - s.line_d) > _LINE_EVERY_S:
        draw_line(s)
    wait = 2.0 * s.wait_mean
    if s.line_n < _LINE_BOUNDS:
        # a bound of age tau has lost about wait * gap / tau by waiting and slope * tau since
        slope = 0.5 * (s.slope_hi - s.slope_lo)
        slack = min(_SLACK * math.sqrt(wait * slope * s.pong_gap), 0.5 * wait)
        slack = max(slack, wait / (s.out_n + 1.0))
        sigma = _SLACK_KNOWN * slack + _SLACK_KNOWN_NS
    else:
        slack = max(s.line_theta + s.line_slope * (s.band_d - s.line_d) - s.lo, 0.0)
        sigma = _TRUST * s.line_sigma + _SIGMA_LEAST_NS
    floor: float = min(s.floor_now, s.floor_before, FLOOR_GUESS_NS)
    excess = width - floor - slack
    if excess <= 0.0:
        return s.lo + middle, 0.25 * width
    explained = min(max(2.0 * wait / excess - 1.0, 0.0), 1.0) * min(s.out_n / _SHOWN_PONGS, 1.0)
    share = max(sigma * sigma / (sigma * sigma + excess * excess / 12.0), 1.0 - explained)
    tight = 0.5 * floor + slack
    above = tight + share * (middle - tight)
    # a bound much beyond a millisecond is of no use to anybody
    return s.lo + max(above, min(middle, width - _USEFUL_NS)), sigma
