"""Coding residuals by how large they are expected to be, and the whole decoding of predicted samples.

The expected magnitude m of a channel's next residual is the mean of two running means of |e|, a quick and a
slow one (in units of 1/64, summed: 1/128). Its quarter octave picks the table and the number of flat bits.
A channel's shape (of the tables) and speed (of the running means) are chosen by the encoder for a chunk.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.adaptive import (
    BLOCK,
    ERROR_LIMIT,
    FAST,
    LAST,
    LONG_ERROR,
    ORDER,
    PAST,
    ROW,
    SHAPE,
    SHORT,
    SHORT_ERROR,
    SHORT_SIDE,
    SHORT_SQUARES,
    SHORT_WEIGHTS,
    SIDE,
    SIZE_LIMIT,
    SLOW,
    SPEED,
    SQUARES,
    STATE,
    WEIGHTS,
    differences,
    keep_past,
    learn,
    mixed,
    phase_of,
    predict,
    preset_of,
    start_state,
)
from edgecap.kernels.bits import Words, bit_length, i8, peek_bits, put_bits, u8
from edgecap.kernels.compile import kernel
from edgecap.kernels.rangecoder import (
    ESCAPE,
    FULL,
    LARGE,
    REACH,
    SHAPES,
    SMALL_SCALES,
    put,
    quarter_octave,
    take,
)

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]
U32 = NDArray[np.uint32]
Bytes = NDArray[np.uint8]

SPEEDS = 4
"""Speed s has running means over 2^(s+1) and 2^(s+3) residuals."""
FIRST_SPLIT = 40
"""The first quarter octave (magnitude 8) with flat bits."""
SAME = 61440
"""Of 65536: how likely a channel keeps shape and speed."""

LOW, SPAN, AT, FLAT = 0, 1, 2, 3
"""Places in the state of a payload's coder: (low or code, span, byte, flat bit), uint64."""


def start_coder() -> Words:
    """State of a coder before its first symbol."""
    return np.array([0, FULL, 0, 0], np.uint64)


@kernel
def start_fresh(values: I32, states: I64, presets: I64, choices: I64) -> None:
    """Choose first magnitudes and weights for channels without a past, and set their zeroed states.

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
        start_state(states[c], first, octave, preset, presets)


@kernel
def short_bits(width: int) -> int:
    """Bits of a fresh channel's octave, and of the length of its first sample."""
    return 5 if width == 16 else 6


@kernel
def put_fresh(choices: I64, width: int, coder: Words, flat: Words) -> None:
    """Write what `start_fresh` chose as flat bits."""
    at = i8(coder[FLAT])
    short = short_bits(width)
    for c in range(choices.shape[0]):
        first = choices[c, 0]
        folded = u8((first << 1) ^ (first >> 63))
        length = bit_length(folded)
        at = put_bits(flat, at, u8(length), short)
        if length > 1:
            at = put_bits(flat, at, folded ^ (u8(1) << u8(length - 1)), length - 1)
        at = put_bits(flat, at, u8(choices[c, 1]), short)
        at = put_bits(flat, at, u8(choices[c, 2]), 3)
    coder[FLAT] = u8(at)


@kernel
def take_fresh(
    width: int, states: I64, presets: I64, coder: Words, flat: Words, bits: int, first: I32
) -> int:
    """Read what `put_fresh` wrote, setting zeroed states; -1 when it is not valid.

    Args:
        bits: Number of bits in `flat`, which has `PAD_WORDS` more words.
    """
    at = i8(coder[FLAT])
    short = short_bits(width)
    mask = (u8(1) << u8(short)) - u8(1)
    for c in range(states.shape[0]):
        if at > bits:
            return -1
        length = i8(peek_bits(flat, at) & mask)
        at += short
        if length > width or at > bits:
            return -1
        folded = u8(length)
        if length > 1:
            high = u8(1) << u8(length - 1)
            folded = high | (peek_bits(flat, at) & (high - u8(1)))
            at += length - 1
        if at > bits:
            return -1
        choices = i8(peek_bits(flat, at) & u8(511))
        at += short + 3
        octave = choices & i8(mask)
        if octave > width + 7 or at > bits:
            return -1
        sample = i8(folded >> u8(1)) ^ -i8(folded & u8(1))
        start_state(states[c], sample, octave, (choices >> short) & 7, presets)
        first[c] = sample
    coder[FLAT] = u8(at)
    return 0


