"""The ledger: how much time was recorded, and what became of it, computed from the store alone.

Per stream, a session's time (`session_ns`, from the opening record to the closing one; without the one or the
other, from the first or to the last chunk of any stream) is divided, every nanosecond into exactly one part:

- **gapped**: inside a stated gap. A gap is the rig's own word that no sample exists; it outweighs the rest.
- **delivered**: from the first to the last sample of consecutive chunks that are in the store. Between
  neighbours (seq k and k + 1) nothing is lost that is not stated as a gap, so the time between them counts.
- **missing**: chunks are known to have been made and are not in the store: between two stored chunks whose
  numbers do not follow, before the first one if that is not number 0, and after the last one if the close
  record states more.
- **unclaimed**: nothing says that the stream had data: before its first chunk, after its last one, or, while
  the session is open, not arrived yet.

Of a session that was withdrawn or erased all of this is **withdrawn**, and none of it counts elsewhere.

captured = delivered + gapped + missing + withdrawn, and session time = captured + unclaimed. These are sums
over streams: ten streams of one hour are ten stream hours; `session_ns` alone counts a session once. Captured
time is also told by the session's outcome: discarded by its worker, interrupted (cut off by a crash or a cut
of power) or still open. A camera's previews show again what its own stream holds, and add no time.

Presence is taken from the segments' indexes and the session's own records: no payload is read and no hash
is checked; `edgecap sessions verify` does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np

from edgecap.codec.records import decode_records
from edgecap.errors import ChunkError
from edgecap.ingest.consent import Consents
from edgecap.ingest.contents import SessionContents
from edgecap.ingest.store import SessionKey, Store
from edgecap.model import SESSION_STREAM, Gap

By = Literal["rig", "day", "operator"]
Interval = tuple[int, int]
"""Start and end in ns, the end excluded."""


class StreamTime(msgspec.Struct, kw_only=True):
    """What became of one stream's share of a session's time."""

    name: str
    delivered_ns: int = 0
    gapped_ns: int = 0
    missing_ns: int = 0
    unclaimed_ns: int = 0

    @property
    def captured_ns(self) -> int:
        return self.delivered_ns + self.gapped_ns + self.missing_ns


class SessionTime(msgspec.Struct, kw_only=True):
    """One session's entry in the ledger."""

    site: str
    rig: str
    session: str
    operator: str
    day: str
    """UTC day on which it was opened, by the rig's wall clock; empty when that is not known."""
    utc_trusted: bool
    outcome: str
    """`complete`, `discarded` or `interrupted`, as the close record says; `open` without one."""
    whole: bool
    """Closed, and every chunk is there; hashes are not checked."""
    session_ns: int
    streams: list[StreamTime]
    withdrawn: bool = False
    erased_ns: int = 0
    """Captured time of which only the tombstone tells."""


class LedgerRow(msgspec.Struct, kw_only=True):
    """Sessions of one rig, day or operator, added up. captured = delivered + gapped + missing + withdrawn."""

    key: str
    sessions: int = 0
    not_whole: int = 0
    """Sessions that are open, or lack chunks, and were not withdrawn."""
    untrusted: int = 0
    """Sessions of a rig whose wall clock was not synchronised: their day is doubtful."""
    session_ns: int = 0
    """Sum of the sessions' lengths; everything below is stream time."""
    captured_ns: int = 0
    delivered_ns: int = 0
    gapped_ns: int = 0
    missing_ns: int = 0
    unclaimed_ns: int = 0
    """Of the sessions' time, outside captured."""
    discarded_ns: int = 0
    """Captured time of sessions that their worker discarded."""
    interrupted_ns: int = 0
    """Captured time of sessions that were cut off."""
    open_ns: int = 0
    """Captured time of sessions without a close record."""
    withdrawn_ns: int = 0
    """Captured time of sessions that were withdrawn or erased: in no other part of captured."""

    def add(self, session: SessionTime) -> None:
        """Take a session in."""
        self.sessions += 1
        self.not_whole += not session.whole and not session.withdrawn
        self.untrusted += not session.utc_trusted
        self.session_ns += session.session_ns
        if session.withdrawn:
            withdrawn_ns = session.erased_ns + sum(stream.captured_ns for stream in session.streams)
            self.withdrawn_ns += withdrawn_ns
            self.captured_ns += withdrawn_ns
            self.unclaimed_ns += sum(stream.unclaimed_ns for stream in session.streams)
            return
        captured_ns = 0
        for stream in session.streams:
            captured_ns += stream.captured_ns
            self.delivered_ns += stream.delivered_ns
            self.gapped_ns += stream.gapped_ns
            self.missing_ns += stream.missing_ns
            self.unclaimed_ns += stream.unclaimed_ns
        self.captured_ns += captured_ns
        if session.outcome == "discarded":
            self.discarded_ns += captured_ns
        elif session.outcome == "interrupted":
            self.interrupted_ns += captured_ns
        elif session.outcome == "open":
            self.open_ns += captured_ns


