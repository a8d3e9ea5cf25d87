"""The 16- or 32-bit integers that the coders worked on → samples, by what a payload says they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.codec import beside, digits, fixed, lattice, multiples, places, printed, rounded
from edgecap.codec.integers import (
    BESIDE,
    DIGITS,
    FIXED,
    FLOAT_ORDER,
    LATTICE,
    MULTIPLES,
    PLACES,
    PLAIN,
    ROUNDED,
    STEPS,
    from_signed,
    read_unit,
)
from edgecap.codec.layout import Array, ColumnLayout, Reader
from edgecap.errors import ChunkError

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


def fits(transform: int, column: ColumnLayout) -> bool:
    """Whether a transform can stand for a column's type."""
    kind, size = column.dtype.kind, column.dtype.itemsize
    if transform in (PLAIN, BESIDE):
        return column.is_plain
    if transform == STEPS:
        return kind in "iu" and size == 8
    if transform in (MULTIPLES, PLACES):
        return column.is_plain or (kind == "f" and size == 4)
    return transform in (LATTICE, FLOAT_ORDER, ROUNDED, FIXED, DIGITS) and kind == "f" and size == 4


@dataclass(slots=True)
class Meaning:
    """What a column's integers stand for, as read from a payload."""

    transform: int
    packed: bytes
    first: I64 | None = None
    unit: int = 1
    rest: int = 0
    grid: lattice.Grid | None = None
    steps: multiples.Steps | None = None
    shift: int = 0
    text: printed.Printed | None = None
    """Of `ROUNDED`, if numbers were printed."""
    rests: I32 | None = None
    shifts: I64 | None = None
    between: tuple[I64, I64] | None = None
    """Of `FIXED`: the first place of every sample's whole number, and its number among those there."""
    known: places.Known | None = None
    shares: beside.Shares | None = None
    decimals: digits.Digits | None = None
    exceptions: tuple[I64, NDArray[np.uint32]] | None = None
    """Of `DIGITS`, as are the next."""
    further: tuple[I64, I64] | None = None
    """The numbers without a sign, in units of so many places behind the point."""

    def rows(self, column: ColumnLayout, continued: bool) -> int:
        """How many rows of integers there are."""
        return column.rows - (1 if self.transform == STEPS and not continued else 0)


_SAMPLES = Meaning(PLAIN, b"")


def read_meaning(transform: int, column: ColumnLayout, reader: Reader, known: bytes | None) -> Meaning:
    """Read what precedes a column's integers.

    Args:
        known: The `meaning` bytes of the payload before, when the column continues.
    """
    if transform == PLAIN:
        return _SAMPLES
    if transform == LATTICE:
        begin = reader.at
        if known is None:
            lattice.read_step(reader)
        packed = reader.data[begin : reader.at] if known is None else known
        return Meaning(transform, packed, grid=lattice.read_grid(packed, reader, column.rows * column.lanes))
    if transform == MULTIPLES:
        begin = reader.at
        source = reader if known is None else Reader(known)
        start = source.at
        if column.dtype.kind == "f":
            lattice.read_step(source)
        floats = source.data[start : source.at]
        steps = multiples.read_steps(source, column.lanes)
        packed = reader.data[begin : reader.at] if known is None else known
        samples = column.rows * column.lanes
        grid = lattice.read_grid(floats, reader, samples, zero=True) if floats else None
        return Meaning(transform, packed, grid=grid, steps=steps)
    if transform == ROUNDED:
        begin = reader.at
        source = reader if known is None else Reader(known)
        text = printed.read_printed(source)
        shift = rounded.read_shift(source)
        steps = multiples.read_steps(source, column.lanes)
        packed = reader.data[begin : reader.at] if known is None else known
        return Meaning(transform, packed, steps=steps, shift=shift, text=text)
    if transform == FIXED:
        packed = reader.take(column.lanes) if known is None else known
        return Meaning(transform, packed, shifts=fixed.read_shifts(Reader(packed), column.lanes))
    if transform == DIGITS:
        packed = reader.take(column.lanes) if known is None else known
        samples = column.rows * column.lanes
        exceptions = lattice.read_exceptions(reader, reader.varint(samples), samples)
        decimals = digits.read_digits(Reader(packed), column.lanes)
        return Meaning(transform, packed, decimals=decimals, exceptions=exceptions)
    if transform == BESIDE:
        if known is not None:
            return Meaning(transform, known, shares=beside.shares_in(known, column.lanes))
        begin = reader.at
        shares = beside.read_shares(reader, column.lanes)
        return Meaning(transform, reader.data[begin : reader.at], shares=shares)
    if transform == PLACES:
        begin, size = reader.at, column.dtype.itemsize
        distinct = places.read_places(reader if known is None else Reader(known), column.lanes, size)
        packed = reader.data[begin : reader.at] if known is None else known
        return Meaning(transform, packed, known=distinct)
    if transform == STEPS:
        if known is not None:
            return Meaning(transform, known, None, *read_unit(Reader(known)))
        begin = reader.at
        unit, rest = read_unit(reader)
        packed = reader.data[begin : reader.at]
        first = np.frombuffer(reader.take(8 * column.lanes), "<i8")
        return Meaning(transform, packed, first, unit, rest)
    return Meaning(transform, b"")


