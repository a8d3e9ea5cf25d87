"""The spool on failing disks: every operation fails once, reads fail, space ends, the power goes out."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from edgecap.codec.chunk import ChunkId
from edgecap.errors import SpoolError
from edgecap.spool import backlog
from edgecap.spool.segment import RECORD_HEADER_BYTES
from tests.chunks import SessionMaker
from tests.fault.disk import PowerCut, SimDisk
from tests.fault.spool_story import SPOOL, Story, open_spool, operations


@pytest.fixture
def tmp_path(memory: Path) -> Path:
    """The disks here are made up; only the receipts' SQLite needs a real directory."""
    return memory


def cut_in(directory: Path, number: int, seed: int) -> tuple[SimDisk, Story]:
    """A disk after a power cut in one of the story's operations."""
    directory.mkdir()
    disk = SimDisk(directory, lambda n, _: "cut" if n == number else "", seed)
    story = Story(disk)
    with pytest.raises(PowerCut):
        story.tell()
    disk.crash()
    return disk, story


def test_power_cut_during_every_operation(tmp_path: Path) -> None:
    names = operations(tmp_path)
    assert {n.split()[0] for n in names} >= {"create", "write", "sync", "sync_dir", "unlink"}
    for number in range(1, len(names) + 1):
        for seed in range(3):
            directory = tmp_path / f"{number}-{seed}"
            disk, story = cut_in(directory, number, seed)
            try:
                spool = story.check()
                # And it works on: the session can be closed, everything delivered, nothing is left.
                spool.append(story.chunks[-1], closing=True)
                spool.sync()
                spool.release([e.id for e in spool.pending(10**6)])
                spool.close()
                assert not [n for n in disk.names(SPOOL) if n.endswith(".seg")]
            except BaseException as error:
                error.add_note(f"power cut in operation {number} ({names[number - 1]}), seed {seed}")
                raise


def test_power_cut_during_recovery(tmp_path: Path) -> None:
    """A cut while recovering from a cut loses nothing either."""
    names = operations(tmp_path)
    for number in range(10, len(names), 7):
        recovery = 1
        while True:
            directory = tmp_path / f"{number}-{recovery}"
            disk, story = cut_in(directory, number, number)
            start = disk.count
            disk.fail = lambda n, _, at=start + recovery: "cut" if n == at else ""
            try:
                open_spool(disk).close()
            except PowerCut:
                disk.crash()
                story.check().close()
                recovery += 1
                continue
            break
        assert recovery > 1 or number < 12


@pytest.mark.parametrize("in_a_row", [1, 2, 4])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_every_operation_fails(tmp_path: Path, error: str, in_a_row: int) -> None:
    """Failing operations are errors or are survived; then the power goes out, and no promise is broken."""
    names = operations(tmp_path)
    for number in range(1, len(names) + 1):
        for seed in range(2):
            directory = tmp_path / f"{number}-{seed}"
            directory.mkdir()
            bad = range(number, number + in_a_row)
            disk = SimDisk(directory, lambda n, _, bad=bad: error if n in bad else "", seed)
            story = Story(disk)
            try:
                story.tell(tolerant=True)
            except SpoolError as refused:
                assert number == 1, f"{names[number - 1]}: {refused}"
                assert "\n" not in str(refused)
            disk.crash()
            try:
                story.check().close()
            except BaseException as failure:
                failure.add_note(f"{error} from operation {number} ({names[number - 1]}), seed {seed}")
                raise


@pytest.mark.parametrize("ends", [True, False])
def test_read_only_from_any_operation_on(tmp_path: Path, ends: bool) -> None:
    """A file system remounts itself read-only: what was promised is read on, and nothing else is claimed."""
    names, refusals = operations(tmp_path), 0
    for number in range(2, len(names) + 1):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        disk = SimDisk(directory, lambda n, _, number=number: "EROFS" if n >= number else "", number)
        story = Story(disk)
        try:
            story.tell()
        except SpoolError as refused:
            refusals += 1
            assert "Read-only file system" in str(refused)
            assert "\n" not in str(refused)
        if ends:  # mounted writable again
            disk.fail = lambda n, _: ""
        else:
            disk.crash()
        disk.locked.clear()
        try:
            story.check().close()
        except BaseException as failure:
            failure.add_note(f"read-only from operation {number} ({names[number - 1]})")
            raise
    assert refusals > len(names) - 12, "all but those of the last sealing"


