"""Prediction that learns from the samples already coded, the same way in encoder and decoder.

A channel's next difference u(t) is expected to be a weighted sum of its last 16. The weights solve
least-squares equations whose sums forget the past; they are solved anew after every block of samples. Blocks
count in inverse proportion to their squared error, so that a violent movement does not drown what was learned
at rest. Four channels, a group, learn side by side in the lanes of a vector.

All of it is float64 arithmetic in one order that FORMAT.md states: additions, subtractions, multiplications
and divisions that IEEE 754 defines to the last bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import i8, u8
from edgecap.kernels.compile import kernel, part
from edgecap.kernels.lanes import LANES, Four, load, magnitudes, rounded_down, same, store, within

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]

LAGS = 16
PAST = LAGS + 2
"""Differences before the first of a payload that kernels read; two of them count nowhere."""
ROW = LAGS + 2
"""A row of the equations: what the weights multiply, the sum with the target, and one that only pads."""
FIRST_BLOCK, BLOCK, YOUNG = 16, 32, 128
"""Samples of a block while fewer than YOUNG were learned from, and after."""

RECENT = 0
WEIGHTS = RECENT + LANES * LAGS
SUMS = WEIGHTS + LANES * LAGS
MODEL = SUMS + LANES * LAGS * ROW
"""Length of a group's model; the names above are places in it. Latest differences come first."""

LAST, FAST, SLOW, SHAPE, SPEED, AGE = range(6)
STATE = 6
"""Length of one channel's other state, and the places in it; a group's age is that of its first channel."""

FORGET = 192.0
LEAST_ERROR = 0.3
RIDGE, RELATIVE_RIDGE = 0.25, 1.0001220703125
WEIGHT_LIMIT = 8.0
PRIOR = 16.0

PRESETS = np.array(
    (
        (0, 0, 0),
        (0.5, 0, 0),
        (1, 0, 0),
        (-0.5, 0, 0),
        (-0.75, -0.5, -0.25),
        (1.5, -0.75, 0),
        (2, -1, 0),
        (-0.625, -0.3125, -0.125),
    ),
    np.float64,
)
"""First weights by their number in the format."""


def groups_of(channels: int) -> int:
    """Number of groups that so many channels form."""
    return (channels + LANES - 1) // LANES


@part
def expected(u: F64, at: int, w: F64) -> Four:
    """256 times the expected differences, rounded down.

    Args:
        u: Differences of a group, four by four; the next four will be at index `at`.
        w: Weights, four by four.
    """
    even = load(w, 60) * load(u, at - 64)
    odd = load(w, 56) * load(u, at - 60)
    for k in range(6, -1, -1):
        even = even + load(w, 8 * k + 4) * load(u, at - 8 * k - 8)
        odd = odd + load(w, 8 * k) * load(u, at - 8 * k - 4)
    return rounded_down((even + odd) * same(256.0))


@part
def correlate(u: F64, begin: int, end: int, sums: F64) -> None:
    """Sums over the samples [begin, end) of u(t)·u(t−k), four by four, for k = 0 to 17."""
    for k in range(0, 18, 6):
        s0 = s1 = s2 = s3 = s4 = s5 = same(0.0)
        for t in range(begin, end):
            x = load(u, 4 * t)
            at = 4 * (t - k)
            s0 = s0 + x * load(u, at)
            s1 = s1 + x * load(u, at - 4)
            s2 = s2 + x * load(u, at - 8)
            s3 = s3 + x * load(u, at - 12)
            s4 = s4 + x * load(u, at - 16)
            s5 = s5 + x * load(u, at - 20)
        store(sums, 4 * k, s0)
        store(sums, 4 * k + 4, s1)
        store(sums, 4 * k + 8, s2)
        store(sums, 4 * k + 12, s3)
        store(sums, 4 * k + 16, s4)
        store(sums, 4 * k + 20, s5)