class Ledger(msgspec.Struct, kw_only=True):
    """The whole store, added up."""

    by: By
    rows: list[LedgerRow]
    total: LedgerRow


def draw_up(sessions: Iterable[SessionTime], by: By) -> Ledger:
    """Add sessions up by rig, day or operator; rows in order of their key."""
    rows: dict[str, LedgerRow] = {}
    total = LedgerRow(key="total")
    for session in sessions:
        key = {
            "rig": f"{session.site}/{session.rig}",
            "day": session.day or "unknown",
            "operator": session.operator or "unknown",
        }[by]
        rows.setdefault(key, LedgerRow(key=key)).add(session)
        total.add(session)
    return Ledger(by=by, rows=[rows[key] for key in sorted(rows)], total=total)


def session_time(store: Store, key: SessionKey, consents: Consents | None = None) -> SessionTime:
    """One session's entry.

    Raises:
        SessionError: the store holds nothing of it, not even a tombstone.
        StoreError: the store cannot be read.
    """
    consents = Consents(store) if consents is None else consents
    erasure = consents.erasure(key)
    if erasure is not None:
        return SessionTime(
            **key._asdict(), operator="", day=erasure.day, utc_trusted=erasure.utc_trusted, outcome="erased",
            whole=False, session_ns=erasure.session_ns, streams=[], withdrawn=True,
            erased_ns=erasure.captured_ns,
        )  # fmt: skip
    with store.contents(key) as contents:
        records = _Records(contents)
        t0_ns, t1_ns = contents.span_ns()
        start_ns = t0_ns if records.open_ns is None else records.open_ns
        end_ns = max(start_ns, t1_ns if records.close_ns is None else records.close_ns)
        whole = records.whole and not contents.faults
        streams = []
        in_gaps = {gap.stream for gap in records.gaps}
        names = {*contents.streams, *records.streams, *records.chunks, *in_gaps} - {SESSION_STREAM}
        for name in sorted(names):
            seqs, starts, ends = contents.times(name)
            stated = records.chunks.get(name)
            have = len(seqs)
            whole = whole and have == (stated or 0) and (not have or int(seqs[-1]) + 1 == have)
            if name in records.previews:
                continue
            streams.append(
                stream_time(
                    name,
                    (start_ns, end_ns),
                    delivered_runs(seqs, starts, ends),
                    first_seq=int(seqs[0]) if have else None,
                    lacking_end=stated is not None and stated > (int(seqs[-1]) + 1 if have else 0),
                    gaps=[(g.t0_ns, g.t1_ns) for g in records.gaps if g.stream == name],
                )
            )
        return SessionTime(
            **key._asdict(),
            operator=records.operator,
            day=records.day,
            utc_trusted=records.utc_trusted,
            outcome=records.outcome,
            whole=whole,
            session_ns=end_ns - start_ns,
            streams=streams,
            withdrawn=consents.covering(key, consent=records.consent, worker=records.operator) is not None,
        )


def delivered_runs(seqs: Any, starts_ns: Any, ends_ns: Any) -> list[Interval]:
    """Time from the first to the last sample of each run of consecutive chunks.

    Args:
        seqs: (n,) ascending, each once.
        starts_ns, ends_ns: (n,) int64, first and last sample of each.
    """
    if not len(seqs):
        return []
    cuts = np.flatnonzero(np.diff(seqs) != 1) + 1
    firsts = np.concatenate([[0], cuts])
    starts = np.minimum.reduceat(starts_ns, firsts).tolist()
    ends = np.maximum.reduceat(ends_ns, firsts).tolist()
    return list(zip(starts, ends, strict=True))