def test_every_read_fails_once_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading error is no reason to give a chunk up, to end delivery, or to keep the rig from its spool."""
    monkeypatch.setattr(backlog, "LOADED_SEGMENTS", 1)  # rows are read back, too
    chunks = SessionMaker().whole(rounds=6)
    number = total = 0
    while number <= total:
        directory = tmp_path / f"{number}"
        directory.mkdir()
        disk = SimDisk(directory, seed=number)
        with open_spool(disk) as spool:
            for chunk in chunks:
                spool.append(chunk)
        disk.reads, at = 0, number
        disk.unreadable = lambda name, offset, n, at=at, disk=disk: disk.reads == at
        delivered: set[ChunkId] = set()
        for _ in range(2):  # a segment that could not be read at the start is, at the next
            spool = open_spool(disk)
            for _ in range(3):
                for entry in spool.pending(10**6):
                    with contextlib.suppress(SpoolError):
                        spool.read(entry.id)
                        delivered.add(entry.id)
                spool.release(list(delivered))
                assert spool.stats().quarantined_total == 0, number
            spool.close()
        assert delivered == {c.id for c in chunks}, number
        assert not [n for n in disk.names(SPOOL) if n.endswith(".seg")], "all is gone, receipts included"
        total = total or disk.reads
        number += 1
    assert total > 40


def test_a_bad_block_costs_what_lies_in_it(tmp_path: Path) -> None:
    """Wherever a block cannot be read for good: the spool opens, records, and delivers all the rest."""
    disk = SimDisk(tmp_path)
    story = Story(disk)
    story.tell()
    segments = [p for p in disk.inodes if p.suffix == ".seg"]
    before = {p: bytes(disk.inodes[p].data) for p in segments}
    hit = 0
    for path in segments:
        for block in range(0, len(before[path]), 4096):
            disk.locked.clear()
            disk.unreadable = lambda name, offset, n, bad=(path.name, block): (
                name == bad[0] and offset < bad[1] + 4096 and bad[1] < offset + n
            )
            spool = open_spool(disk)
            entries, got = spool.pending(10**6), set()
            for entry in entries:
                try:
                    assert spool.read(entry.id) in {c.packed for c in story.chunks}
                    got.add(entry.id)
                except SpoolError as error:
                    assert error.evidence.get("again"), error
            lost = {c.id for c in story.durable} - story.released - got
            data = before[path]
            inside = {
                c.id
                for c in story.durable
                if (at := data.find(c.packed)) >= 0
                and at - RECORD_HEADER_BYTES < block + 4096
                and block < at + len(c.packed)
            }
            assert lost <= inside, (path.name, block)
            hit += len(lost)
            assert spool.stats().quarantined_total == 0
            assert spool.recovery.quarantined == []
            spool.close()
            for p in segments:
                assert bytes(disk.inodes[p].data) == before[p], "an unreadable file stays as it is"
    assert hit > 3


@pytest.mark.parametrize("what", ["cut", "EIO", "ENOSPC", "EROFS"])
def test_a_chunk_on_its_way_to_quarantine_is_never_lost(tmp_path: Path, what: str) -> None:
    """Whatever operation fails or is the last: it still waits, or lies in quarantine with its reason."""
    chunks = SessionMaker().whole(rounds=3)
    poison, reason = chunks[4], "the broker hung up whenever only this chunk was sent"

    def kept(disk: SimDisk) -> set[bytes]:
        return {bytes(disk.inodes[p].data) for p in disk.inodes if p.parent.name == "quarantine"}

    number, names = 0, [""]
    while number < len(names):
        directory = tmp_path / str(number)
        directory.mkdir()
        disk = SimDisk(directory, seed=number)
        spool = open_spool(disk)
        for chunk in chunks:
            spool.append(chunk)
        spool.sync()
        disk.count, disk.log = 0, []
        disk.fail = lambda n, _, number=number: what if n == number else ""
        try:
            spool.quarantine(poison.id, reason)
            spool.close()
        except (PowerCut, SpoolError) as stopped:
            assert number, stopped
        names = names if number else [*names, *disk.log]
        disk.crash()
        with open_spool(disk) as again:
            waiting = {e.id: again.read(e.id) for e in again.pending(1000)}
        assert waiting.keys() >= {c.id for c in chunks} - {poison.id}, names[number]
        if poison.id not in waiting:
            assert {poison.packed, reason.encode()} <= kept(disk), names[number]
        number += 1
    assert {n.split()[0] for n in names[1:]} >= {"create", "write", "sync", "rename", "sync_dir"}


def test_operations_fail_at_random(tmp_path: Path) -> None:
    """Several failures in one story, an eighth of all operations at worst."""
    refused = 0
    for seed in range(100):
        directory = tmp_path / str(seed)
        directory.mkdir()
        source = random.Random(seed)
        share = source.choice([0.03, 0.06, 0.12])
        disk = SimDisk(directory, seed=seed)
        disk.make_dir(SPOOL)
        disk.fail = lambda n, _, source=source, share=share: "EIO" if source.random() < share else ""
        story = Story(disk)
        try:
            story.tell(tolerant=True)
        except SpoolError:
            refused += 1
        disk.crash()
        try:
            story.check().close()
        except BaseException as failure:
            failure.add_note(f"seed {seed}")
            raise
    assert refused < 30


def test_a_failed_sync_is_not_trusted_the_second_time(tmp_path: Path) -> None:
    """After a failed fdatasync the kernel drops the dirty pages: a second sync would succeed for nothing."""
    disk = SimDisk(tmp_path)
    spool = open_spool(disk)
    chunks = SessionMaker().whole(rounds=1)
    spool.append(chunks[0])
    failing = disk.count + 1
    disk.fail = lambda n, _: "EIO" if n == failing else ""
    spool.sync()
    assert spool.stats().rescues_total == 1
    disk.crash()
    again = open_spool(disk)
    assert [again.read(e.id) for e in again.pending(9)] == [chunks[0].packed]
    again.close()


def test_a_chunk_written_twice_counts_once(tmp_path: Path) -> None:
    """After a failed sync and a kill (no power cut) both copies are found; the session's sums know."""
    disk = SimDisk(tmp_path)
    spool = open_spool(disk)
    chunks = SessionMaker().whole(rounds=1)[:3]
    for chunk in chunks:
        spool.append(chunk)
    disk.fail = lambda n, name, bad=disk.count + 1: "EIO" if n == bad else ""
    spool.sync()
    before = spool.open_sessions()
    disk.locked.clear()
    again = open_spool(disk)
    assert again.recovery.chunks == 6
    assert again.open_sessions() == before
    assert again.release([c.id for c in chunks]) == 3
    assert again.open_sessions() == before
    again.close()


