"""One column's samples ↔ its bytes: as integers through one of two coders, or stored as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecap.codec.integers import (
    MULTIPLES,
    PLAIN,
    ROUNDED,
    STEPS,
    Integers,
    Meaning,
    fits,
    flip_signs,
    from_integers,
    read_meaning,
    to_integers,
    to_signed,
)
from edgecap.codec.layout import Array, ColumnLayout, Reader
from edgecap.codec.quick import QuickReader, QuickWriter
from edgecap.codec.steps_search import Search
from edgecap.codec.tail import Memory, TailReader, TailWriter
from edgecap.errors import ChunkError
from edgecap.kernels.recurring import KNOWN

STORED, RICE, FRESH, CONTINUED, STEPS_FRESH, STEPS_CONTINUED = range(6)
"""Coders: the low half of a column's first byte. FRESH and CONTINUED predict, the others know steps again."""

_PLAIN_RICE = bytes([PLAIN << 4 | RICE])
PLAIN_FRESH = PLAIN << 4 | FRESH


RESTS_PART = 4
"""One byte of so many may go to the rests of multiples, and 8 bytes more."""


@dataclass(slots=True)
class Pending:
    """A column whose integers lie in the tail of the payload."""

    column: ColumnLayout
    meaning: Meaning
    before: Memory | None
    recurring: bool


def encode_column(
    column: ColumnLayout,
    array: Array,
    memories: dict[str, Memory],
    tail: TailWriter,
    searches: dict[str, Search],
) -> bytes:
    """Encode one column adaptively: the coder writes to `tail` and learns into `memories`."""
    before = memories.pop(column.name, None)
    if array.size == 0:
        return b""
    values = np.ascontiguousarray(array, column.dtype).reshape(column.rows, column.lanes)
    known = searches.get(column.name)
    search = searches[column.name] = Search() if known is None else known
    search.payloads += 1
    found = None
    if before is not None:
        integers = to_integers(values, before.last, before.meaning, before.transform, search)
        if integers is not None and continues(integers, before):
            found = _encode_adaptive(column, integers, before, tail)
            if found is None and integers.rests is None:
                return bytes([STORED]) + values.tobytes()
    look: Search | None = search
    while found is None:
        integers = to_integers(values, None, search=look)
        if integers is None:
            break
        found = _encode_adaptive(column, integers, None, tail)
        if integers.rests is None:
            break
        # Multiples whose rests turn out to be too many are tried once more as they are.
        look = None
    if found is None:
        return bytes([STORED]) + values.tobytes()
    body, memories[column.name] = found
    return body


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
            return bytes([STORED]) + values.tobytes()
        body = bytes([integers.transform << 4 | RICE]) + integers.meaning + integers.extra
        body += quick.encode(integers.lanes)
    return body if len(body) <= column.raw_bytes + 1 else bytes([STORED]) + values.tobytes()


def continues(integers: Integers, before: Memory) -> bool:
    """Whether what was learned of a column still serves."""
    if (before.transform, before.meaning) != (integers.transform, integers.meaning):
        return False
    return integers.transform != STEPS or before.recurring or not recurring(integers.lanes)


def recurring(lanes: Array) -> bool:
    """Whether steps are few distinct ones, most of them among the 16 that the coder of recurring steps knows.

    White jitter on a coarse grid has few distinct steps as well, but is predicted at its entropy.
    """
    if lanes.shape[1] != 1:
        return False
    counts = np.unique(lanes, return_counts=True)[1]
    if counts.size > 4 + lanes.size // 3:
        return False
    return counts.size <= KNOWN or bool(4 * np.sort(counts)[-KNOWN:].sum() >= 3 * lanes.size)


def _encode_adaptive(
    column: ColumnLayout, integers: Integers, before: Memory | None, tail: TailWriter
) -> tuple[bytes, Memory] | None:
    again = before.recurring if before else integers.transform == STEPS and recurring(integers.lanes)
    limit = column.raw_bytes - len(integers.meaning) - len(integers.extra) - 1
    known = before.learned if before else None
    mark, rests = tail.count, None
    rest_limit = 0
    if integers.rests is not None:
        rest_limit = integers.lanes.nbytes // RESTS_PART + 8
        limit -= rest_limit
    if limit < 0:
        return None
    learned = tail.add_steps(integers.lanes, known) if again else tail.add(integers.lanes, known, limit)
    if learned is None:
        return None
    if integers.rests is not None and integers.channels is not None:
        rests = tail.add_rests(
            integers.lanes,
            integers.rests,
            integers.channels,
            before.rests if before else None,
            rest_limit,
        )
        if rests is None:
            tail.count = mark
            return None
    coder = (STEPS_FRESH if again else FRESH) + (before is not None)
    body = bytes([integers.transform << 4 | coder])
    if before is None:
        body += integers.meaning
    body += integers.extra
    return body, Memory(integers.transform, integers.meaning, learned, integers.last, again, rests)


def continuation(memory: Memory) -> int:
    """First byte of a column that goes on from its memory."""
    return memory.transform << 4 | (STEPS_CONTINUED if memory.recurring else CONTINUED)


def decode_front(
    column: ColumnLayout,
    reader: Reader,
    memories: dict[str, Memory] | None,
    left_out: bool,
    quick: QuickReader,
) -> Array | Pending:
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
        meaning = read_meaning(known.transform, column, reader, known.meaning)
        return Pending(column, meaning, known, known.recurring)
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
    again = coder in (STEPS_FRESH, STEPS_CONTINUED)
    if (
        coder > STEPS_CONTINUED
        or not fits(transform, column)
        or (again and (transform != STEPS or column.lanes != 1))
        or (transform in (MULTIPLES, ROUNDED) and coder not in (FRESH, CONTINUED))
    ):
        raise ChunkError(f"column {column.name}: coding {head:#04x} does not fit {column.dtype} samples")
    continued = coder in (CONTINUED, STEPS_CONTINUED)
    before = memories.get(column.name) if continued and memories else None
    if continued and (before is None or before.transform != transform or before.recurring != again):
        raise ChunkError(f"column {column.name} continues one that the payload before does not have")
    meaning = read_meaning(transform, column, reader, before.meaning if before else None)
    if coder == RICE:
        lanes = np.empty((meaning.rows(column, continued=False), column.lanes), np.int32)
        quick.decode(reader, lanes)
        return from_integers(meaning, column, lanes, None)
    return Pending(column, meaning, before, again)


def decode_tail(pending: Pending, tail: TailReader, memories: dict[str, Memory]) -> Array:
    """Decode the rest of a column; what was learned goes to `memories`."""
    column, meaning, before = pending.column, pending.meaning, pending.before
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
    values = from_integers(meaning, column, lanes, before.last if before else None)
    last = None
    if meaning.transform == STEPS:
        last = values.view(np.int64).reshape(column.rows, column.lanes)[-1].copy()
    memories[column.name] = Memory(meaning.transform, meaning.packed, learned, last, pending.recurring, rests)
    return values
