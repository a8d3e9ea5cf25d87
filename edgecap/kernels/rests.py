"""What rounding left of multiples of a step: coded once per multiple, since it is mostly the same again.

Every channel has places for the multiples seen last, with the rest that each had. A rest is coded as its
distance from that: whether there is one, whether it is 1, its sign, or else all its bits, each with a chance
that adapts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import Words, bit_length, i8, u8
from edgecap.kernels.compile import kernel, part
from edgecap.kernels.rans import ALL, AT, X, least_of, put, put_plain, take, take_plain

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]

PLACES = 256
"""A power of two: a multiple's place is its low bits."""
LENGTH_BITS = 6
SAME, NEAR, UP = 0, 2, 4
"""Chances, of 65536, of the first of two answers; each for multiples not known, and known."""
LENGTHS = 6
"""Chances of the bits of a length, each by those above it."""
CHANCES = LENGTHS + (1 << LENGTH_BITS)
FIRST = CHANCES * 2
"""Place of the first channel's multiples: after every chance comes how often it was asked."""
FIRST_CHANCES = np.array([49152, 63488, 57344, 57344, *[32768] * (CHANCES - UP)])
NO_RESTS = 61440
STEPS_PER_REST = 11


def start_rests(channels: int) -> I64:
    """The state of so many channels that nothing is known of."""
    return _fresh_state(channels).copy()


@lru_cache(maxsize=8)
def _fresh_state(channels: int) -> I64:
    # What a place holds first is a multiple that belongs elsewhere.
    places = ((np.arange(PLACES, dtype=np.int64) + 1) & (PLACES - 1)) << 32
    return np.concatenate([FIRST_CHANCES, np.zeros(CHANCES, np.int64), np.tile(places, channels)])


@part
def place_of(state: I64, base: int, k: int) -> tuple[int, int]:
    """Whether a multiple is known, and the rest that is expected of it.

    Where a step is a little wrong, neighbours have the same large rest; small ones say nothing.
    """
    entry = state[base + (k & (PLACES - 1))]
    if (entry >> i8(32)) == k:
        return i8(1), (entry << i8(32)) >> i8(32)
    for near in (k - 1, k + 1):
        entry = state[base + (near & (PLACES - 1))]
        rest = (entry << i8(32)) >> i8(32)
        if (entry >> i8(32)) == near and (rest > 1 or rest < -1):
            return i8(0), rest
    return i8(0), i8(0)


@part
def learn(state: I64, chance: int, first: bool) -> None:
    """Move a chance towards what was answered, slower the more often it was asked."""
    p, count = state[chance], state[CHANCES + chance]
    shift = min(2 + (count >> 1), 5)
    state[chance] = p + ((ALL - p) >> shift) if first else p - (p >> shift)
    if count < 6:
        state[CHANCES + chance] = count + 1


@part
def put_answer(state: I64, chance: int, first: bool, steps: Words, at: int) -> tuple[int, int]:
    """Note an answer; returns the number of the next step, and the cost in 1/256 bits, rounded up."""
    p = state[chance]
    size = p if first else ALL - p
    at = put(steps, at, i8(0) if first else p, size, i8(0), i8(0))
    learn(state, chance, first)
    whole = bit_length(u8(size)) - 1
    return at, ((16 - whole) << 8) - (((size << 8) >> whole) & 255)


