"""The handover under failing disks: the dock's loses power at every operation, so does the rig's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecap.codec.chunk import Chunk, ChunkId
from edgecap.codec.receipt import encode_receipts
from edgecap.errors import ChunkError, EdgecapError
from edgecap.ingest.handover import ImportReport, import_spool
from edgecap.ingest.local_store import LocalStore
from edgecap.ingest.refused import RefusedBin
from edgecap.ingest.store import SessionKey
from edgecap.spool import Spool
from edgecap.spool.card import Card
from edgecap.spool.files import Files
from edgecap.spool.handover import ReceiptsWriter, apply_receipts, read_receipts
from tests.chunks import SessionMaker
from tests.fault.disk import PowerCut, SimDisk

STORE, RECEIPTS, SPOOL = Path("/disk/store"), Path("/disk/rig.receipts"), Path("/disk/spool")
KEY = SessionKey("site-a", "rig-01", "20260102-030405-abcd")
SEEDS = 2


def card_of(path: Path) -> tuple[Path, list[Chunk]]:
    chunks = SessionMaker().whole(rounds=5)
    with Spool.open(path, reserve_bytes=0, segment_bytes=4_000) as spool:
        for chunk in chunks:
            spool.append(chunk)
    return path, chunks


def carry_over(card: Path, disk: SimDisk) -> ImportReport:
    with LocalStore.open(STORE, create=True, files=disk, segment_bytes=6_000) as store:
        return import_spool(Card(card), store, receipts=[RECEIPTS], refused=RefusedBin(None), files=disk)


def named(files: Files, path: Path) -> set[ChunkId]:
    """Every chunk that a receipts file names, as far as it is whole."""
    found: set[ChunkId] = set()
    if path.name in files.names(path.parent):
        file = files.open(path)
        try:
            for receipt in read_receipts(file):
                found |= set(receipt.ids())
        except ChunkError:
            pass
        finally:
            file.close()
    return found


def stored(disk: SimDisk) -> set[ChunkId]:
    try:
        with LocalStore.open(STORE, create=True, files=disk) as store:
            return {c.id for c in store.chunks(KEY)}
    except EdgecapError:
        return set()


def test_no_receipt_names_what_the_dock_could_lose(tmp_path: Path) -> None:
    card, chunks = card_of(tmp_path / "card")
    disk = SimDisk(tmp_path)
    assert carry_over(card, disk).receipted == len(chunks)
    names = disk.log
    assert {n.split()[0] for n in names} >= {"create", "write", "sync", "rename", "sync_dir"}
    whole = 0
    for number in range(1, len(names) + 1):
        for seed in range(SEEDS):
            disk = SimDisk(tmp_path, lambda n, _, number=number: "cut" if n == number else "", seed)
            with pytest.raises(PowerCut):
                carry_over(card, disk)
            disk.crash()
            told = named(disk, RECEIPTS)
            assert told <= stored(disk), f"operation {number}: {names[number - 1]}, seed {seed}"
            whole += bool(told)
            again = carry_over(card, disk)
            assert (again.receipted, again.problems) == (len(chunks), [])
            assert named(disk, RECEIPTS) == stored(disk) == {c.id for c in chunks}
    assert whole, "no case came as far as a receipts file"


@pytest.mark.parametrize("what", ["EIO", "ENOSPC", "EROFS"])
def test_any_operation_of_the_dock_may_fail(tmp_path: Path, what: str) -> None:
    card, chunks = card_of(tmp_path / "card")
    disk = SimDisk(tmp_path)
    carry_over(card, disk)
    for number in range(1, len(disk.log) + 1):
        broken = SimDisk(tmp_path, lambda n, _, number=number: what if n == number else "")
        try:
            report = carry_over(card, broken)
        except EdgecapError as error:
            assert "\n" not in str(error)
        else:
            assert report.receipts is not None or report.problems
            assert report.receipted == (len(chunks) if report.receipts else 0)
        assert named(broken, RECEIPTS) <= stored(broken), f"operation {number}"
        broken.fail = lambda n, _: ""
        assert carry_over(card, broken).receipted == len(chunks)


def rig_disk(database_dir: Path, chunks: list[Chunk], told: list[Chunk], seed: int) -> SimDisk:
    database_dir.mkdir()
    disk = SimDisk(database_dir, seed=seed)
    with Spool.open(SPOOL, files=disk, segment_bytes=4_000, reserve_bytes=0) as spool:
        for chunk in chunks:
            spool.append(chunk)
    with ReceiptsWriter(SPOOL / "x.receipts", worker="w", store="s", t_utc_ns=1, files=disk) as writer:
        for chunk in told:
            writer.add(encode_receipts([chunk.id], worker="w", t_utc_ns=1)[0])
        writer.commit()
    disk.count = 0
    disk.log.clear()
    return disk


def test_the_rig_may_lose_power_while_it_releases(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=5)
    told, kept = chunks[:12], {c.id for c in chunks[12:]}

    def release(disk: SimDisk) -> None:
        with Spool.open(SPOOL, files=disk, segment_bytes=4_000, reserve_bytes=0) as spool:
            apply_receipts(spool, files=disk)

    disk = rig_disk(tmp_path / "dry", chunks, told, 0)
    release(disk)
    operations = len(disk.log)
    assert any(n.startswith("unlink 0") for n in disk.log)
    for number in range(1, operations + 1):
        for seed in range(SEEDS):
            disk = rig_disk(tmp_path / f"{number}-{seed}", chunks, told, seed)
            disk.fail = lambda n, _, number=number: "cut" if n == number else ""
            with pytest.raises(PowerCut):
                release(disk)
            disk.crash()
            with Spool.open(SPOOL, files=disk, segment_bytes=4_000, reserve_bytes=0) as spool:
                apply_receipts(spool, files=disk)
                left = {e.id: spool.read(e.id) for e in spool.pending(1000)}
                assert left.keys() >= kept
                assert left.keys() <= {c.id for c in chunks}
                # A mark that the cut has taken back costs a second delivery, nothing else.
                apply_receipts(spool, files=disk)
