"""Withdrawals and erasures: whom they cover, damaged notes, and disks that fail at every step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecap.cli.main import main
from edgecap.codec.chunk import Chunk
from edgecap.dataset.session import load_session
from edgecap.errors import SessionError, StoreError
from edgecap.ingest import local_store
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.consent import Consents, Kind, require_not_withdrawn, withdraw
from edgecap.ingest.erase import erase_session
from edgecap.ingest.ledger import draw_up, session_time
from edgecap.ingest.local_store import LocalStore
from edgecap.ingest.store import SessionKey
from edgecap.ingest.survey import glance
from edgecap.spool import Spool
from edgecap.spool.card import Card
from tests.chunks import SECOND_NS, SessionMaker
from tests.fault.disk import PowerCut, SimDisk
from tests.unit.test_handover import import_into

KEY = SessionKey("site-a", "rig-01", "20260102-030405-abcd")
OTHER = KEY._replace(session="20260102-040506-efgh")
SUBJECTS: dict[Kind, str] = {"session": "/".join(KEY), "consent": "c-3", "worker": "p-17"}


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_store, "ERASED_S", 0.0)


def other(session: str = OTHER.session) -> list[Chunk]:
    """Another worker's session under another consent."""
    return SessionMaker(session, operator="p-18", consent="c-4", seed=3).whole()


def fill(path: Path, *sessions: list[Chunk]) -> LocalStore:
    store = LocalStore.open(path, create=True)
    for chunks in sessions:
        store.append(chunks)
    store.commit()
    return store


def notes(path: Path) -> list[Path]:
    return sorted((path / ".consent").iterdir())


@pytest.mark.parametrize("kind", list(SUBJECTS))
def test_what_is_covered(kind: Kind, tmp_path: Path) -> None:
    """Stored before or after, and nothing else; however often it is said."""
    with fill(tmp_path, other()) as store:
        made, is_new = withdraw(store, kind, f" {SUBJECTS[kind]} ", "asked by letter")
        assert is_new
        store.append(SessionMaker().whole())
        store.commit()
        again, is_new = withdraw(store, kind, SUBJECTS[kind], "another reason")
        assert (again, is_new, len(notes(tmp_path))) == (made, False, 1)
        assert Consents(store).of(kind, f"{SUBJECTS[kind]} ") == made
        told = json.loads(notes(tmp_path)[0].read_bytes())
        assert (told["kind"], told["subject"], told["why"]) == (kind, SUBJECTS[kind], "asked by letter")
        assert told["t_utc_ns"] == made.t_utc_ns
        report = verify_session(store, KEY)
        assert (report.withdrawn, report.complete, report.problems) == (made, True, [])
        assert (glance(store, KEY).state, glance(store, KEY).withdrawn) == ("withdrawn", made)
        assert verify_session(store, OTHER).withdrawn is None
        assert glance(store, OTHER).state == "complete"
        with pytest.raises(
            SessionError, match=r"refused: session .*-abcd was withdrawn .*asked by letter.*leave it"
        ):
            load_session(store, KEY)
        require_not_withdrawn(store, [OTHER])


def test_the_first_of_several_counts(tmp_path: Path) -> None:
    with fill(tmp_path, SessionMaker().whole()) as store:
        first, _ = withdraw(store, "worker", "p-17", "left")
        withdraw(store, "consent", "c-3", "ended")
        assert verify_session(store, KEY).withdrawn == first


@pytest.mark.parametrize(
    ("subject", "why"), [(" ", "x"), ("c-3", " "), ("c" * 201, "x"), ("c-3", "x" * 1001)]
)
def test_nothing_is_noted_without_subject_and_reason(subject: str, why: str, tmp_path: Path) -> None:
    with fill(tmp_path) as store, pytest.raises(SessionError, match=r"has \d+ characters; give 1 to"):
        withdraw(store, "consent", subject, why)
    with fill(tmp_path) as store, pytest.raises(SessionError, match="no text; give it in UTF-8"):
        withdraw(store, "consent", "c-\udce9", "asked")
    assert not (tmp_path / ".consent").exists()


