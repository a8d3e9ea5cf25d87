"""The whole decoding of predicted samples.

One symbol can only be looked for when the one before it is known, but nothing else has to wait: the channels
of a group are decoded in two halves, of up to four each, and what follows the residuals of one half and comes
before its next, in vectors of four, overlaps with the symbols of the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.adaptive import (
    AGE,
    BLOCK,
    FAST,
    LAST,
    NOISE,
    PAST,
    RECENT,
    SCRATCH,
    SHAPE,
    SHARES,
    SLOW,
    SPEED,
    SQUARE,
    SUMS,
    WEIGHTS,
    block_length,
    calmness,
    expected,
    keep_recent,
    lane_of,
    learn,
    next_level,
    recall,
    slide,
)
from edgecap.kernels.bits import Words, i8, u8
from edgecap.kernels.choice import CHOICE_BITS, SAME
from edgecap.kernels.compile import kernel, part
from edgecap.kernels.heads import take_fresh
from edgecap.kernels.lanes import LANES, load, same, store
from edgecap.kernels.quads import (
    SCALES_BEFORE,
    WIDE,
    Four,
    all_four,
    exceed,
    floor_four,
    foreseen,
    four,
    keep_four,
    keep_scales,
    keep_single,
    least_four,
    most_four,
    shift_in,
    signs_below,
    size_four,
    turn,
)
from edgecap.kernels.rans import ALL, AT, MOST_BITS, X, least_of, take, take_plain
from edgecap.kernels.tables import BUCKET_SHIFT, ESCAPE, PLAIN

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]
U16 = NDArray[np.uint16]

(
    NOW_LAST,
    NOW_STEP,
    NOW_QUICK,
    NOW_CALM,
    NOW_SCALE,
    NOW_TOTAL,
    QUICKNESS,
    CALMNESS,
    NEXT_BASE,
    NEXT_OFF,
    NEXT_SIGNS,
) = range(0, 11 * LANES, LANES)
NOW = 11 * LANES
"""Length of what is known of a group's lanes while it is decoded, and the places in it: last sample, the step
to it, quick and slow running mean, their sum plus NOISE, sum of the block's |e|, how fast the means follow;
and of the next sample the prediction, its distance from the last sample, and the sign of e."""
MOST_SCALE = 2199023255552.0
"""2^41, which no valid residuals reach; others are only noticed at the end of their block."""


@part
def begin_lane(now: F64, places: I64, lane: int, state: I64, step: float) -> None:
    """Lay out one channel's state for decoding."""
    now[NOW_LAST + lane] = state[LAST]
    now[NOW_STEP + lane] = step
    now[NOW_QUICK + lane] = state[FAST]
    now[NOW_CALM + lane] = state[SLOW]
    now[NOW_SCALE + lane] = state[FAST] + state[SLOW] + NOISE
    now[QUICKNESS + lane] = 1.0 / float(i8(2) << state[SPEED])
    now[CALMNESS + lane] = 1.0 / float(i8(1) << calmness(state[SPEED]))
    places[LANES + lane] = (state[SHAPE] << 11) - SCALES_BEFORE


@part
def end_lane(now: F64, lane: int, state: I64) -> None:
    """Take it back."""
    state[LAST] = i8(now[NOW_LAST + lane])
    state[FAST] = i8(now[NOW_QUICK + lane])
    state[SLOW] = i8(now[NOW_CALM + lane])


@part
def look_ahead(
    now: F64,
    index: I64,
    books: I64,
    place: int,
    ahead: F32,
    at: int,
    latest: F32,
    top: float,
    last: Four,
    step: Four,
    scale: Four,
) -> None:
    """Predict the next samples of four lanes from `place` on, and find how their residuals are coded.

    Args:
        index: Receives places in `splits`.
        ahead, latest: What is expected, from `at` on, but for the share of `step`; that step's weights.
    """
    y = foreseen(ahead, at + place, latest, place, step)
    keep_scales(index, place, scale, y, books)
    y = y + all_four(128.0)
    down = floor_four(y * all_four(0.00390625))
    base = least_four(most_four(last + down, all_four(-top - 1.0)), all_four(top))
    keep_four(now, NEXT_BASE + place, base)
    keep_four(now, NEXT_OFF + place, base - last)
    keep_four(now, NEXT_SIGNS + place, signs_below(y - down * all_four(256.0), all_four(96.0)))


