"""Integers as multiples of a step: which channels may have one, and what multiples and rests would take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import Words, bit_length, i8, u8
from edgecap.kernels.compile import kernel

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]

NEIGHBOURS_PER_SAMPLE = 64
"""A channel of which one in so many distinct samples lies 1 apart from another has no step."""
LEAST_DISTINCT = 3
NOT_SPACED, SPACED, TOO_FEW = 0, 1, 2
WINDOW = 1 << 15
SEEN_WORDS = 2 * WINDOW // 64
PLACES = 256
"""A power of two: how many multiples' rests are remembered, as the coder of rests does."""
NEW_REST_BITS = 2
"""What a rest costs beyond two bits for each of its own, when it is not that of the same multiple before."""


@kernel
def split_samples(
    x: I64, m: I64, a: I64, e: I64, multiples: I32, rests: I32, places: I64
) -> tuple[int, int, int, int, int]:
    """Nearest multiples of steps m / 2^e with offsets a, rests, and about how many bits all of them take.

    Args:
        x: (n, c), of 32 bits.
        m: (c,); 1 with e = 0 for a channel without a step.
        multiples: (n, c) receives the multiples, reduced to 32 bits.
        rests: (n, c) receives x - ((multiple * m + a) >> e).
        places: `PLACES` to work with.

    Returns:
        The bits of the changes of samples, of the changes of multiples, and of rests; the lowest and the
        highest multiple.
    """
    plain, whole, left, lowest, highest = i8(0), i8(0), i8(0), i8(0), i8(0)
    for c in range(x.shape[1]):
        step, offset, exponent = m[c], a[c], e[c]
        none = step == 1 and exponent == 0
        for i in range(PLACES):
            places[i] = i8(((i + 1) & (PLACES - 1)) << 32)
        sample_before, before = i8(0), i8(0)
        for t in range(x.shape[0]):
            sample = x[t, c]
            k, rest = sample, i8(0)
            if not none:
                twice = (sample << (exponent + 1)) - 2 * offset + (i8(1) << exponent) - 1 + step
                k = twice // (2 * step)
                rest = sample - ((k * step + offset) >> exponent)
                if rest != 0:
                    entry = (k << 32) | (rest & i8(0xFFFFFFFF))
                    place = k & i8(PLACES - 1)
                    if places[place] != entry:
                        places[place] = entry
                        left += NEW_REST_BITS + 2 * bit_length(u8(abs(rest)))
            multiples[t, c], rests[t, c] = k, rest
            lowest, highest = min(lowest, k), max(highest, k)
            if t > 0:
                plain += bit_length(u8(abs(sample - sample_before)))
                whole += bit_length(u8(abs(k - before)))
            sample_before, before = sample, k
    return plain, whole, left, lowest, highest


@kernel
def find_spaced(samples: I32, channels: I64, seen: Words) -> int:
    """Which channels may be multiples of a step: those that change, and hardly ever by 1.

    Args:
        samples: (n, c).
        channels: (c,) receives `NOT_SPACED`, `SPACED` or, of those that hardly change, `TOO_FEW`.
        seen: `SEEN_WORDS` to work with.

    Returns:
        How many are spaced.
    """
    found: int = i8(0)
    for c in range(samples.shape[1]):
        for i in range(SEEN_WORDS):
            seen[i] = u8(0)
        base = i8(samples[0, c]) - WINDOW
        neighbours, distinct = i8(0), i8(0)
        before = i8(samples[0, c]) - 1
        for t in range(samples.shape[0]):
            sample = i8(samples[t, c])
            if sample == before:
                continue
            before = sample
            at = sample - base
            if at < 1 or at >= 2 * WINDOW - 1:
                distinct += 1
                continue
            if (seen[u8(at >> 6)] >> u8(at & 63)) & u8(1):
                continue
            distinct += 1
            seen[u8(at >> 6)] |= u8(1) << u8(at & 63)
            above, below = at + 1, at - 1
            neighbours += i8((seen[u8(above >> 6)] >> u8(above & 63)) & u8(1))
            neighbours += i8((seen[u8(below >> 6)] >> u8(below & 63)) & u8(1))
            if neighbours * NEIGHBOURS_PER_SAMPLE > distinct:
                break
        if neighbours * NEIGHBOURS_PER_SAMPLE > distinct:
            channels[c] = NOT_SPACED
        elif distinct < LEAST_DISTINCT:
            channels[c] = TOO_FEW
        else:
            channels[c] = SPACED
            found += 1
    return found


def warm_up() -> None:
    """Compile the kernels of this module."""
    row, wide = np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int64)
    find_spaced(row, np.zeros(1, np.int64), np.zeros(SEEN_WORDS, np.uint64))
    split_samples(wide, wide[0] + 1, wide[0], wide[0], row, row, np.zeros(PLACES, np.int64))