def stream_time(
    name: str,
    session: Interval,
    runs: Sequence[Interval],
    *,
    first_seq: int | None,
    lacking_end: bool,
    gaps: Sequence[Interval],
) -> StreamTime:
    """Divide a session's time as the module describes.

    Args:
        name: Of the stream.
        session: From open to close.
        runs: As `delivered_runs` gives them.
        first_seq: Number of the first stored chunk; None when none is stored.
        lacking_end: The close record states chunks behind the last stored one.
        gaps: Stated gaps.
    """
    start_ns, end_ns = session
    missing = [(one[1], other[0]) for one, other in pairwise(runs)]
    if first_seq:
        missing.append((start_ns, runs[0][0]))
    if lacking_end:
        missing.append((runs[-1][1] if runs else start_ns, end_ns))
    gapped = _union(gaps, session)
    with_runs = _union([*gapped, *runs], session)
    captured = _union([*with_runs, *missing], session)
    gapped_ns, runs_ns, captured_ns = _length(gapped), _length(with_runs), _length(captured)
    return StreamTime(
        name=name,
        delivered_ns=runs_ns - gapped_ns,
        gapped_ns=gapped_ns,
        missing_ns=captured_ns - runs_ns,
        unclaimed_ns=end_ns - start_ns - captured_ns,
    )


def _union(intervals: Iterable[Interval], within: Interval) -> list[Interval]:
    """Disjoint intervals in order that cover the same time, cut to `within`."""
    found: list[Interval] = []
    for start, end in sorted((max(a, within[0]), min(b, within[1])) for a, b in intervals):
        if start >= end:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _length(intervals: Iterable[Interval]) -> int:
    return sum(end - start for start, end in intervals)


class _Records:
    """What the ledger needs of the session's own records."""

    def __init__(self, contents: SessionContents) -> None:
        self.open_ns: int | None = None
        self.close_ns: int | None = None
        self.operator = self.consent = self.day = ""
        self.utc_trusted = False
        self.outcome = "open"
        self.streams: set[str] = set()
        self.previews: set[str] = set()
        self.chunks: dict[str, int] = {}
        """Chunks per stream, as the close record states."""
        self.gaps: list[Gap] = []
        next_seq = 0
        lacking = False
        for chunk in contents.chunks(SESSION_STREAM):
            lacking |= chunk.header.seq != next_seq
            next_seq = chunk.header.seq + 1
            try:
                records = decode_records(chunk.payload)
            except ChunkError:
                lacking = True
                continue
            for record in records:
                self._take(record)
        self._lacking = lacking
        if lacking:
            # Records are gone, and with them perhaps gaps: the chunks' own headers state most of them too.
            for stream in contents.streams:
                if stream != SESSION_STREAM:
                    for chunk in contents.chunks(stream):
                        self.gaps += chunk.header.gaps

    @property
    def whole(self) -> bool:
        """The session's own stream is there from its opening to its closing record."""
        return self.open_ns is not None and self.close_ns is not None and not self._lacking

    def _take(self, record: dict[str, Any]) -> None:
        t_ns = _int(record.get("t_ns"))
        if record["type"] == "open":
            self.open_ns = t_ns
            self.operator = str(record.get("operator") or "")
            self.consent = str(record.get("consent") or "")
            self.utc_trusted = record.get("utc_trusted") is True
            self.day = _day(_int(record.get("utc_ns")) or 0)
            streams = record.get("streams")
            self._name(streams if isinstance(streams, list) else [])
        elif record["type"] == "stream":
            self._name([record.get("stream", record)])
        elif record["type"] == "gap":
            try:
                self.gaps.append(msgspec.convert(record, Gap))
            except msgspec.ValidationError:
                return
        elif record["type"] == "close":
            self.close_ns, self.outcome = t_ns, str(record.get("outcome") or "unknown")
            totals: object = record.get("streams")
            for name, total in totals.items() if isinstance(totals, dict) else ():
                count = _int(total.get("chunks")) if isinstance(total, dict) else None
                if isinstance(name, str) and count is not None:
                    self.chunks[name] = max(0, count)

    def _name(self, infos: Sequence[object]) -> None:
        for info in infos:
            if isinstance(info, dict) and isinstance(info.get("name"), str):
                self.streams.add(info["name"])
                if info.get("kind") == "preview":
                    self.previews.add(info["name"])


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _day(utc_ns: int) -> str:
    try:
        return datetime.fromtimestamp(utc_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d") if utc_ns else ""
    except (OverflowError, ValueError, OSError):
        return ""
