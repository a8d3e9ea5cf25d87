"""Rice coding of fixed-order differences: the fast way from integers to bits and back.

The bit stream is a sequence of little-endian 64-bit words, filled from the lowest bit up. For every
channel it holds: 3 bits (difference order 0-3, plus 4 when every residual after the first sample is
zero), the first sample as it is (`width` bits), then the residuals of the other samples in blocks of 64.
A block starts with 5 bits: the Rice parameter k of its residuals, or 31 when all of them are zero.
A residual is reduced to `width` bits, folded to an unsigned u (0, -1, 1, -2, …) and written as
u >> k zero bits, a one, and the k low bits of u; when u >> k exceeds 23, as 24 zero bits, a one and
`width` bits of u.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import PAD_WORDS, Words, bit_length, i8, peek_bits, trailing_zeros, u8
from edgecap.kernels.compile import kernel, part

Halves = NDArray[np.int16]
I64 = NDArray[np.int64]

BLOCK = 64
ALL_ZERO = 31
ESCAPE = 24
MAX_K = 30
READ_AHEAD_WORDS = 64
"""How many words `rice_decode` may read past its bits: a block of the longest residuals, and a few."""


def rice_bound_words(n: int, channels: int, width: int) -> int:
    """How many words `rice_encode` needs at most."""
    return (channels * (8 + width + 5 * (n // BLOCK + 1) + n * (ESCAPE + 1 + width)) >> 6) + PAD_WORDS


@part
def order_of(x: I64) -> int:
    """The order of differences of `x` (n,) with the smallest sum of magnitudes; 1 for a tie with 0."""
    sum0 = sum1 = sum2 = sum3 = i8(0)
    for i in range(x.size - 3):
        x0, x1, x2, x3 = x[u8(i + 3)], x[u8(i + 2)], x[u8(i + 1)], x[u8(i)]
        sum0 += abs(x0)
        sum1 += abs(x0 - x1)
        sum2 += abs(x0 - 2 * x1 + x2)
        sum3 += abs(x0 - 3 * x1 + 3 * x2 - x3)
    order, best = 0, sum0
    if sum1 <= best:
        order, best = 1, sum1
    if sum2 < best:
        order, best = 2, sum2
    if sum3 < best:
        order = 3
    return order


@part
def fold_residuals(x: I64, order: int, width: int, folded: Words) -> Any:
    """Write the folded residuals of `x` (n,) after its first sample to `folded` (n,); returns their union."""
    n = x.size
    up = 64 - width
    mask = (u8(1) << u8(width)) - u8(1)
    folded[0] = u8(0)
    union = u8(0)
    for i in range(1, min(n, 3)):
        e = x[i]
        if min(order, i) == 1:
            e = x[i] - x[i - 1]
        elif min(order, i) == 2:
            e = x[i] - 2 * x[i - 1] + x[i - 2]
        folded[i] = u8((e << 1) ^ ((e << up) >> 63)) & mask
        union |= folded[i]
    # One loop for all orders, without a branch inside, so that several samples are folded at once.
    first, second, third = -i8(order > 0), -i8(order > 1), -i8(order > 2)
    for i in range(n - 3):
        x1, x2, x3 = x[u8(i + 2)], x[u8(i + 1)], x[u8(i)]
        rise = x1 - x2
        e = x[u8(i + 3)] - (x1 & first) - (rise & second) - ((rise - x2 + x3) & third)
        u = u8((e << 1) ^ ((e << up) >> 63)) & mask
        folded[u8(i + 3)] = u
        union |= u
    return union


@part
def append(words: Words, word: int, held: Any, fill: int, code: Any, count: int) -> tuple[int, Any, int]:
    """Append the `count` ≤ 63 bits of `code` to the `fill` < 64 bits of `held`, the word at `word`.

    Returns:
        The three after it; what is held is always in `words` as well.
    """
    held |= code << u8(fill)
    words[u8(word)] = held
    after = fill + count
    if after >= 64:
        # After at most 63 bits, some were held before: the shift is below 64.
        held = code >> u8(64 - fill)
        word += 1
        after -= 64
        words[u8(word)] = held
    return word, held, after


@kernel
def rice_encode(values: Halves, width: int, words: Words) -> int:
    """Encode all channels of `values` into `words`.

    Args:
        values: (n, c) int16, n ≥ 1; of 32-bit samples the halves, (n, 2 c), low ones first.
        width: Bits of a sample, 16 or 32.
        words: At least `rice_bound_words`, not necessarily zeroed.

    Returns:
        Number of bits written.
    """
    n = values.shape[0]
    one = u8(1)
    mask = (one << u8(width)) - one
    x = np.empty(n, np.int64)
    folded = np.empty(n, np.uint64)
    word: int = i8(0)
    fill: int = i8(0)
    held = u8(0)
    words[0] = held
    for c in range(0, values.shape[1], width >> 4):
        if width == 16:
            for i in range(n):
                x[u8(i)] = i8(values[i, c])
        else:
            for i in range(n):
                x[u8(i)] = i8(values[i, c]) & 0xFFFF | i8(values[i, c + 1]) << 16
        order = order_of(x)
        silent = fold_residuals(x, order, width, folded) == u8(0)
        head = u8(order + 4) if silent else u8(order)
        word, held, fill = append(words, word, held, fill, head | ((u8(x[0]) & mask) << u8(3)), 3 + width)
        i = n if silent else 1
        while i < n:
            end = min(n, i + BLOCK)
            total = u8(0)
            for j in range(i, end):
                total += folded[u8(j)]
            if total == u8(0):
                word, held, fill = append(words, word, held, fill, u8(ALL_ZERO), i8(5))
            else:
                # The mean of a geometric law is 2^k / ln 2: k is the length of 0.69 times the mean.
                k = min(bit_length((total * u8(11)) // u8(16 * (end - i))), MAX_K)
                word, held, fill = append(words, word, held, fill, u8(k), i8(5))
                low = (one << u8(k)) - one
                for j in range(i, end):
                    u = folded[u8(j)]
                    high = u >> u8(k)
                    if high < u8(ESCAPE):
                        code = (((u & low) << one) | one) << high
                        # As `append`, without its branch, which would be mispredicted every few samples.
                        held |= code << u8(fill)
                        words[u8(word)] = held
                        fill += i8(high) + 1 + k
                        full = u8(fill) >> u8(6)
                        rest = (code >> one) >> u8((i8(high) + k - fill) & 63)
                        held = held if full == u8(0) else rest
                        word += i8(full)
                        fill &= 63
                    else:
                        word, held, fill = append(words, word, held, fill, one << u8(ESCAPE), i8(ESCAPE + 1))
                        word, held, fill = append(words, word, held, fill, u, width)
                words[u8(word)] = held
            i = end
    return 64 * word + fill


@part
def take_block(words: Words, at: int, k: int, width: int, e: I64, samples: int) -> int:
    """Read `samples` ≤ 64 residuals into `e`, a block with parameter k ≤ 30; returns the bit after, or -1.

    At most 64 · 57 bits are read before the caller can check how far it came.
    """
    one = u8(1)
    mask = (one << u8(width)) - one
    low = (one << u8(k)) - one
    # The next `left` ≥ 32 bits; those after them begin with half word `half`.
    ahead = peek_bits(words, at)
    half = (at >> 5) + 2
    left = 64 - (at & 31)
    ahead &= ~u8(0) >> u8(64 - left)
    for j in range(samples):
        high = trailing_zeros(ahead)
        count = high + 1 + k
        if high < ESCAPE and count <= left:
            u = ((ahead >> u8(high)) >> one) & low | (u8(high) << u8(k))
            ahead = (ahead >> u8(count - 1)) >> one
            left -= count
            # Refilled without a branch, which would be mispredicted every few samples.
            short = u8(left - 32) >> u8(63)
            more = (words[u8(half >> 1)] >> u8((half & 1) << 5)) & u8(0xFFFFFFFF)
            ahead |= (more & (u8(0) - short)) << u8(left)
            half += i8(short)
            left += i8(short) << 5
        else:
            at = 32 * half - left
            ahead = peek_bits(words, at)
            high = trailing_zeros(ahead)
            if high < ESCAPE:
                u = ((ahead >> u8(high)) >> one) & low | (u8(high) << u8(k))
                at += high + 1 + k
            elif high == ESCAPE:
                u = peek_bits(words, at + ESCAPE + 1) & mask
                at += ESCAPE + 1 + width
            else:
                return -1
            ahead = peek_bits(words, at)
            half = (at >> 5) + 2
            left = 64 - (at & 31)
            ahead &= ~u8(0) >> u8(64 - left)
        e[u8(j)] = i8(u >> one) ^ -i8(u & one)
    return 32 * half - left


@part
def put_sample(values: Halves, width: int, i: int, c: int, x: int) -> None:
    """Put the low 16 or 32 bits of `x` into row `i` of the channel whose first column is `c`."""
    # Numbers that are in range without compilation, too; compiled, it is one store.
    values[u8(i), u8(c)] = ((x & 0xFFFF) ^ 0x8000) - 0x8000
    if width == 32:
        values[u8(i), u8(c + 1)] = ((x >> 16 & 0xFFFF) ^ 0x8000) - 0x8000


@kernel
def rice_decode(words: Words, bits: int, width: int, values: Halves) -> int:
    """Decode what `rice_encode` wrote.

    Never reads past `bits` by more than `READ_AHEAD_WORDS` words, whatever the words hold.

    Args:
        words, bits: The encoding, and where its words end.
        width: Bits of a sample, 16 or 32.
        values: (n, c) int16, n ≥ 1, overwritten; for 32-bit samples their halves, (n, 2 c), low ones first.

    Returns:
        Number of bits read, or -1 when the words are not a valid encoding.
    """
    n = values.shape[0]
    up = 64 - width
    e = np.empty(BLOCK, np.int64)
    at: int = i8(0)
    for c in range(0, values.shape[1], width >> 4):
        if at + 3 + width > bits:
            return -1
        head = i8(peek_bits(words, at) & u8(7))
        # A residual is added to a difference, that to the one of an order less, and so on, up to the sample;
        # those that the order does not have are masked.
        first, second, third = -i8(head & 3 > 0), -i8(head & 3 > 1), -i8(head & 3 > 2)
        x = (i8(peek_bits(words, at + 3) << u8(up))) >> up
        rise = bend = i8(0)
        at += 3 + width
        put_sample(values, width, i8(0), c, x)
        i = 1
        while i < n:
            count = min(n - i, BLOCK)
            k = i8(ALL_ZERO)
            if head < 4:
                if at + 5 > bits:
                    return -1
                k = i8(peek_bits(words, at) & u8(31))
                at += 5
            if k == ALL_ZERO:
                e[:] = 0
            else:
                at = take_block(words, at, k, width, e, count)
                if at < 0 or at > bits:
                    return -1
            # Sums wrap in 64 bits; storing them reduces them to the bits of a sample.
            for j in range(count):
                bend = (bend & third) + e[u8(j)]
                rise = (rise & second) + bend
                x = (x & first) + rise
                put_sample(values, width, i + j, c, x)
                if i + j == 1:
                    bend = i8(0)  # the second sample has but one before it
            i += count
    return at


def warm_up() -> None:
    """Compile both kernels."""
    words = np.zeros(READ_AHEAD_WORDS, np.uint64)
    values = np.zeros((2, 1), np.int16)
    bits = rice_encode(values, 16, words)
    rice_decode(words, bits, 16, values)
