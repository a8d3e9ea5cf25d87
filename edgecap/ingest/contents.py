"""What is stored of one session, read from its segments: every chunk once, whoever stored it how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.chunk import Chunk, unpack_chunk
from edgecap.codec.records import decode_records
from edgecap.errors import ChunkError, NameRefused
from edgecap.ingest.store import SessionKey
from edgecap.model import SESSION_STREAM
from edgecap.spool.files import File
from edgecap.spool.segment import CHUNK, Damage, Record, read_record, scan
from edgecap.spool.segment_index import CLOSES, OPENS, ROW, SegmentIndex, key_of, read_index

_TABLE = np.dtype([*ROW.descr, ("segment", "<u4"), ("stream", "<u4"), ("conflict", "?")])


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment of a session; `conflict` when it holds chunks whose place was taken."""

    name: str
    file: File
    conflict: bool = False
    index: SegmentIndex | None = None
    """Its rows, when they have been read already."""


def load_segment(segment: StoredSegment, faults: list[str] | None = None) -> SegmentIndex:
    """The rows of a segment, from its index or, while it is being written, from its whole records.

    Damage between whole records is named in `faults`; an unfinished record at the end is no fault.
    """
    if segment.index is not None:
        return segment.index
    file = segment.file
    found = read_index(file, file.size())
    if found is not None:
        return found[0]
    index = SegmentIndex()
    for item in scan(file):
        if isinstance(item, Damage) and not item.torn and faults is not None:
            faults.append(f"{segment.name}: {item.length} bytes at {item.offset} are damaged")
        elif isinstance(item, Record) and item.kind == CHUNK:
            try:
                chunk = unpack_chunk(item.body)
            except (ChunkError, NameRefused) as error:
                if faults is not None:
                    faults.append(f"{segment.name}: the record at {item.offset} is not a chunk: {error}")
                continue
            index.add(chunk, item.offset, item.t_append_ns, key_of(chunk))
    return index