@pytest.mark.parametrize("damage", ["", "{", '{"v": 1}', "subject", "\0\0"])
def test_a_damaged_note_holds_and_is_named(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name says whom it covers: them and nobody else."""
    with fill(tmp_path, SessionMaker().whole(), other()) as store:
        withdraw(store, "consent", "c-3", "asked")
        (note,) = notes(tmp_path)
        note.write_text(note.read_text().replace("c-3", "c-4") if damage == "subject" else damage)
        (tmp_path / ".consent" / "list.json").write_text("[]")
        withdrawal = verify_session(store, KEY).withdrawn
        assert withdrawal is not None
        assert note.name in withdrawal.damage
        assert withdrawal.t_utc_ns == int(note.name.split(".")[2])
        assert verify_session(store, OTHER).withdrawn is None
        assert main(["sessions", "withdrawn", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert re.search(rf"^consent .* 1  its note {note.name} cannot be read", out, re.M)
        assert "list.json among the notes is none" in out
        # Said once more, it has a reason again; nothing is taken away.
        again, is_new = withdraw(store, "consent", "c-3", "asked once more")
        assert (is_new, len(notes(tmp_path))) == (True, 3)
        assert verify_session(store, KEY).withdrawn == again
        assert withdraw(store, "consent", "c-3", "x") == (again, False)


def test_notes_that_cannot_be_listed_let_nothing_out(tmp_path: Path) -> None:
    with fill(tmp_path, SessionMaker().whole()) as store:
        (tmp_path / ".consent").write_text("a file where the notes should be")
        with pytest.raises(StoreError, match=r"\.consent cannot be read"):
            load_session(store, KEY)
        with pytest.raises(StoreError, match=r"\.consent cannot be (read|written)"):
            withdraw(store, "consent", "c-3", "asked")


def test_only_what_was_withdrawn_is_erased(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fill(tmp_path, SessionMaker().whole(), other()) as store:
        withdraw(store, "consent", "c-3", "asked")
        with pytest.raises(SessionError, match="was not withdrawn"):
            erase_session(store, OTHER)
        names = [KEY.session, OTHER.session]
        assert main(["sessions", "erase", str(tmp_path), *names]) == 1
        assert f"nothing was erased: {OTHER.session} was not withdrawn" in capsys.readouterr().err
        assert all(verify_session(store, key).complete for key in (KEY, OTHER))


def test_what_is_left_of_an_erased_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunks = SessionMaker().whole()
    with fill(tmp_path, chunks, other()) as store:
        withdraw(store, "worker", "p-17", "asked")
        quarantine = tmp_path.joinpath(*KEY, "quarantine")
        quarantine.mkdir()
        (quarantine / "0001-w01.seg-0-5-00000000").write_bytes(b"torn off")
        first = erase_session(store, KEY)
        assert (first.chunks, first.streams["left-imu"]) == (len(chunks), 5)
        assert first.manifest_sha256 == chunks[0].hash.hex()
        # The writer has the session open, and every chunk comes again; other sessions go on.
        assert store.append([*chunks, *other()]) == ["erased"] * len(chunks) + ["duplicate"] * len(other())
        store.commit()
        assert not [p for p in tmp_path.joinpath(*KEY).rglob("*") if p.is_file()]
        assert erase_session(store, KEY) == first
        assert len(notes(tmp_path)) == 2
        assert [c.session for c in store.sessions()] == [OTHER.session]
        report = verify_session(store, KEY)
        assert (report.outcome, report.complete, report.erased, report.problems) == (
            "erased",
            False,
            first,
            [],
        )
        assert report.withdrawn is not None
        with pytest.raises(SessionError, match=r"was withdrawn .* and erased .*17 chunks"):
            load_session(store, KEY)
    assert main(["sessions", "verify", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"{KEY.session}  erased, 0 chunks" in out
    assert "2 sessions: all whole, 1 erased" in out
    assert main(["sessions", "show", str(tmp_path), KEY.session]) == 0
    assert "erased 20" in capsys.readouterr().out
    assert main(["sessions", "ls", str(tmp_path)]) == 0
    assert re.search(rf"{KEY.session}  site-a/rig-01  erased ", capsys.readouterr().out)


def test_what_a_worker_stored_before_it_heard_is_told_and_erased_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks = SessionMaker().whole()
    monkeypatch.setattr(local_store, "ERASED_S", 3600.0)
    with fill(tmp_path, chunks[:9]) as store:
        with LocalStore.open(tmp_path) as another:
            withdraw(another, "consent", "c-3", "asked")
            first = erase_session(another, KEY)
        assert set(store.append(chunks[9:])) == {"stored"}  # into a file that has no name any more
        store.close()
        assert set(store.append(chunks)) == {"stored"}
        store.commit()
    assert main(["sessions", "verify", str(tmp_path), KEY.session]) == 1
    assert "ERASED IN PART" in (out := capsys.readouterr().out)
    assert f"{len(chunks)} chunks are in the store: erase it once more" in out
    assert main(["sessions", "erase", str(tmp_path), KEY.session]) == 0
    assert main(["sessions", "verify", str(tmp_path), KEY.session]) == 0
    with LocalStore.open(tmp_path) as store:
        assert verify_session(store, KEY).erased == first
        assert set(store.append(chunks)) == {"erased"}


def test_a_damaged_tombstone_keeps_the_session_out(tmp_path: Path) -> None:
    chunks = SessionMaker().whole()
    with fill(tmp_path, chunks) as store:
        withdraw(store, "session", "/".join(KEY), "asked")
        erase_session(store, KEY)
        next(p for p in notes(tmp_path) if p.name.startswith("erased")).write_bytes(b"")
        assert set(store.append(chunks)) == {"erased"}
        report = verify_session(store, KEY)
        assert report.erased is not None
        assert (report.outcome, report.erased.chunks) == ("erased", 0)
        assert "cannot be read" in report.erased.damage
        assert report.withdrawn is not None


def test_a_card_with_an_erased_session_is_receipted(tmp_path: Path) -> None:
    chunks = SessionMaker().whole()
    with fill(tmp_path / "store", chunks) as store:
        withdraw(store, "consent", "c-3", "asked")
        erase_session(store, KEY)
    with Spool.open(tmp_path / "spool", reserve_bytes=0) as spool:
        for chunk in chunks:
            spool.append(chunk)
    report = import_into(tmp_path / "store", Card(tmp_path / "spool"))
    assert (report.stored, report.erased, report.receipted, report.problems) == (
        0,
        len(chunks),
        len(chunks),
        [],
    )
    assert [(s.state, s.erased) for s in report.sessions] == [("erased", len(chunks))]


def test_the_ledger_counts_it_apart_before_and_after_erasure(tmp_path: Path) -> None:
    with fill(tmp_path, SessionMaker().whole(), other()) as store:
        plain = draw_up((session_time(store, k) for k in (KEY, OTHER)), "rig").total
        assert (plain.delivered_ns, plain.withdrawn_ns) == (plain.captured_ns, 0)
        withdraw(store, "consent", "c-3", "asked")
        for _ in range(2):
            consents = Consents(store)
            rows = draw_up((session_time(store, k, consents) for k in consents.sessions()), "rig")
            total = rows.total
            assert total.withdrawn_ns == total.delivered_ns == plain.delivered_ns / 2 > 5 * SECOND_NS
            assert (total.sessions, total.captured_ns) == (2, plain.captured_ns)
            assert (total.session_ns, total.not_whole) == (plain.session_ns, 0)
            erase_session(store, KEY)


# ── disks that fail ─────────────────────────────────────────────────────────────────────────────────────


def on_disk(tmp_path: Path, seed: int = 0) -> tuple[SimDisk, Callable[[], LocalStore]]:
    disk = SimDisk(tmp_path, seed=seed)
    opened = lambda: LocalStore.open(Path("/disk/store"), create=True, files=disk, segment_bytes=4000)  # noqa: E731
    with opened() as store:
        store.append(SessionMaker().whole())
    return disk, opened


def failing(number: int, what: str) -> Callable[[int, str], str]:
    return lambda n, _: what if n == number else ""


@pytest.mark.parametrize("what", ["EIO", "ENOSPC", "cut"])
def test_a_withdrawal_is_durable_or_was_never_made(what: str, tmp_path: Path) -> None:
    for number in range(1, 100):
        disk, opened = on_disk(tmp_path, seed=number)
        start = disk.count
        disk.fail = failing(start + number, what)
        with opened() as store:
            try:
                withdraw(store, "consent", "c-3", "asked")
                done = True
            except (StoreError, PowerCut):
                done = False
        steps = disk.count - start
        if what == "cut" or done:
            disk.crash()
        disk.fail = lambda n, name: ""
        with opened() as store:
            found = verify_session(store, KEY).withdrawn
            assert found is None or not found.damage, f"step {number}"
            assert found is not None or not done
            made, is_new = withdraw(store, "consent", "c-3", "asked")
            assert not (found and is_new)
        disk.crash()  # what the second try calls durable is
        with opened() as store:
            assert verify_session(store, KEY).withdrawn == made
        if done:
            break
    assert steps < number < 99, "every step was tried"


@pytest.mark.parametrize("what", ["EIO", "cut"])
def test_an_erasure_that_is_cut_short_says_so_and_is_finished(what: str, tmp_path: Path) -> None:
    whole = len(SessionMaker().whole())
    for number in range(1, 100):
        disk, opened = on_disk(tmp_path, seed=number)
        with opened() as store:
            withdraw(store, "consent", "c-3", "asked")
        start = disk.count
        disk.fail = failing(start + number, what)
        with opened() as store:
            try:
                erase_session(store, KEY)
                done = True
            except (StoreError, PowerCut):
                done = False
        steps = disk.count - start
        if what == "cut" or done:
            disk.crash()
        disk.fail = lambda n, name: ""
        with opened() as store:
            report = verify_session(store, KEY)
            assert report.withdrawn is not None, f"step {number}"
            if report.erased is None:
                assert (report.complete, done) == (True, False), "nothing goes before the tombstone stands"
            elif report.chunks:
                assert not done
                assert "erase it once more" in report.problems[0]
            erase_session(store, KEY)
        disk.crash()
        with opened() as store:
            report = verify_session(store, KEY)
            assert (report.outcome, report.chunks) == ("erased", 0)
            assert report.erased is not None
            assert report.erased.chunks == whole
            assert store.sessions() == []
        if done:
            break
    assert steps < number < 99, "every step was tried"