@part
def follow(now: F64, place: int, size: Four) -> Four:
    """Let running means follow the magnitudes `size` of four residuals; returns their sums plus NOISE."""
    grown = size * all_four(64.0)
    quick, calm = four(now, NOW_QUICK + place), four(now, NOW_CALM + place)
    quick = quick + floor_four((grown - quick) * four(now, QUICKNESS + place))
    calm = calm + floor_four((grown - calm) * four(now, CALMNESS + place))
    scale = least_four(quick + calm + all_four(float(NOISE)), all_four(MOST_SCALE))
    keep_four(now, NOW_QUICK + place, quick)
    keep_four(now, NOW_CALM + place, calm)
    keep_four(now, NOW_SCALE + place, scale)
    keep_four(now, NOW_TOTAL + place, four(now, NOW_TOTAL + place) + size)
    return scale


@part
def put_sample(values: I16, row: int, channel: int, width: int, sample: int) -> None:
    """Set one sample of what `decode_samples` fills."""
    low = ((sample + 32768) & 65535) - 32768
    if width == 16:
        values[u8(row), u8(channel)] = low
    else:
        values[u8(row), u8(2 * channel)], values[u8(row), u8(2 * channel + 1)] = low, sample >> 16


@part
def decode_block(
    length: int,
    count: int,
    width: int,
    w: F32,
    u: F32,
    v: F32,
    now: F64,
    places: I64,
    ahead: F32,
    parts: U16,
    buckets: U16,
    splits: I32,
    x: Any,
    at: int,
    words: U32,
) -> tuple[Any, int, bool]:
    """Decode `length` samples of each of a group of `count` channels, between which nothing is learned.

    Args:
        w, u, v: The group's weights, differences and levels, of which those from index PAST on are filled.
        now: What is known of the lanes, and from NOW on, eight by eight, receives the samples.
        places: Scratch for the places in `splits`, and from LANES on what `begin_lane` put there.
        ahead: Scratch of 3 · LANES: what is expected in two rows, and the latest differences' weights.

    Returns:
        The coder's x and place, and whether a sample was impossible.
    """
    index, books, latest, out = places[:LANES], places[LANES:], ahead[2 * LANES :], now[NOW:]
    top = float((i8(1) << (width - 1)) - 1)
    halves = 1 if count == 1 else 2
    word, least = words[u8(at)], least_of(at, words)
    # Predictions are in units of 2^-8. A factor of 256 leaves float32 as exact as it was.
    store(latest, 0, load(w, 0) * same(256.0))
    next_level(u, v, LANES * PAST)
    store(ahead, 0, expected(u, v, LANES * PAST, w) * same(256.0))
    for half in range(halves):
        place = WIDE * half
        last, step = four(now, NOW_LAST + place), four(now, NOW_STEP + place)
        scale = four(now, NOW_SCALE + place)
        look_ahead(now, index, books, place, ahead, i8(0), latest, top, last, step, scale)
    worst = all_four(0.0)
    for t in range(length):
        at_next = LANES * (~t & 1)
        for half in range(halves):
            place = WIDE * half
            e = all_four(0.0)
            for lane in range(place + WIDE - ((count + 1 - half) >> 1), place + WIDE):
                split = u8(splits[u8(index[u8(lane)])])
                k = i8(split & u8(PLAIN))
                table = split >> u8(8)
                slot = x & u8(ALL - 1)
                entry = (table + (slot >> u8(BUCKET_SHIFT))) * u8(4)
                start, size = u8(buckets[entry]), u8(buckets[entry + u8(1)])
                symbol = u8(buckets[entry + u8(2)])
                while slot - start >= size:
                    start += size
                    symbol += u8(1)
                    size = u8(parts[u8(2) * (table + symbol) + u8(1)])
                if symbol < u8(ESCAPE) and k <= MOST_BITS:
                    low, x, at, word, least = take(x, at, word, least, words, start, size, u8(k))
                    value = ((i8(symbol >> u8(1)) ^ -i8(symbol & u8(1))) << k) + i8(low)
                else:
                    if symbol == u8(ESCAPE):
                        k = i8(width + 1)
                    _, x, at, word, least = take(x, at, word, least, words, start, size, u8(0))
                    low, x, at, word, least = take_plain(x, at, word, least, words, k)
                    if symbol == u8(ESCAPE):
                        value = i8(low) - (i8(1) << width)
                    else:
                        value = ((i8(symbol >> u8(1)) ^ -i8(symbol & u8(1))) << k) + i8(low)
                e = shift_in(e, float(value))
            if half == 0:
                # What the next samples are expected to be, but for the share of those decoded now.
                # Not earlier, when the differences before those are still on their way to memory.
                next_level(u, v, LANES * (PAST + t + 1))
                store(ahead, at_next, expected(u, v, LANES * (PAST + t + 1), w) * same(256.0))
            e = turn(e, four(now, NEXT_SIGNS + place))
            sample, step = four(now, NEXT_BASE + place) + e, four(now, NEXT_OFF + place) + e
            worst = most_four(worst, size_four(sample + all_four(0.5)))
            keep_single(u, LANES * (PAST + t) + place, step)
            keep_four(out, LANES * t + place, sample)
            keep_four(now, NOW_LAST + place, sample)
            keep_four(now, NOW_STEP + place, step)
            scale = follow(now, place, size_four(e))
            # Here, since it has time while the other half is decoded.
            look_ahead(now, index, books, place, ahead, at_next, latest, top, sample, step, scale)
    return x, at, exceed(worst, all_four(top + 0.5))


