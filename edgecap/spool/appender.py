"""The segment that is being written, and what of it is not known to be on the medium yet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from edgecap.codec.chunk import Chunk
from edgecap.spool.backlog import Backlog
from edgecap.spool.files import Files
from edgecap.spool.held import HeldSegment
from edgecap.spool.segment import new_header
from edgecap.spool.segment_index import StreamKey
from edgecap.spool.segment_writer import SegmentWriter

UNSYNCED_BYTES = 4 << 20
"""When this much has not been synced, it has to be: it bounds memory and loss."""


class Appender:
    """Writes chunks one after another, a segment at a time. Failures are `OSError`s; call under one lock.

    Args:
        files: File layer.
        path: The spool's directory.
        segment_bytes: Where a segment ends.
        backlog: Told of every segment and of every chunk in it.
        give_up: Given uid and offset of records that were written once more, elsewhere.

    Attributes:
        next_number: Of the next segment.
        rescues: Counted since the start, as in `SpoolStats`.
    """

    def __init__(
        self,
        files: Files,
        path: Path,
        segment_bytes: int,
        backlog: Backlog,
        give_up: Callable[[list[tuple[int, int]]], None],
    ) -> None:
        self.next_number = 1
        self.rescues = 0
        self._files, self._path, self._segment_bytes = files, path, segment_bytes
        self._backlog, self._give_up = backlog, give_up
        self._active: HeldSegment | None = None
        self._unsynced: list[tuple[Chunk, StreamKey]] = []
        self._unsynced_bytes = 0

    def wants_sync(self, key: StreamKey, n_bytes: int) -> bool:
        """Whether to `sync` before a chunk of `n_bytes`: a segment is left only when all of it is safe."""
        full = self._unsynced_bytes >= UNSYNCED_BYTES
        return full or (bool(self._unsynced) and not self._fits(key, n_bytes))

    def append(self, chunk: Chunk, key: StreamKey) -> None:
        """Write a chunk; on the medium after the next `sync`. After an `OSError` nothing was appended."""
        if not self._fits(key, len(chunk.packed)):
            self.retire()
            self._begin()
        assert self._active is not None
        self._write(self._active, chunk, key)
        self._unsynced.append((chunk, key))
        self._unsynced_bytes += len(chunk.packed)

    def sync(self) -> None:
        """Return once everything appended is on the medium, written once more if need be. May be repeated."""
        if not self._unsynced:
            return
        active = self._active
        done = False
        if active is not None and active.writer is not None and not active.writer.broken:
            with contextlib.suppress(OSError):
                active.writer.sync()
                done = True
        if not done:
            self._rescue()
        with self._backlog.lock:
            if self._active is not None and self._active.writer is not None:
                self._active.visible = self._active.writer.synced
        self._unsynced.clear()
        self._unsynced_bytes = 0

    def retire(self) -> None:
        """Seal the segment, if there is one; all of it has been synced."""
        active, self._active = self._active, None
        if active is None or active.writer is None:
            return
        if not active.writer.broken:
            with contextlib.suppress(OSError):
                # Its records are on the medium already; without the index the next start scans it.
                active.writer.seal()
        self._backlog.rest(active)

    def _fits(self, key: StreamKey, n_bytes: int) -> bool:
        active = self._active
        return active is not None and active.writer is not None and active.writer.fits(key, n_bytes)

    def _begin(self) -> HeldSegment:
        header = new_header(self.next_number)
        # A number whose file could not be made, nor removed, is not tried again.
        self.next_number += 1
        path = self._path / f"{header.number:08d}.seg"
        writer = SegmentWriter(self._files, path, header, self._segment_bytes)
        self._active = HeldSegment.begin(self._files, writer)
        self._backlog.begin(self._active)
        return self._active

    def _write(self, segment: HeldSegment, chunk: Chunk, key: StreamKey) -> None:
        assert segment.writer is not None
        place = segment.writer.write(chunk)
        self._backlog.add(segment, chunk, place, key)

    def _rescue(self) -> None:
        """Write everything that is not known to be on the medium once more, into a new segment."""
        old, self._active = self._active, None
        self.rescues += 1
        if old is not None:
            self._give_up(self._backlog.supersede(old))
        segment = self._begin()
        writer = segment.writer
        assert writer is not None
        try:
            for chunk, key in self._unsynced:
                self._write(segment, chunk, key)
            writer.sync()
        except OSError:
            # It holds only a part: the next attempt must not take it for the whole.
            writer.broken = True
            raise