@part
def solve(q: F64, w: F64, a: F64, g: F64) -> None:
    """Solve the equations `q` for the weights `w` by elimination, two rows and two columns at a time.

    Args:
        q: LAGS rows of ROW; of the square part only what is right of or on the diagonal counts.
        a, g: Scratch of the same size; the shares that rows have in later ones go to `g`.
    """
    one = same(1.0)
    for i in range(0, LAGS, 2):
        r0 = 4 * ROW * i
        r1 = r0 + 4 * ROW
        for j in range(i, ROW, 2):
            at = 4 * j
            s00, s01 = load(q, r0 + at), load(q, r0 + at + 4)
            s10, s11 = load(q, r1 + at), load(q, r1 + at + 4)
            if i == j:
                s00 = s00 * same(RELATIVE_RIDGE) + same(RIDGE)
                s11 = s11 * same(RELATIVE_RIDGE) + same(RIDGE)
            for k in range(i):
                rk = 4 * ROW * k
                g0, g1 = load(g, rk + 4 * i), load(g, rk + 4 * i + 4)
                x0, x1 = load(a, rk + at), load(a, rk + at + 4)
                s00, s01 = s00 - g0 * x0, s01 - g0 * x1
                s10, s11 = s10 - g1 * x0, s11 - g1 * x1
            store(a, r0 + at, s00)
            store(a, r0 + at + 4, s01)
            store(a, r1 + at, s10)
            store(a, r1 + at + 4, s11)
        inverse0 = one / load(a, r0 + 4 * i)
        share = load(a, r0 + 4 * i + 4) * inverse0
        for j in range(i + 1, ROW):
            x0 = load(a, r0 + 4 * j)
            store(a, r1 + 4 * j, load(a, r1 + 4 * j) - share * x0)
            store(g, r0 + 4 * j, x0 * inverse0)
        inverse1 = one / load(a, r1 + 4 * i + 4)
        for j in range(i + 2, ROW):
            store(g, r1 + 4 * j, load(a, r1 + 4 * j) * inverse1)
        store(g, r0 + 4 * i, inverse0)
        store(g, r1 + 4 * i + 4, inverse1)
    for k in range(LAGS - 1, -1, -1):
        rk = 4 * ROW * k
        rest = load(a, rk + 4 * LAGS)
        for j in range(LAGS - 1, k, -1):
            rest = rest - load(a, rk + 4 * j) * load(w, 4 * j)
        store(w, 4 * k, within(rest * load(g, rk + 4 * k), WEIGHT_LIMIT))


@part
def learn(u: F64, begin: int, end: int, errors: F64, q: F64, w: F64, sums: F64, a: F64, g: F64) -> None:
    """Take the block of samples [begin, end) of `u` into the equations and solve them.

    Args:
        u: Differences of a group, four by four, known from sample `begin - PAST` to `end - 1`.
        errors: Residuals of the block, four by four.
        q, w: The group's sums and weights.
        sums: Scratch of 4 ROW.
        a, g: Scratch of the size of `q`.
    """
    count = float(end - begin)
    error = same(0.0)
    for t in range(end - begin):
        error = error + magnitudes(load(errors, 4 * t))
    error = error / same(count) + same(LEAST_ERROR)
    weight = same(1.0) / (error * error)
    keep = same(1.0 - count / FORGET)
    correlate(u, begin, end, sums)
    for i in range(LAGS):
        at = 4 * (i * ROW + LAGS)
        store(q, at, load(q, at) * keep + load(sums, 4 * i + 4) * weight)
    # A sum over products of earlier differences differs from the one before by the ends of the block.
    for i in range(1, LAGS + 1):
        enters = load(u, 4 * (begin - i))
        leaves = load(u, 4 * (end - i))
        for j in range(LAGS, i - 1, -1):
            total = (
                load(sums, 4 * j - 4) + enters * load(u, 4 * (begin - j)) - leaves * load(u, 4 * (end - j))
            )
            store(sums, 4 * j, total)
            at = 4 * ((i - 1) * ROW + j - 1)
            store(q, at, load(q, at) * keep + total * weight)
    solve(q, w, a, g)


