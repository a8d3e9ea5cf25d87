"""Whether a session is whole, proved from the store alone; otherwise exactly what is missing, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from edgecap.codec.chunk import NO_HASH, Chunk
from edgecap.errors import SessionError
from edgecap.ingest.consent import Consents, Erasure, Withdrawal
from edgecap.ingest.contents import SessionContents
from edgecap.ingest.session_records import SessionRecords, as_int, text_of
from edgecap.ingest.session_report import SessionReport, StreamReport
from edgecap.ingest.store import SessionKey, Store
from edgecap.model import SESSION_STREAM, Gap

MOST_RANGES = 20
"""Ranges of missing chunks that are listed per stream in words; the JSON lists them all."""
CRASH = "crash"
"""Cause of the gap in which a rig states what a crash or a cut of power may have cost."""


@dataclass(slots=True)
class _Tally:
    """What has been seen of one stream."""

    name: str
    kind: str = ""
    chunks: int = 0
    samples: int = 0
    n_bytes: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)
    gaps: dict[tuple[int, int, str], Gap] = field(default_factory=dict)
    t0_ns: int = 0
    t1_ns: int = 0
    u_ns_max: int = 0
    next_seq: int = 0
    last_hash: bytes = NO_HASH
    problems: list[str] = field(default_factory=list)

    def see(self, chunk: Chunk, man: bytes | None) -> None:
        """Take the next chunk in order of seq; `man` is the manifest's hash, None when it is not there."""
        h = chunk.header
        if h.seq > self.next_seq:
            self.missing.append((self.next_seq, h.seq - 1))
        elif h.seq > 0 and h.prev != self.last_hash:
            self.problems.append(
                f"{self.name}: the hash chain is broken between chunks {h.seq - 1} and {h.seq}"
            )
        is_manifest = self.name == SESSION_STREAM and h.seq == 0
        if man is not None and h.man != (NO_HASH if is_manifest else man):
            self.problems.append(f"{self.name}: chunk {h.seq} belongs to another manifest")
        elif h.seq == 0 and h.prev != h.man:
            self.problems.append(f"{self.name}: the hash chain does not begin at the manifest")
        self.t0_ns = h.t0_ns if not self.chunks else min(self.t0_ns, h.t0_ns)
        self.t1_ns = h.t1_ns if not self.chunks else max(self.t1_ns, h.t1_ns)
        self.kind = self.kind or h.kind
        self.chunks += 1
        self.samples += h.n
        self.n_bytes += len(chunk.packed)
        if h.fit is not None:
            self.u_ns_max = max(self.u_ns_max, h.fit.u_ns)
        self.add_gaps(h.gaps)
        self.next_seq, self.last_hash = h.seq + 1, chunk.hash

    def add_gaps(self, gaps: Iterable[Gap]) -> None:
        """A gap that header and session record both state counts once."""
        for gap in gaps:
            self.gaps.setdefault((gap.t0_ns, gap.t1_ns, gap.cause), gap)

    def end(self, chunks: int, last_hash: bytes | None) -> None:
        """Compare with what the close record states."""
        if self.next_seq < chunks:
            self.missing.append((self.next_seq, chunks - 1))
        elif self.next_seq > chunks:
            self.problems.append(
                f"{self.name}: {self.next_seq} chunks are stored, the close record states {chunks}"
            )
        elif chunks and last_hash != self.last_hash:
            self.problems.append(f"{self.name}: its last chunk is not the one that the close record names")

    def words(self) -> list[str]:
        """Everything that is wrong with the stream."""
        if not self.missing:
            return self.problems
        shown = ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in self.missing[:MOST_RANGES])
        if len(self.missing) > MOST_RANGES:
            shown += f" and {len(self.missing) - MOST_RANGES} more ranges"
        one = len(self.missing) == 1 and self.missing[0][0] == self.missing[0][1]
        return [f"{self.name}: chunk{'' if one else 's'} {shown} missing", *self.problems]


