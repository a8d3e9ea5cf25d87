"""The adaptive coder: channels predicted from all that was seen, in the range-coded tail of a payload."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.layout import Array
from edgecap.errors import ChunkError
from edgecap.kernels import adaptive, rangecoder, recurring, spread
from edgecap.kernels.bits import PAD_WORDS

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]

Scalar = TypeVar("Scalar", bound=np.generic)

NO_WORDS, NO_BYTES = np.zeros(0, np.uint64), np.zeros(0, np.uint8)
"""What a writer holds before its first column: many payloads have none for it."""
FRESH_BITS = 14
"""At most, beyond the bits of a sample: length of the first one, octave and preset."""


@cache
def tables() -> tuple[NDArray[np.uint32], Bytes, I32]:
    """Symbol starts, guesses and costs."""
    starts, guess = rangecoder.build_tables()
    return starts, guess, spread.build_costs(starts)


@dataclass(slots=True)
class Memory:
    """What is carried from payload to payload for one column."""

    transform: int
    meaning: bytes
    states: I64
    last: I64 | None
    recurring: bool


class TailWriter:
    """Codes the adaptive columns of one payload: range-coded from the front, flat bits from the end."""

    def __init__(self) -> None:
        self.coder = NO_WORDS
        self.out = NO_BYTES
        self.flat = NO_WORDS

    def add(self, lanes: Array, states: I64 | None, limit_bytes: int) -> tuple[I64, int] | None:
        """Code integers (n, c), n ≥ 0.

        Args:
            lanes: int16 or int32.
            states: What was learned before; None to start afresh. It is advanced.
            limit_bytes: Write nothing when more than this would be needed.

        Returns:
            The advanced states and the shift of differences; None when nothing was written.
        """
        rows, channels = lanes.shape
        width = 8 * lanes.dtype.itemsize
        values = np.array(lanes.T, np.int32, order="C")
        shift = 0 if width == 16 else shift_of(values)
        choices = np.zeros((channels, 3), np.int64)
        bits = 0
        fresh = states is None
        if states is None:
            states = np.zeros((channels, adaptive.STATE), np.int64)
            if rows:
                spread.start_fresh(values, states, adaptive.PRESETS, choices)
                values = np.ascontiguousarray(values[:, 1:])
                bits = channels * (width + FRESH_BITS) * 256
        rows = values.shape[1]
        u = np.zeros((channels + 2, adaptive.PAST + rows), np.int32)
        e = np.empty((channels, rows), np.int64)
        phases = np.empty((channels, rows), np.int8)
        chosen = np.empty((channels, 2), np.int64)
        starts, _, costs = tables()
        if rows:
            adaptive.residuals(values, width, shift, states, u, e, phases, adaptive.MIX)
            bits += spread.choose(e, phases, width, states, costs, chosen)
        if bits > limit_bytes * 2048:
            return None
        self._reserve((bits >> 11) + channels * 8 + (rows * channels >> 6) + 16)
        if fresh and lanes.shape[0]:
            spread.put_fresh(choices, width, self.coder, self.flat)
        if rows:
            spread.encode_spread(e, phases, width, states, chosen, starts, self.coder, self.out, self.flat)
        return states, shift

    def add_steps(self, steps: Array, state: I64 | None) -> I64:
        """Code steps (n, 1) that recur; returns the advanced state, which is None to start afresh."""
        if state is None:
            state = np.zeros(recurring.STATE, np.int64)
            recurring.start_steps(state)
        self._reserve(8 * steps.size + 16)
        if steps.size:
            recurring.encode_steps(np.ascontiguousarray(steps[:, 0]), state, self.coder, self.out, self.flat)
        return state

    def finish(self) -> bytes:
        """The coded bytes."""
        if not self.out.size:
            return b""
        low, span, at, bits = self.coder
        count = rangecoder.finish(low, span, int(at), self.out)
        flat = self.flat.astype("<u8", copy=False).view(np.uint8)[: (int(bits) + 7) >> 3]
        return self.out[:count].tobytes() + flat[::-1].tobytes()

    def _reserve(self, count: int) -> None:
        if not self.coder.size:
            self.coder = spread.start_coder()
        need = int(self.coder[spread.AT]) + count + 16
        if self.out.size < need:
            self.out = _grown(self.out, need + self.out.size)
        words = ((int(self.coder[spread.FLAT]) + 8 * count) >> 6) + PAD_WORDS
        if self.flat.size < words:
            self.flat = _grown(self.flat, words + self.flat.size)


def _grown(array: NDArray[Scalar], size: int) -> NDArray[Scalar]:
    grown = np.zeros(size, array.dtype)
    grown[: array.size] = array
    return grown


class TailReader:
    """Decodes the adaptive columns of one payload, in their order."""

    def __init__(self, data: bytes) -> None:
        self.data = np.frombuffer(data, np.uint8)
        self.flat = np.zeros((len(data) >> 3) + 1 + PAD_WORDS, "<u8")
        self.flat.view(np.uint8)[: len(data)] = self.data[::-1]
        self.flat = self.flat.astype(np.uint64, copy=False)
        self.coder = spread.start_coder()
        self.coder[spread.LOW] = rangecoder.open_coder(self.data)
        self.coder[spread.AT] = 6

    def take(self, rows: int, channels: int, width: int, shift: int, states: I64 | None) -> tuple[Array, I64]:
        """Decode integers (n, c); `states` is None for channels without a past, else it is advanced.

        Raises:
            ChunkError: the bytes are not an encoding of them.
        """
        starts, guess, _ = tables()
        values = np.empty((rows, channels), np.int16 if width == 16 else np.int32)
        known = 0
        valid = 0
        if states is None:
            states = np.zeros((channels, adaptive.STATE), np.int64)
            if rows:
                known = 1
                first = np.empty(channels, np.int32)
                bits = 8 * self.data.size
                valid = spread.take_fresh(width, states, adaptive.PRESETS, self.coder, self.flat, bits, first)
                values[0] = first
        if rows > known and valid == 0:
            found = np.empty((channels, rows - known), np.int32)
            u = np.zeros((channels + 2, adaptive.PAST + rows - known), np.int32)
            valid = spread.decode_samples(
                found, width, shift, states, u, adaptive.MIX, starts, guess, self.coder, self.data, self.flat
            )
            values[known:] = found.T
        if valid != 0:
            raise ChunkError("columns payload: the adaptively coded part is damaged")
        return values, states

    def take_steps(self, rows: int, state: I64 | None) -> tuple[Array, I64]:
        """Decode steps (n, 1) that recur; `state` is None to start afresh, else it is advanced."""
        if state is None:
            state = np.zeros(recurring.STATE, np.int64)
            recurring.start_steps(state)
        steps = np.empty(rows, np.int32)
        if recurring.decode_steps(steps, state, self.coder, self.data, self.flat) != 0:
            raise ChunkError("columns payload: recurring steps are damaged")
        return steps.reshape(rows, 1), state

    def finish(self) -> None:
        """Raise `ChunkError` when the bytes are not used up exactly."""
        ranged = self.data.size - ((int(self.coder[spread.FLAT]) + 7) >> 3)
        if not 0 <= ranged - (int(self.coder[spread.AT]) - 6) <= 6:
            raise ChunkError("columns payload: the adaptively coded part has a wrong length")


def shift_of(values: I32) -> int:
    """How far to shift down the differences of (c, n) values, so that usual ones take about 14 bits."""
    rows = values.shape[1]
    if rows < 2:
        return 0
    usual: int = int(np.abs(np.diff(values.astype(np.int64), axis=1)).sum()) // (values.shape[0] * (rows - 1))
    shift: int = max(usual.bit_length() - 14, 0)
    return min(shift, adaptive.SHIFT_LIMIT)
