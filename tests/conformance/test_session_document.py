"""docs/SESSION.md says what a session holds: a reader written from it alone agrees with the program."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgecap import model
from edgecap.clock import read_pair
from edgecap.dataset.session import load_session
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.store import SessionKey, open_store
from edgecap.model import ClockPair, Gap, Mark, StreamInfo, Verdict
from edgecap.session import manifest
from tests.reference.session import read_session
from tests.system.synthetic import Synthetic, make_session

TEXT = (Path(__file__).parents[2] / "docs" / "SESSION.md").read_text()


@pytest.fixture(scope="module")
def made() -> Synthetic:
    return make_session(seconds=3, size=(160, 96))


def stored(made: Synthetic, folder: Path, *, without: tuple[str, int] | None = None) -> SessionKey:
    store = open_store(str(folder), create=True)
    store.append([c for c in made.chunks if (c.header.stream, c.header.seq) != without])
    store.close()
    return SessionKey("lab", "rig-07", made.session)


def test_the_reader_and_the_program_read_the_same(made: Synthetic, tmp_path: Path) -> None:
    key = stored(made, tmp_path)
    plain = read_session(tmp_path.joinpath(*key))
    ours = load_session(open_store(str(tmp_path)), key)
    assert plain.problems() == []
    assert ours.report.complete
    for info in ours.sample_streams():
        chunks, data = plain.samples(info.name), ours.stream(info.name)
        for name, found in (("tick", data.ticks), ("values", data.values), ("t_ns", data.t_ns)):
            assert np.concatenate([c[name] for c in chunks]).tobytes() == found.tobytes(), (info.name, name)
        assert [int(c["index"][0]) for c in chunks] == [c.index for c in ours.sample_chunks(info.name)]
    (camera,) = ours.video_streams()
    frames = list(ours.frames(camera.name))
    mid = [f.t_ns + f.exposure_ns // 2 - f.line_ns * (camera.height // 2) for f in frames]
    assert plain.frames(camera.name) == [(f.index, t, f.data) for f, t in zip(frames, mid, strict=True)]
    of_type = lambda kind: [r for r in plain.records if r["type"] == kind]  # noqa: E731
    assert [msgspec.convert(r, Gap) for r in of_type("gap")] == list(ours.gaps)
    assert [msgspec.convert(r, Mark) for r in of_type("mark")] == list(ours.marks)


def test_both_find_what_is_missing(made: Synthetic, tmp_path: Path) -> None:
    places = {(c.header.stream, c.header.seq) for c in made.chunks}
    streams = sorted({stream for stream, _ in places})
    last = {stream: max(seq for s, seq in places if s == stream) for stream in streams}
    for k, (stream, seq) in enumerate([(s, q) for s in streams for q in (0, 1, last[s])]):
        folder = tmp_path / str(k)
        key = stored(made, folder, without=(stream, seq))
        report = verify_session(open_store(str(folder)), key)
        problems = read_session(folder.joinpath(*key)).problems()
        assert not report.complete
        assert {p.split()[1] for p in problems} == {stream}, problems
        assert all(stream in p or "close record" in p or "manifest" in p for p in report.problems)


def cells(kind: str) -> set[str]:
    """Every word in code type of a record's row in the table of § 4."""
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{kind}` |")]
    return set(re.findall(r"`([a-z0-9_-]+)`", row))


def test_every_record_that_is_written_is_described() -> None:
    pair = read_pair()
    info = StreamInfo("a", "imu", "d", 1.0)
    provenance = manifest.Provenance("t", "o", "c")
    records = [
        manifest.open_record(
            site="s", rig="r", session="x", provenance=provenance, pair=pair,
            streams=[], calibration={}, config={},
        ),
        manifest.stream_record(1, info),
        manifest.clock_record(pair),
        manifest.gap_record(Gap("a", 1, 2, 3, "line")),
        manifest.mark_record(Mark(1, "note")),
        manifest.verdict_record(1, []),
        manifest.event_record(1, "d", "log", ""),
        manifest.close_record(1, "complete", {}),
    ]  # fmt: skip
    made_by = [name for name in dir(manifest) if name.endswith("_record")]
    assert len(records) == len(made_by), "a record is not described"
    for record in records:
        assert set(record) - {"type", "t_ns"} <= cells(record["type"]), record["type"]
    for struct, kind in ((ClockPair, "clock"), (Gap, "gap"), (Mark, "mark"), (Verdict, "verdict")):
        fields = {f.encode_name for f in msgspec.structs.fields(struct)}
        assert fields - {"t_ns"} <= cells(kind), kind
    assert set(model.MARK_KINDS) <= cells("mark")
    words = set(re.findall(r"`([a-z0-9_-]+)`", TEXT))
    for struct in (StreamInfo, model.ChannelInfo, model.ClockFit):
        assert {f.encode_name for f in msgspec.structs.fields(struct)} <= words | {"ref_tick", "ref_ns"}
    assert set(re.findall(r"`([a-z]+)`", _causes())) == set(model.GAP_CAUSES)


def _causes() -> str:
    found = re.search(r"Causes of gaps: (.*?)\n\n", TEXT, re.S)
    assert found
    return found[1]