@kernel
def table_of(magnitude: int, phase: int) -> tuple[int, int, int]:
    """Table, number of flat bits, and sign to give residuals.

    Args:
        magnitude: Expected magnitude in units of 1/128.
        phase: Of the prediction, in quarters; tables are for predictions that lie above.
    """
    q = quarter_octave(magnitude + 1)
    if q < FIRST_SPLIT:
        return max(q - 4, 0) + SMALL_SCALES * abs(phase), 0, -1 if phase < 0 else 1
    return LARGE + (q & 3), ((q - FIRST_SPLIT) >> 2) + 1, 1


@kernel
def symbol_cost(e: int, phase: int, magnitude: int, width: int, costs: I32) -> int:
    """Bits, in units of 1/256, that the residual `e` takes; `costs` (tables, 256) are those of a shape."""
    table, k, sign = table_of(magnitude, phase)
    high = (sign * e) >> k
    inside = -REACH <= high <= REACH
    symbol = high + REACH if inside else i8(ESCAPE)
    extra = k if inside else i8(width + 1)
    bits: int = i8(costs[u8(table), u8(symbol)]) + (extra << 8)
    return bits


@kernel
def speed_costs(e: I64, phases: I8, fast: int, slow: int, width: int, costs: I32, found: I64) -> None:
    """Bits, in units of 1/256, that a channel's residuals `e` (n,) would take at every speed.

    Args:
        fast, slow: Running means before the first residual.
        costs: (tables, 256) bits of every symbol of the channel's shape.
        found: (SPEEDS,) receives the sums.
    """
    # The speeds do not wait for one another, so that one pass takes little longer than a single speed.
    f0 = f1 = f2 = f3 = i8(fast)
    g0 = g1 = g2 = g3 = i8(slow)
    t0 = t1 = t2 = t3 = i8(0)
    for t in range(e.size):
        value, phase = e[u8(t)], i8(phases[u8(t)])
        t0 += symbol_cost(value, phase, f0 + g0, width, costs)
        t1 += symbol_cost(value, phase, f1 + g1, width, costs)
        t2 += symbol_cost(value, phase, f2 + g2, width, costs)
        t3 += symbol_cost(value, phase, f3 + g3, width, costs)
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


@kernel
def shape_costs(
    e: I64, phases: I8, fast: int, slow: int, speed: int, width: int, costs: I32, found: I64
) -> None:
    """Bits, in units of 1/256, that a channel's residuals would take in every shape at one speed."""
    t0 = t1 = t2 = t3 = i8(0)
    for t in range(e.size):
        value = e[u8(t)]
        table, k, sign = table_of(fast + slow, i8(phases[u8(t)]))
        high = (sign * value) >> k
        inside = -REACH <= high <= REACH
        symbol = high + REACH if inside else i8(ESCAPE)
        extra = (k if inside else i8(width + 1)) << 8
        t0 += costs[0, u8(table), u8(symbol)] + extra
        t1 += costs[1, u8(table), u8(symbol)] + extra
        t2 += costs[2, u8(table), u8(symbol)] + extra
        t3 += costs[3, u8(table), u8(symbol)] + extra
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
    found = np.empty(SPEEDS, np.int64)
    change = 4 * 256
    for c in range(e.shape[0]):
        state = states[c]
        fast, slow = state[FAST], state[SLOW]
        shape, speed = state[SHAPE], state[SPEED]
        speed_costs(e[c], phases[c], fast, slow, width, costs[shape], found)
        best = found[speed]
        for other in range(SPEEDS):
            if other != state[SPEED] and found[other] + change < best:
                best, speed = found[other] + change, other
        shape_costs(e[c], phases[c], fast, slow, speed, width, costs, found)
        for other in range(SHAPES):
            if other != state[SHAPE] and found[other] + change < best:
                best, shape = found[other] + change, other
        chosen[c, 0] = shape
        chosen[c, 1] = speed
        total += best
    return total


