"""Further digits of decimal numbers, after the whole numbers of a coarse step that the coder predicts.

A number of which the whole number has fewer digits than there are has the others here, all equally likely.
One that is less than a step says first whether it is zero, and how many zeros follow the point, with chances
that adapt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import Words, i8, u8
from edgecap.kernels.compile import kernel, part
from edgecap.kernels.heads import put_even, take_even
from edgecap.kernels.rans import ALL, AT, X, least_of, take
from edgecap.kernels.rests import CHANCES, learn, put_answer

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]
U32 = NDArray[np.uint32]

MOST_ZEROS = 14
ZERO, MORE = 0, 2
"""Chances: that a number is zero, for each sign; that another zero follows, for each number of them."""
ZERO_ITSELF = -1
"""Instead of a number of leading zeros."""
AT_ONCE = 10000
"""So many values are coded in one symbol."""
STEPS_PER_NUMBER, STEPS_PER_SMALL = 2, MOST_ZEROS + 3


def start_digits() -> I64:
    """The state of a column that nothing is known of."""
    state = np.zeros(2 * CHANCES, np.int64)
    state[:CHANCES] = ALL // 2
    return state


@part
def further(k: int, digits: int) -> int:
    """Of how many values the further digits of a number are one; 0 for a number that is less than a step."""
    whole = k ^ (k >> i8(63))
    if whole == 0:
        none: int = i8(0)
        return none
    count = i8(1)
    for _ in range(digits):
        count *= i8(10)
    while whole > 0 and count > 1:
        whole //= i8(10)
        count //= i8(10)
    values: int = count
    return values


@part
def least_of_digits(digits: int) -> int:
    """The least number of so many digits."""
    least: int = i8(1)
    for _ in range(digits - 1):
        least *= i8(10)
    return least


@kernel
def encode_digits(
    k: I32, digits: I64, zeros: I8, rests: I64, state: I64, steps: Words, at: int, limit_bits: int
) -> int:
    """Note the further digits of whole numbers `k` (n, c), advancing the state.

    Args:
        digits: (c,) how many digits the numbers of a channel have.
        zeros: (n, c) of numbers less than a step the zeros after the point, or `ZERO_ITSELF`.
        rests: (n, c) the further digits; of numbers less than a step, what they exceed the least by.
        limit_bits: Give up beyond so many.

    Returns:
        The number of the next of the coder's `steps`; -1 when there is more to write than the limit.
    """
    price = i8(0)  # in 1/256 bits
    for t in range(k.shape[0]):
        for c in range(digits.size):
            number = i8(k[t, c])
            count = further(number, digits[c])
            if count == 0:
                zero = zeros[t, c] == ZERO_ITSELF
                at, cost = put_answer(state, ZERO + (i8(1) if number < 0 else i8(0)), zero, steps, at)
                price += cost
                if zero:
                    continue
                for z in range(min(i8(zeros[t, c]) + 1, MOST_ZEROS)):
                    at, cost = put_answer(state, MORE + z, z < zeros[t, c], steps, at)
                    price += cost
                count = 9 * least_of_digits(digits[c])
            rest = rests[t, c]
            while count > AT_ONCE:
                at = put_even(steps, at, rest % AT_ONCE, i8(AT_ONCE))
                rest //= AT_ONCE
                count //= AT_ONCE
                price += i8(14 << 8)
            if count > 1:
                at = put_even(steps, at, rest, count)
                while count > 0:
                    price += i8(256)
                    count >>= 1
        if price > limit_bits << 8:
            return -1
    return at


@kernel
def decode_digits(k: I32, digits: I64, whole: I64, places: I64, state: I64, coder: Words, words: U32) -> None:
    """Decode what `encode_digits` noted: the numbers' sizes are `whole` (n, c) · 10^-`places` (n, c) steps.

    Args:
        coder: State of the decoder.
        words: What it reads, and one more.
    """
    x, at = coder[X], i8(coder[AT])
    word, least = words[u8(at)], least_of(at, words)
    for t in range(k.shape[0]):
        for c in range(digits.size):
            number = i8(k[t, c])
            known = number ^ (number >> i8(63))
            count = further(number, digits[c])
            place = i8(0)
            if count == 0:
                chance, z = ZERO + (i8(1) if number < 0 else i8(0)), i8(-1)
                while z < MOST_ZEROS:
                    p = state[chance]
                    first = i8(x & u8(ALL - 1)) < p
                    start, size = (i8(0), p) if first else (p, ALL - p)
                    _, x, at, word, least = take(x, at, word, least, words, u8(start), u8(size), u8(0))
                    learn(state, chance, first)
                    if first == (z < 0):
                        break
                    z += 1
                    chance = MORE + z
                if z < 0:
                    whole[t, c] = 0
                    places[t, c] = 0
                    continue
                known = least_of_digits(digits[c])
                count = 9 * known
                place = z + digits[c]
                unit = i8(1)
            else:
                unit = count
                while unit > 1:
                    unit //= i8(10)
                    place += 1
                unit = count
            rest, weight = i8(0), i8(1)
            while count > AT_ONCE:
                part_, x, at, word, least = take_even(x, at, word, least, words, i8(AT_ONCE))
                rest += part_ * weight
                weight *= AT_ONCE
                count //= AT_ONCE
            if count > 1:
                part_, x, at, word, least = take_even(x, at, word, least, words, count)
                rest += part_ * weight
            whole[t, c] = known * unit + rest
            places[t, c] = place
    coder[X], coder[AT] = x, u8(at)


def warm_up() -> None:
    """Compile the kernels of this module."""
    row, digits, rests = np.ones((1, 1), np.int32), np.ones(1, np.int64), np.zeros((1, 1), np.int64)
    zeros, steps, words = np.zeros((1, 1), np.int8), np.zeros(64, np.uint64), np.zeros(64, np.uint32)
    encode_digits(row, digits, zeros, rests, start_digits(), steps, 0, 999)
    decode_digits(row, digits, rests, rests.copy(), start_digits(), np.zeros(2, np.uint64), words)
