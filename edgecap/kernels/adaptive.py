"""Prediction that learns from the samples already coded, the same way in encoder and decoder.

A channel's next difference u(t) is expected to be a weighted sum of its last 15 and of a leaking sum v: how
far the channel has gone from where it was, which noise around a level goes back to. The weights solve
least-squares equations whose sums forget the past; they are solved anew after every block of samples. Blocks
count in inverse proportion to their squared error, so that a violent movement does not drown what was learned
at rest. Eight channels, a group, learn side by side in the lanes of a vector.

All of it is float32 arithmetic in one order that FORMAT.md states: additions, subtractions, multiplications
and divisions that IEEE 754 defines to the last bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import i8, u8
from edgecap.kernels.compile import part
from edgecap.kernels.equations import ROW, SHARES_SIZE, SQUARE_SIZE, TERMS, solve
from edgecap.kernels.lanes import LANES, Eight, load, same, size, store

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]

LAGS = TERMS - 1
"""An expected difference is a weighted sum of so many that came before, and of their level."""
PAST = LAGS
"""Differences before the first of a payload that kernels read."""
LEAK = 0.875
"""What the level keeps of itself and of a difference, which enters it one sample late."""
BLOCK = 96
"""Samples of the longest blocks, those of channels that are no longer young."""

RECENT = 0
LEVEL = RECENT + LANES * LAGS
WEIGHTS = LEVEL + LANES
SUMS = WEIGHTS + LANES * TERMS
MODEL = SUMS + LANES * TERMS * ROW
"""Length of a group's model; the names above are places in it. Latest differences come first."""

PRODUCTS = TERMS + 2
SHARES = (PRODUCTS + TERMS) * LANES
SQUARE = SHARES + SHARES_SIZE
SCRATCH = SQUARE + SQUARE_SIZE
"""Length of what `learn` needs besides the model: sums, and from these places on shares and a square."""

LAST, FAST, SLOW, SHAPE, SPEED, AGE = range(6)
STATE = 6
"""Length of one channel's other state, and the places in it; a group's age is that of its first channel."""

NOISE = 16
"""What is added to the sum of the running means: magnitudes are taken for 1/8 at least."""
FORGET = 160.0
LEAST_ERROR = 0.2
PRIOR = 16.0
SMOOTH_PRIOR, SMOOTH_LEVEL_PRIOR = 8.0, 256.0
"""What first weights are worth, in samples: a channel that goes on as it goes has no level to return to."""

PRESETS = np.array(
    (
        (-1.125, 0.375, 0.25, -1.125),
        (-1, 0.125, 0, -1.25),
        (-1.125, -0.625, -0.125, 0.25),
        (-0.75, -0.5, -0.25, 0),
        (-0.625, -0.3125, -0.125, 0),
        (-0.5, 0, 0, -0.75),
        (-0.5, 0, 0, 0),
        (-0.125, 0.125, 0.125, 0.125),
        (0, 0, 0, 0),
        (0.5, 0, 0, 0),
        (0.875, -0.375, 0.25, 0),
        (1, 0, 0, 0),
        (1.125, 0, -0.25, 0),
        (0.875, 0.625, -0.5, 0),
        (1.5, -0.75, 0, 0),
        (2, -1, 0, 0),
    ),
    np.float64,
)
"""First weights by their number in the format: of the last three differences, and of the level."""
STILL = 8
"""What a channel that does not move begins with."""
PRESET_LAGS = 3
PRESET_ROWS = 128
"""So many samples at most tell which are best."""


def groups_of(channels: int) -> int:
    """Number of groups that so many channels form."""
    return (channels + LANES - 1) // LANES


@part
def lane_of(index: int, count: int) -> int:
    """The lane of a group's channel: the first half of its `count` ends at lane 3, the other at lane 7."""
    half = (count + 1) >> 1
    return LANES // 2 - half + index if index < half else LANES - count + index


@part
def group_of(channel: int, channels: int) -> tuple[int, int]:
    """The group of a channel, and its lane there."""
    first = channel // LANES * LANES
    return channel // LANES, lane_of(channel - first, min(channels - first, LANES))


@part
def next_level(u: F32, v: F32, at: int) -> None:
    """Set the levels `v` at index `at`, from those and from the differences one sample before."""
    store(v, at, (load(v, at - LANES) + load(u, at - 2 * LANES)) * same(LEAK))


@part
def expected(u: F32, v: F32, at: int, w: F32) -> Eight:
    """The expected differences but for the share of the latest ones, which are not needed yet.

    Args:
        u: Differences of a group, eight by eight; those that are expected will be at index `at`.
        v: Levels.
        w: Weights, eight by eight.
    """
    even = load(w, (LAGS - 2) * LANES) * load(u, at - (LAGS - 1) * LANES)
    odd = load(w, (LAGS - 1) * LANES) * load(u, at - LAGS * LANES)
    for k in range(LAGS - 2, 1, -2):
        odd = odd + load(w, (k - 1) * LANES) * load(u, at - k * LANES)
        even = even + load(w, (k - 2) * LANES) * load(u, at - (k - 1) * LANES)
    # The level is known last, with the second difference before.
    return even + odd + load(w, LAGS * LANES) * load(v, at)


