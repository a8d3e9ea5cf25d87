"""float32 that were read from text of a few significant digits: each is the nearest to such a decimal number.

The digits that the largest samples of a channel have, down to its `point`, are whole numbers for the coder.
Those that smaller samples have beyond are written as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.codec import lattice
from edgecap.codec.layout import Reader
from edgecap.codec.printed import DIGIT_BITS, ENOUGH_DIGITS, GLANCED_ROWS, Shown, decades
from edgecap.errors import ChunkError
from edgecap.kernels.digits import MOST_ZEROS, ZERO_ITSELF

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]

LEAST_POINT, MOST_POINT = -8, 23
EXACT = 22
"""The largest power of ten that float64 has exactly."""
POWERS = np.array([float(f"1e{i}") for i in range(64)])
MOST_WHOLE = (1 << 30) - 1
FEW_LARGE = 16
"""One sample of so many may be larger than the point is chosen for: it takes a digit more."""
MOST_LOST_DIGITS = 2
"""A point serves until the largest samples have so many digits less,"""
RESTART_BITS = 32
"""or some have more than they should, by so many bits for each channel."""


@dataclass(slots=True)
class Digits:
    """Of every channel: how many digits its numbers have, and how many lie behind the point."""

    digits: I64
    points: I64

    def packed(self) -> bytes:
        """As they are written."""
        both = zip(self.digits.tolist(), self.points.tolist(), strict=True)
        return bytes((point - LEAST_POINT) << 3 | digits for digits, point in both)


def read_digits(reader: Reader, channels: int) -> Digits:
    """Read what `Digits.packed` wrote."""
    both = np.frombuffer(reader.take(channels), np.uint8).astype(np.int64)
    if not (both & 7).all():
        raise ChunkError("columns payload: decimal numbers without digits")
    return Digits(both & 7, (both >> 3) + LEAST_POINT)


@dataclass(slots=True)
class Split:
    """Whole numbers (n, c), and for `kernels.digits` what follows them."""

    k: I32
    zeros: I8
    rests: I64
    at: I64
    bits: NDArray[np.uint32]
    """Samples that are no such numbers, by place and bits."""


def rounder(values: F32, divisor: float) -> bool:
    """Whether the largest samples (n, c) of each channel end with a zero when `divisor` makes them whole."""
    for channel in values[:: max(1, values.shape[0] // GLANCED_ROWS)][:GLANCED_ROWS].T.tolist():
        largest = max(map(abs, channel))
        if not 0 < largest < math.inf:
            continue
        decade = 10.0 ** math.floor(math.log10(largest))
        if any(round(abs(value) * divisor) % 10 for value in channel if abs(value) >= decade):
            return False
    return True


def find(values: F32, shown: Shown) -> tuple[Digits, Split] | None:
    """The least digits that nearly all samples (n, c) have, and what they are with them.

    Args:
        shown: What some of them show.
    """
    digits = np.array([most for most, _ in shown], np.int64)
    wide = _wide(values)
    while True:
        known = Digits(digits, _points(wide, digits))
        found = split(values, known)
        if found is not None or int(digits.min()) >= ENOUGH_DIGITS:
            return None if found is None else (known, found)
        # The few that were looked at had less digits than there are.
        digits = np.minimum(digits + 1, ENOUGH_DIGITS)


def serves(values: F32, known: Digits) -> bool:
    """Whether samples (n, c) are about as large as those that the points were chosen for."""
    wide = _wide(values)
    if (known.points - _points(wide, known.digits) < -MOST_LOST_DIGITS)[wide.any(axis=0)].any():
        return False
    beyond = np.maximum(decades(wide) + known.points - (known.digits - 1), 0)
    return bool(beyond.sum() * DIGIT_BITS <= RESTART_BITS * values.shape[1])


def split(values: F32, known: Digits) -> Split | None:
    """Samples (n, c) as whole numbers and what follows; None where too many are no such numbers."""
    wide, digits, points = _wide(values), known.digits, known.points
    least = POWERS[digits - 1]
    places = digits - 1 - decades(np.where(wide > 0, wide, 1.0))
    # What is rounded up to a power of ten has a digit more.
    places -= np.rint(wide * _power(places)) >= 10 * least
    number = np.rint(wide * _power(places))
    beyond = places - points
    unit = _power(np.maximum(beyond, 0))
    whole = np.floor(number / unit) * _power(np.maximum(-beyond, 0))
    fits = (whole <= MOST_WHOLE) & (beyond - digits <= MOST_ZEROS)
    whole = np.where(fits, whole, 0)
    small = whole == 0
    rests = np.where(small, number - least, np.where(beyond > 0, number - whole * unit, 0))
    zeros = np.where(small & (wide > 0) & fits, beyond - digits, ZERO_ITSELF)
    k = whole.astype(np.int64)
    negative = np.signbit(values)
    exact = np.where(wide > 0, np.where(beyond > 0, number, whole), 0).astype(np.int64)
    made = join(np.where(negative, -1, 0), exact, np.maximum(beyond, 0), points)
    off = ~fits | (made.view(np.uint32) != values.view(np.uint32))
    count = int(np.count_nonzero(off))
    if count > values.size * lattice.EXCEPTIONS_PER_SAMPLE:
        return None
    k = np.where(negative, ~k, k)
    for row, channel in zip(*np.nonzero(off), strict=True):
        # An exception's own number is free to be chosen.
        k[row, channel] = k[row - 1, channel] if row else 0
        rests[row, channel], zeros[row, channel] = 0, ZERO_ITSELF
    at = np.flatnonzero(off)
    return Split(
        k.astype(np.int32),
        zeros.astype(np.int8),
        rests.astype(np.int64),
        at,
        values.reshape(-1).view(np.uint32)[at],
    )


def join(k: I32 | I64, whole: I64, places: I64, points: I64) -> F32:
    """The float32 nearest to `whole` · 10^-(`places` + `points`), negative where `k` is."""
    beyond = places + points
    size = whole * POWERS[np.maximum(-beyond, 0)] / POWERS[beyond.clip(0, EXACT)]
    size /= POWERS[np.maximum(beyond - EXACT, 0)]
    values: F32 = np.where(k < 0, -size, size).astype(np.float32)
    return values


def _wide(values: F32) -> F64:
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide = np.abs(values.astype(np.float64))
    return np.where(np.isfinite(wide), wide, 0.0)


def _points(wide: F64, digits: I64) -> I64:
    """The point of every channel by which its largest samples have just their digits, but for a few."""
    rank = wide.shape[0] - 1 - wide.shape[0] // FEW_LARGE
    largest = np.partition(wide, rank, axis=0)[rank]
    largest = np.where(largest > 0, largest, wide.max(axis=0))
    points: I64 = (digits - 1 - decades(np.where(largest > 0, largest, 1.0))).clip(LEAST_POINT, MOST_POINT)
    return points


def _power(exponents: I64) -> F64:
    """Powers of ten, about."""
    found: F64 = POWERS[np.maximum(exponents, 0)] / POWERS[np.maximum(-exponents, 0)]
    return found
