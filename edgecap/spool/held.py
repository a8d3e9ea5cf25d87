"""One segment as the spool sees it: what it holds, what still waits for a receipt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.chunk import Chunk, ChunkId, unpack_chunk
from edgecap.errors import ChunkError, NameRefused
from edgecap.model import SESSION_STREAM
from edgecap.spool.files import File, Files
from edgecap.spool.receipts import SessionState, StreamHead
from edgecap.spool.segment import CHUNK, Record, SegmentHeader, read_record, scan
from edgecap.spool.segment_index import CLOSES, SegmentIndex, StreamKey, key_of, read_index
from edgecap.spool.segment_writer import SegmentWriter

CLASSES = 3


class StreamId(NamedTuple):
    """A stream of a session of a kernel boot."""

    boot: str
    session: str
    stream: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A chunk that waits for its receipt."""

    id: ChunkId
    kind: str
    bytes: int
    t_append_ns: int
    """Rig time of the append, of the kernel boot in which it happened."""
    site: str
    rig: str


def class_of(key: StreamKey) -> int:
    """Order of delivery: 0 the session's own records, 1 sensors and events, 2 everything bulky."""
    if key.stream == SESSION_STREAM:
        return 0
    return 1 if key.kind in ("samples", "event") else 2


def index_by_scan(file: File) -> SegmentIndex:
    """Build the index of a segment that has none, from its whole records."""
    index = SegmentIndex()
    for item in scan(file):
        if isinstance(item, Record) and item.kind == CHUNK:
            try:
                chunk = unpack_chunk(item.body)
                index.add(chunk, item.offset, item.t_append_ns, key_of(chunk))
            except (ChunkError, NameRefused):
                continue
    return index


def session_states(index: SegmentIndex, copies: NDArray[np.bool_]) -> list[SessionState]:
    """The sessions of a segment with the heads of their streams; rows that are `copies` do not count."""
    found: dict[tuple[str, str], SessionState] = {}
    rows = index.rows
    for number, key in enumerate(index.keys):
        mine = rows[(rows["key"] == number) & ~copies]
        if not len(mine):
            continue
        state = found.setdefault(
            (key.boot, key.session), SessionState(key.site, key.rig, key.boot, key.session, key.man)
        )
        state.closed |= bool((mine["flags"] & CLOSES).any())
        last = mine[int(np.argmax(mine["seq"]))]
        head = StreamHead(
            int(last["seq"]), last["hash"].tobytes(), int(mine["n"].sum(dtype=np.int64)), int(last["t1_ns"])
        )
        if key.stream in state.streams:
            state.streams[key.stream].join(head)
        else:
            state.streams[key.stream] = head
    return list(found.values())


