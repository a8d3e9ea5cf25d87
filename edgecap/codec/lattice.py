"""float32 samples as integers: multiples of a step where the recording is a lattice, else in bit order."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.layout import Reader, put_varint
from edgecap.errors import ChunkError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

MAX_MULTIPLE = (1 << 24) - 1
"""Beyond this the integers would need as many bits as the float32 itself,"""
FEW_MULTIPLE = (1 << 27) - 1
"""which does not matter for a few samples."""
DIVISORS = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 65536.0)
"""Divisors by their number in the format."""
SPELLED, COARSE = 15, 16
"""Number of a divisor that is spelled out, and the bit that says that a coarse step follows."""
MINUS_ZERO = 1 << 31
"""Bits of -0.0."""
EXCEPTIONS_PER_SAMPLE = 1 / 16
"""More samples off the lattice than this, and it is not one."""


def to_order(values: F32) -> I32:
    """Map float32 bits to integers in the order of the numbers; every bit pattern is kept."""
    bits = values.view(np.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def from_order(order: I32) -> F32:
    """Undo `to_order`."""
    return (order ^ ((order >> 31) & 0x7FFFFFFF)).view(np.float32)


@dataclass(frozen=True, slots=True)
class Grid:
    """`value = float32(floor(k * coarse + 0.5) / divisor)` in float64, for every sample but the exceptions.

    `coarse` is 1 for a plain lattice. Another number is that of a sensor whose steps were themselves rounded
    to a finer lattice. `at` holds the positions of exceptions in C order, `bits` their float32 bits.
    `minus_zero`: k = 0 stands for -0.0, as it does where a sign was changed.
    """

    divisor: float
    coarse: float
    at: I64
    bits: NDArray[np.uint32]
    minus_zero: bool = False

    def values(self, k: I32) -> F32:
        """The samples that the integers stand for."""
        values = on_grid(k, self.divisor, self.coarse, self.minus_zero)
        if self.at.size:
            values.reshape(-1).view(np.uint32)[self.at] = self.bits
        return values

    def packed_step(self) -> bytes:
        """Divisor and coarse step as they are written."""
        number = DIVISORS.index(self.divisor) if self.divisor in DIVISORS else SPELLED
        out = bytes([number | (COARSE if self.coarse != 1 else 0)])
        if number == SPELLED:
            out += struct.pack("<d", self.divisor)
        return out + (struct.pack("<d", self.coarse) if self.coarse != 1 else b"")

    def packed_exceptions(self) -> bytes:
        """Their number, then for each the samples skipped since the last one, and its bits."""
        return pack_exceptions(self.at.size, self.at, self.bits)

    def packed_zero_and_exceptions(self) -> bytes:
        """The same, their number doubled, and one more for `minus_zero`."""
        return pack_exceptions(2 * self.at.size + self.minus_zero, self.at, self.bits)


def pack_exceptions(first: int, at: I64, bits: NDArray[np.uint32]) -> bytes:
    """A number, then for each exception the samples skipped since the last one, and its bits."""
    out = bytearray()
    put_varint(out, first)
    before = -1
    for position, exception in zip(at.tolist(), bits.tolist(), strict=True):
        put_varint(out, position - before - 1)
        out += exception.to_bytes(4, "little")
        before = position
    return bytes(out)


def on_grid(k: I32, divisor: float, coarse: float, minus_zero: bool = False) -> F32:
    """The float32 that integers stand for."""
    fine = k if coarse == 1 else np.floor(k * coarse + 0.5)
    values: F32 = (fine / divisor).astype(np.float32)
    if minus_zero:
        values[k == 0] = -0.0
    return values


def read_step(reader: Reader) -> tuple[float, float]:
    """Read what `Grid.packed_step` wrote."""
    head = reader.byte()
    number = head & 15
    if head & ~31 or not (number < len(DIVISORS) or number == SPELLED):
        raise ChunkError(f"columns payload: unknown lattice {head:#04x}")
    divisor = DIVISORS[number] if number != SPELLED else struct.unpack("<d", reader.take(8))[0]
    coarse = struct.unpack("<d", reader.take(8))[0] if head & COARSE else 1.0
    # The limits keep every product and quotient within the range of float32.
    if not (1e-20 < divisor < 1e20 and 1e-6 < coarse < 1e6):
        raise ChunkError("columns payload: impossible lattice")
    return divisor, coarse


def read_grid(step: bytes, reader: Reader, samples: int, zero: bool = False) -> Grid:
    """Read the exceptions of a column of so many samples on the lattice with this packed step.

    Args:
        zero: They are packed together with `minus_zero`.
    """
    divisor, coarse = read_step(Reader(step))
    count = reader.varint(2 * samples + 1 if zero else samples)
    minus_zero = zero and bool(count & 1)
    return Grid(divisor, coarse, *read_exceptions(reader, count >> zero, samples), minus_zero)


def read_exceptions(reader: Reader, count: int, samples: int) -> tuple[I64, NDArray[np.uint32]]:
    """Read so many exceptions of so many samples: their places, and their bits."""
    # Every exception takes at least 5 bytes, so a wrong count cannot make this allocate much.
    at = np.empty(min(count, len(reader.data)), np.int64)
    bits = np.empty(at.size, np.uint32)
    position = -1
    for i in range(count):
        position += 1 + reader.varint(samples)
        if position >= samples:
            raise ChunkError("columns payload: an exception lies beyond the column")
        exception = reader.take(4)
        at[i] = position
        bits[i] = int.from_bytes(exception, "little")
    return at, bits


def _wide(flat: F32) -> F64:
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide = flat.astype(np.float64)
    return np.where(np.isfinite(wide), wide, 0.0)


def same_grid(values: F32, step: bytes, signed_zero: bool) -> tuple[Grid, I32] | None:
    """Samples (n, c) on a grid that served before: None unless all are, and need it as fine as it is."""
    flat = values.reshape(-1)
    found = _try_grid(flat, _wide(flat), *read_step(Reader(step)), signed_zero)
    if found is None or found[0].at.size or np.gcd.reduce(found[1]) != 1:
        return None
    return found[0], found[1].reshape(values.shape)


def find_grid(values: F32, known: bytes, signed_zero: bool) -> tuple[Grid, I32] | None:
    """Look for a step that nearly all samples are multiples of.

    Args:
        values: (n, c) samples.
        known: The packed step of the payload before, tried first; may be empty.
        signed_zero: k = 0 may stand for -0.0 (then there is no coarser step, which `multiples` find better).
    """
    flat = values.reshape(-1)
    wide = _wide(flat)
    if known:
        found = _try_grid(flat, wide, *read_step(Reader(known)), signed_zero)
        if found is not None:
            return found[0], found[1].reshape(values.shape)
    for divisor in (*DIVISORS, *_divisors(_estimate_step(wide))):
        found = _try_grid(flat, wide, divisor, 1.0, signed_zero)
        if found is not None:
            # The integers may themselves be rounded multiples of a larger step.
            coarse = _estimate_step(found[1].astype(np.float64), 2.5) if not signed_zero else 0.0
            if 2 < coarse < 1e6:
                coarser = _try_grid(flat, wide, divisor, coarse, signed_zero)
                found = coarser if coarser is not None else found
            return found[0], found[1].reshape(values.shape)
    return None


def _divisors(step: float) -> list[float]:
    """What a step may be one part of: a whole number, a float32 step, or just the step."""
    if step <= 0:
        return []
    return [d for d in (float(round(1 / step)), 1 / float(np.float32(step)), 1 / step) if 1e-20 < d < 1e20]


def _try_grid(
    flat: F32, wide: F64, divisor: float, coarse: float, signed_zero: bool
) -> tuple[Grid, I32] | None:
    scaled = np.rint(wide * (divisor / coarse))
    sizes = np.abs(scaled)
    largest = sizes.max()
    if not largest <= FEW_MULTIPLE:
        return None
    if largest > MAX_MULTIPLE and np.count_nonzero(sizes > MAX_MULTIPLE) > flat.size * EXCEPTIONS_PER_SAMPLE:
        return None
    k = scaled.astype(np.int32)
    bits = flat.view(np.uint32)
    minus_zero = False
    if signed_zero:
        minus_zeros = np.count_nonzero(bits == MINUS_ZERO)
        minus_zero = bool(minus_zeros > 0 and minus_zeros > np.count_nonzero(bits == 0))
    off = on_grid(k, divisor, coarse, minus_zero).view(np.uint32) != bits
    count = int(np.count_nonzero(off))
    if count > flat.size * EXCEPTIONS_PER_SAMPLE:
        return None
    at = np.flatnonzero(off)
    for i in at.tolist():
        # An exception's own integer is free to be chosen: repeating its neighbour's costs least.
        k[i] = k[i - 1] if i else 0
    return Grid(divisor, coarse, at, bits[at], minus_zero), k


def _estimate_step(wide: F64, blur: float = 0.0) -> float:
    """A step that might divide all samples up to `blur`: 0 when there is none.

    The smallest distance between distinct samples is a first guess; larger samples then sharpen it, each
    only as long as the guess is good enough to tell its multiple.
    """
    distinct = np.unique(np.abs(wide[:4096]))
    if distinct.size < 4:
        return 0.0
    gaps = np.diff(distinct)
    # Distances within the rounding of float32 say nothing.
    gaps = gaps[gaps > max(blur, float(distinct[-1]) * 2.0**-21)]
    if not gaps.size:
        return 0.0
    step = float(gaps.min())
    for size in np.concatenate([np.unique(gaps), distinct[distinct > blur]]).tolist():
        multiple = round(size / step)
        if multiple == 0 or abs(size - multiple * step) > 0.2 * step + blur:
            return 0.0
        if multiple > 1 or blur:
            step += (size / multiple - step) * 0.25
    multiples = np.rint(distinct / step)
    # fsum is exact, so that every machine finds the same step.
    return math.fsum((distinct * multiples).tolist()) / math.fsum((multiples * multiples).tolist())