@kernel
def encode_spread(
    e: I64,
    phases: I8,
    width: int,
    states: I64,
    chosen: I64,
    starts: U32,
    coder: Words,
    out: Bytes,
    flat: Words,
) -> None:
    """Code all residuals `e` (c, n) with the chosen shapes and speeds, advancing the states' magnitudes."""
    channels, n = e.shape
    low, span, at, bit = coder[LOW], coder[SPAN], i8(coder[AT]), i8(coder[FLAT])
    for c in range(channels):
        state = states[c]
        shape, speed = chosen[c, 0], chosen[c, 1]
        if shape == state[SHAPE] and speed == state[SPEED]:
            low, span, at = put(low, span, at, out, 0, SAME)
        else:
            low, span, at = put(low, span, at, out, SAME, 65536 - SAME)
            bit = put_bits(flat, bit, u8(shape * 4 + speed), 4)
        fast, slow = state[FAST], state[SLOW]
        values, parts = e[c], starts[shape]
        for t in range(n):
            table, k, sign = table_of(fast + slow, phases[c, t])
            value = sign * values[t]
            symbol = (value >> k) + REACH
            start = i8(0)
            size = i8(0)
            if 0 <= symbol <= 2 * REACH:
                start = i8(parts[u8(table), u8(symbol)])
                size = i8(parts[u8(table), u8(symbol + 1)]) - start
            if size > 0:
                low, span, at = put(low, span, at, out, start, size)
                bit = put_bits(flat, bit, u8(value & ((i8(1) << k) - 1)), k)
            else:
                start = i8(parts[table, ESCAPE])
                low, span, at = put(low, span, at, out, start, 65536 - start)
                bit = put_bits(flat, bit, u8(value + (i8(1) << width)), width + 1)
            size = abs(value) << 6
            fast += (size - fast) >> (speed + 1)
            slow += (size - slow) >> (speed + 3)
        state[FAST], state[SLOW], state[SHAPE], state[SPEED] = fast, slow, shape, speed
    coder[LOW], coder[SPAN], coder[AT], coder[FLAT] = low, span, u8(at), u8(bit)


