"""Channels beside others that they have a part in common with: which, how much of it, and what is left.

Electrodes share a reference and hear the same mains; the leads of an electrocardiogram are sums of each
other; a board's supply moves all of its inputs. A channel may have a sixteenth of an earlier one, so many
times, taken off before it is predicted by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import i8, u8
from edgecap.kernels.compile import kernel, part

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I16 = NDArray[np.int16]

UNIT_BITS = 4
"""Shares are in sixteenths,"""
LEAST_SHARE, MOST_SHARE = -128, 127
LEAST_ALIKE = 0.25
"""The square of the correlation of what two channels' own past does not foresee, at least."""
MUCH_ALIKE = 0.9
"""By so much less no other way does without."""
PAST = 2


@part
def sample_at(values: I16, t: int, c: int, wide: bool) -> int:
    """A sample of a table; of 32 bits its halves lie side by side, the low one first."""
    if wide:
        both: int = i8(values[u8(t), u8(2 * c + 1)]) << 16 | (i8(values[u8(t), u8(2 * c)]) & 65535)
        return both
    sample: int = i8(values[u8(t), u8(c)])
    return sample


@part
def put_sample(values: I16, t: int, c: int, wide: bool, sample: int) -> None:
    """Put a sample, reduced to its bits, into a table."""
    low = ((sample + 32768) & 65535) - 32768  # without compilation, too, all fits
    if wide:
        values[u8(t), u8(2 * c)] = low
        values[u8(t), u8(2 * c + 1)] = (((sample >> 16) + 32768) & 65535) - 32768
    else:
        values[u8(t), u8(c)] = low


@part
def share_of(sample: int, share: int) -> int:
    """Sixteenths of a sample, rounded."""
    rounded: int = (share * sample + (i8(1) << (UNIT_BITS - 1))) >> UNIT_BITS
    return rounded


@kernel
def add_shares(values: I16, wide: bool, others: I64, shares: I64, sign: int) -> None:
    """Add to the channels of a table (n, c) what they have in common with others, or take it off, in place.

    Args:
        values: Of 32 bits as (n, 2 · c) halves.
        others: (c,) an earlier channel for each, or -1.
        shares: (c,) sixteenths of it.
        sign: 1 to add, beginning with the first channel; -1 to take off, beginning with the last.
    """
    for i in range(others.size):
        c = i if sign > 0 else others.size - 1 - i
        if others[c] < 0:
            continue
        for t in range(values.shape[0]):
            part = sign * share_of(sample_at(values, t, others[c], wide), shares[c])
            put_sample(values, t, c, wide, sample_at(values, t, c, wide) + part)


@part
def surprises(values: I16, wide: bool, c: int, rows: int, out: F64) -> float:
    """What a channel's last differences do not foresee of the next; returns the sum of squares."""
    a = b = s11 = s12 = s22 = r1 = r2 = 0.0
    for t in range(1, rows):
        d = float(sample_at(values, t, c, wide) - sample_at(values, t - 1, c, wide))
        out[u8(t)] = d
        if t > PAST:
            s11, s12, s22 = s11 + a * a, s12 + a * b, s22 + b * b
            r1, r2 = r1 + d * a, r2 + d * b
        a, b = d, a
    s11, s22 = s11 + 1.0, s22 + 1.0
    determinant = s11 * s22 - s12 * s12
    w1 = w2 = 0.0
    if determinant > 0.0:
        w1, w2 = (r1 * s22 - r2 * s12) / determinant, (r2 * s11 - r1 * s12) / determinant
    total = 0.0
    for t in range(rows - 1, PAST, -1):
        e = out[u8(t)] - (w1 * out[u8(t - 1)] + w2 * out[u8(t - 2)])
        out[u8(t)] = e
        total += e * e
    return total


@kernel
def find_others(values: I16, wide: bool, rows: int, others: I64, shares: I64) -> int:
    """Which earlier channel each of a table (n, c) has most in common with, and how much of it.

    Args:
        rows: So many are looked at.
        others, shares: (c,) receive it; -1 for none.

    Returns:
        How many have one; less than 0 where all of these are much alike.
    """
    found: int = i8(0)
    least = 1.0
    e, squares = np.empty((others.size, rows), np.float64), np.empty(others.size, np.float64)
    for c in range(others.size):
        others[c], shares[c] = i8(-1), i8(0)
        squares[c] = surprises(values, wide, c, rows, e[c])
        best = LEAST_ALIKE
        # What misses by less than 1 gains nothing.
        for r in range(c):
            crossed = 0.0
            for t in range(PAST + 1, rows):
                crossed += e[c, u8(t)] * e[r, u8(t)]
            if squares[c] > rows and squares[r] > rows:
                alike = crossed / squares[c] * (crossed / squares[r])
                share = i8(np.floor(crossed / squares[r] * (1 << UNIT_BITS) + 0.5))
                if alike > best and share != 0 and LEAST_SHARE <= share <= MOST_SHARE:
                    best = alike
                    others[c], shares[c] = i8(r), share
        if others[c] >= 0:
            found += 1
            least = min(least, best)
    return -found if least > MUCH_ALIKE else found


def warm_up() -> None:
    """Compile the kernels of this module."""
    rows, of = np.zeros((4, 2), np.int16), np.zeros(2, np.int64)
    find_others(rows, False, 4, of, of.copy())
    add_shares(rows, False, of, of, 1)
