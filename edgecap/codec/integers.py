"""Samples of any type → the 16- or 32-bit integers that the coders work on; back: `meaning`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.codec import beside, digits, fixed, lattice, multiples, places, printed, rounded
from edgecap.codec.layout import Array, Reader, put_varint
from edgecap.codec.steps_search import Search
from edgecap.errors import ChunkError

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

PLAIN, LATTICE, FLOAT_ORDER, STEPS, MULTIPLES, ROUNDED, FIXED, PLACES, DIGITS, BESIDE = range(10)
"""Transforms: the high half of a column's first byte."""
MAX_UNIT = 1 << 40
I32_LIMIT = (1 << 31) - 1


@dataclass(slots=True)
class Integers:
    """A column as integers.

    `extra` are bytes that every payload needs; `meaning` those that say what the integers stand for, left out
    where a column continues; `lanes` is (n, c) int16 or int32, one row less than the
    column when it holds `STEPS` from the first sample on.
    """

    transform: int
    meaning: bytes
    extra: bytes
    lanes: Array
    last: I64 | None = None
    rests: I32 | None = None
    channels: I64 | None = None
    """Of `MULTIPLES`: number of every channel among those that have rests, or -1."""
    bits: I64 | None = None
    widths: fixed.U8 | None = None
    """Of `FIXED`: plain bits for every sample, and how many."""
    further: tuple[digits.Digits, digits.Split] | None = None
    """Of `DIGITS`: what follows the whole numbers."""