class HeldSegment:
    """A segment file of the spool; its rows may leave memory once it is sealed.

    Attributes:
        ranges: First and last seq of each stream in it, by `StreamId`.
        done: One byte per slot: 1 when nothing waits for it any more.
        copies: Slots whose chunk is held by another segment too, which counts it.
        waiting: Slots not done, by class.
        visible: Slots that are on the medium, and so may be delivered.
        partial: Whether the medium could not read all of it: there may be more in it than its rows tell.
    """

    def __init__(self, files: Files, path: Path, header: SegmentHeader) -> None:
        self._files = files
        self.path, self.header = path, header
        self.uid = header.uid
        self.size = 0
        self.ranges: dict[StreamId, tuple[int, int]] = {}
        self.done = bytearray()
        self.copies: set[int] = set()
        self.waiting = [0] * CLASSES
        self.waiting_bytes = 0
        self.visible = 0
        self.writer: SegmentWriter | None = None
        self._index: SegmentIndex | None = None
        self.partial = False
        self._file: File | None = None

    @classmethod
    def adopt(
        cls, files: Files, path: Path, header: SegmentHeader, index: SegmentIndex, size: int, readable: bool
    ) -> HeldSegment:
        """A segment found on start; where its medium could not read it all, the index stays in memory."""
        self = cls(files, path, header)
        self.partial = not readable
        self._index, self.size, self.visible = index, size, len(index)
        self.done = bytearray(len(index))
        self.waiting_bytes = int(index.rows["length"].sum(dtype=np.int64))
        for number, key in enumerate(index.keys):
            seqs = index.rows["seq"][index.rows["key"] == number]
            if len(seqs):
                self._widen(StreamId(key.boot, key.session, key.stream), int(seqs.min()), int(seqs.max()))
                self.waiting[class_of(key)] += len(seqs)
        return self

    @classmethod
    def begin(cls, files: Files, writer: SegmentWriter) -> HeldSegment:
        """The segment that `writer` has just made."""
        self = cls(files, writer.path, writer.header)
        self.writer, self._index, self._file, self.size = writer, writer.index, writer.file, writer.size
        return self

    def note(self, key: StreamKey, seq: int, n_bytes: int) -> None:
        """Count a chunk that has just been added to the index."""
        self._widen(StreamId(key.boot, key.session, key.stream), seq, seq)
        self.done.append(0)
        self.waiting[class_of(key)] += 1
        self.waiting_bytes += n_bytes

    def _widen(self, stream: StreamId, first: int, last: int) -> None:
        known = self.ranges.get(stream, (first, last))
        self.ranges[stream] = (min(first, known[0]), max(last, known[1]))

    def finish(self, slot: int) -> bool:
        """Mark a slot as done; False when it was already."""
        if self.done[slot]:
            return False
        index = self.index()
        self.done[slot] = 1
        self.waiting[class_of(index.key(slot))] -= 1
        self.waiting_bytes -= int(index.rows[slot]["length"])
        return True

    def finish_offsets(self, offsets: set[int]) -> None:
        """Mark the records at these offsets as done."""
        if offsets:
            for slot in np.flatnonzero(np.isin(self.index().rows["offset"], list(offsets))).tolist():
                self.finish(slot)

    def find_copies(self, last: Mapping[StreamId, int]) -> None:
        """Note as copies the slots that lie at or below what older segments hold of their stream."""
        index = self.index()
        for number, key in enumerate(index.keys):
            bound = last.get(StreamId(key.boot, key.session, key.stream))
            if bound is not None:
                mine = (index.rows["key"] == number) & (index.rows["seq"] <= bound)
                self.copies.update(np.flatnonzero(mine).tolist())

    def index(self) -> SegmentIndex:
        """The rows, read back from the file if they had left memory; raises `OSError`."""
        if self._index is None:
            file = self.file()
            found = read_index(file, file.size())
            self._index = found[0] if found else index_by_scan(file)
        return self._index

    def file(self) -> File:
        if self._file is None:
            self._file = self._files.open(self.path)
        return self._file

    def let_go(self) -> None:
        """Give memory and file descriptor back; never while it is being written."""
        if self.writer is None:
            self._index = self._index if self.partial else None
            if self._file is not None:
                self._file.close()
                self._file = None

    def retire(self) -> None:
        """No more is written to it."""
        if self.writer is not None:
            self.size = self.writer.size
            self.writer = None

    def waiting_slots(self, class_: int) -> NDArray[np.intp]:
        """Durable slots of a class that are not done, oldest first."""
        index = self.index()
        n = min(self.visible, len(index))
        of_class = np.array([class_of(k) == class_ for k in index.keys], np.bool_)
        rows = index.rows[:n]
        open_ = np.frombuffer(bytes(self.done[:n]), np.uint8) == 0
        return np.flatnonzero(open_ & of_class[rows["key"]]) if n else np.zeros(0, np.intp)

    def entry(self, slot: int) -> Entry:
        index = self.index()
        row: Any = index.rows[slot]
        key = index.key(slot)
        return Entry(index.id(slot), key.kind, int(row["length"]), int(row["t_append_ns"]), key.site, key.rig)

    def read(self, slot: int) -> bytes | None:
        """The chunk's bytes, or None when the record is damaged; raises `OSError`."""
        row = self.index().rows[slot]
        record = read_record(self.file(), int(row["offset"]), self.uid)
        if record is None or record.kind != CHUNK or len(record.body) != int(row["length"]):
            return None
        return record.body

    def states(self) -> list[SessionState]:
        """Sessions and heads in this segment."""
        copies = np.zeros(len(self.index()), np.bool_)
        copies[list(self.copies)] = True
        return session_states(self.index(), copies)


def state_of(chunk: Chunk, key: StreamKey, flags: int) -> SessionState:
    """What a single chunk says about its session."""
    h = chunk.header
    head = StreamHead(h.seq, chunk.hash, h.n, h.t1_ns)
    return SessionState(h.site, h.rig, h.boot, h.session, key.man, bool(flags & CLOSES), {h.stream: head})
