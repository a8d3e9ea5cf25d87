"""A spool in the midst of its work, on a disk that may fail; what it promised is checked afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecap.codec.chunk import Chunk, ChunkId
from edgecap.errors import SpoolError
from edgecap.spool import Spool
from tests.chunks import SessionMaker
from tests.fault.disk import SimDisk

SPOOL = Path("/disk/spool")
SEGMENT_BYTES = 6_000
"""Small, so that a short story has many rotations."""


def open_spool(disk: SimDisk) -> Spool:
    return Spool.open(SPOOL, files=disk, segment_bytes=SEGMENT_BYTES, reserve_bytes=1000)


class Story:
    """A session recorded and delivered with restarts; remembers what the spool promised."""

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self.appended: list[Chunk] = []
        self.durable: list[Chunk] = []
        self.released: set[ChunkId] = set()
        self.chunks = SessionMaker(seed=3).whole(rounds=6)

    def tell(self, *, tolerant: bool = False) -> None:
        """Append all but the close, sync now and then, release some; `tolerant` retries after errors."""
        spool = open_spool(self.disk)
        for number, chunk in enumerate(self.chunks[:-1]):
            self._try(lambda chunk=chunk: spool.append(chunk), tolerant)
            self.appended.append(chunk)
            if number % 3 == 2:
                self._try(spool.sync, tolerant)
                self.durable = list(self.appended)
            if number % 5 == 4:
                entries = spool.pending(4 if number < 10 else 100)
                ids = [e.id for e in entries]
                self.released.update(ids)
                spool.release(ids)
        self._try(spool.sync, tolerant)
        self.durable = list(self.appended)
        self._try(spool.close, tolerant)

    def _try(self, action: object, tolerant: bool) -> None:
        for _ in range(40):
            try:
                return action()  # type: ignore[operator]
            except SpoolError:
                if not tolerant:
                    raise
        pytest.fail("the spool did not recover when the disk did")

    def check(self) -> Spool:
        """After a crash: everything durable and not released is there, whole, in order; the chains go on."""
        spool = open_spool(self.disk)
        found = {e.id: spool.read(e.id) for e in spool.pending(10**6)}
        for chunk in self.durable:
            assert chunk.id in self.released or found.get(chunk.id) == chunk.packed, chunk.header.seq
        assert set(found.values()) <= {c.packed for c in self.chunks}, "something was made up"
        session = self.chunks[0].header.session
        heads = spool.heads(session)
        for stream in {c.header.stream for c in self.chunks}:
            seqs = [c.header.seq for c in self.durable if c.header.stream == stream]
            if seqs:
                seq, hash_ = heads[stream]
                assert seq >= max(seqs), (stream, seq)
                assert hash_ == next(
                    c.hash for c in self.chunks if (c.header.stream, c.header.seq) == (stream, seq)
                )
        if self.durable:
            (left,) = spool.open_sessions()
            assert left.man == self.chunks[0].hash
            for stream, head in left.streams.items():
                assert head.samples == sum(
                    c.header.n for c in self.chunks if c.header.stream == stream and c.header.seq <= head.seq
                )
        return spool


def operations(tmp_path: Path) -> list[str]:
    (tmp_path / "dry").mkdir()
    disk = SimDisk(tmp_path / "dry")
    Story(disk).tell()
    return disk.log
