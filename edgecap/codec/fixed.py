"""float32 as whole numbers of a power of two, smooth where a signal passes zero, and what lies between.

Of a channel with a shift, k is the whole number of 2^-shift at or below a sample. The samples that have the
same k are numbered in their order, and that number is written in as many plain bits as they need: none where
float32 has no more than one of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.codec import rounded
from edgecap.codec.lattice import F32, I32, MINUS_ZERO, from_order, to_order
from edgecap.codec.layout import Reader
from edgecap.codec.multiples import I64

U8 = NDArray[np.uint8]

LARGEST = 1 << 30
"""Whole numbers beyond stand for all that is larger, and for what is no number."""
LESS, MORE = 8, 2
"""A shift serves until samples need so many binary places more, or fewer."""


def shifts_of(values: F32) -> I64:
    """The shift of every channel of samples (n, c), by which its largest has 24 binary digits."""
    return np.array([rounded.shift_of(channel) or 0 for channel in values.T], np.int64)


def serve(values: F32, shifts: I64) -> bool:
    """Whether samples (n, c) are about as large as those that the shifts were chosen for."""
    for channel, shift in zip(values.T, shifts.tolist(), strict=True):
        now = rounded.shift_of(channel)
        if now is not None and not -MORE <= now - shift <= LESS:
            return False
    return True


def split(values: F32, shifts: I64) -> tuple[I32, I64, U8]:
    """Samples (n, c) as whole numbers, and for each its number among those that share it, and its bits."""
    with np.errstate(invalid="ignore", over="ignore"):
        wide = np.floor(values.astype(np.float64) * 2.0**shifts)
    order = to_order(values)
    wide = np.where(np.isnan(wide), np.where(order < 0, -LARGEST, LARGEST), wide).clip(-LARGEST, LARGEST)
    k = wide.astype(np.int32)
    k[values.view(np.uint32) == MINUS_ZERO] = -1
    first, widths = places(k, shifts)
    return k, order.astype(np.int64) - first, widths


def join(first: I64, bits: I64) -> F32:
    """Undo `split`; `first` is that of `places`."""
    return from_order((first + bits).astype(np.int32))


def places(k: I32, shifts: I64) -> tuple[I64, U8]:
    """Of whole numbers (n, c) the first sample's place in the order of float32, and bits to number all."""
    first = _first(k.astype(np.int64), shifts)
    # A number of 24 digits or more is one sample at most: the next one need not be looked at.
    spare = _first(k + np.int64(1), shifts) - first - 1
    widths: U8 = np.frexp(np.maximum(spare, 0).astype(np.float64))[1].astype(np.uint8)
    return first, widths


def _first(k: I64, shifts: I64) -> I64:
    """Place of the least float32 that is not below k · 2^-shift."""
    exact = k * 2.0**-shifts
    nearest = exact.astype(np.float32)
    order = to_order(nearest).astype(np.int64) + (nearest < exact)
    order[k <= -LARGEST] = -(1 << 31)
    order[k > LARGEST] = 1 << 31
    return order


def pack_shifts(shifts: I64) -> bytes:
    """The shifts as they are written."""
    return b"".join(rounded.pack_shift(shift) for shift in shifts.tolist())


def read_shifts(reader: Reader, channels: int) -> I64:
    """Read what `pack_shifts` wrote."""
    return np.array([rounded.read_shift(reader) for _ in range(channels)], np.int64)
