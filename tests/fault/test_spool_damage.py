"""The spool with damaged files: every write is torn, bits flip, receipts are none."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import pytest

from edgecap.codec.chunk import Chunk
from edgecap.errors import SpoolError
from edgecap.spool import Spool
from edgecap.spool.segment import (
    CHUNK,
    FILE_HEADER_BYTES,
    RECORD_HEADER_BYTES,
    parse_header,
    record_header,
)
from tests.chunks import SessionMaker
from tests.fault.disk import SimDisk
from tests.fault.spool_story import SPOOL, open_spool


@pytest.fixture
def tmp_path(memory: Path) -> Path:
    """The disks here are made up; only the receipts' SQLite needs a real directory."""
    return memory


def written(tmp_path: Path, chunks: list[Chunk]) -> tuple[SimDisk, Path, bytes]:
    """A spool with one unsealed segment, as kill -9 leaves it."""
    disk = SimDisk(tmp_path)
    spool = Spool.open(SPOOL, files=disk, reserve_bytes=0)
    for chunk in chunks:
        spool.append(chunk)
    spool.sync()
    (path,) = (p for p in disk.inodes if p.suffix == ".seg")
    data = bytes(disk.inodes[path].data)
    disk.crash()
    return disk, path, data


def reopened(disk: SimDisk, path: Path, data: bytes) -> Spool:
    for name in [p for p in disk.inodes if p.name not in ("receipts.sqlite",)]:
        del disk.inodes[name]
    disk.create(path).write_at(0, [data])
    disk.locked.clear()
    return Spool.open(SPOOL, files=disk, reserve_bytes=0)


def test_torn_at_every_byte_of_a_header_and_seeded_places_of_the_body(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=1)[:3]
    disk, path, data = written(tmp_path, chunks)
    last = len(data) - RECORD_HEADER_BYTES - len(chunks[2].packed)
    seeded = random.Random(5).sample(range(last + RECORD_HEADER_BYTES, len(data)), 30)
    cuts = [*range(FILE_HEADER_BYTES + 1), *range(last, last + RECORD_HEADER_BYTES + 1), *seeded]
    for cut in cuts:
        for tail in (b"", bytes(40), b"\xff" * 40):
            spool = reopened(disk, path, data[:cut] + tail)
            whole = [c.packed for c in chunks if data.index(c.packed) + len(c.packed) <= cut]
            assert sorted(spool.read(e.id) for e in spool.pending(9)) == sorted(whole), cut
            lost = len(data[:cut] + tail) - (data.index(whole[-1]) + len(whole[-1]) if whole else 0)
            report = spool.recovery
            if whole and lost:
                assert report.torn_bytes == lost
                kept = [p for p in disk.inodes if p.parent.name == "quarantine"]
                assert [bytes(disk.inodes[p].data) for p in kept] == [(data[:cut] + tail)[-lost:]]
            spool.close()


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """A flipped bit costs at most the record that it is in, never a wrong chunk, never the ones behind it."""
    chunks = SessionMaker().whole(rounds=1)[:4]
    disk, path, data = written(tmp_path, chunks)
    source = random.Random(11)
    places = [*range(FILE_HEADER_BYTES + RECORD_HEADER_BYTES), *source.sample(range(len(data)), 120)]
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << source.randrange(8)
        spool = reopened(disk, path, bytes(flipped))
        found = [spool.read(e.id) for e in spool.pending(9)]
        assert set(found) <= {c.packed for c in chunks}
        assert len(found) >= len(chunks) - 1, place
        assert spool.recovery.torn_bytes + spool.recovery.damaged_bytes > 0
        assert spool.recovery.quarantined
        spool.close()


