"""A store in an S3-compatible bucket: `PREFIX/SITE/RIG/SESSION/STREAM.SEQ.WORKER.HASH.seg`."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from edgecap.codec.chunk import Chunk
from edgecap.errors import NameRefused, SessionError, StoreError
from edgecap.ingest.bucket import Bucket, Found
from edgecap.ingest.consent import ErasedSessions
from edgecap.ingest.contents import SessionContents, StoredSegment
from edgecap.ingest.object_file import CACHE_BYTES, BlockCache, ObjectFile
from edgecap.ingest.object_segment import CONFLICT, OBJECT_NAME, SegmentObject, other_name, pack_segment
from edgecap.ingest.session_log import HASH_BYTES, HashTable
from edgecap.ingest.store import MOST_NOTE_BYTES, NOTES, CommitGroup, SessionKey, Stored
from edgecap.spool.segment import RECORD_HEADER_BYTES
from edgecap.spool.segment_index import MAX_ROWS, read_index
from edgecap.topics import check_name, suggest_name

log = logging.getLogger("edgecap.ingest")

WORKERS = ".workers"
SESSION_ID = re.compile(r"\d{8}-\d{6}-[a-z0-9]{4}")
"""Folders of other names are looked into before they count as sessions: buckets are shared."""
OBJECT_BYTES = 8 << 20
GROUP = CommitGroup(seconds=2.0, n_bytes=64 << 20, n_chunks=16_384, quiet_s=0.25)
"""Every object costs a request, and every session that has something new at least one object."""
REQUESTS = 24
"""Requests under way at once."""
MOST_UNSTORED_BYTES = 128 << 20
"""Beyond this, what was appended is stored before a commit asks for it."""
MOST_KNOWN = 4_000_000
"""Chunks remembered as stored, at 16 bytes each; a forgotten one that comes again is stored again."""
WRITE_PATIENCE_S = 30.0
ERASED_S = 30.0
"""How often a writer looks for sessions that were erased: a request."""


@dataclass(slots=True)
class _Session:
    """What this process knows of one session, and what of it is not stored yet."""

    tables: dict[tuple[str, str], HashTable] = field(default_factory=dict)
    known: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    n_bytes: int = 0
    conflicts: list[Chunk] = field(default_factory=list)
    known_conflicts: set[tuple[str, str, int, bytes]] = field(default_factory=set)


class _Sealed(NamedTuple):
    """What goes into one object."""

    key: SessionKey
    chunks: list[Chunk]
    conflict: bool


class ObjectStore:
    """Segments of chunks as objects; any number of workers and readers share a bucket without locks.

    Nothing in it is ever changed: an object is made whole by one conditional put, under a name that says
    what is in it. So a put that is repeated, by this process or after a crash, finds its object there, or
    stores the same chunks once more under another name; readers take each chunk once.

    A writer knows only what it has stored itself. What it has forgotten is stored again when it comes
    again, and different chunks that claim one place are told apart by readers.

    Args:
        bucket: Where the objects go.
        worker: Name to write under; by default made of host name and process id.
        object_bytes: An object holds at most so many bytes of chunks.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        worker: str = "",
        object_bytes: int = OBJECT_BYTES,
    ) -> None:
        if worker:
            check_name("worker", worker)
        self._bucket = bucket
        self._worker = worker
        self._claimed = False
        self._object_bytes = object_bytes
        self._lock = threading.RLock()
        self._sessions: OrderedDict[SessionKey, _Session] = OrderedDict()
        self._sealed: list[_Sealed] = []
        self._unstored_bytes = 0
        self._known = 0
        self._cache = BlockCache(CACHE_BYTES)
        self._erased = ErasedSessions(self, ERASED_S)

    @property
    def url(self) -> str:
        return self._bucket.url

    @property
    def worker(self) -> str:
        with self._lock:
            if not self._claimed:
                name = self._worker or suggest_name(f"{socket.gethostname()[:40]}-{os.getpid()}")
                # Only to see that the bucket can be written; workers of one name do each other no harm.
                self._bucket.put(f"{WORKERS}/{name}", f"{os.getpid()}\n".encode())
                self._worker, self._claimed = name, True
                # A bucket that was fine at the start will be so again: worth waiting for.
                self._bucket.patience_s = max(self._bucket.patience_s, WRITE_PATIENCE_S)
            return self._worker

    @property
    def commit_group(self) -> CommitGroup:
        return GROUP

    def append(self, chunks: Sequence[Chunk]) -> list[Stored]:
        with self._lock:
            erased = self._erased.now()
            return [self._append(chunk, erased) for chunk in chunks]

    def commit(self) -> None:
        with self._lock:
            for key, session in self._sessions.items():
                self._seal(key, session)
            self._store_sealed()
            self._forget()

    def sessions(self) -> list[SessionKey]:
        rigs = [(site, rig) for site in self._names("") for rig in self._names(site)]
        with ThreadPoolExecutor(REQUESTS, "list") as pool:
            found = list(pool.map(lambda rig: self._names("/".join(rig)), rigs))
        keys = sorted(
            SessionKey(*rig, name) for rig, names in zip(rigs, found, strict=True) for name in names
        )
        return [key for key in keys if SESSION_ID.fullmatch(key.session) or self._objects(key)]

    def contents(self, key: SessionKey) -> SessionContents:
        objects = self._objects(key)
        if not objects:
            raise SessionError(f"store {self.url} holds no session {'/'.join(key)}")
        with ThreadPoolExecutor(REQUESTS, "read") as pool:
            return SessionContents(key, list(pool.map(self._segment, objects)))

    def chunks(self, key: SessionKey, stream: str | None = None) -> Iterator[Chunk]:
        with self.contents(key) as contents:
            yield from contents.chunks(stream)

    def note_names(self) -> list[str]:
        found = (note.name.rpartition("/")[2] for note in self._bucket.objects(NOTES))
        return [name for name in found if name.endswith(".json")]

    def note(self, name: str) -> bytes:
        path = f"{NOTES}/{name}"
        return self._bucket.get(path, 0, min(self._bucket.size(path), MOST_NOTE_BYTES))

    def add_note(self, name: str, data: bytes) -> None:
        # One that is there already says the same: its name tells whose it is, and when it was made.
        self._bucket.put_new(f"{NOTES}/{name}", data)

    def erase(self, key: SessionKey) -> None:
        folder = "/".join(check_name("session", part) for part in key)
        self._bucket.delete([found.name for found in self._bucket.objects(folder)])

    def close(self) -> None:
        with self._lock:
            self.commit()
            self._sessions.clear()
            self._known = 0

    def __enter__(self) -> ObjectStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────

    def _append(self, chunk: Chunk, erased: frozenset[SessionKey]) -> Stored:
        if self._unstored_bytes >= MOST_UNSTORED_BYTES:
            self.commit()
        h = chunk.header
        key = SessionKey(h.site, h.rig, h.session)
        if key in erased:
            return "erased"
        session = self._sessions.setdefault(key, _Session())
        self._sessions.move_to_end(key)
        table = session.tables.setdefault((h.boot, h.stream), HashTable())
        known, mine = table.get(h.seq), chunk.hash[:HASH_BYTES]
        if known == mine:
            return "duplicate"  # stored, or to be stored by the next commit
        if known is None:
            self._take(key, session, session.chunks, chunk)
            table.put(h.seq, mine)
            session.known += 1
            self._known += 1
            return "stored"
        place = (h.boot, h.stream, h.seq, mine)
        if place not in session.known_conflicts:
            self._take(key, session, session.conflicts, chunk)
            session.known_conflicts.add(place)
        return "conflict"

    def _take(self, key: SessionKey, session: _Session, chunks: list[Chunk], chunk: Chunk) -> None:
        n_bytes = RECORD_HEADER_BYTES + len(chunk.packed)
        if session.n_bytes + n_bytes > self._object_bytes or len(chunks) >= MAX_ROWS:
            self._seal(key, session)
        chunks.append(chunk)
        session.n_bytes += n_bytes
        self._unstored_bytes += n_bytes

    def _seal(self, key: SessionKey, session: _Session) -> None:
        """What the session has gathered becomes objects, to be stored by the next commit."""
        for chunks, conflict in ((session.chunks, False), (session.conflicts, True)):
            if chunks:
                self._sealed.append(_Sealed(key, chunks, conflict))
        session.chunks, session.conflicts, session.n_bytes = [], [], 0

    def _store_sealed(self) -> None:
        """Store side by side; what cannot be stored stays for the next commit."""
        sealed, self._sealed = self._sealed, []
        worker = self.worker if sealed else ""
        failures: list[StoreError] = []

        def store(one: _Sealed) -> bool:
            if failures:
                return False
            try:
                self._store_one(one, worker)
            except StoreError as error:
                failures.append(error)
                return False
            return True

        if len(sealed) > 1:
            with ThreadPoolExecutor(REQUESTS, "store") as pool:
                stored = list(pool.map(store, sealed))
        else:
            stored = [store(one) for one in sealed]
        for one, done in zip(sealed, stored, strict=True):
            if done:
                self._unstored_bytes -= sum(RECORD_HEADER_BYTES + len(c.packed) for c in one.chunks)
            else:
                self._sealed.append(one)
        if failures:
            raise failures[0]

    def _store_one(self, one: _Sealed, worker: str) -> None:
        made = pack_segment(one.chunks, worker, conflict=one.conflict)
        folder = "/".join(one.key)
        if self._bucket.put_new(f"{folder}/{made.name}", made.data) or self._holds(folder, made):
            return
        log.warning("%s/%s/%s holds something else; stored beside it", self.url, folder, made.name)
        beside = made._replace(name=other_name(made))
        if not self._bucket.put_new(f"{folder}/{beside.name}", beside.data) and not self._holds(
            folder, beside
        ):
            raise StoreError(
                f"store {self.url}: {folder}/{made.name} and {beside.name} hold something else",
                fix="move these two objects away, and find out who writes into this prefix",
            )

    def _holds(self, folder: str, made: SegmentObject) -> bool:
        """Whether the object of this name is the one to be stored: then an earlier try has done it."""
        name, size = f"{folder}/{made.name}", len(made.data)
        return self._bucket.size(name) == size and self._bucket.get(name, 0, size) == made.data

    def _forget(self) -> None:
        """Keep what is remembered of stored chunks within its bound; sessions longest untouched go first."""
        for key in list(self._sessions) if self._known > MOST_KNOWN else ():
            session = self._sessions[key]
            if not session.chunks and not session.conflicts:
                del self._sessions[key]
                self._known -= session.known
            if self._known <= MOST_KNOWN:
                break

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def _names(self, folder: str) -> list[str]:
        found = []
        for name in self._bucket.folders(folder):
            with contextlib.suppress(NameRefused):
                found.append(check_name("folder", name))
        return found

    def _objects(self, key: SessionKey) -> list[Found]:
        """The objects of a session, in the order in which they came."""
        folder = "/".join(check_name("session", part) for part in key)
        objects = [
            found
            for found in self._bucket.objects(folder)
            if OBJECT_NAME.fullmatch(found.name.removeprefix(f"{folder}/"))
        ]
        return sorted(objects, key=lambda found: (found.modified_s, found.name))

    def _segment(self, found: Found) -> StoredSegment:
        """An object with its index read, so that many objects wait for the server at the same time."""
        file = ObjectFile(self._bucket, found.name, found.size, self._cache)
        name = found.name.rpartition("/")[2]
        index = read_index(file, found.size)
        return StoredSegment(name, file, name.startswith(CONFLICT), index[0] if index else None)
