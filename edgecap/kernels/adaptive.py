"""Prediction that learns from the samples already coded, the same way in encoder and decoder.

Everything is integer arithmetic on the differences u of neighbouring samples of a channel. The long
predictor weighs 16 differences of the channel itself and two each of the two channels before it; the short
one weighs 3. Each follows its own least-squares equations, whose sums forget the past, by one pass of
coordinate descent after every block of 16 samples. Blocks count in inverse proportion to their squared
error, so that a violent movement does not drown what was learned at rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import bit_length, i8, u8
from edgecap.kernels.compile import kernel

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]

LAGS = 16
PAST = LAGS + 1
"""Differences of the past that the equations reach back to."""
ORDER = LAGS + 4
ROW = ORDER + 1
SHORT = 3
BLOCK = 16

LAST = PAST
FAST, SLOW, LONG_ERROR, SHORT_ERROR, SHAPE, SPEED = LAST + 1, LAST + 2, LAST + 3, LAST + 4, LAST + 5, LAST + 6
WEIGHTS = 24
SHORT_WEIGHTS = WEIGHTS + ORDER
SHORT_SQUARES = SHORT_WEIGHTS + SHORT
SHORT_SIDE = SHORT_SQUARES + SHORT * SHORT
SIDE = SHORT_SIDE + SHORT
SQUARES = SIDE + ORDER
STATE = SQUARES + ORDER * ROW
"""Length of one channel's state; the names above are places in it."""

SIZE_LIMIT = 1 << 20
"""Differences beyond this are cut for the equations."""
ERROR_LIMIT = 1 << 19
SHIFT_LIMIT = 17
"""Limits that keep every sum and product within 64 bits."""
WEIGHT_LIMIT = 1 << 19
SQUARE_LIMIT = 1 << 38
RIDGE = 4096
FORGET, SHORT_FORGET = 8, 6

MIX = np.array(
    (256, 256, 256, 256, 256, 255, 255, 255, 255, 254, 254, 253, 252, 250, 248, 245, 241, 235, 228, 218, 205,
     189, 171, 150, 128, 106, 85, 67, 51, 38, 28, 21, 15, 11, 8, 6, 4, 3, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0),
    np.int64,
)  # fmt: skip
"""Share of the long predictor, of 256, by its error above the short one's in eighth octaves (-24…24)."""

PRESETS = np.array(
    (
        (0, 0, 0),
        (32768, 0, 0),
        (65536, 0, 0),
        (-32768, 0, 0),
        (-49152, -32768, -16384),
        (98304, -49152, 0),
        (131072, -65536, 0),
        (-39322, -19661, -6554),
    ),
    np.int64,
)
"""First weights of both predictors, in units of 2^-16, by their number in the format."""


@kernel
def predict(u: I32, v1: I32, v2: I32, t: int, w: I64, s: I64) -> tuple[int, int]:
    """The expected next difference in units of 2^-16, by the long and by the short predictor.

    Args:
        u: Differences of the channel; the next one will be at `t`.
        v1, v2: Differences of the two channels before it, known at `t`.
        t: Index, at least `PAST`.
        w, s: The weights of both predictors.
    """
    long = i8(0)
    for k in range(LAGS):
        long += w[k] * i8(u[u8(t - LAGS + k)])
    long += w[LAGS] * i8(v1[u8(t - 1)]) + w[LAGS + 1] * i8(v1[u8(t)])
    long += w[LAGS + 2] * i8(v2[u8(t - 1)]) + w[LAGS + 3] * i8(v2[u8(t)])
    short = s[0] * i8(u[u8(t - 1)]) + s[1] * i8(u[u8(t - 2)]) + s[2] * i8(u[u8(t - 3)])
    return long, short


@kernel
def eighth_octave(value: int) -> int:
    """8·log2 of a positive number, its fraction taken from the three bits below the highest."""
    bits = bit_length(u8(value))
    return 8 * (bits - 1) + (((value << 3) >> (bits - 1)) & 7)


@kernel
def phase_of(p: int) -> int:
    """How far a prediction in units of 2^-8 lies above the integer it is rounded to, in quarters: -2 to 2."""
    return (((p + 128) & 255) - 96) >> 6


@kernel
def mixed(a: int, b: int, long_error: int, short_error: int, mix: I64) -> int:
    """The mixture of both predictions, by how large their errors were."""
    lead = eighth_octave(long_error + 16) - eighth_octave(short_error + 16)
    share: int = mix[min(max(lead, -24), 24) + 24]
    return b + (((a - b) * share) >> 8)