def test_a_bit_that_flips_later_is_noticed_on_reading(tmp_path: Path) -> None:
    disk = SimDisk(tmp_path)
    spool = Spool.open(SPOOL, files=disk, reserve_bytes=0)
    chunks = SessionMaker().whole(rounds=1)
    for chunk in chunks:
        spool.append(chunk)
    spool.sync()
    (path,) = (p for p in disk.inodes if p.suffix == ".seg")
    data = disk.inodes[path].data
    data[data.index(chunks[1].packed) + 100] ^= 4
    with pytest.raises(SpoolError, match="damaged on the medium"):
        spool.read(chunks[1].id)
    assert chunks[1].id not in {e.id for e in spool.pending(100)}
    assert spool.stats().quarantined_total == 1
    assert len(spool.pending(100)) == len(chunks) - 1
    spool.close()


def test_a_record_quoted_inside_a_payload_is_not_taken_for_one(tmp_path: Path) -> None:
    """Salvage behind damage looks for records; one that lies elsewhere than its offset says is none."""
    disk = SimDisk(tmp_path)
    spool = Spool.open(SPOOL, files=disk, reserve_bytes=0)
    inner = SessionMaker(session="inner").open()
    maker = SessionMaker(session="outer")
    spool.append(maker.open())
    (path,) = (p for p in disk.inodes if p.suffix == ".seg")
    header = parse_header(bytes(disk.inodes[path].data))
    assert header is not None
    quoted = record_header(CHUNK, header.uid, 0, FILE_HEADER_BYTES, inner.packed) + inner.packed
    outer = maker.records([{"type": "note", "data": quoted}])
    spool.append(outer)
    spool.append(maker.data("left-imu"))
    spool.sync()
    flipped = bytearray(disk.inodes[path].data)
    flipped[flipped.index(outer.packed) - 1] ^= 1
    disk.crash()
    spool = reopened(disk, path, bytes(flipped))
    assert {e.id.session for e in spool.pending(100)} == {"outer"}
    assert len(spool.pending(100)) == 2
    spool.close()


def test_damaged_receipts_cost_only_deliveries(tmp_path: Path) -> None:
    disk = SimDisk(tmp_path)
    spool = open_spool(disk)
    chunks = SessionMaker().whole(rounds=2)
    for chunk in chunks:
        spool.append(chunk)
    spool.sync()
    spool.release([c.id for c in chunks[:3]])
    disk.crash()
    (tmp_path / "receipts.sqlite").write_bytes(b"this is not a database, but it is long enough" * 100)
    for name in ("receipts.sqlite", "receipts.sqlite-wal", "receipts.sqlite-shm"):
        disk.inodes[SPOOL / name] = disk.inodes[next(iter(disk.inodes))]
    moved = disk.rename

    def rename(old: Path, new: Path) -> None:
        moved(old, new)
        (tmp_path / old.name).unlink(missing_ok=True)

    disk.rename = rename  # type: ignore[method-assign]
    again = open_spool(disk)
    assert "receipts.sqlite" in again.recovery.quarantined
    assert "begun anew" in again.recovery.describe()
    assert {c.id for c in chunks} <= {e.id for e in again.pending(1000)} | {c.id for c in chunks[:3]}
    again.close()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO session VALUES ('b', CAST(x'ff' AS TEXT), 's', 'r', x'00', 0)",
        "INSERT INTO receipted VALUES ('many', 7)",
        "PRAGMA user_version = 0",
        "DROP TABLE head",
    ],
)
def test_receipts_that_make_no_sense_do_not_keep_the_spool_shut(tmp_path: Path, statement: str) -> None:
    chunks = SessionMaker().whole(rounds=2)
    with Spool.open(tmp_path, reserve_bytes=1) as spool:
        for chunk in chunks:
            spool.append(chunk)
        spool.sync()
    with contextlib.closing(sqlite3.connect(tmp_path / "receipts.sqlite", isolation_level=None)) as database:
        database.execute(statement)
    with Spool.open(tmp_path, reserve_bytes=1) as spool:
        assert "begun anew" in spool.recovery.describe()
        assert {e.id for e in spool.pending(1000)} == {c.id for c in chunks}
