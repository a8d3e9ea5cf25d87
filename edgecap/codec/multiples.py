"""Integers as multiples of a step that need not be whole: a sensor's own numbers before they were rescaled.

`x = ((k * m + a) >> e) + rest`, with the channel's m, a and e: the step is m / 2^e. The rests are mostly 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.layout import Array, Reader, put_varint
from edgecap.errors import ChunkError

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

MAX_EXPONENT = 24
NONE, NEW_STEP, FIRST_OFFSET = 0, 1, 2 + MAX_EXPONENT
"""What a channel begins with: it has no step, or the exponent of a new one plus 1, or its offset plus 26."""
MAX_STEP = (1 << 31) - 1
OFFSET_BITS = 3
"""Offsets are in eighths, or in what steps are in where that is coarser."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Step and offset of every channel, (c,) each; m = 1 and a = e = 0 for a channel without."""

    m: I64
    a: I64
    e: I64

    @property
    def channels(self) -> I64:
        """Number of every channel among those that have a step, or -1."""
        has = self.has
        return np.where(has, np.cumsum(has) - 1, -1)

    @property
    def has(self) -> NDArray[np.bool_]:
        has: NDArray[np.bool_] = (self.m != 1) | (self.e != 0)
        return has

    def values(self, k: Array) -> I64:
        """The integers that multiples (n, c) stand for, without their rests."""
        found: I64 = (k.astype(np.int64) * self.m + self.a) >> self.e
        return found

    def nearest(self, x: Array) -> I64:
        """The multiples (n, c) that lie nearest."""
        twice = (x.astype(np.int64) << (self.e + 1)) - 2 * self.a + (1 << self.e) - 1 + self.m
        found: I64 = twice // (2 * self.m)
        return found

    def packed(self) -> bytes:
        """Every channel's offset, and its step where it differs from the one before."""
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
        return bytes(out)


def unit_of(exponent: int) -> int:
    """The bit of `a` that offsets are written in."""
    return exponent - min(exponent, OFFSET_BITS)


def read_steps(reader: Reader, channels: int) -> Steps:
    """Read what `Steps.packed` wrote."""
    m, a, e = np.ones(channels, np.int64), np.zeros(channels, np.int64), np.zeros(channels, np.int64)
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
    return Steps(m, a, e)


def split(x: Array, steps: Steps) -> tuple[Array, I32] | None:
    """Multiples (n, c), of the type of `x`, and rests (n, c); None where that type does not hold them."""
    k = steps.nearest(x)
    rest = x - steps.values(k)
    info = np.iinfo(x.dtype)
    if k.min() < info.min or k.max() > info.max:
        return None
    return k.astype(x.dtype), rest.astype(np.int32)
