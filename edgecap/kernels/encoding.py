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
    NOISE,
    PAST,
    SCRATCH,
    SHAPE,
    SHARES,
    SLOW,
    SPEED,
    SQUARE,
    STATE,
    SUMS,
    WEIGHTS,
    block_length,
    calmness,
    eighth_of,
    expected,
    keep_recent,
    lane_of,
    learn,
    next_level,
    recall,
)
from edgecap.kernels.bits import Words, i8, u8
from edgecap.kernels.choice import CHOICE_BITS, FOUND, SAME, SPEEDS, choose, cost_of, find_costs
from edgecap.kernels.compile import kernel, part
from edgecap.kernels.heads import OCTAVES_BEYOND, likely_octave, put_fresh, start_fresh
from edgecap.kernels.lanes import LANES, load, same, store
from edgecap.kernels.rans import ALL, MOST_BITS, put, put_plain
from edgecap.kernels.tables import ESCAPE, PLAIN, SHAPES, TABLES, TURNS, quarter_octave

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]
I16 = NDArray[np.int16]
U16 = NDArray[np.uint16]


FIRST_RESIDUALS = 32
"""So many tell which first magnitude is cheapest."""


@part
def by_channel(values: I16, width: int) -> I32:
    """Samples as `encode_samples` gets them, as (c, n)."""
    n = values.shape[0]
    if width == 16:
        out = np.empty((values.shape[1], n), np.int32)
        for t in range(n):
            for c in range(values.shape[1]):
                out[u8(c), u8(t)] = values[u8(t), u8(c)]
        return out
    out = np.empty((values.shape[1] >> 1, n), np.int32)
    for t in range(n):
        for c in range(out.shape[0]):
            low, high = i8(values[u8(t), u8(2 * c)]), i8(values[u8(t), u8(2 * c + 1)])
            out[u8(c), u8(t)] = high << 16 | (low & 65535)
    return out


@part
def residuals(
    x: I32, begin: int, first: int, width: int, model: F32, states: I64, out: I64, phases: I8
) -> None:
    """Predict every sample of one group of channels from those before it, and learn.

    Args:
        x: (c, m) samples, of which those from `begin` on are predicted.
        first: The group's first channel.
        width: Bits of a sample, 16 or 32.
        model, states: The group's, and (c, STATE), advanced by the call but for the spread of residuals.
        out: (c, n) residuals, n = m - begin ≥ 1.
        phases: (c, n) receives where the predictions lay, as of `eighth_of`.
    """
    channels, n = out.shape
    top = (i8(1) << (width - 1)) - 1
    u, v = np.zeros(LANES * (PAST + n), np.float32), np.empty(LANES * (PAST + n), np.float32)
    errors = np.zeros(LANES, np.float32)
    guess = np.zeros(LANES * BLOCK, np.float32)
    scratch = np.empty(SCRATCH, np.float32)
    sums, shares, a = scratch[:SHARES], scratch[SHARES:SQUARE], scratch[SQUARE:]
    w, q = model[WEIGHTS:SUMS], model[SUMS:MODEL]
    count = min(LANES, channels - first)
    recall(model, u, v)
    for i in range(count):
        place = LANES * PAST + lane_of(i, count)
        last = states[first + i, LAST]
        for t in range(n):
            sample = i8(x[u8(first + i), u8(begin + t)])
            u[u8(LANES * t + place)] = np.float32(sample - last)
            last = sample
    for t in range(n):
        next_level(u, v, LANES * (PAST + t))
    age = states[first, AGE]
    done = 0
    while done < n:
        length = min(block_length(age), n - done)
        for t in range(length):
            at = LANES * (PAST + done + t)
            # The latest differences count last, so that a decoder can do the rest without waiting for them.
            y = (expected(u, v, at, w) + load(w, 0) * load(u, at - LANES)) * same(256.0)
            store(guess, LANES * t, y)
        for i in range(count):
            lane = lane_of(i, count)
            c = u8(first + i)
            last = states[c, LAST]
            total = i8(0)
            for t in range(length):
                p = i8(guess[u8(LANES * t + lane)])
                sample = i8(x[c, u8(begin + done + t)])
                e = sample - min(max(last + ((p + 128) >> 8), -top - 1), top)
                last = sample
                out[c, u8(done + t)] = e
                phases[c, u8(done + t)] = eighth_of(p)
                total += abs(e)
            states[c, LAST] = last
            errors[lane] = np.float32(total)
        learn(u, v, PAST + done, PAST + done + length, errors, q, w, sums, a, shares)
        age += length
        done += length
    states[first, AGE] = age
    keep_recent(u, v, n, model)


@part
def put_channel(
    steps: Words, at: int, stride: int, e: I64, phases: I8, state: I64, parts: U16, splits: I32
) -> bool:
    """Note a channel's residuals (n,) as steps `at`, `at + stride`, …; False when one takes more steps."""
    quick, calm, speed = state[FAST], state[SLOW], state[SPEED] + 1
    slow = calmness(state[SPEED])
    book = (state[SHAPE] * TABLES) << 8
    for t in range(e.size):
        error = e[u8(t)]
        split = i8(splits[u8(quarter_octave(quick + calm + NOISE) << 3 | i8(phases[u8(t)]))])
        grown = abs(error) << 6
        quick += (grown - quick) >> speed
        calm += (grown - calm) >> slow
        k = split & PLAIN
        flip = -(split >> TURNS & 1)
        value = (error ^ flip) - flip
        symbol = min(((value >> k) << 1) ^ (value >> 63), ESCAPE)
        entry = u8(2 * (book + (split >> 8) + symbol))
        start, size = i8(parts[entry]), i8(parts[entry + u8(1)])
        if symbol == ESCAPE or size == 0 or k > MOST_BITS:
            return False
        put(steps, at, start, size, value, k)
        at += stride
    state[FAST], state[SLOW] = quick, calm
    return True