@part
def preset_of(values: I32, presets: F64) -> int:
    """The preset that would have predicted the first differences of a channel's `values` (n,) best."""
    best = -1.0
    found = 0
    for p in range(presets.shape[0]):
        total = 0.0
        d1 = d2 = d3 = 0.0
        for t in range(1, min(values.size, 64)):
            d = float(i8(values[t]) - i8(values[t - 1]))
            total += abs(d - (presets[p, 0] * d1 + presets[p, 1] * d2 + presets[p, 2] * d3))
            d3, d2, d1 = d2, d1, d
        if best < 0.0 or total < best:
            best, found = total, p
    return found


@part
def start_state(
    model: F64, lane: int, state: I64, first: int, octave: int, preset: int, presets: F64
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
    for k in range(LAGS):
        prior = PRIOR * (k + 1)
        model[SUMS + LANES * (k * ROW + k) + lane] = prior
        if k < presets.shape[1]:
            model[WEIGHTS + LANES * k + lane] = presets[preset, k]
            model[SUMS + LANES * (k * ROW + LAGS) + lane] = prior * presets[preset, k]


@part
def recall(model: F64, u: F64) -> None:
    """Put a model's latest differences before the first sample of `u`."""
    for k in range(LAGS):
        store(u, 4 * (PAST - 1 - k), load(model, RECENT + 4 * k))


@part
def keep_recent(u: F64, n: int, model: F64) -> None:
    """Leave the latest of `n` samples' differences in the model."""
    for k in range(LAGS):
        store(model, RECENT + 4 * k, load(u, 4 * (PAST + n - 1 - k)))


@part
def phase_of(p: int) -> int:
    """How far a prediction in units of 2^-8 lies above the integer it is rounded to, in quarters: -2 to 2."""
    return (((p + 128) & 255) - 96) >> 6


@part
def block_length(age: int) -> int:
    """How many samples to learn from at once after `age` samples."""
    return FIRST_BLOCK if age < YOUNG else BLOCK


@kernel
def residuals(values: I32, width: int, models: F64, states: I64, out: I64, phases: I8) -> None:
    """Predict every sample of every channel from those before it, and learn.

    Args:
        values: (c, n) samples, n ≥ 1.
        width: Bits of a sample, 16 or 32.
        models, states: (groups, MODEL) and (c, STATE), advanced by the call but for the spread of residuals.
        out: (c, n) residuals.
        phases: (c, n) receives where the predictions lay, as of `phase_of`.
    """
    channels, n = values.shape
    top = (i8(1) << (width - 1)) - 1
    u = np.zeros(LANES * (PAST + n), np.float64)
    errors = np.zeros(LANES * BLOCK, np.float64)
    guess = np.zeros(LANES, np.float64)
    sums = np.zeros(LANES * ROW, np.float64)
    a, g = np.zeros(LANES * LAGS * ROW, np.float64), np.zeros(LANES * LAGS * ROW, np.float64)
    for group in range(models.shape[0]):
        model = models[group]
        w, q = model[WEIGHTS:SUMS], model[SUMS:MODEL]
        first = LANES * group
        count = min(LANES, channels - first)
        recall(model, u)
        u[LANES * PAST :] = 0.0
        errors[:] = 0.0
        for lane in range(count):
            last = states[first + lane, LAST]
            for t in range(n):
                x = i8(values[first + lane, t])
                u[u8(LANES * (PAST + t) + lane)] = float(x - last)
                last = x
        age = states[first, AGE]
        begin = 0
        block = block_length(age)
        for t in range(n):
            store(guess, 0, expected(u, LANES * (PAST + t), w))
            for lane in range(count):
                p = i8(guess[u8(lane)])
                x = i8(values[first + lane, t])
                last = states[first + lane, LAST]
                e = x - min(max(last + ((p + 128) >> 8), -top - 1), top)
                states[first + lane, LAST] = x
                out[first + lane, t] = e
                phases[first + lane, t] = phase_of(p)
                errors[u8(LANES * (t - begin) + lane)] = float(e)
            if t + 1 - begin == block or t + 1 == n:
                learn(u, PAST + begin, PAST + t + 1, errors, q, w, sums, a, g)
                age += t + 1 - begin
                begin = t + 1
                block = block_length(age)
        states[first, AGE] = age
        keep_recent(u, n, model)
