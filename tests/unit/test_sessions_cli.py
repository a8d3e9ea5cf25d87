"""`edgecap sessions` and the words of completeness."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgecap.cli import export
from edgecap.codec.chunk import Chunk, pack_chunk
from edgecap.errors import SessionError, StoreError
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.local_store import LocalStore
from edgecap.ingest.session_report import SessionReport
from edgecap.ingest.store import SessionKey
from edgecap.ingest.stream_words import stream_in_words
from edgecap.model import Gap
from tests.chunks import SECOND_NS, SessionMaker
from tests.command import run_sessions


def store_of(path: Path, *sessions_: list[Chunk]) -> str:
    with LocalStore.open(path, create=True) as store:
        for chunks in sessions_:
            store.append(chunks)
    return str(path)


def report_on(path: Path, chunks: list[Chunk]) -> SessionReport:
    with LocalStore.open(path, create=True) as store:
        store.append(chunks)
        h = chunks[0].header
        return verify_session(store, SessionKey(h.site, h.rig, h.session))


def lacking(chunks: list[Chunk], stream: str, *seqs: int) -> list[Chunk]:
    return [c for c in chunks if c.header.stream != stream or c.header.seq not in seqs]


def test_missing_chunks_in_words(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=20)
    cases = {
        "left-imu: chunks 12–14 missing": lacking(chunks, "left-imu", 12, 13, 14),
        "left-imu: chunk 3 missing": lacking(chunks, "left-imu", 3),
        "head-cam: chunks 0, 4–5, 19 missing": lacking(chunks, "head-cam", 0, 4, 5, 19),
        "head-cam: chunks 0–19 missing": [c for c in chunks if c.header.stream != "head-cam"],
        "session: chunk 5 missing": lacking(chunks, "session", 5),
        "no close record: the session is still open or was cut off": chunks[:-1],
    }
    for number, (words, part) in enumerate(cases.items()):
        report = report_on(tmp_path / str(number), part)
        assert report.problems == [words]
        assert not report.complete
        assert report.outcome == ("open" if "no close" in words else "complete")
    assert report_on(tmp_path / "0", chunks).complete, "a session that becomes complete says so"


def test_without_a_manifest(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=2)
    report = report_on(tmp_path / "1", chunks[1:])
    assert "no manifest: the session's opening record has not arrived" in report.problems
    report = report_on(tmp_path / "2", [c for c in chunks if c.header.stream != "session"])
    assert "no manifest: nothing of the session's own stream has arrived" in report.problems
    assert report.streams[1].samples == 200


class Encrypting(SessionMaker):
    """As a later version may seal the session's own records; from chunk `since` on."""

    since = 0

    def records(self, records: list[dict[str, object]]) -> Chunk:
        plain = super().records(records)
        if plain.header.seq < self.since:
            return plain
        payload = bytes(reversed(plain.payload))
        told = {"enc": "x25519-1", "sha256": hashlib.sha256(payload).digest()}
        sealed = pack_chunk(msgspec.structs.replace(plain.header, **told), payload)
        self.chain.prev = sealed.hash
        if not plain.header.seq:
            self.chain.man = sealed.hash
        return sealed


@pytest.mark.parametrize(("since", "how_many"), [(0, "3 chunks are"), (2, "1 chunk is")])
def test_encrypted_records_are_called_that_and_not_damage(tmp_path: Path, since: int, how_many: str) -> None:
    maker = Encrypting()
    maker.since = since
    report = report_on(tmp_path, maker.whole(rounds=1))
    (said,) = report.problems
    assert said == (
        f"session: {how_many} encrypted ('x25519-1'), and what is stated there cannot be compared without "
        "the key: verify where the key is, with an edgecap that knows this encryption"
    )
    assert not report.complete
    assert [s.missing for s in report.streams] == [[], [], []]


def test_outcomes(tmp_path: Path) -> None:
    for outcome in ("discarded", "interrupted"):
        report = report_on(tmp_path / outcome, SessionMaker().whole(outcome=outcome))
        assert (report.complete, report.outcome) == (True, outcome)