def to_integers(
    values: Array,
    last: I64 | None,
    meaning: bytes = b"",
    transform: int | None = None,
    search: Search | None = None,
) -> Integers | None:
    """Find the smallest integers that stand for `values` (n, c).

    Args:
        values: Samples, n ≥ 1.
        last: The last sample of every channel before these, when it is known to the reader too (64-bit only).
        meaning: What the integers of the payload before meant, preferred when it fits.
        transform: How they stood for samples; None to find what is best.
        search: Where multiples are looked for; None for no multiples.

    Returns:
        The integers; None when the samples can only be stored, or should rather start afresh.
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if transform == FIXED:
        shifts = fixed.read_shifts(Reader(meaning), values.shape[1])
        return to_fixed(values, shifts) if fixed.serve(values, shifts) else None
    if transform == DIGITS:
        known = digits.read_digits(Reader(meaning), values.shape[1])
        return _of_digits(known, digits.split(values, known)) if digits.serves(values, known) else None
    if transform == PLACES:
        return to_places(values, places.read_places(Reader(meaning), values.shape[1], size))
    if transform == BESIDE:
        left = beside.take_off(to_signed(values), beside.shares_in(meaning, values.shape[1]))
        return Integers(BESIDE, meaning, b"", left)
    if kind in "iu" and size in (2, 4):
        signed = to_signed(values)
        if transform is None:
            found = _multiples(signed, b"", search.find(signed, b"")) if search is not None else None
            return found or Integers(PLAIN, b"", b"", signed)
        steps = multiples.read_steps(Reader(meaning), signed.shape[1]) if transform == MULTIPLES else None
        if search is not None and search.prefers_other(signed, b"", steps):
            return None
        if steps is None:
            return Integers(PLAIN, b"", b"", signed)
        return _multiples(signed, b"", multiples.split(signed, steps))
    if kind in "iu" and size == 8:
        return _steps(values.view(np.int64), last, meaning)
    if values.dtype == np.float32:
        return _from_floats(values, meaning, transform, search)
    return None


def to_fixed(values: F32, shifts: I64) -> Integers:
    """float32 (n, c) as whole numbers of 2^-shift, and what lies between."""
    k, bits, widths = fixed.split(values, shifts)
    return Integers(FIXED, fixed.pack_shifts(shifts), b"", k, bits=bits, widths=widths)


def find_digits(values: F32, shown: printed.Shown | None) -> Integers | None:
    """float32 (n, c) as decimal numbers of as few digits as serve; None where they are none.

    Args:
        shown: What some samples show.
    """
    found = digits.find(values, shown) if shown is not None else None
    return _of_digits(*found) if found is not None else None


def _of_digits(known: digits.Digits, split: digits.Split | None) -> Integers | None:
    if split is None:
        return None
    extra = lattice.pack_exceptions(split.at.size, split.at, split.bits)
    return Integers(DIGITS, known.packed(), extra, split.k, further=(known, split))


def to_beside(values: Array, shares: beside.Shares) -> Integers:
    """Integers (n, c) without the shares that channels have of others."""
    return Integers(BESIDE, shares.packed(), b"", beside.take_off(to_signed(values), shares))


def to_places(values: Array, known: places.Known) -> Integers | None:
    """Samples (n, c) by their places among the distinct ones; None where one is not among them."""
    found = places.split(ordered(values), known)
    if found is None:
        return None
    return Integers(PLACES, places.pack_places(known, values.dtype.itemsize), b"", found)


def ordered(values: Array) -> Array:
    """Samples of 16 or 32 bits as signed integers in their order."""
    return lattice.to_order(values) if values.dtype.kind == "f" else to_signed(values)


def _from_floats(
    values: F32, meaning: bytes, transform: int | None, search: Search | None
) -> Integers | None:
    if transform in (FLOAT_ORDER, ROUNDED):
        return _rounded(values, meaning, transform, search)
    known = Reader(meaning)
    if transform == MULTIPLES:
        lattice.read_step(known)
    # Only multiples may take 0 for -0.0.
    signed_zero = transform == MULTIPLES or (transform is None and search is not None)
    on_grid = None
    if transform is None and search is not None and search.lattice:
        on_grid = lattice.same_grid(values, search.lattice, signed_zero)
    if on_grid is None:
        on_grid = lattice.find_grid(values, meaning[: known.at] or meaning, signed_zero)
    if on_grid is None:
        return _rounded(values, b"", transform, search)
    grid, x = on_grid
    step = grid.packed_step()
    if transform is None and search is not None:
        search.lattice = step
    if transform == MULTIPLES and step != meaning[: known.at]:
        return None
    steps = multiples.read_steps(known, x.shape[1]) if transform == MULTIPLES else None
    split = None
    if transform is None:
        split = search.find(x, step) if search is not None else None
    elif search is not None and search.prefers_other(x, step, steps):
        return None
    elif steps is not None:
        split = multiples.split(x, steps)
    found = _multiples(x, step, split)
    if found is not None:
        found.extra = grid.packed_zero_and_exceptions()
    elif transform != MULTIPLES and grid.minus_zero:
        # Only multiples can say that zeros are negative: here of one.
        found = _multiples(x, step, multiples.split(x, multiples.no_steps(x.shape[1])))
        if found is not None:
            found.extra = grid.packed_zero_and_exceptions()
    elif transform != MULTIPLES:
        return Integers(LATTICE, step, grid.packed_exceptions(), x)
    return found


def _rounded(values: F32, meaning: bytes, transform: int | None, search: Search | None) -> Integers | None:
    """float32 that are on no grid: near multiples of steps, or in bit order."""
    steps, text = None, None
    if transform == ROUNDED:
        known = Reader(meaning)
        text = printed.read_printed(known)
        shift: int | None = rounded.read_shift(known)
        steps = multiples.read_steps(known, values.shape[1])
    elif transform is None:
        shift = rounded.shift_of(values) if search is not None else None
    else:
        shift = search.shift_for(values) if search is not None else None
    split = None
    if shift is not None and search is not None:
        if transform is None:
            found = _printed(values, shift, search)
            if found is not None:
                return found
        x, grid = rounded.whole_numbers(values, shift), rounded.pack_shift(shift)
        if transform is None:
            split = search.find(x, grid)
        elif search.prefers_other(x, grid, steps):
            return None
        elif steps is not None:
            split = multiples.split(x, steps)
    if shift is None or split is None:
        return Integers(FLOAT_ORDER, b"", b"", lattice.to_order(values))
    return _near_multiples(values, split, shift, text)


def _printed(values: F32, most: int, search: Search) -> Integers | None:
    """float32 that were printed and read: multiples of steps to which nothing else happened."""
    search.shown = printed.shown(values)
    for guess in printed.guesses(search.shown):
        # Of a multiple no more is looked at than the largest showed when it was printed.
        shift = max(min(most, guess.shift_of(values)), rounded.LEAST_SHIFT)
        split = search.of([]).find(rounded.whole_numbers(values, shift), rounded.pack_shift(shift))
        if split is None:
            return None
        found = _near_multiples(values, split, shift, guess)
        if found.rests is not None and 2 * np.count_nonzero(found.rests) <= values.size:
            return found
    return None


def _near_multiples(
    values: F32, split: multiples.Split, shift: int, text: printed.Printed | None
) -> Integers:
    k, rests = rounded.split(values, split.k, split.steps, shift, text)
    packed = b"" if text is None else text.packed()
    packed += rounded.pack_shift(shift) + split.steps.packed()
    return Integers(ROUNDED, packed, b"", k, None, rests, split.steps.channels)


def _multiples(x: Array, before: bytes, split: multiples.Split | None) -> Integers | None:
    """Integers (n, c) as multiples of steps; None without, or where the type of `x` does not hold them."""
    k = split.multiples(x.dtype) if split is not None else None
    if split is None or k is None:
        return None
    steps = split.steps
    return Integers(MULTIPLES, before + steps.packed(), b"", k, None, split.rests, steps.channels)


def read_unit(reader: Reader) -> tuple[int, int]:
    """Read unit and rest: steps are `k * unit + rest`."""
    unit = reader.varint(MAX_UNIT)
    rest = reader.varint(MAX_UNIT) if unit > 1 else 0
    if unit == 0 or rest >= unit:
        raise ChunkError("columns payload: impossible unit of steps")
    return unit, rest


def _steps(values: I64, last: I64 | None, meaning: bytes) -> Integers | None:
    """Differences of neighbours, divided by the largest unit that they are whole multiples of."""
    before = values[:1] if last is None else last.reshape(1, -1)
    steps = np.diff(values, axis=0, prepend=before)[1 if last is None else 0 :]
    unit, rest = 1, 0
    if steps.size:
        low, high = int(steps.min()), int(steps.max())
        if high - low > 1 << 62:
            return None
        if last is not None:
            unit, rest = read_unit(Reader(meaning))
            if unit > 1 and ((steps - rest) % unit).any():
                return None
        elif low != high:
            found = int(np.gcd.reduce(steps - low, axis=None))
            if 1 < found <= MAX_UNIT:
                unit, rest = found, low % found
        steps = (steps - rest) // unit
        if steps.min() < -I32_LIMIT or steps.max() > I32_LIMIT:
            return None
    packed = bytearray()
    put_varint(packed, unit)
    if unit > 1:
        put_varint(packed, rest)
    extra = values[0].tobytes() if last is None else b""
    return Integers(STEPS, bytes(packed), extra, steps.astype(np.int32), values[-1].copy())


def to_signed(values: Array) -> Array:
    """Integers as signed ones of their size: unsigned are shifted by half their range."""
    size = values.dtype.itemsize
    if values.dtype.kind == "i":
        return values
    signed: Array = (values ^ values.dtype.type(1 << (8 * size - 1))).view(f"i{size}")
    return signed


def from_signed(values: Array, dtype: np.dtype[Any]) -> Array:
    """Undo `to_signed`."""
    if values.dtype == dtype:
        return values
    unsigned: Array = values.view(dtype)
    flip_signs(unsigned)
    return unsigned


def flip_signs(values: Array) -> None:
    """Undo `to_signed` in place, where the signed integers were put into an array of the samples' type."""
    if values.dtype.kind == "u":
        np.bitwise_xor(values, values.dtype.type(1 << (8 * values.dtype.itemsize - 1)), out=values)
