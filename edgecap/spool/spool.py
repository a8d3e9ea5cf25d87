"""The spool: chunks go in, stay until a receipt releases them, and survive whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Container, Iterable
from pathlib import Path

from edgecap.codec.chunk import Chunk, ChunkId
from edgecap.errors import SpoolError
from edgecap.spool.appender import UNSYNCED_BYTES, Appender
from edgecap.spool.backlog import Backlog
from edgecap.spool.files import Files, OsFiles, make_dirs, refusal
from edgecap.spool.held import Entry
from edgecap.spool.receipts import Receipts, SessionState, StreamHead
from edgecap.spool.recovery import Quarantine, Recovery, open_receipts, recover
from edgecap.spool.segment import RECORD_HEADER_BYTES, SEGMENT_BYTES
from edgecap.spool.segment_index import flags_of, key_of
from edgecap.spool.stats import SpoolStats

__all__ = ["UNSYNCED_BYTES", "Entry", "OpenSession", "Recovery", "Spool", "SpoolStats", "StreamHead"]

OpenSession = SessionState
"""A session without a close record, as `Spool.open_sessions` gives it."""

LOCK = "lock"
RESERVE_BYTES = 256 << 20


class Spool:
    """Durable, bounded log of chunks. Methods block; any thread may call them. Made by `Spool.open`.

    Chunks become visible to `pending` once they are on the medium: what ingest has seen can then not be
    lost by the rig, and no other chunk can take its place in the chain.
    """

    def __init__(
        self,
        path: Path,
        *,
        files: Files,
        segment_bytes: int,
        reserve_bytes: int,
        receipts: Receipts,
        unlock: Callable[[], None],
        recovery: Recovery,
    ) -> None:
        self.path, self.reserve_bytes, self.recovery = path, reserve_bytes, recovery
        self._files = files
        self._receipts, self._unlock = receipts, unlock
        self._quarantine = Quarantine(files, path)
        self._backlog = Backlog(receipts.sessions())
        self._appender = Appender(files, path, segment_bytes, self._backlog, self._finish)
        self._io = threading.RLock()
        """Held while writing or syncing; taken before the backlog's lock, never after it."""
        self._burial = threading.Lock()
        self._closed = False
        self._appended_bytes = self._quarantined = 0

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
        files: Files | None = None,
    ) -> Spool:
        """Take the spool in directory `path`, made if missing, and recover what it holds.

        Raises:
            SpoolError: another process has it, or the directory cannot be used.
        """
        files = files or OsFiles()
        report = Recovery()
        try:
            make_dirs(files, path)
            unlock = _lock(files, path)
        except OSError as error:
            raise _failure(files, path, "cannot be used", error) from error
        receipts: Receipts | None = None
        try:
            quarantine = Quarantine(files, path)
            receipts = open_receipts(files, path, quarantine, report)
            self = cls(
                path,
                files=files,
                segment_bytes=segment_bytes,
                reserve_bytes=reserve_bytes,
                receipts=receipts,
                unlock=unlock,
                recovery=report,
            )
            for segment in recover(files, path, receipts, quarantine, report):
                self._backlog.adopt(segment)
                self._appender.next_number = segment.header.number + 1
            self._appender.next_number = max(self._appender.next_number, report.last_number + 1)
            self._bury()
        except BaseException as error:
            if receipts is not None:
                receipts.close()
            unlock()
            if isinstance(error, OSError | sqlite3.Error):
                raise _failure(files, path, "cannot be opened", error) from error
            raise
        return self

    def append(self, chunk: Chunk, *, closing: bool = False) -> None:
        """Write a chunk; durable after the next `sync`.

        Args:
            chunk: The sealed chunk.
            closing: The chunk is needed to close a session, and may use the reserve.

        Raises:
            SpoolError: the free space is down to the reserve, or the write failed; nothing was appended.
        """
        key = key_of(chunk)
        with self._io:
            self._check_open()
            if self._appender.wants_sync(key, len(chunk.packed)):
                self.sync()
            try:
                self._check_reserve(closing)
                self._appender.append(chunk, key)
            except OSError as error:
                raise _failure(self._files, self.path, "cannot be written", error) from error
            self._backlog.count(chunk, key, flags_of(chunk))
            self._appended_bytes += len(chunk.packed)

    def sync(self) -> None:
        """Return once everything appended is on the medium. After a `SpoolError` it may be tried again."""
        with self._io:
            self._check_open()
            try:
                self._appender.sync()
            except OSError as error:
                raise _failure(self._files, self.path, "cannot be synced", error) from error

    def pending(self, limit: int, *, exclude: Container[ChunkId] = ()) -> list[Entry]:
        """Up to `limit` durable chunks without a receipt, in the order in which they should be delivered.

        Session records come first, then samples and events, then everything bulky; oldest first in each.
        """
        self._check_open()
        return self._backlog.pending(limit, exclude)

    def read(self, id_: ChunkId) -> bytes:
        """The packed chunk.

        Raises:
            SpoolError: it is not in the spool, or its record is damaged, or (`again` in its evidence) the
                medium cannot read it now. A damaged record is set aside in quarantine, so that it does not
                come up again.
        """
        self._check_open()
        with self._backlog.lock:
            places = list(self._backlog.find(id_))
            trouble: OSError | None = None
            for segment, slot in places:
                try:
                    data = segment.read(slot)
                except OSError as error:
                    trouble = error
                    continue
                if data is not None:
                    return data
            if trouble is not None:
                raise SpoolError(
                    f"chunk {_name(id_)} cannot be read from spool {self.path} now: {trouble.strerror}",
                    fix="it stays there and is tried again; replace the card if this happens again",
                    again=True,
                )
            if not places:
                raise SpoolError(f"spool {self.path} does not hold chunk {_name(id_)}")
            kept = []
            for segment, slot in places:
                row = segment.index().rows[slot]
                length = RECORD_HEADER_BYTES + int(row["length"])
                with contextlib.suppress(OSError):
                    kept.append(
                        self._quarantine.keep(segment.path.name, segment.file(), int(row["offset"]), length)
                    )
            self._finish(self._backlog.finish(places))
            self._quarantined += 1
        raise SpoolError(
            f"chunk {_name(id_)} is damaged on the medium of spool {self.path}",
            fix="replace the card if this happens again; the damaged bytes are in the spool's quarantine",
            kept=kept,
        )

    def release(self, ids: Iterable[ChunkId]) -> int:
        """Let go of chunks that ingest has stored; returns how many were waiting. Unknown ids are ignored."""
        self._check_open()
        with self._backlog.lock:
            marks = self._backlog.finish(place for id_ in ids for place in self._backlog.find(id_))
        self._finish(marks)
        self._bury()
        return len(marks)

    def quarantine(self, id_: ChunkId, reason: str) -> None:
        """Set a chunk aside that can never be delivered; its bytes and `reason` stay in the directory."""
        data = self.read(id_)
        try:
            kept = self._quarantine.keep_bytes(f"{id_.session}-{id_.stream}-{id_.seq}", data)
            self._quarantine.keep_bytes(f"{kept}.reason", reason.encode())
        except OSError as error:
            raise _failure(self._files, self.path, "cannot be written", error) from error
        with self._backlog.lock:
            marks = self._backlog.finish(list(self._backlog.find(id_)))
            self._quarantined += 1
        self._finish(marks)
        self._bury()

    def heads(self, session: str) -> dict[str, tuple[int, bytes]]:
        """Last seq and header hash of every stream of a session, delivered chunks included."""
        return {stream: (head.seq, head.hash) for stream, head in self._backlog.heads(session).items()}

    def open_sessions(self) -> list[OpenSession]:
        """Sessions without a close record: on start, those that a crash has cut off."""
        return self._backlog.open_sessions()

    def newest_append_ns(self, boot: str, session: str) -> int:
        """When the newest chunk of a session was appended, in rig time of its boot; 0 if none is held."""
        return self._backlog.newest_append_ns(boot, session)

    def own_chunks(self, boot: str, session: str, newest: int) -> list[ChunkId]:
        """Of a session's own records the first chunk and the `newest` last ones, as far as they are held."""
        return self._backlog.own_chunks(boot, session, newest)

    def stats(self) -> SpoolStats:
        """Counts as of now; asks the file system for its free space, 0 if it does not answer."""
        free_bytes = 0
        with contextlib.suppress(OSError):
            free_bytes = self._files.free_bytes(self.path)
        with self._backlog.lock:
            segments = self._backlog.segments.values()
            return SpoolStats(
                chunks=sum(sum(s.waiting) for s in segments),
                bytes=sum(s.waiting_bytes for s in segments),
                segments=len(segments),
                disk_bytes=sum(s.writer.size if s.writer else s.size for s in segments),
                free_bytes=free_bytes,
                reserve_bytes=self.reserve_bytes,
                oldest_t_ns=self._backlog.oldest_t_ns(),
                appended_bytes_total=self._appended_bytes,
                quarantined_total=self._quarantined,
                rescues_total=self._appender.rescues,
            )

    def close(self) -> None:
        """Sync, seal, and give the directory back."""
        with self._io:
            if self._closed:
                return
            try:
                self.sync()
                self._appender.retire()
                self._bury()
            finally:
                self._closed = True
                self._backlog.close()
                self._receipts.close()
                self._unlock()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise SpoolError(f"spool {self.path} is closed")

    def _check_reserve(self, closing: bool) -> None:
        free = self._files.free_bytes(self.path)
        if not closing and free < self.reserve_bytes:
            raise SpoolError(
                f"spool {self.path} has {_mb(free)} free, and {_mb(self.reserve_bytes)} are kept in reserve",
                fix="deliver what is spooled, or free space on this file system",
                path=str(self.path),
                free_bytes=free,
            )

    def _finish(self, marks: list[tuple[int, int]]) -> None:
        with contextlib.suppress(sqlite3.Error):
            # Without its mark a chunk is delivered once more after a restart, which harms nobody.
            self._receipts.mark(marks)

    def _bury(self) -> None:
        """Unlink segments of which nothing waits; what they knew of open sessions is kept first."""
        with self._burial:
            for segment in self._backlog.finished():
                try:
                    states = self._backlog.obituary(segment)
                except OSError:
                    continue  # the medium cannot read it now; it goes another time
                try:
                    self._receipts.bury(segment.uid, states)
                except sqlite3.Error:
                    if not all(s.closed for s in states):
                        continue
                self._backlog.remove(segment)
                with contextlib.suppress(OSError, sqlite3.Error):
                    # A file that stays behind is removed on the next start: it is noted as gone.
                    self._files.unlink(segment.path)
                    self._files.sync_dir(self.path)
                    self._receipts.forget_segment(segment.uid)
            for boot, session in self._backlog.forget_sessions():
                with contextlib.suppress(sqlite3.Error):
                    self._receipts.forget_session(boot, session)


def _lock(files: Files, path: Path) -> Callable[[], None]:
    try:
        return files.lock(path / LOCK, f"{os.getpid()}\n")
    except BlockingIOError:
        holder = ""
        with contextlib.suppress(OSError):
            file = files.open(path / LOCK)
            holder = file.read_at(0, 32).decode(errors="replace").strip()
            file.close()
        raise SpoolError(
            f"spool {path} is in use by process {holder or 'unknown'}",
            fix="stop that process, or give this one a spool directory of its own",
            holder=holder,
        ) from None


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.0f} MB"


def _name(id_: ChunkId) -> str:
    return f"{id_.session}/{id_.stream}/{id_.seq}"


def _failure(files: Files, path: Path, what: str, error: OSError | sqlite3.Error) -> SpoolError:
    reason, free = refusal(files, path, error)
    return SpoolError(
        f"spool {path} {what}: {reason}",
        fix="check permissions, mount and free space of this directory",
        path=str(path),
        free_bytes=free,
    )