@kernel
def decode_samples(
    values: I32,
    width: int,
    shift: int,
    states: I64,
    u: I32,
    mix: I64,
    starts: U32,
    guess: Bytes,
    coder: Words,
    data: Bytes,
    flat: Words,
) -> int:
    """Decode the samples of all channels; the counterpart of `residuals` and `encode_spread`.

    Args:
        values: (c, n) receives the samples, n ≥ 1.
        width: Bits of a sample, 16 or 32.
        shift: How far differences are shifted down for the equations.
        states: (c, STATE), advanced by the call.
        u: (c + 2, PAST + n) scratch; its first two rows must be zero.
        mix: Table of mixing shares.
        starts, guess: Tables of `build_tables`.
        coder: State of the coder.
        data: Bytes that it reads.
        flat: The same bytes in reverse order, as words, with `PAD_WORDS` more.

    Returns:
        0, or -1 when the bytes are not a valid encoding.
    """
    channels, n = values.shape
    top = (i8(1) << (width - 1)) - 1
    bits = 8 * data.size
    sums = np.zeros((ORDER + 1, ROW), np.int64)
    all_sums = sums.reshape(-1)
    gaps = np.zeros(ORDER, np.int64)
    code, span, at, bit = coder[LOW], coder[SPAN], i8(coder[AT]), i8(coder[FLAT])
    for c in range(channels):
        state = states[c]
        own, v1, v2 = u[c + 2], u[c + 1], u[c]
        differences(values[c, :0], shift, state, own)
        if i8(code // (span >> u8(16))) < SAME:
            code, span, at = take(code, span, at, data, 0, SAME)
        else:
            code, span, at = take(code, span, at, data, SAME, 65536 - SAME)
            both = i8(peek_bits(flat, bit) & u8(15))
            bit += 4
            if bit > bits:
                return -1
            state[SHAPE], state[SPEED] = both >> 2, both & 3
        shape, speed = state[SHAPE], state[SPEED]
        fast, slow = state[FAST], state[SLOW]
        all_squares = state[SQUARES:STATE]
        squares = all_squares.reshape(ORDER, ROW)
        side = state[SIDE:SQUARES]
        short_squares = state[SHORT_SQUARES:SHORT_SIDE].reshape(SHORT, SHORT)
        short_side = state[SHORT_SIDE:SIDE]
        w, s = state[WEIGHTS:SHORT_WEIGHTS], state[SHORT_WEIGHTS:SHORT_SQUARES]
        last, long_error, short_error = state[LAST], state[LONG_ERROR], state[SHORT_ERROR]
        parts, first_symbols, samples = starts[shape], guess[shape], values[c]
        t0 = 0
        error = i8(0)
        for t in range(n):
            long, short = predict(own, v1, v2, t + PAST, w, s)
            a, b = (long << shift) >> 8, (short << shift) >> 8
            p = mixed(a, b, long_error, short_error, mix)
            table, k, sign = table_of(fast + slow, phase_of(p))
            slot = min(i8(code // (span >> u8(16))), 65535)
            symbol = i8(first_symbols[u8(table), u8(slot >> 8)])
            while i8(parts[u8(table), u8(symbol + 1)]) <= slot:
                symbol += 1
            start = i8(parts[u8(table), u8(symbol)])
            code, span, at = take(code, span, at, data, start, i8(parts[u8(table), u8(symbol + 1)]) - start)
            ahead = peek_bits(flat, bit)
            if symbol == ESCAPE:
                e = i8(ahead & ((u8(2) << u8(width)) - u8(1))) - (i8(1) << width)
                bit += width + 1
            else:
                e = ((symbol - REACH) << k) + i8(ahead & ((u8(1) << u8(k)) - u8(1)))
                bit += k
            e *= sign
            x = min(max(last + ((p + 128) >> 8), -top - 1), top) + e
            if x < -top - 1 or x > top or bit > bits:
                return -1
            samples[t] = x
            own[u8(t + PAST)] = min(max((x - last) >> shift, -SIZE_LIMIT), SIZE_LIMIT)
            step = (x - last) << 8
            last = x
            long_error += (abs(step - a) - long_error) >> 4
            short_error += (abs(step - b) - short_error) >> 4
            error += min(abs(e) >> shift, ERROR_LIMIT)
            size = abs(e) << 6
            fast += (size - fast) >> (speed + 1)
            slow += (size - slow) >> (speed + 3)
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
        state[FAST], state[SLOW] = fast, slow
        keep_past(values[c], state)
    coder[LOW], coder[SPAN], coder[AT], coder[FLAT] = code, span, u8(at), u8(bit)
    return 0


def build_costs(starts: U32) -> I32:
    """Bits of every symbol in units of 1/256, (shapes, tables, 256); one without a part costs an escape."""
    sizes = np.diff(starts.astype(np.int64), axis=2)
    costs = np.empty(sizes.shape, np.int32)
    for size in np.unique(sizes).tolist():
        # log2 of size^256 to the nearest lower integer is 256 log2 of size.
        costs[sizes == size] = 16 * 256 + 1 - (max(size, 1) ** 256).bit_length()
    escape = costs[:, :, ESCAPE:]
    return np.where(sizes > 0, costs, escape + (17 << 8)).astype(np.int32)
