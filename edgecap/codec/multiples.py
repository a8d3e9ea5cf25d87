"""Integers as multiples of a step that need not be whole: a sensor's own numbers before they were rescaled.

`x = ((k * m + a) >> e) + rest`, with the channel's m, a and e: the step is m / 2^e. The rests are mostly 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.layout import Array, Reader, put_varint
from edgecap.errors import ChunkError
from edgecap.kernels import multiples as kernels

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

MAX_EXPONENT = 24
NONE, NEW_STEP, FIRST_OFFSET = 0, 1, 2 + MAX_EXPONENT
"""What a channel begins with: it has no step, or the exponent of a new one plus 1, or its offset plus 26."""
MAX_STEP = (1 << 31) - 1
OFFSET_BITS = 3
"""Offsets are in eighths, or in what steps are in where that is coarser."""


@dataclass(slots=True, eq=False)
class Steps:
    """Step and offset of every channel, (c,) each; m = 1 and a = e = 0 for a channel without."""

    m: I64
    a: I64
    e: I64
    _packed: bytes = field(default=b"", init=False)
    _channels: I64 | None = field(default=None, init=False)

    @property
    def channels(self) -> I64:
        """Number of every channel among those that have a step, or -1."""
        if self._channels is None:
            has = self.has
            self._channels = np.where(has, np.cumsum(has) - 1, -1)
        return self._channels

    @property
    def has(self) -> NDArray[np.bool_]:
        has: NDArray[np.bool_] = (self.m != 1) | (self.e != 0)
        return has

    def values(self, k: Array) -> I64:
        """The integers that multiples (n, c) stand for, without their rests."""
        found: I64 = (k.astype(np.int64) * self.m + self.a) >> self.e
        return found

    def packed(self) -> bytes:
        """Every channel's offset, and its step where it differs from the one before."""
        if self._packed:
            return self._packed
        out = bytearray()
        step = (0, 0)
        for m, a, e in zip(self.m.tolist(), self.a.tolist(), self.e.tolist(), strict=True):
            if (m, e) == (1, 0):
                put_varint(out, NONE)
                continue
            if (m, e) != step:
                step = m, e
                put_varint(out, NEW_STEP + e)
                put_varint(out, m)
            put_varint(out, FIRST_OFFSET + (a >> unit_of(e)))
        self._packed = bytes(out)
        return self._packed


def no_steps(channels: int) -> Steps:
    """Of channels that have none."""
    m, a, e = np.ones(channels, np.int64), np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    return Steps(m, a, e)


def unit_of(exponent: int) -> int:
    """The bit of `a` that offsets are written in."""
    return exponent - min(exponent, OFFSET_BITS)


def read_steps(reader: Reader, channels: int) -> Steps:
    """Read what `Steps.packed` wrote."""
    steps = no_steps(channels)
    m, a, e = steps.m, steps.a, steps.e
    step: tuple[int, int] | None = None
    for c in range(channels):
        offset = reader.varint(MAX_STEP)
        if offset == NONE:
            continue
        if offset < FIRST_OFFSET:
            step = reader.varint(MAX_STEP), offset - NEW_STEP
            offset = reader.varint(MAX_STEP)
            if step[0] == 0 or step == (1, 0):
                raise ChunkError("columns payload: impossible step of multiples")
        if step is None or offset < FIRST_OFFSET:
            raise ChunkError("columns payload: impossible offset of multiples")
        m[c], e[c] = step
        a[c] = (offset - FIRST_OFFSET) << (unit_of(step[1]))
    return steps


@dataclass(frozen=True, slots=True)
class Split:
    """Integers (n, c) as multiples of steps, and about how many bits that takes."""

    steps: Steps
    k: I32
    """Reduced to 32 bits."""
    rests: I32
    plain_bits: int
    """Of the changes of the integers as they are,"""
    multiple_bits: int
    """of the changes of their multiples,"""
    rest_bits: int
    """and of rests: a multiple mostly has the same again."""
    lowest: int
    highest: int

    @property
    def bits(self) -> int:
        """Of multiples and rests."""
        return self.multiple_bits + self.rest_bits

    def multiples(self, dtype: np.dtype[Any]) -> Array | None:
        """The multiples (n, c) in a type; None where it does not hold them."""
        info = np.iinfo(dtype)
        if self.lowest < info.min or self.highest > info.max:
            return None
        return self.k.astype(dtype, copy=False)


def split(x: Array, steps: Steps) -> Split:
    """The multiples that lie nearest to integers (n, c) of 16 or 32 bits."""
    k, rests = np.empty(x.shape, np.int32), np.empty(x.shape, np.int32)
    wide, places = np.array(x, np.int64, order="C"), np.empty(kernels.PLACES, np.int64)
    return Split(steps, k, rests, *kernels.split_samples(wide, steps.m, steps.a, steps.e, k, rests, places))