def verify_session(store: Store, key: SessionKey, consents: Consents | None = None) -> SessionReport:
    """Read all of a session and say whether it is whole; bounded memory, one chunk at a time.

    Raises:
        SessionError: the store holds nothing of it, not even a tombstone.
        StoreError: the store cannot be read.
    """
    consents = Consents(store) if consents is None else consents
    erasure = consents.erasure(key)
    try:
        with store.contents(key) as contents:
            report = report_contents(contents)
    except SessionError:
        if erasure is None:
            raise
        return _erased(key, erasure, consents.covering_stored(key))
    report.withdrawn = consents.covering(key, consent=report.consent, worker=report.operator)
    if erasure is not None:
        report.complete, report.erased = False, erasure
        report.withdrawn = report.withdrawn or consents.covering_stored(key)
        report.problems.insert(
            0, f"it was erased, and {report.chunks} chunks are in the store: erase it once more"
        )
    return report


def report_contents(contents: SessionContents) -> SessionReport:
    """The report on what `contents` holds."""
    problems: list[str] = []
    tallies: dict[str, _Tally] = {SESSION_STREAM: _Tally(SESSION_STREAM)}
    first = contents.first_chunk(SESSION_STREAM)
    man = first.hash if first is not None else None
    records = SessionRecords(problems)
    for chunk in contents.chunks(SESSION_STREAM):
        tallies[SESSION_STREAM].see(chunk, man)
        records.take(chunk)
    for stream in contents.streams:
        if stream != SESSION_STREAM:
            tally = tallies[stream] = _Tally(stream)
            for chunk in contents.chunks(stream):
                tally.see(chunk, man)
    for gap in records.gaps:
        tallies.setdefault(gap.stream, _Tally(gap.stream)).add_gaps([gap])
    _compare(tallies, records, problems)
    problems += [word for tally in tallies.values() for word in tally.words()]
    problems += contents.faults
    reports = [_stream_report(tally, records) for tally in tallies.values()]
    opening = records.opening or {}
    return SessionReport(
        complete=not problems,
        outcome=records.outcome,
        **contents.key._asdict(),
        boot=contents.boot,
        task=text_of(opening, "task"),
        operator=text_of(opening, "operator"),
        consent=text_of(opening, "consent"),
        utc_ns=as_int(opening.get("utc_ns")) or 0,
        utc_trusted=opening.get("utc_trusted") is True,
        t0_ns=min((t.t0_ns for t in tallies.values() if t.chunks), default=0),
        t1_ns=max((t.t1_ns for t in tallies.values() if t.chunks), default=0),
        chunks=sum(t.chunks for t in tallies.values()),
        bytes=sum(t.n_bytes for t in tallies.values()),
        streams=reports,
        problems=problems,
        notes=[*_notes(contents, reports), *_drift_notes(records)],
        calibration=list(_calibration(opening.get("calibration"))),
        marks=sorted(records.marks, key=lambda mark: mark.t_ns),
        continues=text_of(opening, "continues"),
        shift=text_of(opening, "shift"),
    )


def _erased(key: SessionKey, erasure: Erasure, withdrawal: Withdrawal | None) -> SessionReport:
    return SessionReport(
        complete=False, outcome="erased", **key._asdict(), boot="", task="", operator="", consent="",
        utc_ns=0, utc_trusted=erasure.utc_trusted, t0_ns=0, t1_ns=0, chunks=0, bytes=0, streams=[],
        problems=[], notes=[], withdrawn=withdrawal, erased=erasure,
    )  # fmt: skip


