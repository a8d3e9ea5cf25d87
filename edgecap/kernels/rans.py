"""An asymmetric-numeral coder with a 64-bit state: symbols with parts of 65536, each followed by plain bits.

The state x of the decoder lies in [2^32, 2^64) while 32-bit words remain to be read. A symbol whose part
begins at `start` and has `size` of 65536 turns x into size·(x >> 16) + (x & 65535) - start; then `k` ≤ 16
bits are taken from below; then, when x < 2^32, the next word comes in from below. The encoder does the
reverse from the last symbol to the first. The x < 2^16 that it starts from is what is left at the end of
decoding, with no word: 16 bits that would else be lost, and that can say which bytes were meant.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import Words, i8, quotient, reciprocals_of, u8
from edgecap.kernels.compile import kernel, part

U32 = NDArray[np.uint32]

MOST_BITS = 16
LEAST = 1 << 32
ALL = 65536
X, AT = 0, 1
"""Places in the state of a decoder: the number x, and the next word."""


@part
def put(steps: Words, at: int, start: int, size: int, bits: int, k: int) -> int:
    """Note a symbol and the `k` bits after it as step `at`; returns the number of the next step."""
    low = u8(bits) & ((u8(1) << u8(k)) - u8(1))
    steps[u8(at)] = u8(start) << u8(48) | u8(size - 1) << u8(32) | low << u8(8) | u8(k)
    return at + 1


@part
def put_plain(steps: Words, at: int, bits: int, k: int) -> int:
    """Note `k` plain bits, lowest first, as steps from `at` on; returns the number of the next step."""
    while k > 0:
        part = min(k, MOST_BITS)
        at = put(steps, at, i8(0), i8(ALL), bits, part)
        bits >>= part
        k -= part
    return at


@cache
def reciprocals() -> tuple[Words, NDArray[np.uint8]]:
    """Of every size of a part, from 1 on: see `reciprocals_of`."""
    return reciprocals_of(np.arange(1, ALL + 1, dtype=np.uint64))


@kernel
def encode(
    steps: Words, count: int, seed: int, words: U32, inverses: Words, shifts: NDArray[np.uint8]
) -> tuple[Any, int]:
    """Code `count` steps.

    Args:
        seed: What decoding shall end with, below 2^16.
        words: Receives at its end the 32-bit words, of which there are less than steps.
        inverses, shifts: Of `reciprocals`.

    Returns:
        The first state of the decoder, and the place of the first word.
    """
    x = u8(seed)
    place = words.size
    for i in range(count - 1, -1, -1):
        step = steps[u8(i)]
        start, size_less_1 = step >> u8(48), (step >> u8(32)) & u8(65535)
        inverse, shift = inverses[size_less_1], u8(shifts[size_less_1])
        more = inverse if shift > u8(127) else u8(0)
        k = step & u8(255)
        if (x >> (u8(48) - k)) > size_less_1:
            place -= 1
            words[u8(place)] = x & u8(LEAST - 1)
            x >>= u8(32)
        x = (x << k) | ((step >> u8(8)) & u8(65535))
        high = quotient(x, inverse, more, shift & u8(127))
        # What remains of x stays, and `high` comes to stand 16 bits higher.
        x += high * (u8(ALL - 1) - size_less_1) + start
    return x, place


@part
def least_of(at: int, words: U32) -> Any:
    """What x must reach not to need the next word; 0 when there is none."""
    return u8(LEAST) if at < words.size - 1 else u8(0)


@part
def take(
    x: Any, at: int, word: Any, least: Any, words: U32, start: Any, size: Any, k: Any
) -> tuple[Any, Any, int, Any, Any]:
    """Remove a symbol and the `k` bits after it from x.

    Args:
        word: The one at `at`, loaded before it is known to be needed: nothing waits for it.
        least: Of `least_of`, found before it is needed for the same reason.
        words: The 32-bit words, and one more.

    Returns:
        The bits, x, the place of the next word, that word, and what x must reach.
    """
    x = size * (x >> u8(16)) + (x & u8(65535)) - start
    bits = x & ((u8(1) << k) - u8(1))
    x >>= k
    # Without a branch, which would be mispredicted every few symbols.
    wide = x << u8(32) | word
    more = x < least
    x = wide if more else x
    at += i8(more)
    return bits, x, at, words[u8(at)], least_of(at, words)


@part
def take_plain(x: Any, at: int, word: Any, least: Any, words: U32, k: int) -> tuple[Any, Any, int, Any, Any]:
    """Remove `k` ≤ 63 plain bits from x; returns them and the rest of what `take` does."""
    bits = u8(0)
    done = 0
    while done < k:
        part = min(k - done, MOST_BITS)
        more, x, at, word, least = take(x, at, word, least, words, u8(0), u8(ALL), u8(part))
        bits |= more << u8(done)
        done += part
    return bits, x, at, word, least