def test_a_chain_that_was_cut_and_joined_is_noticed(tmp_path: Path) -> None:
    """Chunks of another recording under the same names: every seq is there, the chain is not."""
    chunks, other = SessionMaker().whole(rounds=5), SessionMaker(seed=5)
    other.t_ns += SECOND_NS
    swapped = [c for c in other.whole(rounds=5) if (c.header.stream, c.header.seq) == ("left-imu", 2)]
    report = report_on(tmp_path, lacking(chunks, "left-imu", 2) + swapped)
    assert not report.complete
    assert "left-imu: chunk 2 belongs to another manifest" in report.problems
    assert "left-imu: the hash chain is broken between chunks 2 and 3" in report.problems


def test_counts_and_gaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maker = SessionMaker()
    gap = Gap("left-imu", 5, 9, 7, "overrun")
    chunks = [
        maker.open(),
        maker.data("left-imu", gaps=(gap,)),
        maker.data("left-imu"),
        maker.data("head-cam", n=30),
    ]
    record = {
        "type": "gap",
        "t_ns": 5,
        "stream": "left-imu",
        "t0_ns": 5,
        "t1_ns": 9,
        "lost": 7,
        "cause": "overrun",
    }
    mark = {"type": "mark", "t_ns": maker.t_ns, "kind": "recovered", "text": "found\x1b it", "by": "ctl"}
    chunks += [maker.records([record, mark]), maker.close(sent={"left-imu": 210})]
    report = report_on(tmp_path, chunks)
    assert report.complete
    imu = next(s for s in report.streams if s.name == "left-imu")
    assert (imu.kind, imu.chunks, imu.expected_chunks, imu.samples, imu.device_sent) == (
        "imu",
        2,
        2,
        200,
        210,
    )
    assert (imu.gaps, imu.lost, imu.unaccounted) == ([gap], 7, 3)
    assert "left-imu: 1 stated gap, 7 samples lost" in report.notes
    assert any("3 are unaccounted for" in n for n in report.notes)
    cam = next(s for s in report.streams if s.name == "head-cam")
    assert (cam.kind, cam.samples, cam.device_sent, cam.unaccounted) == ("video", 30, None, None)
    assert [(m.kind, m.by) for m in report.marks] == [("recovered", "ctl")]
    assert run_sessions("show", str(tmp_path), report.session) == 0
    said = capsys.readouterr().out
    assert "recovered: found· it (by ctl)" in said
    assert "left-imu: 0.000 s, overrun, 7 lost" in said


@pytest.mark.parametrize(
    ("info", "line"),
    [
        ({}, ""),
        ({"rate_hz_nominal": 25.0, "channels": [{"name": "p", "unit": "Pa"}]}, "25 Hz: p [Pa]"),
        (
            {
                "rate_hz_nominal": 1e3,
                "channels": [
                    *({"name": f"accel_{a}", "unit": "m/s2"} for a in "xyz"),
                    {"name": "count", "unit": ""},
                ],
            },
            "1000 Hz: accel_x accel_y accel_z [m/s2], count",
        ),
        ({"channels": [{"name": f"c{k}", "unit": "N"} for k in range(64)]}, "c0 … c63 [N]"),
        (
            {"rate_hz_nominal": 30, "width": 1280, "height": 720, "codec": "h264-annexb"},
            "30 Hz, 1280 × 720 h264-annexb",
        ),
        ({"rate_hz_nominal": "x", "width": -1, "height": 5, "channels": [None, 7]}, ""),
        ({"rate_hz_nominal": float("nan"), "channels": "abc"}, ""),
        ({"channels": [{"unit": None}]}, "[None]"),
    ],
)
def test_what_a_stream_carries_in_words(info: dict[str, Any], line: str) -> None:
    assert stream_in_words(info) == line


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ((0,), "1 stated gap, no sample lost"),
        ((-1,), "1 stated gap, samples that could not be counted lost"),
        ((3, -1, 0), "3 stated gaps, 3 samples and samples that could not be counted lost"),
    ],
)
def test_what_gaps_lost_in_words(tmp_path: Path, lost: tuple[int, ...], words: str) -> None:
    maker = SessionMaker()
    gaps = tuple(Gap("left-imu", 10 * i, 10 * i + 5, n, "silent") for i, n in enumerate(lost))
    chunks = [maker.open(), maker.data("left-imu", gaps=gaps), maker.data("head-cam"), maker.close()]
    assert f"left-imu: {words}" in report_on(tmp_path, chunks).notes


