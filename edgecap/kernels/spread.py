"""Coding residuals by how large they are expected to be, and the whole decoding of predicted samples.

The expected magnitude m of a channel's next residual is the mean of two running means of |e|, a quick and a
slow one (in units of 1/64, summed: 1/128). Its quarter octave picks the table and the number of flat bits.
A channel's shape (of the tables) and speed (of the running means) are chosen by the encoder for a chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.adaptive import (
    AGE,
    BLOCK,
    FAST,
    LAGS,
    LAST,
    MODEL,
    PAST,
    ROW,
    SHAPE,
    SLOW,
    SPEED,
    SUMS,
    WEIGHTS,
    block_length,
    expected,
    keep_recent,
    learn,
    phase_of,
    preset_of,
    recall,
    start_state,
)
from edgecap.kernels.bits import Words, bit_length, i8, u8
from edgecap.kernels.compile import kernel, part
from edgecap.kernels.lanes import LANES, store
from edgecap.kernels.rans import ALL, AT, MOST_BITS, X, put, put_plain, take, take_plain
from edgecap.kernels.tables import (
    ESCAPE,
    GUESS_SHIFT,
    LARGE,
    SHAPES,
    SMALL_SCALES,
    quarter_octave,
)

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]
U32 = NDArray[np.uint32]
Bytes = NDArray[np.uint8]

SPEEDS = 4
"""Speed s has running means over 2^(s+1) and 2^(s+3) residuals."""
CHOICE_BITS = 4
"""Plain bits that say shape and speed."""
FIRST_SPLIT = 40
"""The first quarter octave (magnitude 8) with flat bits."""
SAME = 61440
"""Of 65536: how likely a channel keeps shape and speed."""


@kernel
def start_fresh(values: I32, models: F64, states: I64, presets: F64, choices: I64) -> None:
    """Choose first magnitudes and weights of channels without a past; set their zeroed models and states.

    Args:
        values: (c, n) samples, n ≥ 1.
        choices: (c, 3) receives first sample, octave and preset.
    """
    channels, n = values.shape
    for c in range(channels):
        preset = preset_of(values[c], presets)
        first = i8(values[c, 0])
        total = i8(0)
        count = min(n, 17)
        for t in range(1, count):
            total += abs(i8(values[c, t]) - i8(values[c, t - 1])) << 6
        octave = max(bit_length(u8(total // max(count - 1, 1))) - 1, 0)
        choices[c, 0], choices[c, 1], choices[c, 2] = first, octave, preset
        start_state(models[c // LANES], c % LANES, states[c], first, octave, preset, presets)


@part
def short_bits(width: int) -> int:
    """Bits of a fresh channel's octave, and of the length of its first sample."""
    return 5 if width == 16 else 6


@kernel
def put_fresh(choices: I64, width: int, steps: Words, at: int) -> int:
    """Note what `start_fresh` chose as plain bits; returns the number of the next step."""
    short = short_bits(width)
    for c in range(choices.shape[0]):
        first = choices[c, 0]
        folded = (first << 1) ^ (first >> 63)
        length = bit_length(u8(folded))
        at = put_plain(steps, at, length, short)
        at = put_plain(steps, at, folded, length - 1)
        at = put_plain(steps, at, choices[c, 1], short)
        at = put_plain(steps, at, choices[c, 2], 3)
    return at


