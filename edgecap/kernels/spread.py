"""Coding residuals by how large they are expected to be, and the whole decoding of predicted samples.

The expected magnitude m of a channel's next residual is the mean of two running means of |e|, a quick and a
slow one (in units of 1/64, summed: 1/128). Its quarter octave picks the table and the number of plain bits.
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
    eighth_of,
    expected,
    keep_recent,
    learn,
    preset_of,
    recall,
    start_state,
)
from edgecap.kernels.bits import Words, bit_length, i8, u8
from edgecap.kernels.compile import kernel, part
from edgecap.kernels.lanes import LANES, load, same, store
from edgecap.kernels.rans import ALL, AT, MOST_BITS, X, put, put_plain, take, take_plain
from edgecap.kernels.tables import ESCAPE, GUESS_SHIFT, SHAPES, TABLES, quarter_octave

F32 = NDArray[np.float32]
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
SAME = 61440
"""Of 65536: how likely a channel keeps shape and speed."""
SCRATCH = LANES * (18 + LAGS * ROW + 3 * LAGS)
"""Length of what `learn` needs besides the model."""
TOTAL = 5
"""Beside a channel's state while it is decoded: the sum of its block's |e|."""
_FINE: Any = np.float32(256.0)


@part
def short_bits(width: int) -> int:
    """Bits of a fresh channel's octave, and of the length of its first sample."""
    return 5 if width == 16 else 6


