"""What a spool holds, told from its indexes without opening it: sessions, what is unsent, and its health."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import numpy as np

from edgecap.codec.chunk import unpack_chunk
from edgecap.errors import ChunkError, NameRefused
from edgecap.spool.card import Card
from edgecap.spool.files import File
from edgecap.spool.handover import SUFFIX
from edgecap.spool.segment import CHUNK, FILE_HEADER_BYTES, Damage, SegmentHeader, parse_header, scan
from edgecap.spool.segment_index import CLOSES, SegmentIndex, key_of, read_index

_Key = tuple[str, str, str, str]
"""Site, rig, boot, session."""


class SpooledSession(msgspec.Struct, kw_only=True):
    """One session of a spool."""

    site: str
    rig: str
    boot: str
    session: str
    closed: bool = False
    """Its close record is here; without it the rig was cut off, and closes the session on its next start."""
    streams: list[str]
    chunks: int = 0
    bytes: int = 0
    unsent_chunks: int = 0
    unsent_bytes: int = 0
    first_utc_ns: int = 0
    """When its oldest chunk was written, by the rig's wall clock; 0 when that is not known."""
    last_utc_ns: int = 0


class SpoolSurvey(msgspec.Struct, kw_only=True):
    """A spool at a glance. Sealed segments are counted by their index; an import checks every byte."""

    path: str
    sessions: list[SpooledSession]
    segments: int = 0
    disk_bytes: int = 0
    free_bytes: int = 0
    chunks: int = 0
    bytes: int = 0
    unsent_chunks: int = 0
    unsent_bytes: int = 0
    oldest_unsent_utc_ns: int = 0
    torn_bytes: int = 0
    """Unfinished records at the ends of segments: what a crash leaves."""
    damaged_bytes: int = 0
    quarantined: int = 0
    """Files that the rig itself has set aside."""
    in_use_by: str | None = None
    """Process that has the spool on this machine."""
    receipts_waiting: bool = False
    """A receipts file lies here for the rig's next start."""
    problems: list[str]

    @property
    def healthy(self) -> bool:
        return not self.problems


def survey_spool(card: Card) -> SpoolSurvey:
    """Count what is there; fine while a daemon writes, whose newest chunks may then be missing."""
    receipted, gone = card.receipted()
    report = SpoolSurvey(path=str(card.path), sessions=[], problems=[])
    sessions: dict[_Key, SpooledSession] = {}
    for path in card.segments:
        try:
            file = card.open(path)
        except FileNotFoundError:
            continue  # delivered in the meantime
        except OSError as error:
            report.problems.append(f"{path.name} cannot be opened: {error.strerror}")
            continue
        try:
            header, index = _load(file, path.name, report)
            report.segments += 1
            report.disk_bytes += file.size()
            if file.lost:
                report.problems.append(f"{path.name}: {len(file.lost)} blocks cannot be read from the medium")
        except OSError as error:
            report.problems.append(f"{path.name} cannot be read: {error.strerror}")
            continue
        finally:
            file.close()
        uid = header.uid if header is not None else -1
        rows = index.rows
        sent = np.isin(rows["offset"], np.fromiter(receipted.get(uid, ()), np.uint32)) | (uid in gone)
        for number, key in enumerate(index.keys):
            mine = rows["key"] == number
            session = sessions.setdefault(
                (key.site, key.rig, key.boot, key.session),
                SpooledSession(site=key.site, rig=key.rig, boot=key.boot, session=key.session, streams=[]),
            )
            if mine.any():
                _count(session, key.stream, rows[mine], sent[mine], header, report)
    report.sessions = sorted(sessions.values(), key=lambda s: (s.first_utc_ns, s.site, s.rig, s.session))
    for session in report.sessions:
        report.chunks += session.chunks
        report.bytes += session.bytes
        report.unsent_chunks += session.unsent_chunks
        report.unsent_bytes += session.unsent_bytes
    report.quarantined = card.quarantined()
    report.in_use_by = card.holder()
    with contextlib.suppress(OSError):
        report.free_bytes = card.files.free_bytes(card.path)
        report.receipts_waiting = any(
            n.endswith(SUFFIX) and not n.startswith(".") for n in card.files.names(card.path)
        )
    if report.quarantined:
        report.problems.append(f"the rig has set {report.quarantined} files aside in quarantine")
    report.problems += card.notes
    return report


def _count(
    session: SpooledSession,
    stream: str,
    rows: Any,
    sent: Any,
    header: SegmentHeader | None,
    report: SpoolSurvey,
) -> None:
    if stream not in session.streams:
        session.streams.append(stream)
    unsent = rows[~sent]
    session.closed |= bool((rows["flags"] & CLOSES).any())
    session.chunks += len(rows)
    session.bytes += int(rows["length"].sum(dtype=np.int64))
    session.unsent_chunks += len(unsent)
    session.unsent_bytes += int(unsent["length"].sum(dtype=np.int64))
    if header is None:
        return
    shift_ns = header.created_utc_ns - header.created_ns
    first, last = int(rows["t_append_ns"].min()) + shift_ns, int(rows["t_append_ns"].max()) + shift_ns
    session.first_utc_ns = min(session.first_utc_ns or first, first)
    session.last_utc_ns = max(session.last_utc_ns, last)
    if len(unsent):
        oldest = int(unsent["t_append_ns"].min()) + shift_ns
        report.oldest_unsent_utc_ns = min(report.oldest_unsent_utc_ns or oldest, oldest)


def _load(file: File, name: str, report: SpoolSurvey) -> tuple[SegmentHeader | None, SegmentIndex]:
    header = parse_header(file.read_at(0, FILE_HEADER_BYTES))
    found = read_index(file, file.size()) if header is not None else None
    if found is not None:
        return header, found[0]
    index = SegmentIndex()
    for item in scan(file):
        if isinstance(item, Damage):
            if item.torn:
                report.torn_bytes += item.length
            else:
                report.damaged_bytes += item.length
                report.problems.append(f"{name}: {item.length} bytes at {item.offset} are damaged")
        elif not isinstance(item, SegmentHeader) and item.kind == CHUNK:
            try:
                chunk = unpack_chunk(item.body)
            except (ChunkError, NameRefused) as error:
                report.problems.append(f"{name}: the record at {item.offset} is not a chunk: {error}")
                continue
            index.add(chunk, item.offset, item.t_append_ns, key_of(chunk))
    return header, index