@kernel
def encode_rests(
    multiples: I32, rests: I32, channels: I64, state: I64, steps: Words, at: int, limit_bits: int
) -> int:
    """Note the `rests` (n, c) of `multiples` (n, c), advancing the state.

    Args:
        channels: (c,) number of a channel among those that have rests, or -1.
        limit_bits: Give up beyond so many.

    Returns:
        The number of the next of the coder's `steps`, of which a rest takes up to `STEPS_PER_REST`, with one
        more for all; -1 when there is more to write than the limit.
    """
    surprise = False
    for t in range(multiples.shape[0]):
        for c in range(channels.size):
            if channels[c] >= 0:
                base = FIRST + channels[c] * PLACES
                surprise |= rests[t, c] != place_of(state, base, i8(multiples[t, c]))[1]
    if not surprise:
        return put(steps, at, i8(0), i8(NO_RESTS), i8(0), i8(0))
    at = put(steps, at, i8(NO_RESTS), i8(ALL - NO_RESTS), i8(0), i8(0))
    price = i8(4 << 8)  # in 1/256 bits, rounded up
    for t in range(multiples.shape[0]):
        for c in range(channels.size):
            if channels[c] < 0:
                continue
            base = FIRST + channels[c] * PLACES
            k, rest = i8(multiples[t, c]), i8(rests[t, c])
            known, expected = place_of(state, base, k)
            off = rest - expected
            for question in (SAME, NEAR, UP):
                first = off == 0 if question == SAME else (off == 1 or (question == NEAR and off == -1))
                at, cost = put_answer(state, question + known, first, steps, at)
                price += cost
                if first and question == SAME:
                    break
                if question == NEAR and not first:
                    folded = (off << 1) ^ (off >> 63)
                    length = bit_length(u8(folded))
                    node = i8(1)
                    for i in range(LENGTH_BITS):
                        bit = (length >> (LENGTH_BITS - 1 - i)) & 1
                        at, cost = put_answer(state, LENGTHS + node, bit == 0, steps, at)
                        price += cost
                        node = 2 * node + bit
                    at = put_plain(steps, at, folded, length - 1)
                    price += length << 8
                    break
            if off != 0 or known == 0:
                state[base + (k & (PLACES - 1))] = (k << i8(32)) | (rest & i8(0xFFFFFFFF))
        if price > limit_bits << 8:
            return -1
    return at


@kernel
def decode_rests(multiples: I32, rests: I32, channels: I64, state: I64, coder: Words, words: U32) -> int:
    """Decode what `encode_rests` noted into `rests` (n, c), which are zero; -1 when the bytes are not valid.

    Args:
        coder: State of the decoder.
        words: What it reads, and one more.
    """
    x, at = coder[X], i8(coder[AT])
    word, least = words[u8(at)], least_of(at, words)
    none = i8(x & u8(ALL - 1)) < NO_RESTS
    start = i8(0) if none else i8(NO_RESTS)
    size = i8(NO_RESTS) if none else i8(ALL - NO_RESTS)
    _, x, at, word, least = take(x, at, word, least, words, u8(start), u8(size), u8(0))
    for t in range(multiples.shape[0]):
        for c in range(channels.size):
            if channels[c] < 0:
                continue
            base = FIRST + channels[c] * PLACES
            k = i8(multiples[t, c])
            known, rest = place_of(state, base, k)
            if not none:
                chance, node, count = SAME + known, i8(1), i8(0)
                while True:
                    p = state[chance]
                    first = i8(x & u8(ALL - 1)) < p
                    start, size = (i8(0), p) if first else (p, ALL - p)
                    _, x, at, word, least = take(x, at, word, least, words, u8(start), u8(size), u8(0))
                    learn(state, chance, first)
                    if chance < NEAR:
                        if first:
                            break
                        chance = NEAR + known
                    elif chance < UP:
                        chance = UP + known if first else LENGTHS + node
                    elif chance < LENGTHS:
                        rest += i8(1) if first else i8(-1)
                        break
                    else:
                        node = 2 * node + (i8(0) if first else i8(1))
                        chance = LENGTHS + node
                        count += 1
                        if count == LENGTH_BITS:
                            length = node - (1 << LENGTH_BITS)
                            low, x, at, word, least = take_plain(x, at, word, least, words, length - 1)
                            folded = low | (u8(1) << u8(length - 1)) if length > 0 else u8(0)
                            rest += i8(folded >> u8(1)) ^ -i8(folded & u8(1))
                            break
                if rest < -(1 << 31) or rest >= 1 << 31:
                    return -1
                state[base + (k & (PLACES - 1))] = (k << i8(32)) | (rest & i8(0xFFFFFFFF))
            rests[t, c] = rest
    coder[X], coder[AT] = x, u8(at)
    return 0


def warm_up() -> None:
    """Compile the kernels of this module."""
    state = start_rests(1)
    row, channels = np.zeros((1, 1), np.int32), np.zeros(1, np.int64)
    encode_rests(row, row, channels, state, np.zeros(64, np.uint64), 0, 999)
    decode_rests(row, row, channels, state, np.zeros(2, np.uint64), np.zeros(64, np.uint32))
