"""Coding of steps that recur: most clocks emit few distinct ones, with outliers that the next step undoes.

A flag says whether a step is one of the `KNOWN` recent ones, then which, by how often each came; any other
is coded as its distance from what would undo an outlier before it, or else from the most common step: the
number of its bits by how often that came, and the bits flat. All counts grow by `GROWTH` and are halved when
their sum exceeds `COUNT_LIMIT`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import Words, bit_length, i8, peek_bits, put_bits, u8
from edgecap.kernels.compile import kernel
from edgecap.kernels.rangecoder import put, take

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
Bytes = NDArray[np.uint8]

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

LOW, SPAN, AT, FLAT = 0, 1, 2, 3


@kernel
def start_steps(state: I64) -> None:
    """Set a zeroed state to one that knows nothing."""
    for i in range(4):
        state[FLAGS + i] = GROWTH
    for i in range(LENGTHS):
        state[LENGTH_COUNTS + i] = 4


@kernel
def grow(state: I64, begin: int, end: int, index: int) -> None:
    """Count one more of `index` among the counts [begin, end)."""
    state[begin + index] += GROWTH
    total = i8(0)
    for i in range(begin, end):
        total += state[i]
    if total > COUNT_LIMIT:
        for i in range(begin, end):
            state[i] = (state[i] + 1) >> 1


@kernel
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


@kernel
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


@kernel
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


@kernel
def remember(state: I64, step: int, known: int) -> None:
    """Count a step: `known` is its index, or -1 for another, which then takes the place of the rarest."""
    flags = FLAGS + 2 * state[LAST_OTHER]
    grow(state, flags, flags + 2, 0 if known >= 0 else 1)
    if known >= 0:
        grow(state, COUNTS, COUNTS + state[USED], known)
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
def encode_steps(steps: I32, state: I64, coder: Words, out: Bytes, flat: Words) -> None:
    """Code `steps` (n,), advancing the state.

    Args:
        coder: (low, span, byte, flat bit), uint64.
        out, flat: Room for 8 bytes and 40 bits per step and 16 bytes more.
    """
    low, span, at, bit = coder[LOW], coder[SPAN], i8(coder[AT]), i8(coder[FLAT])
    for t in range(steps.size):
        step = i8(steps[t])
        known = -1
        for i in range(state[USED]):
            if state[VALUES + i] == step:
                known = i
                break
        flags = FLAGS + 2 * state[LAST_OTHER]
        start, size = part_of(state, flags, flags + 2, 0 if known >= 0 else 1)
        low, span, at = put(low, span, at, out, start, size)
        if known >= 0:
            start, size = part_of(state, COUNTS, COUNTS + state[USED], known)
            low, span, at = put(low, span, at, out, start, size)
        else:
            off = step - expected(state)
            folded = u8((off << 1) ^ (off >> 63))
            length = bit_length(folded)
            start, size = part_of(state, LENGTH_COUNTS, LENGTH_COUNTS + LENGTHS, length)
            low, span, at = put(low, span, at, out, start, size)
            grow(state, LENGTH_COUNTS, LENGTH_COUNTS + LENGTHS, length)
            if length > 1:
                bit = put_bits(flat, bit, folded ^ (u8(1) << u8(length - 1)), length - 1)
        remember(state, step, known)
    coder[LOW], coder[SPAN], coder[AT], coder[FLAT] = low, span, u8(at), u8(bit)


@kernel
def decode_steps(steps: I32, state: I64, coder: Words, data: Bytes, flat: Words) -> int:
    """Decode what `encode_steps` coded into `steps` (n,); -1 when the bytes are not valid.

    Args:
        coder: (code, span, byte, flat bit), uint64.
        data: Bytes that it reads.
        flat: The same bytes in reverse order, as words, with `PAD_WORDS` more.
    """
    code, span, at, bit = coder[LOW], coder[SPAN], i8(coder[AT]), i8(coder[FLAT])
    bits = 8 * data.size
    for t in range(steps.size):
        flags = FLAGS + 2 * state[LAST_OTHER]
        slot = min(i8(code // (span >> u8(16))), 65535)
        other = index_at(state, flags, flags + 2, slot)
        start, size = part_of(state, flags, flags + 2, other)
        code, span, at = take(code, span, at, data, start, size)
        slot = min(i8(code // (span >> u8(16))), 65535)
        known = -1
        if other == 0:
            if state[USED] == 0:
                return -1
            known = index_at(state, COUNTS, COUNTS + state[USED], slot)
            start, size = part_of(state, COUNTS, COUNTS + state[USED], known)
            code, span, at = take(code, span, at, data, start, size)
            step = state[VALUES + known]
        else:
            length = index_at(state, LENGTH_COUNTS, LENGTH_COUNTS + LENGTHS, slot)
            start, size = part_of(state, LENGTH_COUNTS, LENGTH_COUNTS + LENGTHS, length)
            code, span, at = take(code, span, at, data, start, size)
            grow(state, LENGTH_COUNTS, LENGTH_COUNTS + LENGTHS, length)
            folded = u8(length)
            if length > 1:
                high = u8(1) << u8(length - 1)
                folded = high | (peek_bits(flat, bit) & (high - u8(1)))
                bit += length - 1
                if bit > bits:
                    return -1
            step = expected(state) + (i8(folded >> u8(1)) ^ -i8(folded & u8(1)))
            if step < -(1 << 31) or step >= 1 << 31:
                return -1
        steps[t] = step
        remember(state, step, known)
    coder[LOW], coder[SPAN], coder[AT], coder[FLAT] = code, span, u8(at), u8(bit)
    return 0