@kernel
def halve(squares: I64, side: I64) -> None:
    """Keep the sums of an equation within limits; only row ≥ column of `squares` counts."""
    order = side.size
    largest = i8(0)
    for i in range(order):
        largest = max(largest, squares[i, i])
    while largest > SQUARE_LIMIT:
        largest >>= 1
        for i in range(order):
            side[i] >>= 1
            for j in range(order):
                squares[i, j] >>= 1


@kernel
def better(weight: int, gap: int, square: int) -> int:
    """A weight that closes the gap of its equation, within limits."""
    return min(max(weight + gap // (square + RIDGE), -WEIGHT_LIMIT), WEIGHT_LIMIT)


@kernel
def improve_long(squares: I64, side: I64, w: I64, gaps: I64) -> None:
    """Improve weights by one pass from last to first.

    Args:
        squares: (order, ≥ order) sums; only row ≥ column counts.
        side: (order,) sums with the target.
        w: (order,) weights, improved.
        gaps: (order,) scratch.
    """
    order = w.size
    for i in range(order):
        gaps[i] = side[i] << 16
    for i in range(order):
        weight = w[i]
        total = squares[i, i] * weight
        for j in range(i):
            total += squares[i, j] * w[j]
            gaps[j] -= squares[i, j] * weight
        gaps[i] -= total
    for k in range(order):
        i = order - 1 - k
        weight = better(w[u8(i)], gaps[u8(i)], squares[u8(i), u8(i)])
        change = weight - w[u8(i)]
        w[u8(i)] = weight
        for j in range(i):
            gaps[j] -= squares[u8(i), u8(j)] * change


@kernel
def improve_short(squares: I64, side: I64, w: I64) -> None:
    """The same for SHORT weights, without loops."""
    g0 = (side[0] << 16) - squares[0, 0] * w[0] - squares[1, 0] * w[1] - squares[2, 0] * w[2]
    g1 = (side[1] << 16) - squares[1, 0] * w[0] - squares[1, 1] * w[1] - squares[2, 1] * w[2]
    g2 = (side[2] << 16) - squares[2, 0] * w[0] - squares[2, 1] * w[1] - squares[2, 2] * w[2]
    weight = better(w[2], g2, squares[2, 2])
    change = weight - w[2]
    w[2] = weight
    weight = better(w[1], g1 - squares[2, 1] * change, squares[1, 1])
    g0 -= squares[2, 0] * change + squares[1, 0] * (weight - w[1])
    w[1] = weight
    w[0] = better(w[0], g0, squares[0, 0])


@kernel
def products(u: I32, v1: I32, v2: I32, t0: int, t1: int, sums: I64) -> None:
    """Sums over [t0, t1) of products of the regressors and the target: row i ≥ column j of `sums`.

    Row ORDER belongs to the target u[t], those before to the regressors in the order of the weights:
    u[t-16] … u[t-1], v1[t-1], v1[t], v2[t-1], v2[t].
    """
    n = t1 - t0
    own, near, far = ORDER, ORDER - 3, ORDER - 1
    for k in range(PAST):
        total = i8(0)
        total1 = i8(0)
        total2 = i8(0)
        for i in range(n):
            d = i8(u[u8(t0 + i - LAGS + k)])
            total += i8(u[u8(t0 + i)]) * d
            total1 += i8(v1[u8(t0 + i)]) * d
            total2 += i8(v2[u8(t0 + i)]) * d
        at = u8(k) if k < LAGS else u8(ORDER)
        sums[u8(own), at] = total
        sums[u8(near), at] = total1
        sums[u8(far), at] = total2
    # Sums of products with earlier differences follow by exchanging the ends of the block.
    first, last = i8(u[u8(t0 - 1)]), i8(u[u8(t1 - 1)])
    for k in range(LAGS - 1):
        sums[u8(LAGS - 1), u8(k)] = (
            sums[u8(own), u8(k + 1)] + first * i8(u[u8(t0 - LAGS + k)]) - last * i8(u[u8(t1 - LAGS + k)])
        )
    sums[u8(LAGS - 1), u8(LAGS - 1)] = sums[u8(own), u8(own)] + first * first - last * last
    for i in range(LAGS - 2, -1, -1):
        first, last = i8(u[u8(t0 - LAGS + i)]), i8(u[u8(t1 - LAGS + i)])
        for k in range(i + 1):
            sums[u8(i), u8(k)] = (
                sums[u8(i + 1), u8(k + 1)]
                + first * i8(u[u8(t0 - LAGS + k)])
                - last * i8(u[u8(t1 - LAGS + k)])
            )
    y0, y1 = i8(v1[u8(t0 - 1)]), i8(v1[u8(t1 - 1)])
    z0, z1 = i8(v2[u8(t0 - 1)]), i8(v2[u8(t1 - 1)])
    for k in range(LAGS):
        d0, d1 = i8(u[u8(t0 - LAGS + k)]), i8(u[u8(t1 - LAGS + k)])
        at = u8(k + 1) if k + 1 < LAGS else u8(ORDER)
        sums[u8(near - 1), u8(k)] = sums[u8(near), at] + y0 * d0 - y1 * d1
        sums[u8(far - 1), u8(k)] = sums[u8(far), at] + z0 * d0 - z1 * d1
    p1p1 = p1p0 = p1q1 = p1q0 = p0p0 = p0q1 = p0q0 = q1q1 = q1q0 = q0q0 = xp1 = xq1 = i8(0)
    for i in range(n):
        p1, p0 = i8(v1[u8(t0 + i - 1)]), i8(v1[u8(t0 + i)])
        q1, q0 = i8(v2[u8(t0 + i - 1)]), i8(v2[u8(t0 + i)])
        x = i8(u[u8(t0 + i)])
        p1p1 += p1 * p1
        p1p0 += p1 * p0
        p1q1 += p1 * q1
        p1q0 += p1 * q0
        p0p0 += p0 * p0
        p0q1 += p0 * q1
        p0q0 += p0 * q0
        q1q1 += q1 * q1
        q1q0 += q1 * q0
        q0q0 += q0 * q0
        xp1 += x * p1
        xq1 += x * q1
    sums[near - 1, near - 1], sums[near, near] = p1p1, p0p0
    sums[far - 1, far - 1], sums[far, far] = q1q1, q0q0
    sums[near, near - 1], sums[far, far - 1] = p1p0, q1q0
    sums[far - 1, near - 1], sums[far, near - 1] = p1q1, p1q0
    sums[far - 1, near], sums[far, near] = p0q1, p0q0
    sums[own, near - 1], sums[own, near] = xp1, sums[near, own]
    sums[own, far - 1], sums[own, far] = xq1, sums[far, own]


@kernel
def learn(
    u: I32,
    v1: I32,
    v2: I32,
    t0: int,
    t1: int,
    error: int,
    squares: I64,
    all_squares: I64,
    side: I64,
    w: I64,
    short: I64,
    short_side: I64,
    s: I64,
    sums: I64,
    all_sums: I64,
    gaps: I64,
) -> None:
    """Take the block of differences [t0, t1) into the equations and improve the weights.

    Args:
        u, v1, v2: Differences of the channel and of the two before it.
        error: Sum of the magnitudes of the block's residuals, in the unit of `u`.
        squares, side, w: The long equations, (ORDER, ROW), (ORDER,) and (ORDER,).
        all_squares, all_sums: The same memory as `squares` and `sums` in one dimension.
        short, short_side, s: The short ones, likewise of order SHORT.
        sums: (ORDER + 1, ROW) scratch, zero at first.
        gaps: (ORDER,) scratch.
    """
    n = t1 - t0
    products(u, v1, v2, t0, t1, sums)
    spread = 16 * error // n + 5
    square = spread * spread
    bits = bit_length(u8(square))
    scale = (i8(1) << (bits + 14)) // square
    down = bits - 2
    for i in range(SHORT):
        at = LAGS - 1 - i
        value = short_side[i]
        short_side[i] = value + ((sums[ORDER, at] * scale) >> down) - ((value * n) >> SHORT_FORGET)
        for j in range(i + 1):
            value = short[i, j]
            value += ((sums[LAGS - 1 - j, at] * scale) >> down) - ((value * n) >> SHORT_FORGET)
            short[i, j] = value
    for j in range(ORDER):
        side[j] += ((sums[ORDER, j] * scale) >> down) - ((side[j] * n) >> FORGET)
    # One pass over all of the memory is quicker than over the half that counts.
    for i in range(ORDER * ROW):
        all_squares[i] += ((all_sums[i] * scale) >> down) - ((all_squares[i] * n) >> FORGET)
    halve(squares, side)
    improve_long(squares, side, w, gaps)
    halve(short, short_side)
    improve_short(short, short_side, s)


@kernel
def preset_of(values: I32, presets: I64) -> int:
    """The preset that would have predicted the first differences of a channel's `values` (n,) best."""
    best = i8(-1)
    found = 0
    for p in range(presets.shape[0]):
        total = i8(0)
        d1 = i8(0)
        d2 = i8(0)
        d3 = i8(0)
        for t in range(1, min(values.size, 64)):
            d = i8(values[t]) - i8(values[t - 1])
            total += abs((d << 8) - ((presets[p, 0] * d1 + presets[p, 1] * d2 + presets[p, 2] * d3) >> 8))
            d3, d2, d1 = d2, d1, d
        if best < 0 or total < best:
            best, found = total, p
    return found


@kernel
def start_state(state: I64, first: int, octave: int, preset: int, presets: I64) -> None:
    """Set a zeroed state to a channel's first sample, expected magnitude (2^octave / 64) and weights."""
    state[LAST] = first
    state[FAST] = i8(1) << octave
    state[SLOW] = i8(1) << octave
    state[SHAPE] = 1
    state[SPEED] = 2
    for k in range(SHORT):
        state[WEIGHTS + LAGS - 1 - k] = presets[preset, k]
        state[SHORT_WEIGHTS + k] = presets[preset, k]


@kernel
def differences(values: I32, shift: int, state: I64, u: I32) -> None:
    """Fill `u` (PAST + n) with the state's past and the differences of a channel's `values` (n,)."""
    for k in range(PAST):
        u[k] = min(max(state[PAST - 1 - k] >> shift, -SIZE_LIMIT), SIZE_LIMIT)
    last = state[LAST]
    for t in range(values.size):
        u[PAST + t] = min(max((i8(values[t]) - last) >> shift, -SIZE_LIMIT), SIZE_LIMIT)
        last = i8(values[t])


@kernel
def keep_past(values: I32, state: I64) -> None:
    """Leave the last differences and the last of a channel's `values` (n,) in its state."""
    n = values.size
    recent = min(n, PAST)
    for k in range(PAST - 1, recent - 1, -1):
        state[k] = state[k - recent]
    for k in range(recent):
        before = i8(values[n - 2 - k]) if n - 2 - k >= 0 else state[LAST]
        state[k] = i8(values[n - 1 - k]) - before
    state[LAST] = i8(values[n - 1])


@kernel
def residuals(
    values: I32, width: int, shift: int, states: I64, u: I32, out: I64, phases: I8, mix: I64
) -> None:
    """Predict every sample of every channel from those before it, and learn.

    Args:
        values: (c, n) samples, n ≥ 1.
        width: Bits of a sample, 16 or 32.
        shift: How far differences are shifted down for the equations.
        states: (c, STATE) states of the channels, advanced by the call (but for the spread of residuals).
        u: (c + 2, PAST + n) scratch; its first two rows must be zero.
        out: (c, n) residuals.
        phases: (c, n) receives where the predictions lay, as of `phase_of`.
    """
    channels, n = values.shape
    top = (i8(1) << (width - 1)) - 1
    sums = np.zeros((ORDER + 1, ROW), np.int64)
    all_sums = sums.reshape(-1)
    gaps = np.zeros(ORDER, np.int64)
    for c in range(channels):
        state = states[c]
        own, v1, v2 = u[c + 2], u[c + 1], u[c]
        differences(values[c], shift, state, own)
        all_squares = state[SQUARES:STATE]
        squares = all_squares.reshape(ORDER, ROW)
        side = state[SIDE:SQUARES]
        short_squares = state[SHORT_SQUARES:SHORT_SIDE].reshape(SHORT, SHORT)
        short_side = state[SHORT_SIDE:SIDE]
        w, s = state[WEIGHTS:SHORT_WEIGHTS], state[SHORT_WEIGHTS:SHORT_SQUARES]
        last, long_error, short_error = state[LAST], state[LONG_ERROR], state[SHORT_ERROR]
        samples, found = values[c], out[c]
        t0 = 0
        error = i8(0)
        for t in range(n):
            long, short = predict(own, v1, v2, t + PAST, w, s)
            a, b = (long << shift) >> 8, (short << shift) >> 8
            p = mixed(a, b, long_error, short_error, mix)
            x = i8(samples[t])
            e = x - min(max(last + ((p + 128) >> 8), -top - 1), top)
            found[t] = e
            phases[c, t] = phase_of(p)
            step = (x - last) << 8
            last = x
            long_error += (abs(step - a) - long_error) >> 4
            short_error += (abs(step - b) - short_error) >> 4
            error += min(abs(e) >> shift, ERROR_LIMIT)
            if t + 1 - t0 == BLOCK or t + 1 == n:
                learn(
                    own,
                    v1,
                    v2,
                    t0 + PAST,
                    t + 1 + PAST,
                    error,
                    squares,
                    all_squares,
                    side,
                    w,
                    short_squares,
                    short_side,
                    s,
                    sums,
                    all_sums,
                    gaps,
                )
                t0, error = t + 1, i8(0)
        state[LONG_ERROR], state[SHORT_ERROR] = long_error, short_error
        keep_past(values[c], state)