def test_lying_sync_loses_data(tmp_path: Path) -> None:
    """The check can fail: with a medium that lies about syncs, promises are broken."""
    broken = 0
    for seed in range(10):
        (tmp_path / str(seed)).mkdir()
        disk = SimDisk(tmp_path / str(seed), seed=seed)
        disk.lying_sync = True
        story = Story(disk)
        story.tell()
        disk.crash()
        try:
            story.check().close()
        except (AssertionError, ValueError):
            broken += 1
    assert broken > 5


def test_reserve_and_admission(tmp_path: Path) -> None:
    disk = SimDisk(tmp_path)
    spool = open_spool(disk)
    chunks = SessionMaker().whole(rounds=1)
    spool.append(chunks[0])
    disk.free = 999
    with pytest.raises(SpoolError, match=r"spool /disk/spool has 0 MB free") as refused:
        spool.append(chunks[1])
    assert refused.value.evidence["free_bytes"] == 999
    spool.append(chunks[-1], closing=True)
    spool.sync()
    assert spool.open_sessions() == []
    spool.close()


def test_no_space_leaves_what_was_there(tmp_path: Path) -> None:
    """ENOSPC in the middle of a record: the partial record is cut off, later appends work."""
    disk = SimDisk(tmp_path)
    spool = open_spool(disk)
    chunks = SessionMaker().whole(rounds=1)
    spool.append(chunks[0])
    disk.fail = lambda n, name: "ENOSPC" if name.startswith("write") else ""
    with pytest.raises(SpoolError, match="No space left on device"):
        spool.append(chunks[1])
    disk.fail = lambda n, name: ""
    spool.append(chunks[1])
    spool.sync()
    disk.crash()
    again = open_spool(disk)
    assert {e.id for e in again.pending(9)} == {chunks[0].id, chunks[1].id}
    assert again.recovery.torn_bytes == 0
    again.close()