def test_verify_exit_codes_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = SessionMaker().whole()
    cut = SessionMaker("20260102-040506-efgh").whole()[:-1]
    store = store_of(tmp_path / "store", whole, cut)
    assert run_sessions("verify", store, "20260102-030405-abcd") == 0
    assert "complete" in capsys.readouterr().out
    assert run_sessions("verify", store) == 1
    out = capsys.readouterr().out
    assert "INCOMPLETE (open)" in out
    assert "no close record" in out
    assert run_sessions("verify", store, "--json") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["complete"] for line in lines] == [True, False]
    assert set(lines[0]) >= {
        *("complete", "outcome", "rig", "site", "session", "boot", "task", "operator", "streams", "problems"),
    }
    assert set(lines[0]["streams"][1]) >= {
        *("name", "kind", "chunks", "expected_chunks", "missing", "samples", "device_sent", "gaps", "lost"),
        *("t0_ns", "t1_ns", "u_ns_max"),
    }


def test_ls_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = SessionMaker().whole()
    holed = lacking(SessionMaker("20260102-040506-efgh").whole(), "left-imu", 2)
    store = store_of(tmp_path / "store", whole, holed)
    assert run_sessions("ls", store) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["SESSION", "RIG", "STATE"]
    assert lines[1].split()[:3] == ["20260102-030405-abcd", "site-a/rig-01", "complete"]
    assert lines[2].split()[:3] == ["20260102-040506-efgh", "site-a/rig-01", "incomplete"]
    assert run_sessions("ls", store, "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(f["state"], f["missing_chunks"]) for f in found] == [("complete", 0), ("incomplete", 1)]
    assert run_sessions("show", store, "rig-01/20260102-040506-efgh") == 0
    out = capsys.readouterr().out
    assert "fold a towel" in out
    assert "left-imu: chunk 2 missing" in out
    assert run_sessions("show", store, "20260102-030405-abcd", "--json") == 0
    assert json.loads(capsys.readouterr().out)["complete"]
    assert run_sessions("ls", store_of(tmp_path / "empty")) == 0
    assert "holds no session" in capsys.readouterr().out


def test_unknown_sessions_and_stores(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", SessionMaker().whole())
    with pytest.raises(SessionError, match="nearest are: 20260102-030405-abcd") as error:
        run_sessions("show", store, "20260102-030405-abce")
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)
    with pytest.raises(StoreError, match="does not exist"):
        run_sessions("ls", str(tmp_path / "nothing"))


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "notes").write_text("x")
    with pytest.raises(StoreError, match=r"is no store: .*notes lies where rigs should; give the directory"):
        run_sessions("ls", str(tmp_path))
    with pytest.raises(StoreError, match="it is, or lies in, a file; give a directory"):
        LocalStore.open(tmp_path / "lab" / "notes", create=True)


@pytest.mark.parametrize("width", [40, 62, 80, 110, 200])
def test_ids_are_never_folded_on_a_terminal(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path, SessionMaker().whole())
    assert run_sessions("ls", store) == 0
    assert "MISSING" in capsys.readouterr().out  # into a pipe all columns go, whatever stands in them
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run_sessions("ls", store) == 0
    out = capsys.readouterr().out
    for whole in ("20260102-030405-abcd", "site-a/rig-01", "complete"):
        assert whole in out
    assert "MISSING" not in out


def test_exports_say_what_is_doubtful() -> None:
    good = {"complete": True, "outcome": "complete", "utc_trusted": True}
    assert export._doubts(good) == ""
    assert export._doubts(good | {"outcome": "discarded"}) == ", DISCARDED by its worker"
    cut = {"complete": False, "outcome": "open", "utc_trusted": False}
    assert export._doubts(cut) == ", INCOMPLETE, wall clock not trusted"
