"""Writes one segment file: header, records, and at the end its index."""

from __future__ import annotations

import contextlib
from pathlib import Path

from edgecap import clock
from edgecap.codec.chunk import Chunk
from edgecap.spool.files import File, Files
from edgecap.spool.segment import (
    CHUNK,
    FILE_HEADER_BYTES,
    INDEX,
    RECORD_HEADER_BYTES,
    SEGMENT_BYTES,
    SegmentHeader,
    record_header,
)
from edgecap.spool.segment_index import SegmentIndex, StreamKey

MAX_OFFSET = (1 << 32) - (1 << 24)


class SegmentWriter:
    """Appends to a new segment. After an `OSError` from `sync`, or with `broken` set, it takes no more.

    Attributes:
        index: Rows of what was appended.
        size: Length of the whole records.
        synced: How many of the rows are on the medium.
        synced_size: The length of the file up to there.
        broken: A partial record could not be cut off, or a sync failed: use another segment.
    """

    def __init__(
        self, files: Files, path: Path, header: SegmentHeader, limit_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.path, self.header = path, header
        self.index = SegmentIndex()
        self.size = FILE_HEADER_BYTES
        self.synced = 0
        self.synced_size = FILE_HEADER_BYTES
        self.broken = False
        self.limit_bytes = min(limit_bytes, MAX_OFFSET)
        self.file: File = files.create(path)
        try:
            self.file.write_at(0, [header.pack()])
            # The name must not be lost once a record in it has been called durable.
            files.sync_dir(path.parent)
        except OSError:
            self.file.close()
            with contextlib.suppress(OSError):
                files.unlink(path)
            raise

    def fits(self, key: StreamKey, n_bytes: int) -> bool:
        """Whether a chunk of `n_bytes` belongs here; an empty segment takes any."""
        if self.broken or self.index.full(key):
            return False
        return not len(self.index) or self.size + RECORD_HEADER_BYTES + n_bytes <= self.limit_bytes

    def write(self, chunk: Chunk) -> tuple[int, int]:
        """Write a chunk's record; returns offset and append time for `note`.

        After an `OSError` the file is as before, or the writer is `broken`.
        """
        offset, t_ns = self.size, clock.now_ns()
        head = record_header(CHUNK, self.header.uid, t_ns, offset, chunk.packed)
        try:
            self.file.write_at(offset, [head, chunk.packed])
        except OSError:
            try:
                self.file.truncate(offset)
            except OSError:
                self.broken = True
            raise
        self.size += len(head) + len(chunk.packed)
        return offset, t_ns

    def note(self, chunk: Chunk, place: tuple[int, int], key: StreamKey) -> int:
        """Add a written chunk to the index; returns its slot."""
        return self.index.add(chunk, *place, key)

    def append(self, chunk: Chunk, key: StreamKey) -> int:
        """`write` and `note`."""
        return self.note(chunk, self.write(chunk), key)

    def sync(self) -> None:
        """Return once every appended record is on the medium."""
        count, size = len(self.index), self.size
        try:
            self.file.sync()
        except OSError:
            # The kernel may have dropped the pages: what was not synced counts as lost.
            self.broken = True
            raise
        self.synced, self.synced_size = count, size

    def seal(self) -> int:
        """Write the index and sync; returns the index record's offset, 0 if there was no room for it."""
        offset = self.size
        try:
            self.size += write_index(self.file, offset, self.header.uid, self.index)
        except OSError:
            with contextlib.suppress(OSError):
                self.file.truncate(offset)
            offset = 0
        self.sync()
        return offset

    def close(self) -> None:
        self.file.close()


def write_index(file: File, offset: int, uid: int, index: SegmentIndex) -> int:
    """Write `index` as the record at `offset`, which ends the segment; returns the bytes written."""
    body = index.pack(offset)
    head = record_header(INDEX, uid, clock.now_ns(), offset, body)
    file.write_at(offset, [head, body])
    return len(head) + len(body)
