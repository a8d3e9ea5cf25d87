"""Sample payloads: a table of named numeric columns, losslessly compressed. FORMAT.md specifies the bytes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from edgecap.codec.chunk import MAX_CHUNK_BYTES
from edgecap.codec.layout import (
    MAX_COLUMNS,
    Array,
    Layout,
    Reader,
    checked,
    kind_of,
    layout_of,
    put_varint,
    read_column,
    read_layout,
    read_rows,
    same_columns,
    write_layout,
    write_rows,
    write_shape,
)
from edgecap.codec.numeric import (
    PLAIN_FRESH,
    Pending,
    PendingGroups,
    continuation,
    decode_front,
    decode_groups,
    decode_tail,
    encode_quickly,
    stored,
)
from edgecap.codec.quick import QuickReader, QuickWriter
from edgecap.codec.steps_search import Search
from edgecap.codec.tail import Memory, TailReader, TailWriter
from edgecap.codec.ways import encode_column
from edgecap.errors import ChunkError, NeedsChunk

CODEC = "columns-1"
LEVELS = ("fast", "max", "stream")
KEY_INTERVAL = 30
"""A lost payload costs at most the payloads up to the next key: at 1 s each, 30 s."""
COLUMN_OVERHEAD_BYTES = 16
"""What a column can cost beyond its raw bytes, apart from a name that has to be spelled out."""
_VERSION = 2
_KEY = 1
_SAME_ROWS = 2
_AS_BEFORE = 4
_SHORT_KEY = 8
_ALL_FRESH = 4
_SHORT_COLUMNS = 4
"""A key of so many columns at most has their number in its first byte, and whether none of them says how it
is coded, since all are plain samples that begin afresh."""
_VALUES = 64
"""First byte of a key of one column `values`, with its kind in the low bits, and"""
_VALUES_FRESH = 32
"""whether it does not say how it is coded, since it is plain samples that begin afresh."""
_ALL_SAME = 128
"""First byte of a payload whose columns all go on, with as many rows, plus its place after the key."""


def max_encoded_bytes(columns: Mapping[str, NDArray[Any]]) -> int:
    """Most bytes that `ColumnEncoder.encode` can return for these columns."""
    names = sum(len(name.encode()) for name in columns)
    return COLUMN_OVERHEAD_BYTES * (1 + len(columns)) + names + sum(a.nbytes for a in columns.values())


class ColumnEncoder:
    """Turns the tables of one stream into payloads.

    Args:
        level: `fast` spends least time; `max` compresses every table by itself; `stream` also learns from
            the tables before. May be changed between tables.
        key_interval: At level `stream`, every so many payloads one is decodable by itself.
    """

    def __init__(self, level: str = "stream", key_interval: int = KEY_INTERVAL) -> None:
        if level not in LEVELS:
            raise ChunkError(
                f"there is no compression level {level!r}", fix=f"use one of {', '.join(LEVELS)}"
            )
        if not 1 <= key_interval <= 255:
            raise ChunkError(f"key interval {key_interval} is not between 1 and 255")
        self.level = level
        self.key_interval = key_interval
        self._since_key = 0
        self._layout: Layout | None = None
        self._shapes: list[tuple[Any, ...]] = []
        self._key_front: tuple[bytes, Layout | None] = (b"", None)
        self._memories: dict[str, Memory] = {}
        self._searches: dict[str, Search] = {}
        self._quick = QuickWriter()
        self._tail = TailWriter()
        self._last = b""
        """The payload before."""
        self._afresh = 0.0
        """How much of its raw bytes the last payload took that began afresh."""

    def encode(self, columns: Mapping[str, NDArray[Any]], *, key: bool = False) -> bytes:
        """Encode one table.

        Args:
            columns: Arrays (n,) or (n, c) by name; every column may have its own number of rows.
            key: Make this payload decodable by itself, e.g. because the one before was lost.

        Raises:
            ChunkError: a type, shape, name or size that the format cannot hold.
        """
        before = self._layout
        # Most tables of a stream have the same shape, which need not be described again.
        shapes = [(name, array.dtype, array.shape) for name, array in columns.items()]
        layout = before if before is not None and shapes == self._shapes else layout_of(columns)
        if len(self._searches) > MAX_COLUMNS:
            self._searches = {}
        key = (
            key
            or self.level != "stream"
            or before is None
            or not (before is layout or same_columns(before, layout))
            or self._since_key + 1 >= self.key_interval
        )
        memories: dict[str, Memory] = {}
        if self.level == "fast":
            bodies = [encode_quickly(column, columns[column.name], self._quick) for column in layout]
            payload = b"".join([self._front(layout), *bodies])
        elif key or before is None:
            bodies = self._bodies(columns, layout, memories, goes_on=self.level == "stream")
            front = self._front(layout)
            fresh = _VALUES_FRESH if front[0] & _VALUES else _ALL_FRESH if front[0] & _SHORT_KEY else 0
            if fresh and all(body[0] == PLAIN_FRESH for body in bodies if body):
                front = bytes([front[0] | fresh]) + front[1:]
                bodies = [body[1:] for body in bodies]
            payload = b"".join([front, *bodies, self._tail.finish(0)])
        else:
            memories = self._memories
            payload = self._continue(columns, before, layout)
        if len(payload) > sum(column.raw_bytes for column in layout) + COLUMN_OVERHEAD_BYTES:
            plain = b"".join([self._front(layout), *(stored(c, columns[c.name]) for c in layout)])
            if len(plain) < len(payload):
                key, memories, payload = True, {}, plain
        if self.level == "stream":
            self._compare(len(payload), sum(column.raw_bytes for column in layout), key)
        self._since_key = 0 if key else self._since_key + 1
        self._memories = memories
        self._layout, self._shapes = layout, shapes
        self._last = payload
        return payload

    def _compare(self, size: int, raw_bytes: int, key: bool) -> None:
        """Doubt what was learned where payloads that go on take more than one that begins afresh."""
        if key:
            self._afresh = size / max(raw_bytes, 1)
        doubt = not key and size > self._afresh * raw_bytes
        for search in self._searches.values():
            search.doubt = doubt

    def _front(self, layout: Layout) -> bytes:
        """What a key payload begins with; most have the same."""
        front, of = self._key_front
        if of is not layout:
            count = len(layout)
            if count == 1 and layout[0].name == "values":
                out = bytearray([_VALUES | kind_of(layout[0])])
                write_shape(out, layout[0])
            else:
                short = 1 <= count <= _SHORT_COLUMNS
                out = bytearray([_VERSION << 4 | (_SHORT_KEY | count - 1 if short else _KEY)])
                if not short:
                    put_varint(out, count)
                write_layout(out, layout)
            front = bytes(out)
            self._key_front = front, layout
        return front

    def _continue(self, columns: Mapping[str, NDArray[Any]], before: Layout, layout: Layout) -> bytes:
        """A payload that goes on from the one before."""
        since_key = self._since_key + 1
        same_rows = before == layout
        out = bytearray([_VERSION << 4 | (_SAME_ROWS if same_rows else 0), since_key])
        if not same_rows:
            write_rows(out, layout)
        usual = {name: continuation(memory) for name, memory in self._memories.items()}
        bodies = self._bodies(columns, layout, self._memories, goes_on=True)
        if all(body[0] == usual.get(c.name) for c, body in zip(layout, bodies, strict=True) if body):
            out[0] |= _AS_BEFORE
            bodies = [body[1:] for body in bodies]
            if same_rows and since_key < _ALL_SAME:
                out = bytearray([_ALL_SAME | since_key])
        return bytes(out + b"".join(bodies) + self._tail.finish(_check(self._last)))

    def _bodies(
        self,
        columns: Mapping[str, NDArray[Any]],
        layout: Layout,
        memories: dict[str, Memory],
        goes_on: bool,
    ) -> list[bytes]:
        """First bytes of every column; the rest goes to a new tail."""
        tail, searches = self._tail.begin(), self._searches
        return [encode_column(c, columns[c.name], memories, tail, searches, goes_on) for c in layout]


class ColumnDecoder:
    """Turns the payloads of one stream, given in order, back into tables."""

    def __init__(self) -> None:
        self._since_key = -1
        self._layout: Layout = ()
        self._key_front: tuple[bytes, Layout] = (b"", ())
        self._memories: dict[str, Memory] = {}
        self._quick = QuickReader()
        self._tail = TailReader()
        self._last = b""
        """The payload before."""

    def decode(self, payload: bytes) -> dict[str, Array]:
        """Decode one payload.

        Raises:
            ChunkError: the bytes are not a columns payload. The decoder is as it was before.
            NeedsChunk: the payload depends on one that was not the last given; `evidence["back"]` is how
                many payloads back the key is from which decoding can start.
        """
        if len(payload) > MAX_CHUNK_BYTES:
            raise ChunkError(f"columns payload has {len(payload)} bytes, the limit is {MAX_CHUNK_BYTES}")
        reader = Reader(payload)
        front, layout = self._key_front
        # Most key payloads have the same front, which says itself where it ends.
        if front and payload.startswith(front):
            reader.at = len(front)
            since_key, left_out = 0, _is_all_fresh(payload[0])
        else:
            since_key, left_out, layout = self._read_front(reader)
        key = since_key == 0
        front_bytes = reader.at
        before = None if key else self._memories
        tables: dict[str, Any] = {}
        pending = []
        for column in layout:
            found = decode_front(column, reader, before, left_out, self._quick)
            tables[column.name] = found
            if isinstance(found, Pending | PendingGroups):
                pending.append(found)
        memories: dict[str, Memory] = {}
        if pending:
            tail = self._tail.begin(payload, reader.at)
            try:
                for found in pending:
                    if isinstance(found, PendingGroups):
                        tables[found.column.name] = decode_groups(found, tail, memories)
                    else:
                        tables[found.column.name] = decode_tail(found, tail, memories)
                tail.finish(0 if key else _check(self._last))
            except ChunkError as error:
                if key:
                    raise
                doubt = "this chunk is damaged, or continues another than the one before it"
                raise _needs(since_key, doubt) from error
        elif reader.at != len(payload):
            raise ChunkError(f"columns payload: {len(payload) - reader.at} bytes left over")
        self._memories = memories
        if key and layout is not self._key_front[1]:
            self._key_front = payload[:front_bytes], layout
        self._since_key, self._layout = since_key, layout
        self._last = payload
        return tables

    def _read_front(self, reader: Reader) -> tuple[int, bool, Layout]:
        """Its number after the key, whether columns leave out how they are coded, and the columns."""
        head = reader.byte()
        if _VALUES <= head < _ALL_SAME:
            column = read_column(reader, "values", head & _VALUES_FRESH - 1)
            return 0, _is_all_fresh(head), checked((column,))
        if head > _ALL_SAME:
            since_key, head = head - _ALL_SAME, _SAME_ROWS | _AS_BEFORE
        else:
            if head >> 4 != _VERSION:
                raise ChunkError(
                    f"columns payload has version {head >> 4}, this program reads version {_VERSION}",
                    fix="update edgecap on this side",
                )
            if head & _SHORT_KEY:
                return 0, _is_all_fresh(head), read_layout(reader, (head & _SHORT_COLUMNS - 1) + 1)
            if head & 15 == _KEY:
                return 0, False, read_layout(reader, reader.varint(MAX_COLUMNS))
            if head & 15 & ~(_SAME_ROWS | _AS_BEFORE):
                raise ChunkError(f"columns payload: unknown flags {head & 15:#x}")
            since_key = reader.byte()
            if since_key == 0:
                raise ChunkError("columns payload is neither a key nor after one")
        if self._since_key != since_key - 1:
            raise _needs(since_key, "this chunk continues the one before it")
        layout = self._layout if head & _SAME_ROWS else read_rows(reader, self._layout)
        return since_key, bool(head & _AS_BEFORE), layout


def _is_all_fresh(head: int) -> bool:
    """Whether the first byte of a key says that all columns are plain samples that begin afresh."""
    if head & _VALUES:
        return bool(head & _VALUES_FRESH)
    return bool(head & _SHORT_KEY and head & _ALL_FRESH)


def _check(payload: bytes) -> int:
    """What the payload after this one must know of it."""
    return zlib.crc32(payload) & 0xFFFF


def _needs(since_key: int, why: str) -> NeedsChunk:
    return NeedsChunk(
        f"{why}, number {since_key - 1} after their key chunk",
        fix=f"give the decoder the {since_key} chunks before it first",
        back=since_key,
    )


def decode_columns(payload: bytes) -> dict[str, Array]:
    """Decode one self-contained payload."""
    return ColumnDecoder().decode(payload)
