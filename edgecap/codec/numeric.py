"""One column's samples ↔ its bytes: as integers through one of two coders, or stored as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgecap.codec import fixed
from edgecap.codec.integers import (
    BESIDE,
    DIGITS,
    FIXED,
    MULTIPLES,
    PLACES,
    PLAIN,
    ROUNDED,
    STEPS,
    flip_signs,
    to_integers,
    to_signed,
)
from edgecap.codec.layout import Array, ColumnLayout, Reader
from edgecap.codec.meaning import Meaning, fits, from_integers, read_meaning
from edgecap.codec.quick import QuickReader, QuickWriter
from edgecap.codec.tail import Memory, TailReader
from edgecap.errors import ChunkError

STORED, RICE, FRESH, CONTINUED, STEPS_FRESH, STEPS_CONTINUED, OTHERS_FRESH, OTHERS_CONTINUED = range(8)
GROUPS_FRESH, GROUPS_CONTINUED = 8, 9
"""Coders: the low half of a column's first byte. FRESH and CONTINUED predict, STEPS know steps again, OTHERS
predict rows that differ from the one before, and GROUPS are columns of some channels each."""

_PLAIN_RICE = bytes([PLAIN << 4 | RICE])
PLAIN_FRESH = PLAIN << 4 | FRESH


@dataclass(slots=True)
class Pending:
    """A column whose integers lie in the tail of the payload."""

    column: ColumnLayout
    meaning: Meaning
    before: Memory | None
    recurring: bool
    repeated: bool = False
    """Whether rows that equal the one before are left out."""


@dataclass(slots=True)
class PendingGroups:
    """A column whose channels are coded in groups: those of each, and its part."""

    column: ColumnLayout
    groups: list[tuple[list[int], Pending]]


def stored(column: ColumnLayout, array: Array) -> bytes:
    """A column as it is."""
    return bytes([STORED]) + array.astype(column.dtype, copy=False).tobytes() if array.size else b""


def encode_quickly(column: ColumnLayout, array: Array, quick: QuickWriter) -> bytes:
    """Encode one column as level `fast` does."""
    if column.rows == 0:
        return b""
    values = array
    if array.dtype is not column.dtype or array.ndim == 1 or not array.flags.c_contiguous:
        values = np.ascontiguousarray(array, column.dtype).reshape(column.rows, column.lanes)
    if column.is_plain:
        body = _PLAIN_RICE + quick.encode(to_signed(values))
    else:
        integers = to_integers(values, None)
        if integers is None:
            return stored(column, values)
        body = bytes([integers.transform << 4 | RICE]) + integers.meaning + integers.extra
        body += quick.encode(integers.lanes)
    return body if len(body) <= column.raw_bytes + 1 else stored(column, values)


def continuation(memory: Memory) -> int:
    """First byte of a column that goes on from its memory."""
    if memory.groups is not None:
        return GROUPS_CONTINUED
    if memory.repeats is not None:
        return memory.transform << 4 | OTHERS_CONTINUED
    return memory.transform << 4 | (STEPS_CONTINUED if memory.recurring else CONTINUED)


def decode_front(
    column: ColumnLayout,
    reader: Reader,
    memories: dict[str, Memory] | None,
    left_out: bool,
    quick: QuickReader,
) -> Array | Pending | PendingGroups:
    """Decode one column, or the part of it that lies before the tail.

    Args:
        memories: Those that a payload goes on from; None for a key.
        left_out: There is no first byte: the column goes on from its memory, or, in a key, its samples begin
            afresh.
    """
    if column.rows == 0:
        return np.zeros(column.shape, column.dtype)
    if left_out and memories is None:
        if not column.is_plain:
            raise ChunkError(f"column {column.name}: {column.dtype} samples are not coded as they are")
        return Pending(column, read_meaning(PLAIN, column, reader, None), None, False)
    if left_out:
        known = memories.get(column.name) if memories else None
        if known is None:
            raise ChunkError(f"column {column.name} continues one that the payload before does not have")
        if known.groups is not None:
            return _groups_continued(column, reader, known.groups, quick)
        meaning = read_meaning(known.transform, column, reader, known.meaning)
        return Pending(column, meaning, known, known.recurring, known.repeats is not None)
    head = reader.byte()
    if head == _PLAIN_RICE[0] and column.is_plain:
        samples = np.empty(column.shape, column.dtype)
        quick.decode(reader, samples)
        flip_signs(samples)
        return samples
    transform, coder = head >> 4, head & 15
    if head == STORED:
        raw = reader.take(column.raw_bytes)
        return np.frombuffer(raw, column.dtype).reshape(column.shape).copy()
    if head == GROUPS_FRESH and column.channels > 1:
        return _groups_fresh(column, reader, quick)
    if head == GROUPS_CONTINUED:
        known = memories.get(column.name) if memories else None
        if known is None or known.groups is None:
            raise ChunkError(f"column {column.name} continues one that the payload before does not have")
        return _groups_continued(column, reader, known.groups, quick)
    again, repeated = coder in (STEPS_FRESH, STEPS_CONTINUED), coder in (OTHERS_FRESH, OTHERS_CONTINUED)
    if (
        coder == STORED
        or coder > OTHERS_CONTINUED
        or not fits(transform, column)
        or (again and (transform != STEPS or column.lanes != 1))
        or (transform in (MULTIPLES, ROUNDED, FIXED, PLACES, DIGITS, BESIDE) and coder == RICE)
        or (transform == STEPS and repeated)
    ):
        raise ChunkError(f"column {column.name}: coding {head:#04x} does not fit {column.dtype} samples")
    continued = coder in (CONTINUED, STEPS_CONTINUED, OTHERS_CONTINUED)
    before = memories.get(column.name) if continued and memories else None
    if continued and (before is None or (transform << 4 | coder) != continuation(before)):
        raise ChunkError(f"column {column.name} continues one that the payload before does not have")
    meaning = read_meaning(transform, column, reader, before.meaning if before else None)
    if coder == RICE:
        lanes = np.empty((meaning.rows(column, continued=False), column.lanes), np.int32)
        quick.decode(reader, lanes)
        return from_integers(meaning, column, lanes, None)
    return Pending(column, meaning, before, again, repeated)


def _groups_fresh(column: ColumnLayout, reader: Reader, quick: QuickReader) -> PendingGroups:
    numbers = list(reader.take(column.channels))
    if set(numbers) != set(range(max(numbers) + 1)):
        raise ChunkError(f"column {column.name}: a group without channels")
    groups = []
    for number in range(max(numbers) + 1):
        channels = [c for c, of in enumerate(numbers) if of == number]
        if reader.data[reader.at : reader.at + 1] == bytes([GROUPS_FRESH]):
            raise ChunkError(f"column {column.name}: groups within groups of channels")
        found = decode_front(replace(column, channels=len(channels)), reader, None, False, quick)
        if not isinstance(found, Pending):
            raise ChunkError(f"column {column.name}: groups of channels must be coded adaptively")
        groups.append((channels, found))
    return PendingGroups(column, groups)


def _groups_continued(
    column: ColumnLayout, reader: Reader, known: list[tuple[list[int], Memory]], quick: QuickReader
) -> PendingGroups:
    groups = []
    for channels, memory in known:
        part = replace(column, channels=len(channels))
        found = decode_front(part, reader, {column.name: memory}, True, quick)
        assert isinstance(found, Pending)
        groups.append((channels, found))
    return PendingGroups(column, groups)


def decode_groups(pending: PendingGroups, tail: TailReader, memories: dict[str, Memory]) -> Array:
    """Decode the rest of all groups of a column; what was learned goes to `memories`."""
    column = pending.column
    values = np.empty(column.shape, column.dtype)
    known: list[tuple[list[int], Memory]] = []
    for channels, part in pending.groups:
        found: dict[str, Memory] = {}
        values[:, channels] = decode_tail(part, tail, found)
        known.append((channels, found[column.name]))
    memories[column.name] = Memory.of_groups(known)
    return values


def decode_tail(pending: Pending, tail: TailReader, memories: dict[str, Memory]) -> Array:
    """Decode the rest of a column; what was learned goes to `memories`."""
    column, meaning, before = pending.column, pending.meaning, pending.before
    others = repeats = None
    if pending.repeated:
        known = before.repeats.copy() if before and before.repeats is not None else None
        others, repeats = tail.take_repeats(column.rows, known)
        column = replace(column, rows=int(np.count_nonzero(others)))
    rows = meaning.rows(column, continued=before is not None)
    learned = before.learned.copy() if before else None
    if pending.recurring:
        lanes, learned = tail.take_steps(rows, learned)
    else:
        lanes, learned = tail.take(rows, column.lanes, column.width, learned)
    rests = None
    if meaning.steps is not None:
        known = before.rests.copy() if before and before.rests is not None else None
        meaning.rests, rests = tail.take_rests(lanes, meaning.steps.channels, known)
    if meaning.shifts is not None:
        first, widths = fixed.places(lanes, meaning.shifts)
        meaning.between = first, tail.take_plain(widths)
    if meaning.decimals is not None:
        known = before.rests.copy() if before and before.rests is not None else None
        sizes, behind, rests = tail.take_digits(lanes, meaning.decimals.digits, known)
        meaning.further = sizes, behind
    values = from_integers(meaning, column, lanes, before.last if before else None)
    last = None
    if meaning.transform == STEPS:
        last = values.view(np.int64).reshape(column.rows, column.lanes)[-1].copy()
    memories[column.name] = Memory(
        meaning.transform, meaning.packed, learned, last, pending.recurring, rests, repeats
    )
    return values if others is None else values[np.cumsum(others) - 1]