@part
def correlate(u: F32, v: F32, begin: int, end: int, sums: F32) -> None:
    """Sums over the samples [begin, end), eight by eight.

    Args:
        sums: Receives those of u(t)·u(t−k) for k = 0 to LAGS, of u(t)·v(t), and of v(t)·v(t).
    """
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = same(0.0)
    for t in range(begin, end):
        at = LANES * t
        x = load(u, at)
        s0 = s0 + x * x
        s1 = s1 + x * load(u, at - LANES)
        s2 = s2 + x * load(u, at - 2 * LANES)
        s3 = s3 + x * load(u, at - 3 * LANES)
        s4 = s4 + x * load(u, at - 4 * LANES)
        s5 = s5 + x * load(u, at - 5 * LANES)
        s6 = s6 + x * load(u, at - 6 * LANES)
        s7 = s7 + x * load(u, at - 7 * LANES)
        s8 = s8 + x * load(u, at - 8 * LANES)
    store(sums, 0, s0)
    store(sums, LANES, s1)
    store(sums, 2 * LANES, s2)
    store(sums, 3 * LANES, s3)
    store(sums, 4 * LANES, s4)
    store(sums, 5 * LANES, s5)
    store(sums, 6 * LANES, s6)
    store(sums, 7 * LANES, s7)
    store(sums, 8 * LANES, s8)
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = same(0.0)
    for t in range(begin, end):
        at = LANES * t
        x = load(u, at)
        s0 = s0 + x * load(u, at - 9 * LANES)
        s1 = s1 + x * load(u, at - 10 * LANES)
        s2 = s2 + x * load(u, at - 11 * LANES)
        s3 = s3 + x * load(u, at - 12 * LANES)
        s4 = s4 + x * load(u, at - 13 * LANES)
        s5 = s5 + x * load(u, at - 14 * LANES)
        s6 = s6 + x * load(u, at - 15 * LANES)
        y = load(v, at)
        s7 = s7 + x * y
        s8 = s8 + y * y
    store(sums, 9 * LANES, s0)
    store(sums, 10 * LANES, s1)
    store(sums, 11 * LANES, s2)
    store(sums, 12 * LANES, s3)
    store(sums, 13 * LANES, s4)
    store(sums, 14 * LANES, s5)
    store(sums, 15 * LANES, s6)
    store(sums, 16 * LANES, s7)
    store(sums, 17 * LANES, s8)


@part
def take_in(q: F32, row: int, column: int, keep: Eight, total: Eight, weight: Eight) -> None:
    """Forget a part of one number of the equations, and add a block's."""
    at = LANES * (row * ROW + column)
    store(q, at, load(q, at) * keep + total * weight)


@part
def learn(
    u: F32, v: F32, begin: int, end: int, errors: F32, q: F32, w: F32, sums: F32, a: F32, shares: F32
) -> None:
    """Take the block of samples [begin, end) into the equations and solve them.

    Args:
        u, v: Differences and levels of a group, eight by eight, known from `begin - PAST` to `end - 1`.
        errors: Sums of the magnitudes of the block's residuals, one for each lane.
        q, w: The group's sums and weights.
        sums, a, shares: Scratch of PRODUCTS + TERMS times eight, of SQUARE_SIZE and SHARES_SIZE.
    """
    count = same(float(end - begin))
    error = load(errors, 0) / count + same(LEAST_ERROR)
    weight = same(1.0) / (error * error)
    keep = same(1.0) - count / same(FORGET)
    correlate(u, v, begin, end, sums)
    crossed = load(sums, LANES * (LAGS + 1))
    for i in range(LAGS):
        take_in(q, i, i8(TERMS), keep, load(sums, LANES * (i + 1)), weight)
    take_in(q, i8(LAGS), i8(TERMS), keep, crossed, weight)
    take_in(q, i8(LAGS), i8(LAGS), keep, load(sums, LANES * (LAGS + 2)), weight)
    # A sum over products of earlier differences differs from the one before by the ends of the block.
    # So does one over products with the level, which the second difference before enters.
    level_enters, level_leaves = load(v, LANES * (begin - 1)), load(v, LANES * (end - 1))
    for i in range(1, LAGS + 1):
        enters = load(u, LANES * (begin - i))
        leaves = load(u, LANES * (end - i))
        for j in range(LAGS, i - 1, -1):
            total = (
                load(sums, LANES * (j - 1))
                + enters * load(u, LANES * (begin - j))
                - leaves * load(u, LANES * (end - j))
            )
            store(sums, LANES * j, total)
            take_in(q, i - 1, j - 1, keep, total, weight)
        if i <= 2:
            for j in range(2, LAGS + 1 if i == 2 else 3):
                store(sums, LANES * (PRODUCTS + i + j - 2), load(sums, LANES * j))
        change = enters * level_enters - leaves * level_leaves + load(sums, LANES * (PRODUCTS + i))
        crossed = (crossed + change) * same(LEAK)
        take_in(q, i - 1, i8(LAGS), keep, crossed, weight)
    solve(q, w, a, shares)


