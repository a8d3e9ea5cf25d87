"""Receipts files: what they hold, what a damaged one can do, and what a card that fails or lies can."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec.chunk import Chunk
from edgecap.codec.receipt import decode_receipt, encode_receipts
from edgecap.errors import ChunkError, NameRefused, SpoolError, UsageError
from edgecap.ingest.handover import ImportReport, import_spool
from edgecap.ingest.local_store import LocalStore
from edgecap.ingest.refused import RefusedBin
from edgecap.ingest.store import SessionKey
from edgecap.spool import Spool
from edgecap.spool.card import Card, find_spool
from edgecap.spool.device import mounted
from edgecap.spool.files import File, OsFile, OsFiles
from edgecap.spool.handover import RECEIPTS_NAME, ReceiptsWriter, apply_receipts, read_receipts
from edgecap.spool.patched import BLOCK_BYTES
from edgecap.spool.segment import Record, scan
from edgecap.spool.survey import survey_spool
from tests.chunks import SessionMaker

KEY = SessionKey("site-a", "rig-01", "20260102-030405-abcd")


def spool_of(path: Path, chunks: Sequence[Chunk], segment_bytes: int = 16 << 20) -> Path:
    with Spool.open(path, reserve_bytes=0, segment_bytes=segment_bytes) as spool:
        for chunk in chunks:
            spool.append(chunk)
    return path


def import_into(store: Path, card: Card) -> ImportReport:
    with LocalStore.open(store, create=True) as opened:
        bin_ = RefusedBin(store / ".refused")
        return import_spool(card, opened, receipts=[card.path / RECEIPTS_NAME], refused=bin_)


def write_receipts(path: Path, chunks: Sequence[Chunk], per_receipt: int = 7) -> None:
    with ReceiptsWriter(path, worker="dock", store="there", t_utc_ns=5) as writer:
        for at in range(0, len(chunks), per_receipt):
            ids = [c.id for c in chunks[at : at + per_receipt]]
            for data in encode_receipts(ids, worker="dock", t_utc_ns=5):
                writer.add(data)
        writer.commit()


def waiting(spool: Spool) -> set[tuple[str, int]]:
    return {(e.id.stream, e.id.seq) for e in spool.pending(10_000)}


def test_the_file_is_what_its_description_says(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=10)
    path = tmp_path / "a.receipts"
    write_receipts(path, chunks)
    with path.open("rb") as file:
        values = list(msgpack.Unpacker(file))
    assert values[0] == {
        "format": "edgecap-receipts",
        "v": 1,
        "worker": "dock",
        "store": "there",
        "t_utc_ns": 5,
    }
    assert values[-1] == len(values) - 2 == 5
    named = {id_ for value in values[1:-1] for id_ in decode_receipt(value).ids()}
    assert named == {c.id for c in chunks}
    assert [p.name for p in tmp_path.iterdir()] == ["a.receipts"]


def test_exactly_what_is_named_is_released(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=10)
    path = spool_of(tmp_path / "spool", chunks)
    stranger = SessionMaker("20260102-040506-efgh", seed=3).whole()
    write_receipts(path / "one.receipts", chunks[:10] + stranger)
    write_receipts(path / "two.receipts", chunks[8:12])
    with Spool.open(path, reserve_bytes=0) as spool:
        assert apply_receipts(spool) == 12
        assert apply_receipts(spool) == 0
        assert waiting(spool) == {(c.header.stream, c.header.seq) for c in chunks[12:]}
        assert not list(path.glob("*.receipts"))
    with Spool.open(path, reserve_bytes=0) as spool:
        assert len(waiting(spool)) == len(chunks) - 12, "it is remembered"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_releases_nothing_that_was_not_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("spool")
    chunks = SessionMaker().whole(rounds=4)
    path = spool_of(base, chunks)
    write_receipts(path / "x.receipts", chunks[:9], per_receipt=3)
    mutated = bytearray((path / "x.receipts").read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(mutated)))
    (path / "x.receipts").write_bytes(bytes(mutated[:cut]) + data.draw(st.binary(max_size=40)))
    with Spool.open(path, reserve_bytes=0) as spool:
        released = apply_receipts(spool)
        left = waiting(spool)
        assert left >= {(c.header.stream, c.header.seq) for c in chunks[9:]}
        assert len(left) == len(chunks) - released
        assert not (path / "x.receipts").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a receipts file"),
        (b"\x93\x01\x02\x03", "not msgpack"),
        (msgpack.packb({"format": "edgecap-receipts", "v": 2}), "version 2"),
        (msgpack.packb({"format": "edgecap-receipts", "v": 1}), "cut short behind its receipt 0"),
        (msgpack.packb({"format": "edgecap-receipts", "v": 1}) + b"\x01", "goes wrong"),
        (msgpack.packb({"format": "edgecap-receipts", "v": 1}) + b"\x00\x00", "goes wrong"),
        (
            msgpack.packb({"format": "edgecap-receipts", "v": 1}) + b"\xc6\xff\xff\xff\xff" + bytes(600_000),
            "not msgpack",
        ),
    ],
)
def test_refused_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.receipts"
    path.write_bytes(content)
    file = OsFiles().open(path)
    try:
        with pytest.raises((ChunkError, NameRefused), match=words):
            list(read_receipts(file))
    finally:
        file.close()
    spool_path = spool_of(tmp_path / "spool", SessionMaker().whole())
    path.rename(spool_path / "x.receipts")
    with Spool.open(spool_path, reserve_bytes=0) as spool:
        assert apply_receipts(spool) == 0
    assert (spool_path / "quarantine" / "x.receipts").read_bytes() == content


def test_a_pipe_or_a_link_in_the_spool_stops_nobody(tmp_path: Path) -> None:
    chunks = SessionMaker().whole()
    path = spool_of(tmp_path / "spool", chunks)
    os.mkfifo(path / "pipe.receipts")
    os.mkfifo(path / "00000077.seg")
    (path / "00000078.seg").symlink_to("/etc/passwd")
    (path / RECEIPTS_NAME).symlink_to("/etc/hostname")
    before = Path("/etc/hostname").read_bytes()
    with Card(path) as card:
        assert survey_spool(card).chunks == len(chunks)
        report = import_into(tmp_path / "store", card)
    assert report.stored == len(chunks)
    assert [p for p in report.problems if "not a regular file" in p] == report.problems
    assert len(report.problems) == 2
    assert Path("/etc/hostname").read_bytes() == before
    assert not (path / RECEIPTS_NAME).is_symlink()
    (path / "00000077.seg").unlink()
    (path / "00000078.seg").unlink()
    with Spool.open(path, reserve_bytes=0) as spool:
        assert apply_receipts(spool) == len(chunks)


class _BadBlocks(OsFile):
    """A medium that cannot read two of its blocks."""

    bad = (BLOCK_BYTES * 3, BLOCK_BYTES * 9)

    def read_at(self, offset: int, n: int) -> bytes:
        end = min(offset + n, self.size())
        if any(offset < start + BLOCK_BYTES and start < end for start in self.bad):
            raise OSError(errno.EIO, "Input/output error")
        return super().read_at(offset, n)


class _BadFiles(OsFiles):
    def open(self, path: Path, *, write: bool = False) -> File:
        assert not write
        return _BadBlocks(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def test_blocks_that_cannot_be_read_cost_only_what_lies_in_them(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=40)
    path = spool_of(tmp_path / "spool", chunks)
    file = OsFiles().open(path / "00000001.seg")
    whole = [r for r in scan(file) if isinstance(r, Record) and r.kind == 1]
    file.close()
    hit = [r for r in whole if any(r.offset < b + BLOCK_BYTES and b < r.end for b in _BadBlocks.bad)]
    report = import_into(tmp_path / "store", Card(path, files=_BadFiles()))
    assert report.stored == len(chunks) - len(hit)
    assert 0 < len(hit) < 20
    assert any("2 blocks cannot be read" in p for p in report.problems)
    assert report.sessions[0].missing_chunks == len(hit)
    assert report.sessions[0].state == "incomplete"
    assert report.receipted == report.stored


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nothing_but_true_chunks_comes_off_a_damaged_card(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("card")
    chunks = SessionMaker().whole(rounds=4, n_bytes=200)
    path = spool_of(base / "spool", chunks, segment_bytes=4000)
    for segment in path.glob("*.seg"):
        mutated = bytearray(segment.read_bytes())
        for _ in range(data.draw(st.integers(0, 2))):
            mutated[data.draw(st.integers(0, len(mutated) - 1))] ^= data.draw(st.integers(1, 255))
        cut = data.draw(st.one_of(st.just(len(mutated)), st.integers(0, len(mutated))))
        segment.write_bytes(bytes(mutated[:cut]))
    report = import_into(base / "store", Card(path))
    true = {c.id for c in chunks}
    stored = set()
    with LocalStore.open(base / "store", create=True) as store:
        if report.stored:
            stored = {c.id for c in store.chunks(KEY)}
    assert stored <= true
    assert len(stored) == report.stored == report.receipted
    with Spool.open(path, reserve_bytes=0) as spool:
        apply_receipts(spool)
        assert not {e.id for e in spool.pending(1000)} & stored, "one reader: the rig has the same chunks"


def test_a_spool_in_use_is_left_to_its_daemon(tmp_path: Path) -> None:
    chunks = SessionMaker().whole()
    with Spool.open(tmp_path / "spool", reserve_bytes=0) as spool:
        for chunk in chunks:
            spool.append(chunk)
        spool.sync()
        survey = survey_spool(Card(tmp_path / "spool"))
        assert survey.in_use_by == str(os.getpid())
        assert survey.unsent_chunks == len(chunks)
        with pytest.raises(SpoolError, match="in use by process"):
            import_into(tmp_path / "store", Card(tmp_path / "spool"))
        with Card(tmp_path / "spool") as card, pytest.raises(SpoolError):
            card.claim()
    with Card(tmp_path / "spool") as card:
        card.claim()
        with pytest.raises(SpoolError, match="in use"):
            Spool.open(tmp_path / "spool", reserve_bytes=0)


def test_survey_knows_what_is_receipted(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=20)
    path = spool_of(tmp_path / "spool", chunks, segment_bytes=8000)
    with Spool.open(path, reserve_bytes=0, segment_bytes=8000) as spool:
        spool.release(c.id for c in chunks[30:50])
        unsent, size = spool.stats().chunks, spool.stats().bytes
        copy = tmp_path / "copy"
        # While the journal of the receipts is still beside them.
        os.system(f"cp -r {path} {copy}")
    for place in (path, copy):
        survey = survey_spool(Card(place))
        assert (survey.unsent_chunks, survey.unsent_bytes) == (unsent, size)
        assert survey.chunks > unsent
        assert survey.healthy, survey.problems
        assert survey.oldest_unsent_utc_ns > 0
        (session,) = survey.sessions
        assert (session.closed, sorted(session.streams)) == (True, ["head-cam", "left-imu", "session"])
    (copy / "receipts.sqlite").write_bytes(b"SQLite format 3\0" + bytes(100))
    survey = survey_spool(Card(copy))
    assert survey.unsent_chunks == survey.chunks
    assert "counts as unsent" in survey.problems[0]


def test_find_spool(tmp_path: Path) -> None:
    card = tmp_path / "card"
    spool_of(card / "var/lib/edgecap/spool", SessionMaker().whole())
    assert find_spool(card) == card / "var/lib/edgecap/spool"
    assert find_spool(card / "var/lib/edgecap/spool") == card / "var/lib/edgecap/spool"
    (tmp_path / "liar").mkdir()
    (tmp_path / "liar" / "spool").symlink_to(card / "var/lib/edgecap/spool")
    for wrong in (tmp_path / "liar", tmp_path / "nothing"):
        with pytest.raises(SpoolError, match="holds no spool|not a directory"):
            find_spool(wrong)
    with mounted(card) as where:
        assert where == card


def test_receipts_need_a_place(tmp_path: Path) -> None:
    path = spool_of(tmp_path / "spool", SessionMaker().whole())
    with LocalStore.open(tmp_path / "store", create=True) as store:
        with pytest.raises(UsageError, match="receipts cannot be written"):
            import_spool(Card(path), store, receipts=[tmp_path / "not" / "there"], refused=RefusedBin(None))
        assert not store.sessions(), "refused before anything was read"
        other = tmp_path / "r.receipts"
        report = import_spool(
            Card(path), store, receipts=[tmp_path / "not" / "there", other], refused=RefusedBin(None)
        )
    assert report.receipts == str(other)


class _Forbidden(OsFiles):
    def open(self, path: Path, *, write: bool = False) -> File:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))


def test_a_card_that_may_not_be_read_is_no_empty_card(tmp_path: Path) -> None:
    path = spool_of(tmp_path / "spool", SessionMaker().whole())
    card = Card(path, files=_Forbidden())
    with pytest.raises(SpoolError, match="Permission denied; .*sudo"):
        survey_spool(card)
    with pytest.raises(SpoolError, match="Permission denied; .*sudo"):
        import_into(tmp_path / "store", card)
    assert not (path / RECEIPTS_NAME).exists()
