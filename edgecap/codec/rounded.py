"""float32 samples as rounded multiples of steps: whole numbers that float32 arithmetic has scaled.

A sample lies `rest` places after float32((k * m + a - half) * 2^-(shift + e)) in the order of float32;
half is 2^(e - 1), or 0 for e = 0. A channel without a step is in bit order.
"""

from __future__ import annotations

import math

import numpy as np

from edgecap.codec.lattice import F32, I32, from_order, to_order
from edgecap.codec.layout import Array, Reader
from edgecap.codec.multiples import I64, MAX_EXPONENT, OFFSET_BITS, Steps
from edgecap.codec.printed import Printed
from edgecap.errors import ChunkError

DIGITS = 24
LEAST_SHIFT, MOST_SHIFT = -60, 127
SHIFT_BIAS = 128
"""What is added to a shift to write it as a byte."""


def shift_of(values: F32) -> int | None:
    """The shift by which the largest sample becomes a number of 24 binary digits; None if there is none."""
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if finite.size else 0.0
    shift = DIGITS - math.frexp(largest)[1]
    return shift if largest and LEAST_SHIFT <= shift <= MOST_SHIFT else None


def whole_numbers(values: F32, shift: int) -> I32:
    """Samples as whole numbers of 2^-shift, which is how exact the largest float32 of 24 digits are."""
    with np.errstate(invalid="ignore"):
        wide = values.astype(np.float64)
    wide = np.where(np.isfinite(wide), wide, 0.0) * 2.0**shift
    found: I32 = np.rint(wide.clip(-(2.0**30), 2.0**30)).astype(np.int32)
    return found


def split(values: F32, nearest: I32, steps: Steps, shift: int, printed: Printed | None) -> tuple[I32, I32]:
    """Multiples (n, c), in channels without a step their bit order, and rests (n, c).

    Args:
        nearest: (n, c) multiples that the samples' whole numbers are nearest to.
        printed: How the multiples were printed before they were read, if they were.
    """
    order = to_order(values)
    k = np.where(steps.has, nearest, order)
    return k, (order.astype(np.int64) - _expected(k, steps, shift, printed)).astype(np.int32)


def join(k: I32, rests: I32, steps: Steps, shift: int, printed: Printed | None) -> F32:
    """Undo `split`."""
    return from_order((_expected(k, steps, shift, printed) + rests).astype(np.int32))


def _expected(k: I32, steps: Steps, shift: int, printed: Printed | None) -> I64:
    """Bit order of what multiples stand for, without their rests."""
    exact = k.astype(np.int64) * steps.m + steps.a - ((1 << steps.e) >> 1)
    with np.errstate(over="ignore"):
        wide = exact * 2.0 ** -(steps.e + shift)
        values = (wide if printed is None else printed.values(wide)).astype(np.float32)
    found: I64 = np.where(steps.has, to_order(values), k).astype(np.int64)
    return found


def pack_shift(shift: int) -> bytes:
    """The shift as it is written."""
    return bytes([shift + SHIFT_BIAS])


def shift_in(packed: bytes) -> int | None:
    """The shift, if that is what was packed: a lattice's step begins with a smaller byte."""
    shift = packed[0] - SHIFT_BIAS if len(packed) == 1 else LEAST_SHIFT - 1
    return shift if shift >= LEAST_SHIFT else None


def read_shift(reader: Reader) -> int:
    """Read what `pack_shift` wrote."""
    shift = reader.byte() - SHIFT_BIAS
    if shift < LEAST_SHIFT:
        raise ChunkError("columns payload: impossible shift of rounded multiples")
    return shift


def keeps_shift(values: Array, shift: int) -> bool:
    """Whether samples are neither much larger nor much smaller than when the shift was chosen."""
    now = shift_of(values)
    return now is not None and -1 <= now - shift <= 6


def at_shift(steps: Steps, less: int) -> Steps | None:
    """Steps for a shift that is so much less; None where they cannot be written."""
    e = np.where(steps.has, steps.e + less, 0)
    if e.min() < 0 or e.max() > MAX_EXPONENT:
        return None
    offset = np.where(steps.has, steps.a - ((1 << steps.e) >> 1) + ((1 << e) >> 1), 0) % steps.m
    unit = e - np.minimum(e, OFFSET_BITS)
    return Steps(steps.m, offset >> unit << unit, e)