@part
def start_fresh(
    values: I32, width: int, models: F32, states: I64, presets: F64, steps: Words, at: int
) -> int:
    """Choose first magnitudes and weights of channels without a past, set their zeroed models and states.

    Args:
        values: (n, c) samples, n ≥ 1.

    Returns:
        The number of the next step, after plain bits that say what was chosen.
    """
    n, channels = values.shape
    short = short_bits(width)
    count = min(n, 17)
    for c in range(channels):
        preset = preset_of(values[:, c], presets)
        first = i8(values[0, c])
        total = i8(0)
        for t in range(1, count):
            total += abs(i8(values[t, c]) - i8(values[t - 1, c])) << 6
        octave = max(bit_length(u8(total // max(count - 1, 1))) - 1, 0)
        start_state(models[c // LANES], c % LANES, states[c], first, octave, preset, presets)
        folded = (first << 1) ^ (first >> 63)
        length = bit_length(u8(folded))
        at = put_plain(steps, at, length, short)
        at = put_plain(steps, at, folded, length - 1)
        at = put_plain(steps, at, octave, short)
        at = put_plain(steps, at, preset, 3)
    return at


@part
def take_fresh(
    width: int, models: F32, states: I64, presets: F64, x: Any, at: int, words: Words, first: I32
) -> tuple[Any, int]:
    """Read what `start_fresh` wrote, setting zeroed models and states; at is -1 when it is not valid."""
    short = short_bits(width)
    word = words[u8(at)]
    for c in range(states.shape[0]):
        bits, x, at, word = take_plain(x, at, word, words, short)
        length = i8(bits)
        if length > width:
            return x, -1
        bits, x, at, word = take_plain(x, at, word, words, length - 1)
        folded = bits | (u8(1) << u8(length - 1)) if length > 0 else u8(0)
        bits, x, at, word = take_plain(x, at, word, words, short)
        octave = i8(bits)
        bits, x, at, word = take_plain(x, at, word, words, 3)
        if octave > width + 7:
            return x, -1
        sample = i8(folded >> u8(1)) ^ -i8(folded & u8(1))
        start_state(models[c // LANES], c % LANES, states[c], sample, octave, i8(bits), presets)
        first[c] = sample
    return x, at


@part
def residuals(values: I32, first: int, width: int, model: F32, states: I64, out: I64, phases: I8) -> None:
    """Predict every sample of one group of channels from those before it, and learn.

    Args:
        values: (n, c) samples, n ≥ 1.
        first: The group's first channel.
        width: Bits of a sample, 16 or 32.
        model, states: The group's, and (c, STATE), advanced by the call but for the spread of residuals.
        out: (c, n) residuals.
        phases: (c, n) receives where the predictions lay, as of `eighth_of`.
    """
    n, channels = values.shape
    top = (i8(1) << (width - 1)) - 1
    u = np.zeros(LANES * (PAST + n), np.float32)
    errors = np.zeros(LANES, np.float32)
    guess = np.zeros(LANES * BLOCK, np.float32)
    scratch = np.zeros(SCRATCH, np.float32)
    sums, shares, a = scratch[: LANES * 18], scratch[LANES * 18 : LANES * 66], scratch[LANES * 66 :]
    w, q = model[WEIGHTS:SUMS], model[SUMS:MODEL]
    count = min(LANES, channels - first)
    recall(model, u)
    for lane in range(count):
        last = states[first + lane, LAST]
        for t in range(n):
            x = i8(values[t, first + lane])
            u[u8(LANES * (PAST + t) + lane)] = np.float32(x - last)
            last = x
    age = states[first, AGE]
    begin = 0
    while begin < n:
        length = min(block_length(age), n - begin)
        for t in range(length):
            at = LANES * (PAST + begin + t)
            # The latest differences count last, so that a decoder can do the rest without waiting for them.
            y = (expected(u, at, w) + load(w, 0) * load(u, at - LANES)) * same(256.0)
            store(guess, LANES * t, y)
        for lane in range(count):
            c = u8(first + lane)
            last = states[c, LAST]
            total = i8(0)
            for t in range(length):
                p = i8(guess[u8(LANES * t + lane)])
                x = i8(values[u8(begin + t), c])
                e = x - min(max(last + ((p + 128) >> 8), -top - 1), top)
                last = x
                out[c, u8(begin + t)] = e
                phases[c, u8(begin + t)] = eighth_of(p)
                total += abs(e)
            states[c, LAST] = last
            errors[lane] = np.float32(total)
        learn(u, PAST + begin, PAST + begin + length, errors, q, w, sums, a, shares)
        age += length
        begin += length
    states[first, AGE] = age
    keep_recent(u, n, model)


@part
def symbol_of(e: int, phase: int, magnitude: int, splits: I32, width: int) -> tuple[Any, int]:
    """Where the costs of the residual `e` are, and units of 1/256 of the plain bits that it takes."""
    split = i8(splits[u8(quarter_octave(magnitude + 1) << 3 | phase)])
    k = (split >> 8) & 255
    flip = split >> 63
    high = ((e ^ flip) - flip) >> k
    folded = (high << 1) ^ (high >> 63)
    inside = folded < ESCAPE
    return u8((split & 255) << 8 | (folded if inside else ESCAPE)), (k if inside else i8(width + 1)) << 8


@part
def cost_of_speed(
    e: I64, phases: I8, state: I64, shape: int, speed: int, width: int, costs: Words, splits: I32
) -> int:
    """Bits, in units of 1/256, that a channel's residuals `e` (n,) would take at one shape and speed.

    Args:
        state: The channel's, before the first residual.
        costs: (tables · 256 · 2,) bits of every symbol, of two shapes each in one word.
    """
    fast, slow = state[FAST], state[SLOW]
    total: int = i8(0)
    half = u8(shape >> 1)
    both = u8(0)
    for t in range(e.size):
        value = e[u8(t)]
        where, plain = symbol_of(value, i8(phases[u8(t)]), fast + slow, splits, width)
        both += costs[where << u8(1) | half]
        total += plain
        size = abs(value) << 6
        fast += (size - fast) >> (speed + 1)
        slow += (size - slow) >> (speed + 3)
    total += i8((both >> u8((shape & 1) << 5)) & u8(0xFFFFFFFF))
    return total


@part
def costs_of_shapes(
    e: I64, phases: I8, state: I64, speed: int, width: int, costs: Words, splits: I32, found: I64
) -> None:
    """The same at one speed for every shape; found is (SHAPES,)."""
    fast, slow = state[FAST], state[SLOW]
    total = i8(0)
    low, high = u8(0), u8(0)
    for t in range(e.size):
        value = e[u8(t)]
        where, plain = symbol_of(value, i8(phases[u8(t)]), fast + slow, splits, width)
        low += costs[where << u8(1)]
        high += costs[where << u8(1) | u8(1)]
        total += plain
        size = abs(value) << 6
        fast += (size - fast) >> (speed + 1)
        slow += (size - slow) >> (speed + 3)
    mask = u8(0xFFFFFFFF)
    found[0], found[1] = total + i8(low & mask), total + i8(low >> u8(32))
    found[2], found[3] = total + i8(high & mask), total + i8(high >> u8(32))


@part
def choose(
    e: I64, phases: I8, width: int, state: I64, costs: Words, splits: I32, found: I64
) -> tuple[int, int]:
    """Find a channel's best shape and speed.

    Args:
        e, phases: (n,) residuals and phases.
        state: The channel's; not changed.
        found: Scratch of SHAPES.
    """
    shape, speed = state[SHAPE], state[SPEED]
    change = CHOICE_BITS * 256
    costs_of_shapes(e, phases, state, speed, width, costs, splits, found)
    best = found[shape]
    chosen = speed
    for other in range(SPEEDS):
        if other != speed:
            cost = cost_of_speed(e, phases, state, shape, other, width, costs, splits) + change
            if cost < best:
                best, chosen = cost, i8(other)
    if chosen != speed:
        costs_of_shapes(e, phases, state, chosen, width, costs, splits, found)
        best = found[shape] + change
    chosen_shape = shape
    for other in range(SHAPES):
        if found[other] + change < best:
            best, chosen_shape = found[other] + change, i8(other)
    return chosen_shape, chosen


@kernel
def encode_samples(
    values: I32,
    fresh: bool,
    width: int,
    limit_bits: int,
    models: F32,
    states: I64,
    presets: F64,
    parts: U32,
    splits: I32,
    costs: Words,
    steps: Words,
    at: int,
) -> int:
    """Note the samples of all channels as steps of the coder.

    Args:
        values: (n, c) samples, n ≥ 1.
        fresh: The channels have no past: models and states are zeros, and the first row is part of the head.
        width: Bits of a sample, 16 or 32.
        limit_bits: Note nothing when about more than this would be needed.
        models, states: (groups, MODEL) and (c, STATE), advanced by the call.
        presets, parts, splits, costs: First weights, tables of `build_tables`, and of `build_costs`.
        steps: Receives up to four steps a residual and eight a channel.
        at: The number of the first step.

    Returns:
        The number of the next step, or -1 beyond the limit.
    """
    channels = values.shape[1]
    total = i8(0)
    if fresh:
        before = at
        at = start_fresh(values, width, models, states, presets, steps, at)
        total = (at - before) << 11
        values = values[1:]
    n = values.shape[0]
    if n == 0:
        return at
    e = np.empty((channels, n), np.int64)
    phases = np.empty((channels, n), np.int8)
    found = np.empty(SHAPES, np.int64)
    for first in range(0, channels, LANES):
        end = min(first + LANES, channels)
        residuals(values, first, width, models[first // LANES], states, e, phases)
        for c in range(first, end):
            shape, speed = choose(e[c], phases[c], width, states[c], costs, splits, found)
            if shape == states[c, SHAPE] and speed == states[c, SPEED]:
                at = put(steps, at, 0, SAME, 0, 0)
            else:
                at = put(steps, at, SAME, ALL - SAME, shape + SHAPES * speed, CHOICE_BITS)
                states[c, SHAPE], states[c, SPEED] = shape, speed
        for t in range(n):
            for c in range(first, end):
                fast, slow, speed = states[c, FAST], states[c, SLOW], states[c, SPEED]
                split = i8(splits[u8(quarter_octave(fast + slow + 1) << 3 | i8(phases[c, t]))])
                k = (split >> 8) & 255
                shape = states[c, SHAPE]
                table = shape * TABLES + (split & 255)
                flip = split >> 63
                value = (e[c, t] ^ flip) - flip
                symbol = ((value >> k) << 1) ^ (value >> 63)
                entry = u8(parts[u8(table << 8 | min(symbol, ESCAPE))])
                if symbol >= ESCAPE or entry >> u8(16) == u8(0):
                    symbol = i8(ESCAPE)
                    entry = u8(parts[u8(table << 8 | ESCAPE)])
                    value, k = value + (i8(1) << width), i8(width + 1)
                start, size = i8(entry & u8(ALL - 1)), i8(entry >> u8(16))
                cost = costs[u8(((split & 255) << 8 | symbol) << 1 | shape >> 1)]
                total += i8((cost >> u8((shape & 1) << 5)) & u8(0xFFFFFFFF)) + (k << 8)
                if symbol < ESCAPE and k <= MOST_BITS:
                    at = put(steps, at, start, size, value, k)
                else:
                    at = put(steps, at, start, size, 0, 0)
                    at = put_plain(steps, at, value, k)
                size = abs(e[c, t]) << 6
                states[c, FAST] = fast + ((size - fast) >> (speed + 1))
                states[c, SLOW] = slow + ((size - slow) >> (speed + 3))
        if total > limit_bits << 8:
            return -1
    return at


@kernel
def decode_samples(
    values: I32,
    fresh: bool,
    width: int,
    models: F32,
    states: I64,
    presets: F64,
    parts: U32,
    guess: Bytes,
    splits: I32,
    coder: Words,
    words: Words,
) -> int:
    """Decode the samples of all channels, what `encode_samples` noted.

    Args:
        values: (n, c) receives the samples, n ≥ 1.
        fresh, width, models, states, presets, parts, splits: As there.
        guess: Of `build_tables`.
        coder: State of the decoder.
        words: What it reads, and one more.

    Returns:
        0, or -1 when the bytes are not a valid encoding.
    """
    channels = values.shape[1]
    top = (i8(1) << (width - 1)) - 1
    x, at = coder[X], i8(coder[AT])
    word = words[u8(at)]
    if fresh:
        x, at = take_fresh(width, models, states, presets, x, at, words, values[0])
        if at < 0:
            return -1
        values = values[1:]
        word = words[u8(at)]
    n = values.shape[0]
    u = np.zeros(LANES * (PAST + n + 1), np.float32)
    errors = np.zeros(LANES, np.float32)
    ahead = np.zeros(2 * LANES, np.float32)
    scratch = np.zeros(SCRATCH, np.float32)
    sums, shares, a = scratch[: LANES * 18], scratch[LANES * 18 : LANES * 66], scratch[LANES * 66 :]
    now = np.zeros(LANES * 8, np.int64)
    for first in range(0, channels if n else 0, LANES):
        model = models[first // LANES]
        w, q = model[WEIGHTS:SUMS], model[SUMS:MODEL]
        count = min(LANES, channels - first)
        recall(model, u)
        u[LANES * PAST :] = 0.0
        for lane in range(count):
            c = first + lane
            if x & u8(ALL - 1) < u8(SAME):
                _, x, at, word = take(x, at, word, words, u8(0), u8(SAME), u8(0))
            else:
                bits, x, at, word = take(x, at, word, words, u8(SAME), u8(ALL - SAME), u8(CHOICE_BITS))
                states[c, SHAPE], states[c, SPEED] = i8(bits) & 3, i8(bits) >> 2
            now[8 * lane + LAST] = states[c, LAST]
            now[8 * lane + FAST] = states[c, FAST]
            now[8 * lane + SLOW] = states[c, SLOW]
            now[8 * lane + SHAPE] = states[c, SHAPE] * TABLES
            now[8 * lane + SPEED] = states[c, SPEED] + 1
        age = states[first, AGE]
        begin = 0
        block = block_length(age)
        store(ahead, 0, expected(u, LANES * PAST, w))
        for t in range(n):
            here = u8(LANES * (t & 1))
            # What the next samples are expected to be, but for the share of those that are decoded now.
            store(ahead, LANES * (~t & 1), expected(u, LANES * (PAST + t + 1), w))
            for i in range(count):
                lane = u8(i)
                before = u8(LANES * (PAST + t - 1)) + lane
                p = i8((ahead[here + lane] + w[lane] * u[before]) * _FINE)
                own = lane << u8(3)
                fast, slow, last, speed = (
                    now[own + u8(FAST)],
                    now[own + u8(SLOW)],
                    now[own + u8(LAST)],
                    now[own + u8(SPEED)],
                )
                split = i8(splits[u8(quarter_octave(fast + slow + 1) << 3 | eighth_of(p))])
                k = (split >> 8) & 255
                table = u8(now[own + u8(SHAPE)] + (split & 255))
                slot = x & u8(ALL - 1)
                symbol = u8(guess[table << u8(16 - GUESS_SHIFT) | slot >> u8(GUESS_SHIFT)])
                entry = u8(parts[table << u8(8) | symbol])
                while slot - (entry & u8(ALL - 1)) >= entry >> u8(16):
                    symbol += u8(1)
                    entry = u8(parts[table << u8(8) | symbol])
                start, size = entry & u8(ALL - 1), entry >> u8(16)
                if symbol < u8(ESCAPE) and k <= MOST_BITS:
                    low, x, at, word = take(x, at, word, words, start, size, u8(k))
                    e = ((i8(symbol >> u8(1)) ^ -i8(symbol & u8(1))) << k) + i8(low)
                else:
                    if symbol == u8(ESCAPE):
                        k = i8(width + 1)
                    _, x, at, word = take(x, at, word, words, start, size, u8(0))
                    low, x, at, word = take_plain(x, at, word, words, k)
                    if symbol == u8(ESCAPE):
                        e = i8(low) - (i8(1) << width)
                    else:
                        e = ((i8(symbol >> u8(1)) ^ -i8(symbol & u8(1))) << k) + i8(low)
                flip = split >> 63
                e = (e ^ flip) - flip
                sample = min(max(last + ((p + 128) >> 8), -top - 1), top) + e
                if u8(sample + top + 1) > u8(2 * top + 1):
                    return -1
                values[u8(t), u8(first) + lane] = sample
                u[before + u8(LANES)] = np.float32(sample - last)
                now[own + u8(TOTAL)] += abs(e)
                grown = abs(e) << 6
                now[own + u8(LAST)] = sample
                now[own + u8(FAST)] = fast + ((grown - fast) >> speed)
                now[own + u8(SLOW)] = slow + ((grown - slow) >> (speed + 2))
            if t + 1 - begin == block or t + 1 == n:
                for lane in range(count):
                    errors[lane] = np.float32(now[8 * lane + TOTAL])
                    now[8 * lane + TOTAL] = 0
                learn(u, PAST + begin, PAST + t + 1, errors, q, w, sums, a, shares)
                age += t + 1 - begin
                begin = t + 1
                block = block_length(age)
                store(ahead, LANES * (~t & 1), expected(u, LANES * (PAST + t + 1), w))
        for lane in range(count):
            states[first + lane, LAST] = now[8 * lane + LAST]
            states[first + lane, FAST] = now[8 * lane + FAST]
            states[first + lane, SLOW] = now[8 * lane + SLOW]
        states[first, AGE] = age
        keep_recent(u, n, model)
    coder[X], coder[AT] = x, u8(at)
    return 0


def build_costs(parts: U32) -> Words:
    """Bits of every symbol in units of 1/256, those of shapes 2i and 2i + 1 in the halves of a word.

    Returns:
        (tables · 256 · 2,), the tables of one shape; a symbol without a part costs an escape.
    """
    sizes = (parts >> 16).astype(np.int64).reshape(SHAPES, -1, 256)
    distinct, which = np.unique(sizes, return_inverse=True)
    # log2 of size^256 to the nearest lower integer is 256 log2 of size.
    cost = [16 * 256 + 1 - (max(size, 1) ** 256).bit_length() for size in distinct.tolist()]
    costs = np.array(cost, np.int64)[which].reshape(sizes.shape)
    escape = costs[:, :, ESCAPE:]
    costs = np.where(sizes > 0, costs, escape + (17 << 8))
    return (
        np.stack([costs[0] | costs[1] << 32, costs[2] | costs[3] << 32], axis=-1)
        .astype(np.uint64)
        .reshape(-1)
    )
