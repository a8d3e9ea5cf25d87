"""Offline handover: takes a rig's spool straight from its card, with the checks and receipts of the wire."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from edgecap.codec.chunk import Chunk
from edgecap.codec.receipt import encode_receipts
from edgecap.errors import ChunkError, NameRefused, UsageError
from edgecap.ingest.refused import RefusedBin
from edgecap.ingest.store import SessionKey, Store
from edgecap.ingest.survey import State, glance
from edgecap.ingest.verify import verify_chunk
from edgecap.spool.card import Card
from edgecap.spool.files import Files
from edgecap.spool.handover import ReceiptsWriter
from edgecap.spool.patched import PatchedFile
from edgecap.spool.segment import CHUNK, Damage, Record, scan
from edgecap.spool.spool import UNSYNCED_BYTES

BATCH_BYTES = 8 << 20
BATCH_CHUNKS = 2048
MOST_KEPT_BYTES = 16 << 20
"""Of one damaged range; the card still has all of it."""
MOST_PROBLEMS = 1000

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes there are."""


class ImportedSession(msgspec.Struct, kw_only=True):
    """What came of one session on the card."""

    site: str
    rig: str
    session: str
    chunks: int = 0
    stored: int = 0
    duplicates: int = 0
    """Chunks that the store had already."""
    conflicts: int = 0
    """Chunks whose place another chunk had; the store keeps both."""
    erased: int = 0
    """Chunks that were not stored, because the session was erased."""
    state: State = "open"
    """Of the session in the store, after the import; `open` when the rig was cut off while recording."""
    missing_chunks: int = 0


class ImportReport(msgspec.Struct, kw_only=True):
    """What came of an import."""

    spool: str
    store: str
    worker: str
    sessions: list[ImportedSession]
    segments: int = 0
    chunks: int = 0
    bytes: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    erased: int = 0
    invalid: int = 0
    """Whole records that are no valid chunk."""
    torn_bytes: int = 0
    """Unfinished records at the ends of segments: what a crash leaves, and no loss of anything durable."""
    damaged_bytes: int = 0
    kept: list[str]
    """Copies of what could not be stored."""
    receipted: int = 0
    receipts: str | None = None
    """The receipts file; None when there is none to give."""
    problems: list[str]
    """What could not be taken over, in words; empty when everything on the card is now in the store."""


def import_spool(
    card: Card,
    store: Store,
    *,
    receipts: Sequence[Path],
    refused: RefusedBin,
    progress: Progress | None = None,
    files: Files | None = None,
) -> ImportReport:
    """Store everything whole on a card, then write receipts for it; repeat it as often as you like.

    A chunk is named in the receipts only after the store has called it durable. On the card nothing is
    changed but the receipts file, if it lies there.

    Args:
        card: The spool; claimed and closed here.
        store: Where to.
        receipts: Places for the receipts file; the first that can be written is taken.
        refused: Keeps what could not be stored.
        progress: Told how far it is.
        files: File layer of the receipts file.

    Raises:
        SpoolError: a daemon has the spool.
        UsageError: no receipts file can be written.
        StoreError: the store cannot be written; what was committed before stays, repeat the import.
    """
    with card:
        card.claim()
        report = ImportReport(
            spool=str(card.path), store=store.url, worker=store.worker, sessions=[], kept=[], problems=[]
        )
        with _receipts_at(receipts, store, files) as writer:
            _Import(card, store, refused, report, writer, progress or (lambda *_: None)).run()
    return report