def from_integers(meaning: Meaning, column: ColumnLayout, lanes: Array, last: Array | None) -> Array:
    """Undo `to_integers`; `last` is the state from which a continued column of steps goes on."""
    off = meaning.exceptions if meaning.grid is None else (meaning.grid.at, meaning.grid.bits)
    if off is not None and off[0].size and off[0][-1] >= lanes.size:
        raise ChunkError("columns payload: an exception lies beyond the column")
    if meaning.shares is not None:
        beside.put_back(lanes, meaning.shares)
    if meaning.transform in (PLAIN, BESIDE):
        samples = from_signed(lanes, column.dtype)
        return samples if column.channels else samples.reshape(column.shape)
    if meaning.transform == FLOAT_ORDER:
        return lattice.from_order(lanes).reshape(column.shape)
    if meaning.transform == LATTICE and meaning.grid is not None:
        return meaning.grid.values(lanes).reshape(column.shape)
    if meaning.transform == MULTIPLES and meaning.steps is not None and meaning.rests is not None:
        wide = meaning.steps.values(lanes) + meaning.rests
        if meaning.grid is not None:
            return meaning.grid.values(wide.astype(np.int32)).reshape(column.shape)
        signed = wide.astype(lanes.dtype)
        return from_signed(signed, column.dtype).reshape(column.shape)
    if meaning.transform == ROUNDED and meaning.steps is not None and meaning.rests is not None:
        values = rounded.join(lanes, meaning.rests, meaning.steps, meaning.shift, meaning.text)
        return values.reshape(column.shape)
    if meaning.transform == FIXED and meaning.between is not None:
        return fixed.join(*meaning.between).reshape(column.shape)
    if meaning.transform == DIGITS and meaning.decimals is not None and meaning.further and off is not None:
        numbers = digits.join(lanes, *meaning.further, meaning.decimals.points)
        numbers.reshape(-1).view(np.uint32)[off[0]] = off[1]
        return numbers.reshape(column.shape)
    if meaning.transform == PLACES and meaning.known is not None:
        among = places.join(lanes, meaning.known)
        if column.dtype.kind == "f":
            return lattice.from_order(among).reshape(column.shape)
        return from_signed(among, column.dtype).reshape(column.shape)
    steps = lanes.astype(np.int64) * meaning.unit + meaning.rest
    start = meaning.first if last is None else last
    assert start is not None
    whole = np.empty((column.rows, column.lanes), np.int64)
    if last is None:
        whole[0] = start
        whole[1:] = steps
    else:
        whole[:] = steps
        whole[0] += start
    np.cumsum(whole, axis=0, out=whole)
    return whole.view(column.dtype).reshape(column.shape)
