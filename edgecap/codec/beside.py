"""Channels of integers without the share that they have of an earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.layout import Array, Reader, put_varint
from edgecap.codec.quick import halves, own
from edgecap.kernels import beside as kernels

I64 = NDArray[np.int64]

LEAST_ROWS, MOST_ROWS = 64, 256
"""So many rows are looked at."""
MOST_CHANNELS = 64
"""Of more channels none are looked for."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Of every channel (c,): an earlier channel, or -1, and how many sixteenths of it are taken off."""

    others: I64
    shares: I64

    def packed(self) -> bytes:
        """What a payload says of all channels but the first."""
        out = bytearray()
        for other, share in zip(self.others[1:].tolist(), self.shares[1:].tolist(), strict=True):
            put_varint(out, other + 1)
            if other >= 0:
                out.append(share & 255)
        return bytes(out)


def read_shares(reader: Reader, channels: int) -> Shares:
    """Read what `Shares.packed` wrote."""
    others, shares = np.full(channels, -1, np.int64), np.zeros(channels, np.int64)
    for c in range(1, channels):
        others[c] = reader.varint(c) - 1
        if others[c] >= 0:
            shares[c] = (reader.byte() ^ 128) - 128
    return Shares(others, shares)


@lru_cache(64)
def shares_in(packed: bytes, channels: int) -> Shares:
    """The shares of a payload before, which many later ones have."""
    return read_shares(Reader(packed), channels)


def find_shares(x: Array) -> tuple[Shares | None, bool]:
    """The shares by which integers (n, c) seem to take less, None if nowhere; and whether they surely do."""
    rows, channels = x.shape
    if not 2 <= channels <= MOST_CHANNELS or rows < LEAST_ROWS:
        return None, False
    others, shares = np.empty(channels, np.int64), np.empty(channels, np.int64)
    wide = x.itemsize == 4
    found = kernels.find_others(halves(own(x)), wide, min(rows, MOST_ROWS), others, shares)
    return (Shares(others, shares) if found else None), found < 0


def take_off(x: Array, known: Shares) -> Array:
    """Integers (n, c) without their shares of others, reduced to their bits."""
    left = np.array(x, order="C")
    kernels.add_shares(halves(left), x.itemsize == 4, known.others, known.shares, -1)
    return left


def put_back(left: Array, known: Shares) -> None:
    """Undo `take_off` in place."""
    kernels.add_shares(halves(left), left.itemsize == 4, known.others, known.shares, 1)