def _compare(tallies: dict[str, _Tally], records: SessionRecords, problems: list[str]) -> None:
    """Hold what was seen against manifest and close record."""
    if records.opening is None and not tallies[SESSION_STREAM].chunks:
        problems.append("no manifest: nothing of the session's own stream has arrived")
    elif records.opening is None and tallies[SESSION_STREAM].missing:
        problems.append("no manifest: the session's opening record has not arrived")
    for name, n in records.encrypted.items():
        are = "chunks are" if n > 1 else "chunk is"
        problems.append(
            f"{SESSION_STREAM}: {n} {are} encrypted ({name[:40]!r}), and what is stated there cannot be "
            "compared without the key: verify where the key is, with an edgecap that knows this encryption"
        )
    if records.closing is None:
        if not records.encrypted:
            problems.append("no close record: the session is still open or was cut off")
        return
    if not records.ends_with_close:
        problems.append("the close record is not the last one")
    for name, total in records.totals.items():
        tally = tallies.setdefault(name, _Tally(name))
        chunks = as_int(total.get("chunks"))
        if chunks is None or chunks < 0:
            problems.append(f"{name}: the close record states no number of chunks")
            continue
        tally.end(chunks, total.get("last_hash"))
        samples = as_int(total.get("samples"))
        if not tally.missing and samples not in (None, tally.samples):
            tally.problems.append(
                f"{name}: {tally.samples} samples are stored, the close record states {samples}"
            )
    for name, tally in tallies.items():
        if name != SESSION_STREAM and name not in records.totals and tally.chunks:
            tally.problems.append(f"{name}: the close record does not name this stream")


def _stream_report(tally: _Tally, records: SessionRecords) -> StreamReport:
    total = records.totals.get(tally.name, {})
    gaps = sorted(tally.gaps.values(), key=lambda g: (g.t0_ns, g.t1_ns))
    lost = sum(g.lost for g in gaps if g.lost > 0)
    sent = as_int(total.get("device_sent"))
    uncountable = any(g.lost < 0 for g in gaps)
    expected = as_int(total.get("chunks"))
    if tally.name == SESSION_STREAM:
        expected = tally.next_seq if records.closing is not None else None
    return StreamReport(
        name=tally.name,
        kind=SESSION_STREAM if tally.name == SESSION_STREAM else records.kinds.get(tally.name) or tally.kind,
        chunks=tally.chunks,
        expected_chunks=expected,
        missing=tally.missing,
        samples=tally.samples,
        device_sent=sent,
        unaccounted=None if sent is None or uncountable else max(0, sent - tally.samples - lost),
        gaps=gaps,
        lost=lost,
        t0_ns=tally.t0_ns,
        t1_ns=tally.t1_ns,
        u_ns_max=tally.u_ns_max,
        bytes=tally.n_bytes,
        carries=records.carried.get(tally.name, ""),
    )


def _notes(contents: SessionContents, reports: list[StreamReport]) -> Iterator[str]:
    for report in reports:
        stated = [g for g in report.gaps if g.cause != CRASH]
        if stated:
            counted = [f"{report.lost} samples"] if report.lost else []
            counted += ["samples that could not be counted"] if any(g.lost < 0 for g in stated) else []
            lost = " and ".join(counted) or "no sample"
            yield f"{report.name}: {len(stated)} stated gap{'s'[: len(stated) > 1]}, {lost} lost"
        for gap in report.gaps:
            if gap.cause == CRASH:
                length = f"{(gap.t1_ns - gap.t0_ns) / 1e9:.1f} s"
                yield f"{report.name}: cut off; whatever it delivered in the session's last {length} is lost"
        if report.unaccounted and not report.missing:
            yield (
                f"{report.name}: the device sent {report.device_sent} samples, {report.samples} are stored, "
                f"{report.lost} lie in stated gaps: {report.unaccounted} are unaccounted for"
            )
        for one, other in pairwise(report.gaps):
            if other.t0_ns < one.t1_ns:
                yield f"{report.name}: stated gaps overlap at {other.t0_ns} ns"
                break
    for stream, seq in contents.conflicts[:MOST_RANGES]:
        yield f"{stream}: different chunks came as chunk {seq}; the one that fits the hash chain counts"
    for boot, count in contents.other_boots.items():
        yield f"the session id was used again: {count} chunks of kernel boot {boot} are kept and not counted"


def _calibration(found: object) -> Iterator[str]:
    """Each record by its key, as far as it tells its version and date."""
    for key, record in sorted(found.items()) if isinstance(found, dict) else ():
        fields = record if isinstance(record, dict) else {}
        version, date = fields.get("version"), text_of(fields, "date")[:10]
        yield f"{key}{f' version {version}' if version else ''}{f' of {date}' if date else ''}"


def _drift_notes(records: SessionRecords) -> Iterator[str]:
    for stream, words in records.drifts.items():
        yield f"{stream}: departs from its calibration, {words}"
