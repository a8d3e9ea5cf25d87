"""Spoiled files for what reads segments and spools."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgecap.errors import EdgecapError
from edgecap.sim import mutants
from edgecap.sim.fuzz_target import Target
from edgecap.spool import Spool
from edgecap.spool.segment import Damage, Record, record_header, scan


class _Bytes:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, offset: int, n: int) -> bytes:
        return self.data[offset : offset + n]

    def size(self) -> int:
        return len(self.data)

    def write_at(self, offset: int, parts: Sequence[bytes]) -> None:
        raise OSError("read only")

    def truncate(self, size: int) -> None:
        raise OSError("read only")

    def sync(self) -> None: ...

    def close(self) -> None: ...


class SegmentTarget(Target):
    """Segment files of spool and store: every record found was written, whole."""

    name = "segment"

    def __init__(self) -> None:
        self._file, bodies = mutants.segment_file()
        self._bodies = set(bodies)
        self._list = bodies
        self._sealed: set[bytes] = set()

    def make(self, rng: random.Random) -> bytes:
        self._sealed = set()
        if rng.random() < 0.2:  # a record whose CRC is right, whatever it says
            body = mutants.spoil(rng, rng.choice(self._list), self._list)[:5000] or b"x"
            self._sealed = {body}
            at = len(self._file)
            head = record_header(rng.choice((0, 1, 2, 255)), rng.getrandbits(63), 5, at, body)
            return self._file + head + body
        return mutants.spoil(rng, self._file, self._list)

    def feed(self, data: bytes) -> bool:
        records, covered = 0, 0
        for part in scan(_Bytes(data)):
            if isinstance(part, Record):
                records += 1
                assert part.body in self._bodies or part.body in self._sealed
                assert part.offset >= covered
                covered = part.end
            elif isinstance(part, Damage):
                assert part.offset >= covered
                covered = part.offset + part.length
        assert covered <= len(data)
        return records == len(self._list)


class SpoolTarget(Target):
    """A whole spool as a damaged card may give it back: it opens, and gives out only what was put in."""

    name = "spool"

    def __init__(self) -> None:
        self._chunks = mutants.sealed_chunks()
        self._packed = {c.packed for c in self._chunks}
        shm = Path("/dev/shm")  # noqa: S108 - a private directory is made in it
        self._scratch = tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None)
        self._dir = Path(self._scratch.name)
        with Spool.open(self._dir / "whole", reserve_bytes=1) as spool:
            for chunk in self._chunks:
                spool.append(chunk)
            spool.sync()
            spool.release([self._chunks[2].id])
        self._files = {p.name: p.read_bytes() for p in (self._dir / "whole").iterdir() if p.is_file()}
        self._names = [n for n in self._files if not n.startswith("lock")]
        self._victim = ""

    def close(self) -> None:
        self._scratch.cleanup()

    def make(self, rng: random.Random) -> bytes:
        self._victim = rng.choice(self._names)
        return mutants.spoil(rng, self._files[self._victim], list(self._files.values()))

    def feed(self, data: bytes) -> bool:
        path = self._dir / "damaged"
        path.mkdir()
        try:
            for name, content in self._files.items():
                (path / name).write_bytes(data if name == self._victim else content)
            try:
                spool = Spool.open(path, reserve_bytes=1)
            except EdgecapError as error:
                raise AssertionError(f"damage keeps the daemon from starting: {error}") from error
            with spool:
                found = spool.pending(100)
                assert all(spool.read(entry.id) in self._packed for entry in found)
                spool.append(self._chunks[0])
                spool.sync()
                assert {e.id for e in spool.pending(100)} >= {e.id for e in found}
                return len(found) >= len(self._chunks) - 1
        finally:
            shutil.rmtree(path)