@part
def missed_by(values: I32, presets: F64, preset: int, count: int) -> float:
    """How far off a preset would have been on average over the first `count` ≥ 1 of `values` (n,)."""
    w1, w2, w3, w4 = presets[preset, 0], presets[preset, 1], presets[preset, 2], presets[preset, 3]
    total = d1 = d2 = d3 = level = 0.0
    for t in range(1, count):
        d = float(i8(values[t]) - i8(values[t - 1]))
        level = (level + d2) * LEAK
        total += abs(d - (w1 * d1 + w2 * d2 + w3 * d3 + w4 * level))
        d3, d2, d1 = d2, d1, d
    return total / max(count - 1, 1)


@part
def preset_of(values: I32, weights: F32, totals: F32) -> int:
    """The preset that would have predicted the first differences of a channel's `values` (n,) best.

    Args:
        weights: The presets, eight by eight: their first weights, their second, and so on.
        totals: One for each preset, to work with.
    """
    a1, a2, a3, a4 = load(weights, 0), load(weights, 16), load(weights, 32), load(weights, 48)
    b1, b2, b3, b4 = load(weights, 8), load(weights, 24), load(weights, 40), load(weights, 56)
    below = above = same(0.0)
    before = i8(values[0])
    d1 = d2 = d3 = level = 0.0
    for t in range(1, min(values.size, PRESET_ROWS)):
        sample = i8(values[u8(t)])
        d = float(sample - before)
        before = sample
        level = (level + d2) * LEAK
        u, u1, u2, u3, v = same(d), same(d1), same(d2), same(d3), same(level)
        below = below + size(u - (u1 * a1 + u2 * a2 + u3 * a3 + v * a4))
        above = above + size(u - (u1 * b1 + u2 * b2 + u3 * b3 + v * b4))
        d3, d2, d1 = d2, d1, d
    store(totals, 0, below)
    store(totals, LANES, above)
    found: int = i8(STILL)
    for p in range(2 * LANES):
        if totals[p] < totals[found]:
            found = i8(p)
    return found


@part
def start_state(
    model: F32, lane: int, state: I64, first: int, octave: int, preset: int, presets: F64
) -> None:
    """Set one lane of a zeroed model, and a zeroed state.

    Args:
        first: The channel's first sample.
        octave: Of its expected magnitude, 2^octave / 64.
        preset: Number of its first weights.
    """
    state[LAST] = first
    state[FAST] = i8(1) << octave
    state[SLOW] = i8(1) << octave
    state[SHAPE] = 1
    state[SPEED] = 2
    smooth = presets[preset, 0] + presets[preset, 1] + presets[preset, 2] > 0.0
    for k in range(TERMS):
        prior = (SMOOTH_PRIOR if smooth else PRIOR) * (k + 1)
        if k == LAGS:
            prior = SMOOTH_LEVEL_PRIOR if smooth else PRIOR
        model[SUMS + LANES * (k * ROW + k) + lane] = prior
        if k < PRESET_LAGS or k == LAGS:
            weight = presets[preset, min(k, i8(PRESET_LAGS))]
            model[WEIGHTS + LANES * k + lane] = weight
            model[SUMS + LANES * (k * ROW + TERMS) + lane] = prior * weight


@part
def recall(model: F32, u: F32, v: F32) -> None:
    """Put a model's latest differences and level before the first sample of `u` and `v`."""
    for k in range(LAGS):
        store(u, LANES * (PAST - 1 - k), load(model, RECENT + LANES * k))
    store(v, LANES * (PAST - 1), load(model, LEVEL))


@part
def slide(u: F32, v: F32, length: int) -> None:
    """Put the latest differences and level of `length` samples before the first ones of the next block."""
    for k in range(PAST):
        store(u, LANES * k, load(u, LANES * (length + k)))
    store(v, LANES * (PAST - 1), load(v, LANES * (PAST + length - 1)))


@part
def keep_recent(u: F32, v: F32, n: int, model: F32) -> None:
    """Leave the latest of `n` samples' differences and level in the model."""
    for k in range(LAGS):
        store(model, RECENT + LANES * k, load(u, LANES * (PAST + n - 1 - k)))
    store(model, LEVEL, load(v, LANES * (PAST + n - 1)))


@part
def calmness(speed: int) -> int:
    """The slow running mean follows with 2^-calmness; the quick one with 2^-(speed + 1)."""
    return speed + 3 if speed > 0 else i8(2)


@part
def eighth_of(p: int) -> int:
    """In which eighth of the way between two integers a prediction, in units of 2^-8, plus a half lies."""
    return ((p + 128) >> 5) & 7


@part
def block_length(age: int) -> int:
    """How many samples to learn from at once after `age` samples."""
    if age < 128:
        return 8 if age < 64 else 16
    if age < 1024:
        return 32 if age < 512 else 64
    return BLOCK