class _Import:
    """One walk over a card."""

    def __init__(
        self,
        card: Card,
        store: Store,
        refused: RefusedBin,
        report: ImportReport,
        receipts: ReceiptsWriter,
        progress: Progress,
    ) -> None:
        self._card, self._store, self._refused = card, store, refused
        self._report, self._receipts, self._progress = report, receipts, progress
        self._sessions: dict[SessionKey, ImportedSession] = {}
        self._done_bytes = 0
        self._untold = 0
        self._receipts_failed = False

    def run(self) -> None:
        report = self._report
        for path in self._card.segments:
            try:
                self._take_segment(path)
            except OSError as error:
                self._problem(f"{path.name} cannot be read: {error.strerror or error}")
        for key, session in sorted(self._sessions.items()):
            found = glance(self._store, key)
            session.state, session.missing_chunks = found.state, found.missing_chunks
            report.sessions.append(session)
        for note in self._card.notes:
            self._problem(note)
        self._commit_receipts()
        if self._untold:
            report.problems.append(f"{self._untold} more problems are not listed")

    def _take_segment(self, path: Path) -> None:
        file = self._card.open(path)
        try:
            # A daemon that died on this machine may have left its last records in the page cache only.
            with contextlib.suppress(OSError):
                file.sync()
            self._report.segments += 1
            batch: list[Chunk] = []
            n_bytes = 0
            for chunk in self._chunks(file, path):
                batch.append(chunk)
                n_bytes += len(chunk.packed)
                if n_bytes >= BATCH_BYTES or len(batch) >= BATCH_CHUNKS:
                    self._store_batch(batch)
                    batch, n_bytes = [], 0
            self._store_batch(batch)
            if file.lost:
                self._problem(f"{path.name}: {len(file.lost)} blocks cannot be read from the medium")
            self._done_bytes += file.size()
            self._progress(self._done_bytes, self._card.total_bytes)
        finally:
            file.close()

    def _chunks(self, file: PatchedFile, path: Path) -> Iterator[Chunk]:
        told = 0
        for item in scan(file):
            if isinstance(item, Damage):
                self._note_damage(file, path, item)
            elif isinstance(item, Record) and item.kind == CHUNK:
                try:
                    yield verify_chunk(item.body)
                except (ChunkError, NameRefused) as error:
                    self._report.invalid += 1
                    self._problem(f"{path.name}: the record at {item.offset} is not a chunk: {error}")
                    self._keep(item.body, path, item.offset, str(error))
                if item.end - told >= BATCH_BYTES // 8:
                    told = item.end
                    self._progress(self._done_bytes + told, self._card.total_bytes)

    def _note_damage(self, file: PatchedFile, path: Path, damage: Damage) -> None:
        # A crash leaves at most what had not been synced; a longer unreadable end is something else.
        if damage.torn and damage.length <= UNSYNCED_BYTES + BATCH_BYTES // 8:
            self._report.torn_bytes += damage.length
            reason = "unfinished record"
        else:
            self._report.damaged_bytes += damage.length
            reason = "damaged"
            self._problem(f"{path.name}: {damage.length} bytes at {damage.offset} are damaged")
        data = file.read_at(damage.offset, min(damage.length, MOST_KEPT_BYTES))
        self._keep(data, path, damage.offset, f"{reason}: {damage.length} bytes")

    def _keep(self, data: bytes, path: Path, offset: int, reason: str) -> None:
        try:
            kept = self._refused.keep(data, topic=f"{path}@{offset}", reason=reason, t_utc_ns=time.time_ns())
        except OSError as error:
            self._problem(f"a copy of what is damaged could not be kept: {error.strerror or error}")
            return
        if kept is not None and len(self._report.kept) < MOST_PROBLEMS:
            self._report.kept.append(str(kept))

    def _store_batch(self, chunks: Sequence[Chunk]) -> None:
        if not chunks:
            return
        outcomes = self._store.append(chunks)
        self._store.commit()
        report = self._report
        for chunk, outcome in zip(chunks, outcomes, strict=True):
            h = chunk.header
            key = SessionKey(h.site, h.rig, h.session)
            session = self._sessions.get(key)
            if session is None:
                session = self._sessions[key] = ImportedSession(**key._asdict())
            session.chunks += 1
            report.chunks += 1
            report.bytes += len(chunk.packed)
            if outcome == "stored":
                session.stored += 1
                report.stored += 1
            elif outcome == "duplicate":
                session.duplicates += 1
                report.duplicates += 1
            elif outcome == "erased":
                session.erased += 1
                report.erased += 1
            else:
                session.conflicts += 1
                report.conflicts += 1
                self._problem(
                    f"conflict: another chunk is stored as {h.site}/{h.rig} {h.session}/{h.stream}/{h.seq} "
                    f"of boot {h.boot}; both are kept"
                )
        self._receipt(chunks)

    def _receipt(self, chunks: Sequence[Chunk]) -> None:
        if self._receipts_failed:
            return
        report = self._report
        ids = [chunk.id for chunk in chunks]
        try:
            for data in encode_receipts(ids, worker=report.worker, t_utc_ns=time.time_ns()):
                self._receipts.add(data)
            report.receipted += len(ids)
        except OSError as error:
            self._fail_receipts(error)

    def _commit_receipts(self) -> None:
        if self._receipts_failed or not self._receipts.receipts:
            return
        try:
            self._receipts.commit()
            self._report.receipts = str(self._receipts.path)
        except OSError as error:
            self._fail_receipts(error)

    def _fail_receipts(self, error: OSError) -> None:
        # What is stored is stored; the rig merely keeps its copy until the next handover.
        self._receipts_failed = True
        self._report.receipted = 0
        self._report.problems.append(
            f"everything is stored, but the receipts cannot be written to {self._receipts.path}: "
            f"{error.strerror or error}; import again with --receipts FILE"
        )

    def _problem(self, text: str) -> None:
        if len(self._report.problems) < MOST_PROBLEMS:
            self._report.problems.append(text)
        else:
            self._untold += 1


def _receipts_at(paths: Sequence[Path], store: Store, files: Files | None) -> ReceiptsWriter:
    last: OSError | None = None
    for path in paths:
        try:
            return ReceiptsWriter(
                path, worker=store.worker, store=store.url, t_utc_ns=time.time_ns(), files=files
            )
        except OSError as error:
            last = error
    reason = last.strerror if last is not None else "no place is given"
    raise UsageError(
        f"receipts cannot be written to {paths[-1] if paths else 'nowhere'}: {reason}",
        fix="give --receipts FILE in a directory that you may write to",
    )
