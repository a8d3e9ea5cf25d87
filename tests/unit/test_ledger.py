"""The ledger adds up: by a slow count of every nanosecond, and on stores with losses of each kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec.chunk import Chunk
from edgecap.ingest.ledger import (
    Interval,
    SessionTime,
    StreamTime,
    delivered_runs,
    draw_up,
    session_time,
    stream_time,
)
from edgecap.ingest.local_store import LocalStore
from edgecap.ingest.store import SessionKey
from edgecap.model import Gap
from tests.chunks import SECOND_NS, SessionMaker
from tests.command import run_sessions

T0 = 1_000 * SECOND_NS


def slow_stream_time(
    session: Interval, chunks: Sequence[tuple[int, int, int]], stated: int | None, gaps: Sequence[Interval]
) -> tuple[int, int, int, int]:
    """Delivered, gapped, missing and unclaimed, counted one by one, from (seq, t0, t1) of each chunk."""
    counts = {"delivered": 0, "gapped": 0, "missing": 0, "unclaimed": 0}
    for t in range(*session):
        if any(a <= t < b for a, b in gaps):
            counts["gapped"] += 1
        elif any(
            (t0 <= t < t1) or (other[0] == seq + 1 and min(t0, other[1]) <= t < max(t1, other[2]))
            for seq, t0, t1 in chunks
            for other in chunks
        ):
            counts["delivered"] += 1
        else:
            before = [c for c in chunks if c[2] <= t]
            after = [c for c in chunks if c[1] > t]
            if chunks and not before:
                lacks = min(chunks)[0] > 0
            elif not after:
                lacks = stated is not None and stated > (max(chunks)[0] + 1 if chunks else 0)
            else:
                lacks = min(after)[0] > max(before)[0] + 1
            counts["missing" if lacks else "unclaimed"] += 1
    return counts["delivered"], counts["gapped"], counts["missing"], counts["unclaimed"]


@st.composite
def streams(draw: st.DrawFn) -> tuple[Interval, list[tuple[int, int, int]], int | None, list[Interval]]:
    """A stream whose chunks follow one another in time, of which some never arrived; gaps anywhere."""
    start = draw(st.integers(0, 20))
    t, made = start + draw(st.integers(-3, 5)), []
    for seq in range(draw(st.integers(0, 8))):
        length = draw(st.integers(0, 9))
        made.append((seq, t, t + length))
        t += length + draw(st.integers(0, 4))
    end = max(start, t + draw(st.integers(-4, 6)))
    kept = [c for c in made if draw(st.integers(0, 3))]
    closed = draw(st.booleans())
    gaps = draw(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 15)), max_size=4))
    return (start, end), kept, len(made) if closed else None, [(a, a + n) for a, n in gaps]


@settings(max_examples=400, deadline=None)
@given(streams())
def test_every_nanosecond_counts_once(
    case: tuple[Interval, list[tuple[int, int, int]], int | None, list[Interval]],
) -> None:
    session, chunks, stated, gaps = case
    seqs = np.array([c[0] for c in chunks], np.uint64)
    starts, ends = (np.array([c[i] for c in chunks], np.int64) for i in (1, 2))
    found = stream_time(
        "s",
        session,
        delivered_runs(seqs, starts, ends),
        first_seq=chunks[0][0] if chunks else None,
        lacking_end=stated is not None and stated > (chunks[-1][0] + 1 if chunks else 0),
        gaps=gaps,
    )
    parts = (found.delivered_ns, found.gapped_ns, found.missing_ns, found.unclaimed_ns)
    assert parts == slow_stream_time(session, chunks, stated, gaps)
    assert found.captured_ns == found.delivered_ns + found.gapped_ns + found.missing_ns
    assert found.captured_ns + found.unclaimed_ns == session[1] - session[0]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 63), (1 << 63) - 1), st.booleans()
        ),
        max_size=6,
    ),
    st.tuples(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 1 << 63)),
    st.lists(st.tuples(st.integers(-(1 << 70), 1 << 70), st.integers(-(1 << 70), 1 << 70)), max_size=3),
)
def test_absurd_times_still_add_up(
    chunks: list[tuple[int, int, bool]], span: Interval, gaps: list[Interval]
) -> None:
    seqs = np.cumsum([1 + skip for _, _, skip in chunks]).astype(np.uint64)
    starts = np.array([min(a, b) for a, b, _ in chunks], np.int64)
    ends = np.array([max(a, b) for a, b, _ in chunks], np.int64)
    session = (span[0], span[0] + span[1])
    found = stream_time(
        "s",
        session,
        delivered_runs(seqs, starts, ends),
        first_seq=int(seqs[0]) if len(seqs) else None,
        lacking_end=True,
        gaps=gaps,
    )
    assert min(found.delivered_ns, found.gapped_ns, found.missing_ns, found.unclaimed_ns) >= 0
    assert found.captured_ns + found.unclaimed_ns == span[1]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["", "2026-01-02", "1970-01-01"]),
            st.sampled_from(["", "p-1"]),
            st.sampled_from(["complete", "discarded", "interrupted", "open"]),
            st.lists(st.tuples(*[st.integers(0, 100)] * 4), max_size=3),
        ),
        max_size=6,
    ),
    st.sampled_from(["rig", "day", "operator"]),
)
def test_rows_add_up_to_the_total(
    cases: list[tuple[str, str, str, str, list[tuple[int, ...]]]], by: str
) -> None:
    entries = [
        SessionTime(
            site="s",
            rig=rig,
            session="x",
            operator=operator,
            day=day,
            utc_trusted=day != "1970-01-01",
            outcome=outcome,
            whole=outcome != "open",
            session_ns=400,
            streams=[
                StreamTime(name="n", delivered_ns=a, gapped_ns=b, missing_ns=c, unclaimed_ns=d)
                for a, b, c, d in parts
            ],
        )
        for rig, day, operator, outcome, parts in cases
    ]
    ledger = draw_up(entries, by)  # type: ignore[arg-type]
    total = ledger.total
    for name in total.__struct_fields__:
        if name != "key":
            assert getattr(total, name) == sum(getattr(row, name) for row in ledger.rows)
    for row in [*ledger.rows, total]:
        assert row.captured_ns == row.delivered_ns + row.gapped_ns + row.missing_ns
        assert row.discarded_ns + row.interrupted_ns + row.open_ns <= row.captured_ns
    assert total.sessions == len(cases)


def recorded(maker: SessionMaker, outcome: str | None = "complete") -> list[Chunk]:
    """Ten seconds of two streams; `left-imu` states a gap of half a second inside its sixth."""
    chunks = [maker.open()]
    for second in range(10):
        start_ns = maker.t_ns
        chunks.append(maker.data("left-imu"))
        maker.t_ns = start_ns
        chunks.append(maker.data("head-cam"))
        if second == 5:
            gap = {
                "stream": "left-imu",
                "t0_ns": start_ns,
                "t1_ns": start_ns + SECOND_NS // 2,
                "lost": 9,
                "cause": "silent",
            }
            chunks.append(maker.records([{"type": "gap", "t_ns": start_ns, **gap}]))
    return [*chunks, maker.close(outcome)] if outcome else chunks


def entry(path: Path, chunks: Sequence[Chunk]) -> tuple[SessionTime, dict[str, tuple[float, ...]]]:
    with LocalStore.open(path, create=True) as store:
        store.append(chunks)
        h = chunks[0].header
        found = session_time(store, SessionKey(h.site, h.rig, h.session))
    parts = {
        s.name: tuple(t / SECOND_NS for t in (s.delivered_ns, s.gapped_ns, s.missing_ns, s.unclaimed_ns))
        for s in found.streams
    }
    return found, parts


def lacking(chunks: Sequence[Chunk], stream: str, *seqs: int) -> list[Chunk]:
    return [c for c in chunks if c.header.stream != stream or c.header.seq not in seqs]


def test_losses_of_each_kind(tmp_path: Path) -> None:
    whole = recorded(SessionMaker())
    found, parts = entry(tmp_path / "whole", whole)
    assert (found.whole, found.outcome, found.day, found.operator) == (True, "complete", "2026-01-02", "p-17")
    assert found.session_ns == 10 * SECOND_NS
    assert parts == {"left-imu": (9.5, 0.5, 0, 0), "head-cam": (10, 0, 0, 0)}
    cases: list[tuple[list[Chunk], tuple[float, ...]]] = [
        (lacking(whole, "left-imu", 2, 3), (7.5, 0.5, 2, 0)),
        (lacking(whole, "left-imu", 0), (8.5, 0.5, 1, 0)),
        (lacking(whole, "left-imu", 9), (8.5, 0.5, 1, 0)),
        (lacking(whole, "left-imu", *range(10)), (0, 0.5, 9.5, 0)),
        (lacking(whole, "left-imu", 5), (9, 0.5, 0.5, 0)),
        (lacking(whole[:-1], "left-imu", 8, 9), (7.5, 0.5, 0, 2)),
        (lacking(whole[:-1], "left-imu", 7, 9), (7.5, 0.5, 1, 1)),
    ]
    for number, (chunks, expected) in enumerate(cases):
        found, parts = entry(tmp_path / str(number), chunks)
        assert parts["left-imu"] == expected, number
        assert not found.whole
        assert found.outcome == ("complete" if number < 5 else "open")


def test_previews_add_no_time_and_are_still_wanted(tmp_path: Path) -> None:
    streams = {"left-imu": "samples", "head-cam": "video", "head-cam-preview": "event"}
    maker = SessionMaker(streams=streams)
    chunks = recorded(maker, None)
    shown = maker.data("head-cam-preview")
    chunks += [shown, maker.close("complete")]
    found, parts = entry(tmp_path / "whole", chunks)
    assert found.whole
    assert set(parts) == {"left-imu", "head-cam"}
    found, _ = entry(tmp_path / "lacking", [c for c in chunks if c is not shown])
    assert not found.whole


def test_gaps_of_headers_count_when_records_are_gone(tmp_path: Path) -> None:
    maker = SessionMaker()
    gap = Gap("left-imu", T0 + SECOND_NS // 4, T0 + SECOND_NS // 2, 3, "line")
    chunks = [maker.open(), maker.data("left-imu", gaps=(gap,)), maker.data("head-cam")]
    record = {"type": "gap", "t_ns": 1, "stream": gap.stream, "t0_ns": gap.t0_ns, "t1_ns": gap.t1_ns}
    lost = maker.records([{**record, "lost": 3, "cause": "line"}])
    chunks.append(maker.close())
    for name, part in (("all", [*chunks[:-1], lost, chunks[-1]]), ("some", chunks)):
        found, parts = entry(tmp_path / name, part)
        assert parts["left-imu"] == (0.75, 0.25, 0, 1)
        assert found.whole == (name == "all")


def test_without_a_manifest(tmp_path: Path) -> None:
    found, parts = entry(tmp_path, [c for c in recorded(SessionMaker()) if c.header.stream != "session"])
    assert (found.day, found.operator, found.outcome, found.whole) == ("", "", "open", False)
    assert parts["head-cam"] == (10, 0, 0, 0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    with LocalStore.open(store, create=True) as opened:
        opened.append(recorded(SessionMaker("20260102-030405-aaaa")))
        opened.append(recorded(SessionMaker("20260102-030405-bbbb", seed=1), "interrupted"))
        opened.append(recorded(SessionMaker("20260102-030405-cccc", rig="rig-02", seed=2), "discarded"))
        opened.append(recorded(SessionMaker("20260102-030405-dddd", rig="rig-02", seed=3), None))
    assert run_sessions("ledger", str(store), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["by"] == "rig"
    assert [r["key"] for r in found["rows"]] == ["site-a/rig-01", "site-a/rig-02"]
    first, second = found["rows"]
    assert (first["sessions"], first["not_whole"], first["session_ns"]) == (2, 0, 20 * SECOND_NS)
    assert (first["captured_ns"], first["gapped_ns"]) == (40 * SECOND_NS, SECOND_NS)
    assert (first["interrupted_ns"], first["discarded_ns"]) == (20 * SECOND_NS, 0)
    assert (second["discarded_ns"], second["open_ns"], second["not_whole"]) == (
        20 * SECOND_NS,
        20 * SECOND_NS,
        1,
    )
    for by, key in (("day", "2026-01-02"), ("operator", "p-17")):
        assert run_sessions("ledger", str(store), "--by", by) == 0
        out = capsys.readouterr().out
        assert key in out
        assert "40.0s" in out
    assert run_sessions("ledger", str(store)) == 0
    assert "total" in capsys.readouterr().out