@kernel
def decode_samples(
    values: I16,
    fresh: bool,
    width: int,
    models: F32,
    states: I64,
    presets: F64,
    parts: U16,
    buckets: U16,
    splits: I32,
    coder: Words,
    words: U32,
) -> int:
    """Decode the samples of all channels, what `encode_samples` noted.

    Args:
        values: (n, c) receives the samples, n ≥ 1; of 32 bits as (n, 2 · c) halves, low ones first.
        fresh, width, models, states, presets, parts, splits: As there.
        buckets: Of `build_tables`.
        coder: State of the decoder.
        words: What it reads, and one more.

    Returns:
        0, or -1 when the bytes are not a valid encoding.
    """
    channels, n = states.shape[0], values.shape[0]
    x, at = coder[X], i8(coder[AT])
    known = 0
    if fresh:
        x, at = take_fresh(width, models, states, presets, x, at, words)
        if at < 0:
            return -1
        known = 1
        for c in range(channels):
            put_sample(values, i8(0), c, width, states[c, LAST])
    n -= known
    u, v = np.empty(LANES * (PAST + BLOCK + 1), np.float32), np.empty(LANES * (PAST + BLOCK + 1), np.float32)
    errors = np.zeros(LANES, np.float32)
    ahead, scratch = np.zeros(3 * LANES, np.float32), np.empty(SCRATCH, np.float32)
    sums, shares, a = scratch[:SHARES], scratch[SHARES:SQUARE], scratch[SQUARE:]
    now, places = np.zeros(NOW + LANES * BLOCK, np.float64), np.zeros(2 * LANES, np.int64)
    for first in range(0, channels if n else 0, LANES):
        model = models[first // LANES]
        w, q = model[WEIGHTS:SUMS], model[SUMS:]
        count = min(LANES, channels - first)
        u[:] = 0.0
        recall(model, u, v)
        now[:] = 0.0
        errors[:] = 0.0
        word, least = words[u8(at)], least_of(at, words)
        for i in range(count):
            c = first + i
            if fresh and i > 0:
                states[c, SHAPE], states[c, SPEED] = states[c - 1, SHAPE], states[c - 1, SPEED]
            if x & u8(ALL - 1) < u8(SAME):
                _, x, at, word, least = take(x, at, word, least, words, u8(0), u8(SAME), u8(0))
            else:
                bits, x, at, word, least = take(
                    x, at, word, least, words, u8(SAME), u8(ALL - SAME), u8(CHOICE_BITS)
                )
                states[c, SHAPE], states[c, SPEED] = i8(bits) & 3, i8(bits) >> 2
            lane = lane_of(i, count)
            begin_lane(now, places, lane, states[c], float(model[RECENT + lane]))
        age = states[first, AGE]
        done = i8(0)
        while done < n:
            length = min(block_length(age), n - done)
            x, at, wrong = decode_block(
                length, count, width, w, u, v, now, places, ahead, parts, buckets, splits, x, at, words
            )
            if wrong:
                return -1
            for i in range(count):
                lane = lane_of(i, count)
                errors[lane] = np.float32(now[NOW_TOTAL + lane])
                now[NOW_TOTAL + lane] = 0.0
                for t in range(length):
                    put_sample(
                        values, known + done + t, first + i, width, i8(now[u8(NOW + LANES * t + lane)])
                    )
            learn(u, v, i8(PAST), PAST + length, errors, q, w, sums, a, shares)
            slide(u, v, length)
            age += length
            done += length
        for i in range(count):
            end_lane(now, lane_of(i, count), states[first + i])
        states[first, AGE] = age
        keep_recent(u, v, i8(0), model)
    coder[X], coder[AT] = x, u8(at)
    return 0
