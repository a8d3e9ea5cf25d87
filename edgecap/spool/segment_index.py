"""What a segment holds: one row per chunk record, kept in memory and written behind the records."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecap.codec import wire
from edgecap.codec.chunk import NO_HASH, Chunk, ChunkId
from edgecap.codec.records import decode_records
from edgecap.errors import ChunkError
from edgecap.model import SESSION_STREAM
from edgecap.spool.files import File
from edgecap.spool.segment import INDEX, MAX_BODY_BYTES, RECORD_HEADER_BYTES, Record, read_record

ROW = np.dtype(
    [
        ("offset", "<u4"),
        ("length", "<u4"),
        ("key", "<u2"),
        ("flags", "<u2"),
        ("n", "<u4"),
        ("seq", "<u8"),
        ("t_append_ns", "<i8"),
        ("t0_ns", "<i8"),
        ("t1_ns", "<i8"),
        ("hash", "V32"),
    ]
)
MAX_ROWS = 32768
MAX_KEYS = 4096
TAIL = struct.Struct("<Q8s")
TAIL_MAGIC = b"ECINDEX1"
INDEX_VERSION = 1

OPENS = 1
"""Flag of a row: the chunk is a session's manifest."""
CLOSES = 2
"""Flag of a row: the chunk holds a session's close record."""


class StreamKey(NamedTuple):
    """What the headers of a stream's chunks have in common."""

    site: str
    rig: str
    boot: str
    session: str
    stream: str
    kind: str
    man: bytes


def key_of(chunk: Chunk) -> StreamKey:
    """The key of a chunk; the manifest itself counts under its own hash."""
    h = chunk.header
    man = chunk.hash if h.man == NO_HASH else h.man
    return StreamKey(h.site, h.rig, h.boot, h.session, h.stream, h.kind, man)


def flags_of(chunk: Chunk) -> int:
    """`OPENS` and `CLOSES`, as the chunk's records say."""
    if chunk.header.stream != SESSION_STREAM:
        return 0
    flags = OPENS if chunk.header.seq == 0 else 0
    if b"close" in chunk.payload:
        try:
            records = decode_records(chunk.payload)
        except ChunkError:
            return flags
        if any(r["type"] == "close" for r in records):
            flags |= CLOSES
    return flags


class SegmentIndex:
    """Rows (`ROW`) in order of offset, and the keys they point to."""

    def __init__(self) -> None:
        self.keys: list[StreamKey] = []
        self._numbers: dict[StreamKey, int] = {}
        self._rows: NDArray[Any] = np.zeros(64, ROW)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Any]:
        return self._rows[: self._count]

    def full(self, key: StreamKey) -> bool:
        """Whether no further chunk of `key` may be added."""
        return self._count >= MAX_ROWS or (len(self.keys) >= MAX_KEYS and key not in self._numbers)

    def add(self, chunk: Chunk, offset: int, t_append_ns: int, key: StreamKey) -> int:
        """Note a chunk written at `offset`; returns its slot."""
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.keys)
            self.keys.append(key)
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros(len(self._rows), ROW)])
        h = chunk.header
        self._rows[self._count] = (
            offset,
            len(chunk.packed),
            number,
            flags_of(chunk),
            min(h.n, 0xFFFFFFFF),
            h.seq,
            t_append_ns,
            _clip_i64(h.t0_ns),
            _clip_i64(h.t1_ns),
            chunk.hash,
        )
        self._count += 1
        return self._count - 1

    def key(self, slot: int) -> StreamKey:
        return self.keys[int(self._rows[slot]["key"])]

    def id(self, slot: int) -> ChunkId:
        row = self._rows[slot]
        key = self.keys[int(row["key"])]
        return ChunkId(key.boot, key.session, key.stream, int(row["seq"]), row["hash"].tobytes())

    def find(self, id_: ChunkId) -> Iterator[int]:
        """Slots that hold this very chunk."""
        for slot in np.flatnonzero(self.rows["seq"] == id_.seq).tolist():
            if self._rows["hash"][slot].tobytes() == id_.hash and self.id(slot) == id_:
                yield slot

    def pack(self, offset: int) -> bytes:
        """The body of an index record that stands at `offset`."""
        body = wire.pack([INDEX_VERSION, [list(k) for k in self.keys], self.rows.tobytes()])
        return body + TAIL.pack(offset, TAIL_MAGIC)


def _clip_i64(value: int) -> int:
    return max(-(1 << 63), min(value, (1 << 63) - 1))


def unpack_index(record: Record) -> SegmentIndex:
    """The index in an index record; raises `ChunkError` when it does not make sense."""
    parts = wire.unpack(record.body[: -TAIL.size], what="segment index", max_bytes=MAX_BODY_BYTES)
    if not isinstance(parts, list) or len(parts) < 3 or parts[0] != INDEX_VERSION:
        raise ChunkError("segment index has an unknown version")
    keys, data = parts[1], parts[2]
    if (
        not isinstance(keys, list)
        or not all(isinstance(k, list) and len(k) == 7 and isinstance(k[6], bytes) for k in keys)
        or not all(isinstance(text, str) for k in keys for text in k[:6])
        or not isinstance(data, bytes)
        or len(data) % ROW.itemsize
    ):
        raise ChunkError("segment index is malformed")
    index = SegmentIndex()
    rows = np.frombuffer(data, ROW).copy()
    ends = rows["offset"].astype(np.int64) + RECORD_HEADER_BYTES + rows["length"]
    if len(rows) and (int(rows["key"].max()) >= len(keys) or int(ends.max()) > record.offset):
        raise ChunkError("segment index points outside its segment")
    index.keys = [StreamKey(*k) for k in keys]
    index._numbers = {k: i for i, k in enumerate(index.keys)}
    index._rows, index._count = (rows, len(rows)) if len(rows) else (index._rows, 0)
    return index


def read_index(file: File, size: int) -> tuple[SegmentIndex, Record] | None:
    """The index at the end of a sealed segment, found from its last 16 bytes; None if there is none."""
    if size < TAIL.size:
        return None
    tail = file.read_at(size - TAIL.size, TAIL.size)
    if len(tail) < TAIL.size:
        return None
    offset, magic = TAIL.unpack(tail)
    if magic != TAIL_MAGIC or offset >= size:
        return None
    record = read_record(file, offset)
    if record is None or record.kind != INDEX or record.end != size:
        return None
    try:
        return unpack_index(record), record
    except ChunkError:
        return None
