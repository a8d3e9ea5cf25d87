"""Coding of steps that recur: most clocks emit few distinct ones, with outliers that the next step undoes.

A flag says whether a step is one of the `KNOWN` recent ones, then which, by how often each came; any other
is coded as its distance from what would undo an outlier before it, or else from the most common step: the
number of its bits by how often that came, and the bits flat. All counts grow by `GROWTH` and are halved when
their sum exceeds `COUNT_LIMIT`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import Words, bit_length, i8, u8
from edgecap.kernels.compile import kernel, part
from edgecap.kernels.rans import ALL, AT, X, least_of, put, put_plain, take, take_plain

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]

KNOWN = 16
LENGTHS = 36
GROWTH = 32
FIRST_COUNT = 24
COUNT_LIMIT = 8192

VALUES = 0
COUNTS = VALUES + KNOWN
FLAGS = COUNTS + KNOWN
"""Counts of (known, other) after a known step, then after another."""
LENGTH_COUNTS = FLAGS + 4
USED = LENGTH_COUNTS + LENGTHS
LAST_STEP = USED + 1
LAST_OTHER = USED + 2
STATE = USED + 3


@kernel
def start_steps(state: I64) -> None:
    """Set a zeroed state to one that knows nothing."""
    for i in range(4):
        state[FLAGS + i] = GROWTH
    for i in range(LENGTHS):
        state[LENGTH_COUNTS + i] = 4


@part
def grow(state: I64, begin: int, end: int, index: int) -> None:
    """Count one more of `index` among the counts [begin, end)."""
    state[begin + index] += GROWTH
    total = i8(0)
    for i in range(begin, end):
        total += state[i]
    if total > COUNT_LIMIT:
        for i in range(begin, end):
            state[i] = (state[i] + 1) >> 1


@part
def part_of(state: I64, begin: int, end: int, index: int) -> tuple[int, int]:
    """Start and size, of 65536, of `index` among the counts [begin, end)."""
    total = i8(0)
    before = i8(0)
    for i in range(begin, end):
        if i < begin + index:
            before += state[i]
        total += state[i]
    start = (before << 16) // total
    return start, ((before + state[begin + index]) << 16) // total - start


@part
def index_at(state: I64, begin: int, end: int, slot: int) -> int:
    """The index among the counts [begin, end) whose part holds `slot`."""
    total = i8(0)
    for i in range(begin, end):
        total += state[i]
    reach = i8(0)
    for i in range(begin, end):
        reach += state[i]
        if (reach << 16) // total > slot:
            return i - begin
    return end - begin - 1


@part
def expected(state: I64) -> int:
    """What a step that is not a known one is coded relative to."""
    best = 0
    for i in range(1, state[USED]):
        if state[COUNTS + i] > state[COUNTS + best]:
            best = i
    common: int = state[VALUES + best]
    if state[LAST_OTHER]:
        common -= state[LAST_STEP]
    return common


@part
def remember(state: I64, step: int, known: int) -> None:
    """Count a step: `known` is its index, or -1 for another, which then takes the place of the rarest."""
    flags = FLAGS + 2 * state[LAST_OTHER]
    grow(state, flags, flags + 2, i8(0 if known >= 0 else 1))
    if known >= 0:
        grow(state, i8(COUNTS), COUNTS + state[USED], known)
    else:
        place = state[USED]
        if place < KNOWN:
            state[USED] += 1
        else:
            place = i8(0)
            for i in range(1, KNOWN):
                if state[COUNTS + i] <= state[COUNTS + place]:
                    place = i8(i)
        state[VALUES + place] = step
        state[COUNTS + place] = FIRST_COUNT
    state[LAST_STEP] = step
    state[LAST_OTHER] = 0 if known >= 0 else 1


@kernel
def encode_steps(values: I32, state: I64, steps: Words, at: int) -> int:
    """Note the recurring `values` (n,), advancing the state.

    Returns:
        The number of the next of the coder's `steps`; a value takes up to five.
    """
    for t in range(values.size):
        step = i8(values[t])
        known = i8(-1)
        for i in range(state[USED]):
            if state[VALUES + i] == step:
                known = i8(i)
                break
        flags = FLAGS + 2 * state[LAST_OTHER]
        start, size = part_of(state, flags, flags + 2, i8(0 if known >= 0 else 1))
        at = put(steps, at, start, size, i8(0), i8(0))
        if known >= 0:
            start, size = part_of(state, i8(COUNTS), COUNTS + state[USED], known)
            at = put(steps, at, start, size, i8(0), i8(0))
        else:
            off = step - expected(state)
            folded = (off << 1) ^ (off >> 63)
            length = bit_length(u8(folded))
            start, size = part_of(state, i8(LENGTH_COUNTS), i8(LENGTH_COUNTS + LENGTHS), length)
            at = put(steps, at, start, size, i8(0), i8(0))
            grow(state, i8(LENGTH_COUNTS), i8(LENGTH_COUNTS + LENGTHS), length)
            at = put_plain(steps, at, folded, length - 1)
        remember(state, step, known)
    return at


@kernel
def decode_steps(values: I32, state: I64, coder: Words, words: U32) -> int:
    """Decode what `encode_steps` noted into `values` (n,); -1 when the bytes are not valid.

    Args:
        coder: State of the decoder.
        words: What it reads, and one more.
    """
    x, at = coder[X], i8(coder[AT])
    word, least = words[u8(at)], least_of(at, words)
    for t in range(values.size):
        flags = FLAGS + 2 * state[LAST_OTHER]
        other = index_at(state, flags, flags + 2, i8(x & u8(ALL - 1)))
        start, size = part_of(state, flags, flags + 2, other)
        _, x, at, word, least = take(x, at, word, least, words, u8(start), u8(size), u8(0))
        slot = i8(x & u8(ALL - 1))
        known = i8(-1)
        if other == 0:
            if state[USED] == 0:
                return -1
            known = index_at(state, i8(COUNTS), COUNTS + state[USED], slot)
            start, size = part_of(state, i8(COUNTS), COUNTS + state[USED], known)
            _, x, at, word, least = take(x, at, word, least, words, u8(start), u8(size), u8(0))
            step = state[VALUES + known]
        else:
            length = index_at(state, i8(LENGTH_COUNTS), i8(LENGTH_COUNTS + LENGTHS), slot)
            start, size = part_of(state, i8(LENGTH_COUNTS), i8(LENGTH_COUNTS + LENGTHS), length)
            _, x, at, word, least = take(x, at, word, least, words, u8(start), u8(size), u8(0))
            grow(state, i8(LENGTH_COUNTS), i8(LENGTH_COUNTS + LENGTHS), length)
            low, x, at, word, least = take_plain(x, at, word, least, words, length - 1)
            folded = low | (u8(1) << u8(length - 1)) if length > 0 else u8(0)
            step = expected(state) + (i8(folded >> u8(1)) ^ -i8(folded & u8(1)))
            if step < -(1 << 31) or step >= 1 << 31:
                return -1
        values[t] = step
        remember(state, step, known)
    coder[X], coder[AT] = x, u8(at)
    return 0
