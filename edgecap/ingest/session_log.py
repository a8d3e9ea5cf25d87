"""The writing side of one stored session: knows what is there, appends what is new."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from edgecap.codec.chunk import Chunk
from edgecap.ingest.contents import StoredSegment, load_segment
from edgecap.ingest.store import Stored
from edgecap.spool.files import Files
from edgecap.spool.recovery import Quarantine, Recovery, recover_segment
from edgecap.spool.segment import new_header
from edgecap.spool.segment_index import SegmentIndex, StreamKey, key_of, read_index
from edgecap.spool.segment_writer import SegmentWriter

CONFLICT = "conflict-"
SEGMENT_NAME = re.compile(r"(conflict-)?(\d{4,8})-([a-z0-9-]{1,64})\.seg")
HASH_BYTES = 16
"""Bytes of a header hash kept per stored chunk; finding another chunk with the same is out of reach."""
_NONE = bytes(HASH_BYTES)
_DENSE_STEP = 4096


class HashTable:
    """Hash by seq: 16 bytes per chunk for streams that count from zero, a dict for whatever does not."""

    def __init__(self) -> None:
        self._dense = bytearray()
        self._sparse: dict[int, bytes] = {}

    def get(self, seq: int) -> bytes | None:
        """The first bytes of the hash stored for `seq`."""
        at = seq * HASH_BYTES
        if at < len(self._dense):
            found = bytes(self._dense[at : at + HASH_BYTES])
            if found != _NONE:
                return found
        return self._sparse.get(seq)

    def put(self, seq: int, hash_: bytes) -> None:
        at = seq * HASH_BYTES
        if at >= len(self._dense) + _DENSE_STEP * HASH_BYTES:
            self._sparse[seq] = hash_[:HASH_BYTES]
            return
        if at >= len(self._dense):
            self._dense.extend(bytes(at + HASH_BYTES - len(self._dense)))
        self._dense[at : at + HASH_BYTES] = hash_[:HASH_BYTES]


class SessionLog:
    """One session being written by one worker.

    On opening, everything in the session's directory is synced before it counts as known: a chunk that
    a dead process has left in the page cache must not be called durable. What this worker had left
    half-written is cut, its bytes go to `quarantine/`.
    """

    def __init__(self, files: Files, directory: Path, worker: str, segment_bytes: int) -> None:
        self._files, self._directory, self._worker = files, directory, worker
        self._segment_bytes = segment_bytes
        self._known: dict[tuple[str, str], HashTable] = {}
        self._conflicts: set[tuple[str, str, int, bytes]] = set()
        self._writer: SegmentWriter | None = None
        self._conflict_writer: SegmentWriter | None = None
        self._next_number = 1
        for name in files.names(directory):
            match = SEGMENT_NAME.fullmatch(name)
            if match is None:
                continue
            if match[3] == worker:
                self._next_number = max(self._next_number, int(match[2]) + 1)
                self._repair(directory / name, int(match[2]))
            self._learn(directory / name, conflict=bool(match[1]))

    def append(self, chunk: Chunk) -> Stored:
        """Write a chunk unless it is known; raises `OSError`."""
        h = chunk.header
        table = self._known.setdefault((h.boot, h.stream), HashTable())
        known, mine = table.get(h.seq), chunk.hash[:HASH_BYTES]
        if known is None:
            self._writer = self._write(self._writer, chunk, "")
            table.put(h.seq, mine)
            return "stored"
        if known == mine:
            return "duplicate"
        place = (h.boot, h.stream, h.seq, mine)
        if place not in self._conflicts:
            self._conflict_writer = self._write(self._conflict_writer, chunk, CONFLICT)
            self._conflicts.add(place)
        return "conflict"

    def sync(self) -> None:
        """Return once everything known is on the medium. After an `OSError` the log must not be used."""
        for writer in (self._writer, self._conflict_writer):
            if writer is not None and writer.synced < len(writer.index):
                try:
                    writer.sync()
                except OSError:
                    # What a failed sync leaves in the page cache is not on the medium: nobody may find it.
                    writer.file.truncate(writer.synced_size)
                    writer.close()
                    raise

    def close(self) -> None:
        """Seal the segments; raises `OSError` when they cannot be synced."""
        for writer in (self._writer, self._conflict_writer):
            if writer is not None:
                try:
                    self.sync()
                    writer.seal()
                finally:
                    writer.close()

    def _write(self, writer: SegmentWriter | None, chunk: Chunk, prefix: str) -> SegmentWriter:
        key: StreamKey = key_of(chunk)
        if writer is not None and not writer.fits(key, len(chunk.packed)):
            writer.sync()
            if not writer.broken:
                writer.seal()
            writer.close()
            writer = None
        if writer is None:
            header = new_header(self._next_number)
            path = self._directory / f"{prefix}{header.number:04d}-{self._worker}.seg"
            self._next_number += 1
            writer = SegmentWriter(self._files, path, header, self._segment_bytes)
        writer.append(chunk, key)
        return writer

    def _repair(self, path: Path, number: int) -> None:
        report = Recovery()
        with contextlib.suppress(OSError):
            # A directory that cannot be repaired can still be read; writing will say what is wrong.
            recover_segment(path, number, Quarantine(self._files, self._directory), report)

    def _learn(self, path: Path, *, conflict: bool) -> None:
        if path.name not in self._files.names(self._directory):
            return
        file = self._files.open(path)
        try:
            file.sync()
            found = read_index(file, file.size())
            index: SegmentIndex = found[0] if found else load_segment(StoredSegment(path.name, file))
        finally:
            file.close()
        for row in index.rows:
            key, seq, mine = index.keys[int(row["key"])], int(row["seq"]), row["hash"].tobytes()[:HASH_BYTES]
            if conflict:
                self._conflicts.add((key.boot, key.stream, seq, mine))
            else:
                self._known.setdefault((key.boot, key.stream), HashTable()).put(seq, mine)
