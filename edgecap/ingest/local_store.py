"""A store in a local directory: `STORE/SITE/RIG/SESSION/NNNN-WORKER.seg`, in the spool's segment format."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgecap.codec.chunk import Chunk
from edgecap.errors import NameRefused, SessionError, StoreError
from edgecap.ingest.consent import ErasedSessions
from edgecap.ingest.contents import SessionContents, StoredSegment
from edgecap.ingest.session_log import CONFLICT, SEGMENT_NAME, SessionLog
from edgecap.ingest.store import MOST_NOTE_BYTES, NOTES, CommitGroup, SessionKey, Stored
from edgecap.spool.files import Files, OsFiles, make_dirs, refusal
from edgecap.spool.recovery import QUARANTINE
from edgecap.spool.segment import SEGMENT_BYTES
from edgecap.topics import check_name

WORKERS = ".workers"
SPARE_FILES = 256
"""File descriptors left to the rest of the process; every session being written takes one."""
MOST_OPEN_SESSIONS = 4096
SYNC_THREADS = 8
IDLE_S = 300.0
"""A session for which nothing came is sealed, its file closed; what comes later begins a new segment."""
MOST_CLOSED_AT_ONCE = 8
"""Sealing takes a sync, and the commit that it follows has rigs waiting for receipts."""
ERASED_S = 1.0
"""How often a writer looks for sessions that were erased."""
GROUP = CommitGroup(seconds=0.2, n_bytes=8 << 20, n_chunks=2048, quiet_s=0.02)
"""A sync costs milliseconds; the broker may be waiting for acknowledgements."""


class LocalStore:
    """Append-only segments per session and worker; several workers and any readers may share one.

    Args:
        path: The store's directory.
        files: File layer.
        worker: Name to write under; empty for the first free one.
        segment_bytes: A session goes on in a new segment beyond this.
    """

    def __init__(
        self, path: Path, *, files: Files, worker: str = "", segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.path = path
        self._files, self._segment_bytes = files, segment_bytes
        self._worker = worker
        self._unlock: Callable[[], None] | None = None
        self._lock = threading.RLock()
        self._logs: OrderedDict[SessionKey, SessionLog] = OrderedDict()
        self._touched: dict[SessionKey, SessionLog] = {}
        self._used_s: dict[SessionKey, float] = {}
        """When each of `_logs` was last written to (monotonic); in the same order."""
        self._erased = ErasedSessions(self, ERASED_S)
        self._durable_dirs: set[Path] = set()
        """Directories of sites and rigs whose names are known to be on the medium."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_open = max(16, min(MOST_OPEN_SESSIONS, soft - SPARE_FILES))

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        create: bool = False,
        worker: str = "",
        files: Files | None = None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> LocalStore:
        """Open the store at `path`; raises `StoreError` when it is not there and `create` is false."""
        files = files or OsFiles()
        if worker:
            check_name("worker", worker)
        try:
            if create:
                make_dirs(files, path)
            elif path.is_file():
                raise NotADirectoryError
            elif not path.is_dir():
                raise StoreError(
                    f"store {path} does not exist", fix="check the path, or let `edgecap ingest` make it"
                )
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(
                f"store {path} cannot be opened: it is, or lies in, a file", fix="give a directory"
            ) from error
        except OSError as error:
            raise _failure(files, path, "cannot be opened", error) from error
        return cls(path, files=files, worker=worker, segment_bytes=segment_bytes)

    @property
    def url(self) -> str:
        return str(self.path)

    @property
    def worker(self) -> str:
        with self._lock:
            if self._unlock is None:
                try:
                    self._claim_worker()
                except OSError as error:
                    raise _failure(self._files, self.path, "cannot be written", error) from error
            return self._worker

    @property
    def commit_group(self) -> CommitGroup:
        return GROUP

    def append(self, chunks: Sequence[Chunk]) -> list[Stored]:
        with self._lock:
            erased = self._erased.now()
            try:
                return [self._append(chunk, erased) for chunk in chunks]
            except OSError as error:
                raise _failure(self._files, self.path, "cannot be written", error) from error

    def commit(self) -> None:
        with self._lock:
            touched, self._touched = self._touched, {}
            if len(touched) <= SYNC_THREADS:
                failures = [_sync(log) for log in touched.values()]
            else:
                # Side by side the syncs share the file system's own commits: 30 times faster on ext4.
                with ThreadPoolExecutor(SYNC_THREADS, "commit") as pool:
                    failures = list(pool.map(_sync, touched.values()))
            failed = None
            for key, failure in zip(touched, failures, strict=True):
                if failure is not None:
                    failed = failure
                    self._logs.pop(key, None)
                    self._used_s.pop(key, None)
            if failed is not None:
                raise _failure(self._files, self.path, "cannot be synced", failed) from failed
            self._close_idle()

    def sessions(self) -> list[SessionKey]:
        try:
            return sorted(
                SessionKey(site, rig, session)
                for site in self._names(self.path)
                for rig in self._names(self.path / site)
                for session in self._names(self.path / site / rig)
                # A crash between making the directory and the first segment leaves nothing of a session.
                if any(map(SEGMENT_NAME.fullmatch, self._files.names(self.path / site / rig / session)))
            )
        except NotADirectoryError as error:
            raise StoreError(
                f"{self.path} is no store: {error.filename or 'a file'} lies where rigs should",
                fix="give the directory that `edgecap ingest` writes to",
            ) from error
        except OSError as error:
            raise _failure(self._files, self.path, "cannot be read", error) from error

    def contents(self, key: SessionKey) -> SessionContents:
        directory = self.path.joinpath(*(check_name("session", part) for part in key))
        segments: list[StoredSegment] = []
        try:
            for name in self._files.names(directory):
                match = SEGMENT_NAME.fullmatch(name)
                if match:
                    file = self._files.open(directory / name)
                    segments.append(StoredSegment(name, file, name.startswith(CONFLICT)))
            if not segments:
                raise SessionError(f"store {self.path} holds no session {'/'.join(key)}")
            return SessionContents(key, segments)
        except OSError as error:
            for segment in segments:
                segment.file.close()
            raise _failure(self._files, self.path, "cannot be read", error) from error

    def chunks(self, key: SessionKey, stream: str | None = None) -> Iterator[Chunk]:
        with self.contents(key) as contents:
            yield from contents.chunks(stream)

    def note_names(self) -> list[str]:
        try:
            return [name for name in self._files.names(self.path / NOTES) if name.endswith(".json")]
        except OSError as error:
            raise _failure(self._files, self.path / NOTES, "cannot be read", error) from error

    def note(self, name: str) -> bytes:
        try:
            file = self._files.open(self.path / NOTES / name)
            try:
                return file.read_at(0, min(file.size(), MOST_NOTE_BYTES))
            finally:
                file.close()
        except OSError as error:
            raise _failure(self._files, self.path / NOTES, "cannot be read", error) from error

    def add_note(self, name: str, data: bytes) -> None:
        folder = self.path / NOTES
        part = folder / f"{name}.part"
        try:
            self._files.make_dir(folder)
            self._files.sync_dir(self.path)
            names = self._files.names(folder)
            if name not in names:
                if part.name in names:
                    self._files.unlink(part)
                file = self._files.create(part)
                try:
                    file.write_at(0, [data])
                    file.sync()
                finally:
                    file.close()
                self._files.rename(part, folder / name)
            self._files.sync_dir(folder)
        except OSError as error:
            raise _failure(self._files, folder, "cannot be written", error) from error

    def erase(self, key: SessionKey) -> None:
        directory = self.path.joinpath(*(check_name("session", part) for part in key))
        try:
            # The directory itself stays: a worker that has the session open may begin a segment in it.
            for folder in (directory / QUARANTINE, directory):
                for name in self._files.names(folder):
                    with contextlib.suppress(FileNotFoundError):
                        if name != QUARANTINE:
                            self._files.unlink(folder / name)
                with contextlib.suppress(FileNotFoundError):
                    self._files.sync_dir(folder)
        except OSError as error:
            raise _failure(self._files, directory, "cannot be erased", error) from error

    def close(self) -> None:
        with self._lock:
            try:
                self.commit()
                for log in self._logs.values():
                    with contextlib.suppress(OSError):
                        log.close()
            finally:
                self._logs.clear()
                self._used_s.clear()
                if self._unlock is not None:
                    self._unlock()
                    self._unlock = None

    def __enter__(self) -> LocalStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, chunk: Chunk, erased: frozenset[SessionKey]) -> Stored:
        h = chunk.header
        key = SessionKey(h.site, h.rig, h.session)
        if key in erased:
            return "erased"
        log = self._logs.get(key)
        if log is None:
            worker = self.worker
            self._make_room()
            log = SessionLog(self._files, self._session_dir(key), worker, self._segment_bytes)
            self._logs[key] = log
        self._logs.move_to_end(key)
        self._used_s[key] = time.monotonic()
        # A known chunk may be on the medium or not: it counts as durable after the commit as well.
        self._touched[key] = log
        return log.append(chunk)

    def _make_room(self) -> None:
        while len(self._logs) >= self._most_open:
            self._close_oldest()

    def _close_idle(self) -> None:
        idle = time.monotonic() - IDLE_S
        for _ in range(MOST_CLOSED_AT_ONCE):
            if not self._logs or self._used_s[next(iter(self._logs))] > idle:
                return
            # All of it is durable: what cannot be sealed is read all the same.
            with contextlib.suppress(OSError):
                self._close_oldest()

    def _close_oldest(self) -> None:
        key, log = self._logs.popitem(last=False)
        self._touched.pop(key, None)
        self._used_s.pop(key, None)
        log.close()

    def _session_dir(self, key: SessionKey) -> Path:
        path = self.path
        for part in key:
            if path / part not in self._durable_dirs:
                self._files.make_dir(path / part)
                # Even if it was there: whoever made it may not have synced it yet.
                self._files.sync_dir(path)
            path = path / part
        self._durable_dirs.update((path.parent, path.parent.parent))
        return path

    def _names(self, path: Path) -> list[str]:
        found = []
        for name in self._files.names(path):
            with contextlib.suppress(NameRefused):
                found.append(check_name("directory", name))
        return found

    def _claim_worker(self) -> None:
        """Take a worker name by its lock file: what is half-written under that name is then ours to cut."""
        directory = self.path / WORKERS
        self._files.make_dir(directory)
        wanted = [self._worker] if self._worker else [f"w{n:02d}" for n in range(1, 1000)]
        for name in wanted:
            try:
                self._unlock = self._files.lock(directory / f"{name}.lock", f"{os.getpid()}\n")
            except BlockingIOError:
                continue
            self._worker = name
            return
        raise StoreError(
            f"worker name {wanted[0]} of store {self.path} is in use by another process",
            fix="give every ingest worker a name of its own",
        )


def _sync(log: SessionLog) -> OSError | None:
    try:
        log.sync()
    except OSError as error:
        return error
    return None


def _failure(files: Files, path: Path, what: str, error: OSError) -> StoreError:
    reason, free = refusal(files, path, error)
    return StoreError(
        f"store {path} {what}: {reason}",
        fix="check permissions, mount and free space of this directory",
        path=str(path),
        free_bytes=free,
    )
