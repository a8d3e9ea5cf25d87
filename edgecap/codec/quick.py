"""The fast level's coder: integers ↔ Rice codes, through buffers that are kept from payload to payload."""

from __future__ import annotations

import numpy as np

from edgecap.codec.layout import Array, Reader
from edgecap.errors import ChunkError
from edgecap.kernels import rice

KEPT_BYTES = 1 << 18
"""Larger buffers, which no chunk needs, are given back."""


class _Buffer:
    """Words, and the same memory as bytes."""

    __slots__ = ("bytes", "count", "words")

    def __init__(self, count: int) -> None:
        self.words = np.empty(count, np.uint64)
        self.bytes = self.words.data.cast("B")
        self.count = count

    def of(self, count: int) -> _Buffer:
        """One of at least `count` words: this one, if it is large enough and not too large."""
        if count <= self.count and 8 * self.count <= KEPT_BYTES:
            return self
        return _Buffer(count)


def halves(lanes: Array) -> Array:
    """The samples of a C-contiguous (n,) or (n, c) array, n ≥ 1, as int16, which kernels are made for."""
    if lanes.dtype == np.int16 and lanes.ndim == 2:
        return lanes
    halves: Array = lanes.view(np.int16).reshape(lanes.shape[0], -1)
    return halves


def own(lanes: Array) -> Array:
    """Integers as kernels take them: C-contiguous and writable; read-only memory is a type of its own."""
    if type(lanes) is not np.ndarray or not lanes.flags.carray:
        lanes = np.array(lanes, order="C")
    return lanes


class QuickWriter:
    """Codes one column after the other."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = _Buffer(0)

    def encode(self, lanes: Array) -> bytes:
        """Rice-code integers (n, c), int16 or int32."""
        rows, channels = lanes.shape
        if rows == 0:
            return b""
        lanes = own(lanes)
        width = 8 * lanes.dtype.itemsize
        self._buffer = buffer = self._buffer.of(rice.rice_bound_words(rows, channels, width))
        bits = rice.rice_encode(halves(lanes), width, buffer.words)
        return bytes(buffer.bytes[: (bits + 7) >> 3])


class QuickReader:
    """Decodes one column after the other."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = _Buffer(0)

    def decode(self, reader: Reader, lanes: Array) -> None:
        """Decode Rice-coded integers at the reader's place into `lanes` (n,) or (n, c), of 16 or 32 bits.

        Raises:
            ChunkError: the bytes are not an encoding of them.
        """
        if not lanes.size:
            return
        data, at = reader.data, reader.at
        available = len(data) - at
        self._buffer = buffer = self._buffer.of((available >> 3) + rice.READ_AHEAD_WORDS)
        # What lies behind it from before does not matter: to read into it is to have read too much.
        buffer.bytes[:available] = memoryview(data)[at:]
        bits = rice.rice_decode(buffer.words, 8 * available, 8 * lanes.dtype.itemsize, halves(lanes))
        if bits < 0:
            raise ChunkError("columns payload: a Rice-coded column is damaged")
        reader.at = at + ((bits + 7) >> 3)