@part
def put_rows(
    steps: Words, at: int, e: I64, phases: I8, states: I64, width: int, parts: U16, splits: I32
) -> int:
    """Note residuals (c, n), which may take several steps each; returns the number of the next step."""
    for t in range(e.shape[1]):
        for c in range(e.shape[0]):
            quick, calm, speed = states[c, FAST], states[c, SLOW], states[c, SPEED] + 1
            split = i8(splits[u8(quarter_octave(quick + calm + NOISE) << 3 | i8(phases[c, t]))])
            grown = abs(e[c, t]) << 6
            states[c, FAST] = quick + ((grown - quick) >> speed)
            states[c, SLOW] = calm + ((grown - calm) >> calmness(speed - 1))
            k = split & PLAIN
            flip = -(split >> TURNS & 1)
            value = (e[c, t] ^ flip) - flip
            symbol = min(((value >> k) << 1) ^ (value >> 63), ESCAPE)
            first = ((states[c, SHAPE] * TABLES) << 8) + (split >> 8)
            if parts[u8(2 * (first + symbol) + 1)] == 0:
                symbol = i8(ESCAPE)
            if symbol == ESCAPE:
                value, k = value + (i8(1) << width), i8(width + 1)
            entry = u8(2 * (first + symbol))
            start, size = i8(parts[entry]), i8(parts[entry + u8(1)])
            if symbol < ESCAPE and k <= MOST_BITS:
                at = put(steps, at, start, size, value, k)
            else:
                at = put(steps, at, start, size, i8(0), i8(0))
                at = put_plain(steps, at, value, k)
    return at


@part
def first_octave(
    likely: int,
    e: I64,
    phases: I8,
    state: I64,
    width: int,
    costs: Words,
    splits: I32,
    index: I64,
    found: Words,
) -> int:
    """The cheapest for a fresh channel's first residuals (n,) of a likely octave and its neighbours."""
    best, least = likely, i8(-1)
    for octave in range(max(likely - 1, 0), min(likely + 2, width + OCTAVES_BEYOND)):
        state[FAST] = state[SLOW] = i8(1) << octave
        find_costs(e, phases, state, width, costs, splits, index, found)
        cost = cost_of(found, state[SHAPE], state[SPEED])
        if least < 0 or cost < least:
            best, least = i8(octave), cost
    return best


@part
def copy_rows(source: I64, at: int, target: I64, to: int, count: int) -> None:
    """Copy `count` rows, one number at a time: numba compiles three seconds for what slices could raise."""
    for i in range(count):
        for k in range(target.shape[1]):
            target[to + i, k] = source[at + i, k]


@kernel
def encode_samples(
    values: I16,
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
        values: (n, c) samples, n ≥ 1; of 32 bits as (n, 2 · c) halves, low ones first.
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
    x = by_channel(values, width)
    channels, n = x.shape
    total = i8(0)
    begin = 0
    chosen = np.empty(channels, np.int64)
    if fresh:
        start_fresh(x, models, states, presets, chosen)
        begin = 1
    n -= begin
    e = np.empty((channels, n), np.int64)
    phases = np.empty((channels, n), np.int8)
    found, index = np.empty(FOUND, np.uint64), np.zeros(2 * SPEEDS, np.int64)
    before = np.empty((LANES, STATE), np.int64)
    for first in range(0, channels if n else 0, LANES):
        residuals(x, begin, first, width, models[first // LANES], states, e, phases)
    if fresh:
        head, octave, preset = at, i8(-1), i8(-1)
        few = min(n, FIRST_RESIDUALS)
        for c in range(channels):
            last_octave = octave
            octave = likely_octave(x[c], width, chosen[c], presets)
            state = states[c]
            octave = first_octave(
                octave, e[c][:few], phases[c][:few], state, width, costs, splits, index, found
            )
            state[FAST] = state[SLOW] = i8(1) << octave
            last_preset, preset = preset, chosen[c]
            at = put_fresh(steps, at, i8(x[c, 0]), width, octave, preset, last_octave, last_preset)
        total = (at - head) << 10
    for first in range(0, channels if n else 0, LANES):
        count = min(LANES, channels - first)
        for i in range(count):
            c = first + i
            if fresh and i > 0:
                states[c, SHAPE], states[c, SPEED] = states[c - 1, SHAPE], states[c - 1, SPEED]
            find_costs(e[c], phases[c], states[c], width, costs, splits, index, found)
            shape, speed = choose(found, states[c])
            if shape == states[c, SHAPE] and speed == states[c, SPEED]:
                at = put(steps, at, i8(0), i8(SAME), i8(0), i8(0))
            else:
                at = put(steps, at, i8(SAME), i8(ALL - SAME), shape + SHAPES * speed, i8(CHOICE_BITS))
                states[c, SHAPE], states[c, SPEED] = shape, speed
            total += cost_of(found, shape, speed)
        if total > limit_bits << 8:
            return -1
        copy_rows(states, first, before, i8(0), count)
        short = True
        for i in range(count):
            c = first + i
            if short:
                short = put_channel(steps, at + i, count, e[c], phases[c], states[c], parts, splits)
        if short:
            at += n * count
        else:
            copy_rows(before, i8(0), states, first, count)
            end = first + count
            at = put_rows(steps, at, e[first:end], phases[first:end], states[first:end], width, parts, splits)
    return at