@kernel
def take_fresh(
    width: int, models: F64, states: I64, presets: F64, coder: Words, words: Words, first: I32
) -> int:
    """Read what `put_fresh` wrote, setting zeroed models and states; -1 when it is not valid."""
    x, at = coder[X], i8(coder[AT])
    short = short_bits(width)
    for c in range(states.shape[0]):
        bits, x, at = take_plain(x, at, words, short)
        length = i8(bits)
        if length > width:
            return -1
        bits, x, at = take_plain(x, at, words, length - 1)
        folded = bits | (u8(1) << u8(length - 1)) if length > 0 else u8(0)
        bits, x, at = take_plain(x, at, words, short)
        octave = i8(bits)
        bits, x, at = take_plain(x, at, words, 3)
        if octave > width + 7:
            return -1
        sample = i8(folded >> u8(1)) ^ -i8(folded & u8(1))
        start_state(models[c // LANES], c % LANES, states[c], sample, octave, i8(bits), presets)
        first[c] = sample
    coder[X], coder[AT] = x, u8(at)
    return 0


@part
def table_of(magnitude: int, phase: int) -> tuple[int, int, int]:
    """Table, number of plain bits, and sign to give residuals.

    Args:
        magnitude: Expected magnitude in units of 1/128.
        phase: Of the prediction, in quarters; tables are for predictions that lie above.
    """
    q = quarter_octave(magnitude + 1)
    if q < FIRST_SPLIT:
        return max(q - 4, 0) + SMALL_SCALES * abs(phase), 0, -1 if phase < 0 else 1
    return LARGE + (q & 3), ((q - FIRST_SPLIT) >> 2) + 1, 1


@part
def symbol_of(e: int, phase: int, magnitude: int, width: int) -> tuple[Any, Any, int]:
    """Table, symbol, and units of 1/256 of the plain bits that the residual `e` takes."""
    table, k, sign = table_of(magnitude, phase)
    high = (sign * e) >> k
    folded = (high << 1) ^ (high >> 63)
    inside = folded < ESCAPE
    return u8(table), u8(folded if inside else ESCAPE), (k if inside else i8(width + 1)) << 8


@part
def speed_costs(e: I64, phases: I8, state: I64, width: int, costs: I32, found: I64) -> None:
    """Bits, in units of 1/256, that a channel's residuals `e` (n,) would take at every speed.

    Args:
        state: The channel's, before the first residual.
        costs: (shapes, tables, 256) bits of every symbol.
        found: (SPEEDS,) receives the sums.
    """
    # The speeds do not wait for one another, so that one pass takes little longer than a single speed.
    f0 = f1 = f2 = f3 = state[FAST]
    g0 = g1 = g2 = g3 = state[SLOW]
    t0 = t1 = t2 = t3 = i8(0)
    shape = u8(state[SHAPE])
    for t in range(e.size):
        value, phase = e[u8(t)], i8(phases[u8(t)])
        table, symbol, plain = symbol_of(value, phase, f0 + g0, width)
        t0 += i8(costs[shape, table, symbol]) + plain
        table, symbol, plain = symbol_of(value, phase, f1 + g1, width)
        t1 += i8(costs[shape, table, symbol]) + plain
        table, symbol, plain = symbol_of(value, phase, f2 + g2, width)
        t2 += i8(costs[shape, table, symbol]) + plain
        table, symbol, plain = symbol_of(value, phase, f3 + g3, width)
        t3 += i8(costs[shape, table, symbol]) + plain
        size = abs(value) << 6
        f0 += (size - f0) >> 1
        f1 += (size - f1) >> 2
        f2 += (size - f2) >> 3
        f3 += (size - f3) >> 4
        g0 += (size - g0) >> 3
        g1 += (size - g1) >> 4
        g2 += (size - g2) >> 5
        g3 += (size - g3) >> 6
    found[0], found[1], found[2], found[3] = t0, t1, t2, t3


@part
def shape_costs(e: I64, phases: I8, state: I64, speed: int, width: int, costs: I32, found: I64) -> None:
    """Bits that a channel's residuals would take with every shape at one speed; found is (SHAPES,)."""
    fast, slow = state[FAST], state[SLOW]
    t0 = t1 = t2 = t3 = i8(0)
    for t in range(e.size):
        value = e[u8(t)]
        table, symbol, plain = symbol_of(value, i8(phases[u8(t)]), fast + slow, width)
        t0 += i8(costs[0, table, symbol]) + plain
        t1 += i8(costs[1, table, symbol]) + plain
        t2 += i8(costs[2, table, symbol]) + plain
        t3 += i8(costs[3, table, symbol]) + plain
        size = abs(value) << 6
        fast += (size - fast) >> (speed + 1)
        slow += (size - slow) >> (speed + 3)
    found[0], found[1], found[2], found[3] = t0, t1, t2, t3


@kernel
def choose(e: I64, phases: I8, width: int, states: I64, costs: I32, chosen: I64) -> int:
    """Find every channel's best shape and speed.

    Args:
        e, phases: (c, n) residuals and phases.
        width: Bits of a sample.
        states: (c, STATE); not changed.
        costs: (shapes, tables, 256) bits of every symbol in units of 1/256.
        chosen: (c, 2) receives shape and speed.

    Returns:
        Bits that all channels will take, in units of 1/256.
    """
    total: int = i8(0)
    found = np.empty(SHAPES, np.int64)
    change = CHOICE_BITS * 256
    for c in range(e.shape[0]):
        state = states[c]
        shape, speed = state[SHAPE], state[SPEED]
        speed_costs(e[c], phases[c], state, width, costs, found)
        best = found[speed]
        for other in range(SPEEDS):
            if other != state[SPEED] and found[other] + change < best:
                best, speed = found[other] + change, i8(other)
        shape_costs(e[c], phases[c], state, speed, width, costs, found)
        best = found[shape] + (change if speed != state[SPEED] else 0)
        for other in range(SHAPES):
            if found[other] + change < best:
                best, shape = found[other] + change, i8(other)
        chosen[c, 0], chosen[c, 1] = shape, speed
        total += best
    return total


@kernel
def encode_spread(
    e: I64, phases: I8, width: int, states: I64, chosen: I64, starts: U32, steps: Words, at: int
) -> int:
    """Note all residuals `e` (c, n) with the chosen shapes and speeds, advancing the states' magnitudes.

    Returns:
        The number of the next step; a residual takes up to four, a channel two more.
    """
    channels, n = e.shape
    for first in range(0, channels, LANES):
        end = min(first + LANES, channels)
        for c in range(first, end):
            shape, speed = chosen[c, 0], chosen[c, 1]
            if shape == states[c, SHAPE] and speed == states[c, SPEED]:
                at = put(steps, at, 0, SAME, 0, 0)
            else:
                at = put(steps, at, SAME, ALL - SAME, shape + SHAPES * speed, CHOICE_BITS)
                states[c, SHAPE], states[c, SPEED] = shape, speed
        for t in range(n):
            for c in range(first, end):
                fast, slow, speed = states[c, FAST], states[c, SLOW], states[c, SPEED]
                shape = u8(states[c, SHAPE])
                table, k, sign = table_of(fast + slow, i8(phases[c, t]))
                value = sign * e[c, t]
                symbol = ((value >> k) << 1) ^ (value >> 63)
                start = i8(0)
                size = i8(0)
                if symbol < ESCAPE:
                    start = i8(starts[shape, u8(table), u8(symbol)])
                    size = i8(starts[shape, u8(table), u8(symbol + 1)]) - start
                if size == 0:
                    start = i8(starts[shape, u8(table), u8(ESCAPE)])
                    size, value, k = ALL - start, value + (i8(1) << width), i8(width + 1)
                at = put(steps, at, start, size, value, min(k, MOST_BITS))
                if k > MOST_BITS:
                    at = put_plain(steps, at, value >> MOST_BITS, k - MOST_BITS)
                size = abs(e[c, t]) << 6
                states[c, FAST] = fast + ((size - fast) >> (speed + 1))
                states[c, SLOW] = slow + ((size - slow) >> (speed + 3))
    return at


@kernel
def decode_samples(
    values: I32,
    width: int,
    models: F64,
    states: I64,
    starts: U32,
    guess: Bytes,
    coder: Words,
    words: Words,
) -> int:
    """Decode the samples of all channels; the counterpart of `residuals` and `encode_spread`.

    Args:
        values: (n, c) receives the samples, n ≥ 1.
        width: Bits of a sample, 16 or 32.
        models, states: (groups, MODEL) and (c, STATE), advanced by the call.
        starts, guess: Tables of `build_tables`.
        coder: State of the decoder.
        words: What it reads, and one more.

    Returns:
        0, or -1 when the bytes are not a valid encoding.
    """
    n, channels = values.shape
    top = (i8(1) << (width - 1)) - 1
    u = np.zeros(LANES * (PAST + n), np.float64)
    errors = np.zeros(LANES * BLOCK, np.float64)
    forecast = np.zeros(LANES, np.float64)
    sums = np.zeros(LANES * ROW, np.float64)
    a, g = np.zeros(LANES * LAGS * ROW, np.float64), np.zeros(LANES * LAGS * ROW, np.float64)
    x, at = coder[X], i8(coder[AT])
    for group in range(models.shape[0]):
        model = models[group]
        w, q = model[WEIGHTS:SUMS], model[SUMS:MODEL]
        first = LANES * group
        count = min(LANES, channels - first)
        recall(model, u)
        u[LANES * PAST :] = 0.0
        errors[:] = 0.0
        for c in range(first, first + count):
            if x & u8(ALL - 1) < u8(SAME):
                _, x, at = take(x, at, words, u8(0), u8(SAME), u8(0))
            else:
                bits, x, at = take(x, at, words, u8(SAME), u8(ALL - SAME), u8(CHOICE_BITS))
                states[c, SHAPE], states[c, SPEED] = i8(bits) & 3, i8(bits) >> 2
        age = states[first, AGE]
        begin = 0
        block = block_length(age)
        for t in range(n):
            store(forecast, 0, expected(u, LANES * (PAST + t), w))
            for lane in range(count):
                c = u8(first + lane)
                p = i8(forecast[u8(lane)])
                fast, slow, speed, last = states[c, FAST], states[c, SLOW], states[c, SPEED], states[c, LAST]
                shape = u8(states[c, SHAPE])
                table, k, sign = table_of(fast + slow, phase_of(p))
                slot = x & u8(ALL - 1)
                symbol = u8(guess[shape, u8(table), slot >> u8(GUESS_SHIFT)])
                while u8(starts[shape, u8(table), symbol + u8(1)]) <= slot:
                    symbol += u8(1)
                start = u8(starts[shape, u8(table), symbol])
                size = u8(starts[shape, u8(table), symbol + u8(1)]) - start
                if symbol == u8(ESCAPE):
                    k = i8(width + 1)
                low, x, at = take(x, at, words, start, size, u8(min(k, MOST_BITS)))
                if k > MOST_BITS:
                    high, x, at = take_plain(x, at, words, k - MOST_BITS)
                    low |= high << u8(MOST_BITS)
                if symbol == u8(ESCAPE):
                    e = i8(low) - (i8(1) << width)
                else:
                    e = ((i8(symbol >> u8(1)) ^ -i8(symbol & u8(1))) << k) + i8(low)
                e *= sign
                sample = min(max(last + ((p + 128) >> 8), -top - 1), top) + e
                if sample < -top - 1 or sample > top:
                    return -1
                values[u8(t), c] = sample
                u[u8(LANES * (PAST + t) + lane)] = float(sample - last)
                errors[u8(LANES * (t - begin) + lane)] = float(e)
                states[c, LAST] = sample
                magnitude = abs(e) << 6
                states[c, FAST] = fast + ((magnitude - fast) >> (speed + 1))
                states[c, SLOW] = slow + ((magnitude - slow) >> (speed + 3))
            if t + 1 - begin == block or t + 1 == n:
                learn(u, PAST + begin, PAST + t + 1, errors, q, w, sums, a, g)
                age += t + 1 - begin
                begin = t + 1
                block = block_length(age)
        states[first, AGE] = age
        keep_recent(u, n, model)
    coder[X], coder[AT] = x, u8(at)
    return 0


def build_costs(starts: U32) -> I32:
    """Bits of every symbol in units of 1/256, (shapes, tables, 256); one without a part costs an escape."""
    sizes = np.diff(starts.astype(np.int64), axis=2)
    distinct, which = np.unique(sizes, return_inverse=True)
    # log2 of size^256 to the nearest lower integer is 256 log2 of size.
    cost = [16 * 256 + 1 - (max(size, 1) ** 256).bit_length() for size in distinct.tolist()]
    costs = np.array(cost, np.int32)[which].reshape(sizes.shape)
    escape = costs[:, :, ESCAPE:]
    return np.where(sizes > 0, costs, escape + (17 << 8)).astype(np.int32)
