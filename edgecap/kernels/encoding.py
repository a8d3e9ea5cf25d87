"""The whole encoding of predicted samples: residuals, the choice of how to code them, and coder's steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.adaptive import (
    AGE,
    BLOCK,
    FAST,
    LAST,
    MODEL,
    PAST,
    SCRATCH,
    SHAPE,
    SHARES,
    SLOW,
    SPEED,
    SQUARE,
    SUMS,
    WEIGHTS,
    block_length,
    eighth_of,
    expected,
    keep_recent,
    lane_of,
    learn,
    recall,
)
from edgecap.kernels.bits import Words, i8, u8
from edgecap.kernels.choice import CHOICE_BITS, SAME, choose
from edgecap.kernels.compile import kernel, part
from edgecap.kernels.heads import start_fresh
from edgecap.kernels.lanes import LANES, load, same, store
from edgecap.kernels.rans import ALL, MOST_BITS, put, put_plain
from edgecap.kernels.tables import ESCAPE, PLAIN, SHAPES, TABLES, TURNS, quarter_octave

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]
U16 = NDArray[np.uint16]


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
    sums, shares, a = scratch[:SHARES], scratch[SHARES:SQUARE], scratch[SQUARE:]
    w, q = model[WEIGHTS:SUMS], model[SUMS:MODEL]
    count = min(LANES, channels - first)
    recall(model, u)
    for i in range(count):
        lane = lane_of(i, count)
        last = states[first + i, LAST]
        for t in range(n):
            x = i8(values[t, first + i])
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
        for i in range(count):
            lane = lane_of(i, count)
            c = u8(first + i)
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


@kernel
def encode_samples(
    values: I32,
    fresh: bool,
    width: int,
    limit_bits: int,
    models: F32,
    states: I64,
    presets: F64,
    parts: U16,
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
                at = put(steps, at, i8(0), i8(SAME), i8(0), i8(0))
            else:
                at = put(steps, at, i8(SAME), i8(ALL - SAME), shape + SHAPES * speed, i8(CHOICE_BITS))
                states[c, SHAPE], states[c, SPEED] = shape, speed
        for t in range(n):
            for c in range(first, end):
                fast, slow, speed = states[c, FAST], states[c, SLOW], states[c, SPEED]
                split = i8(splits[u8(quarter_octave(fast + slow + 1) << 3 | i8(phases[c, t]))])
                k = split & PLAIN
                shape = states[c, SHAPE]
                flip = -(split >> TURNS & 1)
                value = (e[c, t] ^ flip) - flip
                symbol = min(((value >> k) << 1) ^ (value >> 63), ESCAPE)
                table = (shape * TABLES << 8) + (split >> 8)
                size = i8(parts[u8(2 * (table + symbol) + 1)])
                if symbol == ESCAPE or size == 0:
                    symbol = i8(ESCAPE)
                    size = i8(parts[u8(2 * (table + symbol) + 1)])
                    value, k = value + (i8(1) << width), i8(width + 1)
                start = i8(parts[u8(2 * (table + symbol))])
                cost = costs[u8(((split >> 8) + symbol) << 1 | shape >> 1)]
                total += i8((cost >> u8((shape & 1) << 5)) & u8(0xFFFFFFFF)) + (k << 8)
                if symbol < ESCAPE and k <= MOST_BITS:
                    at = put(steps, at, start, size, value, k)
                else:
                    at = put(steps, at, start, size, i8(0), i8(0))
                    at = put_plain(steps, at, value, k)
                size = abs(e[c, t]) << 6
                states[c, FAST] = fast + ((size - fast) >> (speed + 1))
                states[c, SLOW] = slow + ((size - slow) >> (speed + 3))
        if total > limit_bits << 8:
            return -1
    return at
