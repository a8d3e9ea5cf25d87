"""The adaptive coder: channels predicted from all that was seen, in the rANS-coded tail of a payload."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.layout import Array
from edgecap.codec.quick import halves, own
from edgecap.errors import ChunkError
from edgecap.kernels import adaptive, choice, decoding, digits, encoding, rans, recurring, repeats, rests

I32 = NDArray[np.int32]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
I8 = NDArray[np.int8]
Words = NDArray[np.uint64]

KEPT_BYTES = 1 << 20
"""Larger buffers, which few payloads need, are given back."""


@dataclass(slots=True)
class Learned:
    """What an adaptive or a recurring column has taught: models (groups, MODEL) and states."""

    models: F32
    states: I64

    def copy(self) -> Learned:
        return Learned(self.models.copy(), self.states.copy())

    @classmethod
    def nothing(cls, channels: int) -> Learned:
        """Of channels without a past."""
        groups = adaptive.groups_of(channels)
        return cls(
            np.zeros((groups, adaptive.MODEL), np.float32), np.zeros((channels, adaptive.STATE), np.int64)
        )

    @classmethod
    def no_steps(cls) -> Learned:
        """Of recurring steps without a past."""
        state = np.zeros(recurring.STATE, np.int64)
        recurring.start_steps(state)
        return cls(np.zeros((0, adaptive.MODEL), np.float32), state)


@dataclass(slots=True)
class Memory:
    """What is carried from payload to payload for one column."""

    transform: int
    meaning: bytes
    learned: Learned
    last: I64 | None
    recurring: bool
    rests: I64 | None = None
    """Of multiples: what is known of their rests."""
    repeats: I64 | None = None
    """Where rows that equal the one before are left out: what is known of how long they stay."""
    groups: list[tuple[list[int], Memory]] | None = None
    """Where channels are coded in groups: those of each, and what is known of them."""

    @classmethod
    def of_groups(cls, groups: list[tuple[list[int], Memory]]) -> Memory:
        """What is known of groups of channels."""
        return cls(0, b"", groups[0][1].learned, None, False, groups=groups)


class TailWriter:
    """Codes the adaptive columns of one payload after the other: notes all steps, then codes from the last.

    Its buffers are kept.
    """

    def __init__(self) -> None:
        self.steps = np.empty(0, np.uint64)
        self.words = np.empty(0, np.uint32)
        self.count = 0

    def begin(self) -> TailWriter:
        """Begin with another payload."""
        self.count = 0
        return self

    def add(self, lanes: Array, learned: Learned | None, limit_bytes: int) -> Learned | None:
        """Code integers (n, c), n ≥ 0.

        Args:
            lanes: int16 or int32.
            learned: What was learned before; None to start afresh. It is advanced.
            limit_bytes: Write nothing when more than this would be needed.

        Returns:
            What is learned after it; None when nothing was written.
        """
        rows, channels = lanes.shape
        fresh = learned is None
        learned = Learned.nothing(channels) if learned is None else learned
        if rows:
            self._reserve(4 * lanes.size + 8 * channels)
            built, costs = choice.tables_and_costs()
            at = encoding.encode_samples(
                halves(own(lanes)),
                fresh,
                8 * lanes.dtype.itemsize,
                8 * limit_bytes,
                learned.models,
                learned.states,
                adaptive.PRESETS,
                built.parts,
                built.splits,
                costs,
                self.steps,
                self.count,
            )
            if at < 0:
                return None
            self.count = at
        return learned

    def add_steps(self, steps: Array, learned: Learned | None) -> Learned:
        """Code steps (n, 1) that recur; returns what is learned after it, which is None to start afresh."""
        learned = Learned.no_steps() if learned is None else learned
        self._reserve(5 * steps.size)
        if steps.size:
            lane = np.ascontiguousarray(steps[:, 0])
            self.count = recurring.encode_steps(lane, learned.states, self.steps, self.count)
        return learned

    def add_rests(
        self, multiples: Array, left: I32, channels: I64, known: I64 | None, limit_bytes: int
    ) -> I64 | None:
        """Code what is left (n, c) of the multiples added before.

        Args:
            channels: (c,) number of a channel among those that have rests, or -1.
            known: State of the rests before; None to start afresh. It is advanced.
            limit_bytes: As for `add`.

        Returns:
            What is known after it; None when nothing was written.
        """
        known = rests.start_rests(int(channels.max()) + 1) if known is None else known
        self._reserve(rests.STEPS_PER_REST * left.size + 1)
        lanes = np.array(multiples, np.int32, order="C")
        at = rests.encode_rests(lanes, left, channels, known, self.steps, self.count, 8 * limit_bytes)
        if at < 0:
            return None
        self.count = at
        return known

    def add_repeats(self, others: U8, known: I64 | None) -> I64:
        """Code which rows (n,) are others than the one before; returns what is known after it."""
        known = repeats.start_repeats() if known is None else known
        self._reserve(others.size)
        self.count = repeats.encode_repeats(others, known, self.steps, self.count)
        return known

    def add_plain(self, bits: I64, widths: U8) -> None:
        """Code plain bits (n, c), of so many as `widths` (n, c) says."""
        self._reserve(3 * bits.size)
        self.count = repeats.encode_plain(bits.reshape(-1), widths.reshape(-1), self.steps, self.count)

    def add_digits(
        self, whole: I32, number: I64, zeros: I8, further: I64, known: I64 | None, limit_bytes: int
    ) -> I64 | None:
        """Code the further digits (n, c) of whole numbers added before, as `digits.encode_digits` has them.

        Args:
            number: (c,) digits of a channel.
            known: State of the digits before; None to start afresh. It is advanced.
            limit_bytes: As for `add`.

        Returns:
            What is known after it; None when nothing was written.
        """
        known = digits.start_digits() if known is None else known
        small = np.count_nonzero((whole == 0) | (whole == -1))
        self._reserve(digits.STEPS_PER_NUMBER * whole.size + digits.STEPS_PER_SMALL * int(small))
        at = digits.encode_digits(
            whole, number, zeros, further, known, self.steps, self.count, 8 * limit_bytes
        )
        if at < 0:
            return None
        self.count = at
        return known

    def take_back(self, mark: int) -> Words:
        """Forget the steps since `mark`; returns them."""
        steps = self.steps[mark : self.count].copy()
        self.count = mark
        return steps

    def give_back(self, steps: Words) -> None:
        """Add steps that were taken back."""
        self._reserve(steps.size)
        self.steps[self.count : self.count + steps.size] = steps
        self.count += steps.size

    @staticmethod
    def price_bits(steps: Words) -> int:
        """About what steps take, by arithmetic that is the same on every machine."""
        fraction, exponent = np.frexp(((steps >> np.uint64(32)) & np.uint64(65535)).astype(np.float64) + 1)
        fraction = fraction * 2 - 1
        log2 = (exponent - 1) + fraction * (1.34436 - 0.34436 * fraction)
        parts = np.rint((16 - log2) * 1024).astype(np.int64)
        return int(parts.sum() >> 10) + int((steps & np.uint64(255)).sum())

    def finish(self, check: int) -> bytes:
        """The coded bytes: the decoder's first state in as few as it needs, then 32-bit words.

        Args:
            check: 16 bits that the reader must know.
        """
        if not self.count:
            return b""
        if self.words.size < self.count:
            self.words = np.empty(self.steps.size, np.uint32)
        x, place = rans.encode(self.steps, self.count, check, self.words, *rans.reciprocals())
        first = int(x)
        state = first.to_bytes((first.bit_length() + 7) >> 3, "little")
        coded = state + self.words[place:].tobytes()
        if self.steps.nbytes > KEPT_BYTES:
            self.steps, self.words = np.empty(0, np.uint64), np.empty(0, np.uint32)
        return coded

    def _reserve(self, count: int) -> None:
        if self.steps.size < self.count + count:
            grown = np.empty(2 * self.count + count, np.uint64)
            grown[: self.count] = self.steps[: self.count]
            self.steps = grown


class TailReader:
    """Decodes the adaptive columns of one payload after the other, in their order. Its buffers are kept."""

    def __init__(self) -> None:
        self.kept = np.empty(1, np.uint32)
        self.bytes = self.kept.data.cast("B")
        self.words = self.kept
        self.coder = np.zeros(2, np.uint64)
        self.state = self.coder.data
        """The same: Python reads and writes single numbers of it in a third of the time."""
        self.length = 0

    def begin(self, payload: bytes, at: int) -> TailReader:
        """Begin with the tail of another payload, which is all of it from `at` on."""
        self.length = length = len(payload) - at
        # With words, the state has 5 to 8 bytes; without, up to 8.
        words_at = at + (length if length <= 8 else 5 + (length - 5) % 4)
        words = payload[words_at:]
        count = len(words) >> 2
        if self.kept.size <= count or self.kept.nbytes > KEPT_BYTES:
            self.kept = np.empty(count + 1, np.uint32)
            self.bytes = self.kept.data.cast("B")
        self.bytes[: 4 * count] = words
        self.words = self.kept[: count + 1]
        self.words[count] = 0
        self.state[rans.X] = int.from_bytes(payload[at:words_at], "little")
        self.state[rans.AT] = 0
        return self

    def take(self, rows: int, channels: int, width: int, learned: Learned | None) -> tuple[Array, Learned]:
        """Decode integers (n, c); `learned` is None for channels without a past, else it is advanced.

        Raises:
            ChunkError: the bytes are not an encoding of them.
        """
        built, _ = choice.tables_and_costs()
        values = np.empty((rows, channels), np.int16 if width == 16 else np.int32)
        fresh = learned is None
        learned = Learned.nothing(channels) if learned is None else learned
        if rows and decoding.decode_samples(
            halves(values),
            fresh,
            width,
            learned.models,
            learned.states,
            adaptive.PRESETS,
            built.parts,
            built.buckets,
            built.splits,
            self.coder,
            self.words,
        ):
            raise ChunkError("columns payload: the adaptively coded part is damaged")
        return values, learned

    def take_steps(self, rows: int, learned: Learned | None) -> tuple[Array, Learned]:
        """Decode steps (n, 1) that recur; `learned` is None to start afresh, else it is advanced."""
        learned = Learned.no_steps() if learned is None else learned
        steps = np.empty(rows, np.int32)
        if recurring.decode_steps(steps, learned.states, self.coder, self.words) != 0:
            raise ChunkError("columns payload: recurring steps are damaged")
        return steps.reshape(rows, 1), learned

    def take_rests(self, multiples: Array, channels: I64, known: I64 | None) -> tuple[I32, I64]:
        """Decode the rests (n, c) of multiples; `known` is None to start afresh, else it is advanced."""
        known = rests.start_rests(int(channels.max()) + 1) if known is None else known
        left = np.zeros(multiples.shape, np.int32)
        lanes = np.array(multiples, np.int32, order="C")
        if rests.decode_rests(lanes, left, channels, known, self.coder, self.words) != 0:
            raise ChunkError("columns payload: the rests of multiples are damaged")
        return left, known

    def take_repeats(self, rows: int, known: I64 | None) -> tuple[U8, I64]:
        """Decode which of so many rows are others than the one before; `known` is advanced."""
        known = repeats.start_repeats() if known is None else known
        others = np.empty(rows, np.uint8)
        repeats.decode_repeats(others, known, self.coder, self.words)
        return others, known

    def take_plain(self, widths: U8) -> I64:
        """Decode plain bits (n, c), of so many as `widths` (n, c) says."""
        bits = np.empty(widths.size, np.int64)
        repeats.decode_plain(bits, widths.reshape(-1), self.coder, self.words)
        return bits.reshape(widths.shape)

    def take_digits(self, whole: I32, number: I64, known: I64 | None) -> tuple[I64, I64, I64]:
        """Decode the digits of whole numbers (n, c): sizes, places behind the point, what is known after."""
        known = digits.start_digits() if known is None else known
        sizes, places = np.empty(whole.shape, np.int64), np.empty(whole.shape, np.int64)
        lanes = np.array(whole, np.int32, order="C")
        digits.decode_digits(lanes, number, sizes, places, known, self.coder, self.words)
        return sizes, places, known

    def finish(self, check: int) -> None:
        """Raise `ChunkError` when the bytes are not used up exactly, or were coded with another check."""
        if self.length and (self.state[rans.X] != check or self.state[rans.AT] != self.words.size - 1):
            raise ChunkError("columns payload: the adaptively coded part does not end where it should")
