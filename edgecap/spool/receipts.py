"""What must outlive segment files: which records are receipted, and where each open session's chains end."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgecap.spool.files import Files

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE receipted (uid INTEGER, offset INTEGER, PRIMARY KEY (uid, offset)) WITHOUT ROWID;
CREATE TABLE gone (uid INTEGER PRIMARY KEY);
CREATE TABLE session (
  boot TEXT, session TEXT, site TEXT, rig TEXT, man BLOB, closed INTEGER, PRIMARY KEY (boot, session)
) WITHOUT ROWID;
CREATE TABLE head (
  boot TEXT, session TEXT, stream TEXT, seq INTEGER, hash BLOB, samples INTEGER, t1_ns INTEGER,
  PRIMARY KEY (boot, session, stream)
) WITHOUT ROWID;
"""


@dataclass(slots=True)
class StreamHead:
    """Where a stream's chain stands: its last chunk, and what all its chunks hold together."""

    seq: int
    hash: bytes
    samples: int
    t1_ns: int

    def join(self, other: StreamHead) -> None:
        """Take in chunks of the same stream."""
        self.samples += other.samples
        if other.seq >= self.seq:
            self.seq, self.hash, self.t1_ns = other.seq, other.hash, other.t1_ns


@dataclass(slots=True)
class SessionState:
    """A session that the spool has seen: who, and the head of each stream."""

    site: str
    rig: str
    boot: str
    session: str
    man: bytes
    closed: bool = False
    streams: dict[str, StreamHead] = field(default_factory=dict)


class Receipts:
    """The tiny SQLite beside the segments. Losing it costs repeated uploads, never data."""

    def __init__(self, files: Files, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = files.database(path)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            # A receipt lost in a power cut is received again; what guards an unlink is synced (`bury`).
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA wal_autocheckpoint=256")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
            elif version != SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"receipts have version {version}")
            (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(str(found))
            self._check_rows()
        except UnicodeDecodeError as error:  # SQLite quotes a damaged schema in its message
            self._db.close()
            raise sqlite3.DatabaseError("its schema is not text") from error
        except BaseException:
            self._db.close()
            raise

    def _check_rows(self) -> None:
        """Read everything once: SQLite has no checksums, and a damaged row can hold anything."""
        try:
            sessions = self.sessions()
            numbers = [n for uid, offsets in self.offsets().items() for n in (uid, *offsets)] + [*self.gone()]
            numbers += [
                n for s in sessions.values() for h in s.streams.values() for n in (h.seq, h.samples, h.t1_ns)
            ]
            texts = [t for s in sessions.values() for t in (s.site, s.rig, s.boot, s.session, *s.streams)]
            hashes = [s.man for s in sessions.values()]
            hashes += [h.hash for s in sessions.values() for h in s.streams.values()]
        except (sqlite3.OperationalError, TypeError, ValueError) as error:
            raise sqlite3.DatabaseError(f"it cannot be read: {error}") from error
        for kind, values in ((int, numbers), (str, texts), (bytes, hashes)):
            wrong = next((v for v in values if not isinstance(v, kind)), None)
            if wrong is not None:
                raise sqlite3.DatabaseError(f"a row holds {wrong!r:.40} where {kind.__name__} should be")

    def offsets(self) -> dict[int, set[int]]:
        """Receipted records: offsets by segment uid."""
        found: dict[int, set[int]] = {}
        with self._lock:
            for uid, offset in self._db.execute("SELECT uid, offset FROM receipted"):
                found.setdefault(uid, set()).add(offset)
        return found

    def gone(self) -> set[int]:
        """Segments whose removal was decided and may not have happened yet."""
        with self._lock:
            return {uid for (uid,) in self._db.execute("SELECT uid FROM gone")}

    def sessions(self) -> dict[tuple[str, str], SessionState]:
        """Sessions with the heads of segments that are gone."""
        with self._lock:
            found = {
                (boot, session): SessionState(site, rig, boot, session, man, bool(closed))
                for boot, session, site, rig, man, closed in self._db.execute(
                    "SELECT boot, session, site, rig, man, closed FROM session"
                )
            }
            for boot, session, stream, *head in self._db.execute(
                "SELECT boot, session, stream, seq, hash, samples, t1_ns FROM head"
            ):
                if (boot, session) in found:
                    found[boot, session].streams[stream] = StreamHead(*head)
        return found

    def mark(self, places: Iterable[tuple[int, int]]) -> None:
        """Note records (uid, offset) as receipted."""
        with self._lock, self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO receipted VALUES (?, ?)", places)

    def bury(self, uid: int, sessions: Iterable[SessionState]) -> None:
        """Add a segment's heads to what is gone, durably; call before the segment is unlinked."""
        with self._lock:
            self._db.execute("PRAGMA synchronous=FULL")
            try:
                with self._transaction():
                    self._db.execute("INSERT OR IGNORE INTO gone VALUES (?)", (uid,))
                    for s in sessions:
                        self._bury_session(s)
            finally:
                self._db.execute("PRAGMA synchronous=NORMAL")

    def _bury_session(self, s: SessionState) -> None:
        self._db.execute(
            "INSERT INTO session VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " closed = max(closed, excluded.closed)",
            (s.boot, s.session, s.site, s.rig, s.man, s.closed),
        )
        for stream, head in s.streams.items():
            self._db.execute(
                "INSERT INTO head VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " hash = iif(excluded.seq > seq, excluded.hash, hash),"
                " t1_ns = iif(excluded.seq > seq, excluded.t1_ns, t1_ns),"
                " seq = max(seq, excluded.seq), samples = samples + excluded.samples",
                (s.boot, s.session, stream, head.seq, head.hash, head.samples, head.t1_ns),
            )

    def forget_segment(self, uid: int) -> None:
        """Drop what was kept about a segment whose file is gone for good."""
        with self._lock, self._transaction():
            self._db.execute("DELETE FROM receipted WHERE uid = ?", (uid,))
            self._db.execute("DELETE FROM gone WHERE uid = ?", (uid,))

    def forget_session(self, boot: str, session: str) -> None:
        """Drop a closed session of which no segment is left."""
        with self._lock, self._transaction():
            self._db.execute("DELETE FROM session WHERE boot = ? AND session = ?", (boot, session))
            self._db.execute("DELETE FROM head WHERE boot = ? AND session = ?", (boot, session))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
