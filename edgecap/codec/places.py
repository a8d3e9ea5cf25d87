"""Channels of few distinct samples as the places of these among each other: switches, levels, rare events."""

from __future__ import annotations

import numpy as np

from edgecap.codec.layout import Array, Reader, put_varint
from edgecap.errors import ChunkError

MOST_PLACES = 64
LEAST_SPREAD = 2
"""The distance of the least and the largest sample, for each distinct one."""
SAMPLES_PER_PLACE = 6

Known = list[list[int]]
"""The distinct samples of every channel in increasing order; none for a channel that is left as it is."""


def find_places(x: Array, known: Known | None) -> Known | None:
    """The distinct samples of integers (n, c) where there are few, and far apart; None if nowhere.

    Args:
        known: Samples to be listed as well.
    """
    most = min(MOST_PLACES, x.shape[0] // SAMPLES_PER_PLACE + 2)
    found: Known = []
    for channel in x.T:
        values: list[int] = []
        few = np.unique(channel[: 4 * most]).size <= most
        distinct = np.unique(channel) if few else channel[:0]
        if 2 <= distinct.size <= most:
            values = distinct.tolist()
            if values[-1] - values[0] < LEAST_SPREAD * len(values):
                values = []
        found.append(values)
    if not any(found):
        return None
    if known is not None and len(known) == len(found):
        both = [sorted({*a, *b}) if a else [] for a, b in zip(found, known, strict=True)]
        found = [v if len(v) <= MOST_PLACES else now for v, now in zip(both, found, strict=True)]
    return found


def split(x: Array, known: Known) -> Array | None:
    """The places of integers (n, c), in their type; None where one is not known."""
    places = x.copy()
    for c, values in enumerate(known):
        if values:
            at = np.searchsorted(values, x[:, c])
            if at.max() >= len(values) or (np.array(values)[at] != x[:, c]).any():
                return None
            places[:, c] = at
    return places


def join(places: Array, known: Known) -> Array:
    """Undo `split`.

    Raises:
        ChunkError: a place that no sample has.
    """
    x = places.copy()
    for c, values in enumerate(known):
        if values:
            if places[:, c].min() < 0 or places[:, c].max() >= len(values):
                raise ChunkError("columns payload: a sample has no place among the distinct ones")
            x[:, c] = np.array(values, places.dtype)[places[:, c]]
    return x


def pack_places(known: Known, size: int) -> bytes:
    """For every channel how many distinct samples there are, and these, the first in `size` bytes."""
    out = bytearray()
    for values in known:
        put_varint(out, len(values))
        for i, value in enumerate(values):
            if i == 0:
                out += value.to_bytes(size, "little", signed=True)
            else:
                put_varint(out, value - values[i - 1] - 1)
    return bytes(out)


def read_places(reader: Reader, channels: int, size: int) -> Known:
    """Read what `pack_places` wrote."""
    top = (1 << 8 * size - 1) - 1
    known: Known = []
    for _ in range(channels):
        values: list[int] = []
        for i in range(reader.varint(MOST_PLACES)):
            if i == 0:
                values.append(int.from_bytes(reader.take(size), "little", signed=True))
            else:
                values.append(values[-1] + 1 + reader.varint(1 << 32))
        if values and values[-1] > top:
            raise ChunkError("columns payload: distinct samples beyond their type")
        known.append(values)
    return known
