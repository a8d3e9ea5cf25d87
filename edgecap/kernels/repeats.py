"""Rows that equal the one before, and bits that are coded as they are.

Who polls a sensor more often than it measures, sees samples again. Whether a row is another is asked with a
chance that depends on how long the last one has been there, and whether that is as long as the one before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import Words, i8, u8
from edgecap.kernels.compile import kernel, part
from edgecap.kernels.rans import ALL, AT, X, least_of, put, put_plain, take, take_plain

I64 = NDArray[np.int64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]

GLANCED = 16
MANY_GLANCED = 12
"""Of 16 neighbours in a channel so many must be equal for it to be looked at more closely."""
MOST_RUN = 15
CHANCES = 2 * (MOST_RUN + 1)
RUN = 2 * CHANCES
"""Place of the length of the last whole run, after the chances and how often each was asked."""
STATE = RUN + 1


def start_repeats() -> I64:
    """The state of a column that nothing is known of."""
    state = np.zeros(STATE, np.int64)
    state[:CHANCES] = ALL // 2
    return state


@part
def asked(state: I64, run: int) -> int:
    """The chance for the row after `run` equal ones."""
    chance: int = 2 * min(run, i8(MOST_RUN)) + (i8(1) if run == state[RUN] else i8(0))
    return chance


@part
def count(state: I64, chance: int, run: int, other: bool) -> int:
    """Learn from an answer; returns how many rows are equal by now."""
    p, times = state[chance], state[CHANCES + chance]
    shift = min(2 + (times >> 1), 5)
    state[chance] = p + ((ALL - p) >> shift) if other else p - (p >> shift)
    if times < 6:
        state[CHANCES + chance] = times + 1
    if other:
        state[RUN] = run
    now: int = i8(1) if other else run + 1
    return now


@kernel
def encode_repeats(others: U8, state: I64, steps: Words, at: int) -> int:
    """Note which rows (n,) are others than the one before, the first of which always is; advances the state.

    Returns:
        The number of the next of the coder's `steps`, of which there is one less than rows.
    """
    run = i8(1)
    for t in range(1, others.size):
        chance, other = asked(state, run), others[t] != 0
        p = state[chance]
        at = put(steps, at, i8(0) if other else p, p if other else ALL - p, i8(0), i8(0))
        run = count(state, chance, run, other)
    return at


@kernel
def decode_repeats(others: U8, state: I64, coder: Words, words: U32) -> int:
    """Decode what `encode_repeats` noted into `others` (n,); returns how many rows are others."""
    x, at = coder[X], i8(coder[AT])
    word, least = words[u8(at)], least_of(at, words)
    run, found = i8(1), i8(1)
    others[0] = 1
    for t in range(1, others.size):
        chance = asked(state, run)
        p = state[chance]
        other = i8(x & u8(ALL - 1)) < p
        start, size = (i8(0), p) if other else (p, ALL - p)
        _, x, at, word, least = take(x, at, word, least, words, u8(start), u8(size), u8(0))
        run = count(state, chance, run, other)
        others[t] = 1 if other else 0
        found += i8(other)
    coder[X], coder[AT] = x, u8(at)
    number: int = found
    return number


@kernel
def glance(values: I16, wide: bool, few: int) -> bool:
    """Whether samples (n, c), n ≥ 2, may be repeated rows, or few distinct ones: of most 32 rows tell.

    Args:
        values: (n, c); of 32 bits as (n, 2 · c) halves.
        few: Of `GLANCED` rows so few samples of a channel may differ for it to be looked at more closely.
    """
    rows, size = values.shape[0], i8(2 if wide else 1)
    every = max(rows // GLANCED, 1)
    middle = max(rows // 2 - GLANCED // 2, 0)
    end = min(middle + GLANCED, rows - 1)
    for t in range(middle, end):
        other = False
        for c in range(values.shape[1]):
            other |= values[u8(t), u8(c)] != values[u8(t + 1), u8(c)]
        if not other:
            return True
    for c in range(0, values.shape[1], size):
        low, high = u8(c), u8(c + size - 1)
        equal = i8(0)
        for t in range(middle, end):
            a, b = u8(t), u8(t + 1)
            equal += i8(values[a, low] == values[b, low] and values[a, high] == values[b, high])
        if equal >= MANY_GLANCED:
            return True
        distinct = i8(0)
        for i in range(min(GLANCED, rows)):
            known = False
            for j in range(i):
                a, b = u8(i * every), u8(j * every)
                known |= values[a, low] == values[b, low] and values[a, high] == values[b, high]
            distinct += i8(not known)
        if distinct <= few:
            return True
    return False


@kernel
def encode_plain(bits: I64, widths: U8, steps: Words, at: int) -> int:
    """Note plain bits (n,), as many as `widths` (n,) says; returns the number of the next of the `steps`."""
    for i in range(bits.size):
        at = put_plain(steps, at, bits[i], i8(widths[i]))
    return at


@kernel
def decode_plain(bits: I64, widths: U8, coder: Words, words: U32) -> None:
    """Decode what `encode_plain` noted into `bits` (n,)."""
    x, at = coder[X], i8(coder[AT])
    word, least = words[u8(at)], least_of(at, words)
    for i in range(bits.size):
        found, x, at, word, least = take_plain(x, at, word, least, words, i8(widths[i]))
        bits[i] = i8(found)
    coder[X], coder[AT] = x, u8(at)


def warm_up() -> None:
    """Compile the kernels of this module."""
    steps, coder, words = np.zeros(64, np.uint64), np.zeros(2, np.uint64), np.zeros(64, np.uint32)
    rows, bits = np.ones(2, np.uint8), np.zeros(2, np.int64)
    glance(np.zeros((2, 2), np.int16), True, 8)
    encode_repeats(rows, start_repeats(), steps, 0)
    decode_repeats(rows, start_repeats(), coder, words)
    encode_plain(bits, rows, steps, 0)
    decode_plain(bits, rows, coder, words)