class SessionContents:
    """A session's rows in memory (about 90 bytes per chunk); chunks are read as they are asked for.

    Attributes:
        boot: The kernel boot whose chunks are the session's.
        faults: What is wrong with the files themselves, in words.
        conflicts: Places (stream, seq) for which different chunks came.
        other_boots: Chunks by boot that use the same session id and do not belong to it.
    """

    def __init__(self, key: SessionKey, segments: Sequence[StoredSegment]) -> None:
        self.key = key
        self.faults: list[str] = []
        self._segments = list(segments)
        self._names: list[tuple[str, str]] = []
        numbers: dict[tuple[str, str], int] = {}
        tables = []
        for number, segment in enumerate(self._segments):
            index = load_segment(segment, self.faults)
            table = np.zeros(len(index), _TABLE)
            for name in ROW.names or ():
                table[name] = index.rows[name]
            of_key = []
            for k in index.keys:
                of_key.append(numbers.setdefault((k.boot, k.stream), len(self._names)))
                if of_key[-1] == len(self._names):
                    self._names.append((k.boot, k.stream))
            if len(index):
                table["stream"] = np.array(of_key, np.uint32)[index.rows["key"]]
            table["segment"], table["conflict"] = number, segment.conflict
            tables.append(table)
        rows = np.concatenate(tables) if tables else np.zeros(0, _TABLE)
        order = np.lexsort((np.arange(len(rows)), rows["conflict"], rows["seq"], rows["stream"]))
        self._rows: NDArray[Any] = rows[order]
        self.boot = self._main_boot()
        self.other_boots = self._count_other_boots()
        self._chosen: dict[tuple[int, int], bytes] = {}
        self.conflicts = self._find_conflicts()

    @property
    def streams(self) -> list[str]:
        """Streams of which there is a chunk; the session's own first, then by name."""
        names = {stream for boot, stream in self._names if boot == self.boot}
        return sorted(names, key=lambda name: (name != SESSION_STREAM, name))

    @property
    def closed(self) -> bool:
        """Whether a close record has arrived."""
        return bool((self._of_stream(SESSION_STREAM)["flags"] & CLOSES).any())

    def seqs(self, stream: str) -> NDArray[np.uint64]:
        """Numbers of the stored chunks of a stream, ascending, each once."""
        return np.unique(self._of_stream(stream)["seq"])

    def times(self, stream: str) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the stored chunks of a stream, ascending, each once, and first and last time of each."""
        rows = self._of_stream(stream)
        seqs, at = np.unique(rows["seq"], return_index=True)
        for (number, seq), hash_ in self._chosen.items():
            if self._names[number] == (self.boot, stream):
                same = np.flatnonzero((rows["seq"] == seq) & (rows["hash"] == np.void(hash_)))
                at[np.searchsorted(seqs, seq)] = same[0]
        return seqs, rows["t0_ns"][at], rows["t1_ns"][at]

    def size_bytes(self) -> int:
        """Bytes of the chunks, copies included."""
        return int(self._rows["length"].sum(dtype=np.int64))

    def span_ns(self) -> tuple[int, int]:
        """First and last rig time of the session's chunks."""
        numbers = [n for n, (boot, _) in enumerate(self._names) if boot == self.boot]
        rows = self._rows[np.isin(self._rows["stream"], numbers)]
        return (int(rows["t0_ns"].min()), int(rows["t1_ns"].max())) if len(rows) else (0, 0)

    def chunks(self, stream: str | None = None) -> Iterator[Chunk]:
        """Verified chunks, each once, by stream and then by seq; unreadable ones become `faults`."""
        for name in self.streams if stream is None else [stream]:
            rows = self._of_stream(name)
            seqs = rows["seq"]
            cuts = [0, *(np.flatnonzero(seqs[1:] != seqs[:-1]) + 1).tolist(), len(rows)]
            for start, end in pairwise(cuts):
                chunk = self._read_one(rows[start:end])
                if chunk is not None:
                    yield chunk

    def last_chunk(self, stream: str) -> Chunk | None:
        """The chunk of the highest seq, None when there is none that can be read."""
        rows = self._of_stream(stream)
        return self._read_one(rows[rows["seq"] == rows["seq"][-1]]) if len(rows) else None

    def first_chunk(self, stream: str) -> Chunk | None:
        """Chunk 0 of a stream, None when it is not there."""
        rows = self._of_stream(stream)
        return self._read_one(rows[rows["seq"] == 0]) if len(rows) and rows["seq"][0] == 0 else None

    def close(self) -> None:
        """Close the segments."""
        for segment in self._segments:
            segment.file.close()

    def __enter__(self) -> SessionContents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _of_stream(self, name: str) -> NDArray[Any]:
        if (self.boot, name) not in self._names:
            return self._rows[:0]
        number = self._names.index((self.boot, name))
        bounds = np.searchsorted(self._rows["stream"], [number, number + 1])
        return self._rows[bounds[0] : bounds[1]]

    def _main_boot(self) -> str:
        """The boot of the manifest that came first; without one, the boot of most chunks."""
        own = [n for n, (_, stream) in enumerate(self._names) if stream == SESSION_STREAM]
        opens = self._rows[np.isin(self._rows["stream"], own) & ((self._rows["flags"] & OPENS) != 0)]
        if len(opens):
            first = opens[np.lexsort((opens["offset"], opens["segment"], opens["conflict"]))[0]]
            return self._names[int(first["stream"])][0]
        counts = Counter[str]()
        for number, (boot, _) in enumerate(self._names):
            counts[boot] += int((self._rows["stream"] == number).sum())
        return counts.most_common(1)[0][0] if counts else ""

    def _count_other_boots(self) -> dict[str, int]:
        counts = Counter[str]()
        for number, (boot, _) in enumerate(self._names):
            if boot != self.boot:
                counts[boot] += int((self._rows["stream"] == number).sum())
        return dict(counts)

    def _find_conflicts(self) -> list[tuple[str, int]]:
        """Where one place has different chunks, the chain says which one belongs there."""
        found: list[tuple[str, int]] = []
        last_hashes: dict[str, bytes] = {}
        for name in self.streams:
            rows = self._of_stream(name)
            same = rows["seq"][1:] == rows["seq"][:-1]
            differ = same & (rows["hash"][1:] != rows["hash"][:-1])
            seqs = np.unique(rows["seq"][1:][differ]).tolist()
            found += [(name, seq) for seq in seqs]
            for seq in reversed(seqs):
                self._choose(name, rows, seq, last_hashes.get(name))
            if name == SESSION_STREAM:
                last_hashes = self._stated_last_hashes()
        return found

    def _choose(self, name: str, rows: NDArray[Any], seq: int, last_hash: bytes | None) -> None:
        following = rows[rows["seq"] == seq + 1]
        wanted = last_hash if seq == int(rows["seq"][-1]) else None
        if len(following):
            chunk = self._read_one(following)
            wanted = chunk.header.prev if chunk is not None else None
        candidates: list[bytes] = [row["hash"].tobytes() for row in rows[rows["seq"] == seq]]
        # Without a successor that tells, the chunk that came first stays.
        number = self._names.index((self.boot, name))
        self._chosen[number, seq] = wanted if wanted is not None and wanted in candidates else candidates[0]

    def _stated_last_hashes(self) -> dict[str, bytes]:
        chunk = self.last_chunk(SESSION_STREAM)
        try:
            records = decode_records(chunk.payload) if chunk is not None else []
        except ChunkError:
            return {}
        closes = [r for r in records if r["type"] == "close" and isinstance(r.get("streams"), dict)]
        return {
            name: total["last_hash"]
            for name, total in (closes[-1]["streams"].items() if closes else ())
            if isinstance(total, dict) and isinstance(total.get("last_hash"), bytes)
        }

    def _read_one(self, rows: NDArray[Any]) -> Chunk | None:
        """The chunk of one place, from whichever copy can be read."""
        if not len(rows):
            return None
        wanted = self._chosen.get((int(rows[0]["stream"]), int(rows[0]["seq"])), rows[0]["hash"].tobytes())
        problem = ""
        for row in rows:
            if row["hash"].tobytes() != wanted:
                continue
            segment = self._segments[int(row["segment"])]
            record = read_record(segment.file, int(row["offset"]))
            try:
                chunk = unpack_chunk(record.body) if record is not None else None
            except (ChunkError, NameRefused):
                chunk = None
            if chunk is not None and chunk.hash == wanted:
                return chunk
            name = self._names[int(row["stream"])][1]
            problem = f"{name}: chunk {int(row['seq'])} is damaged in {segment.name}"
        if problem and problem not in self.faults:
            self.faults.append(problem)
        return None
