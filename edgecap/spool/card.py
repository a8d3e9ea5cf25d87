"""A spool seen from outside: on a card or in a dock, read only, while no daemon has it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
from pathlib import Path
from types import TracebackType

from edgecap.errors import SpoolError
from edgecap.spool.files import Files, OsFiles
from edgecap.spool.patched import PatchedFile
from edgecap.spool.receipts import Receipts
from edgecap.spool.recovery import QUARANTINE, RECEIPTS, SEGMENT_NAME
from edgecap.spool.spool import LOCK

PLACES = ("", "spool", "edgecap/spool", "lib/edgecap/spool", "var/lib/edgecap/spool")
"""Where below a given directory a spool is looked for: the card may be mounted at any of its levels."""
MAX_RECEIPTS_BYTES = 256 << 20


class Card:
    """The segments and receipts of a spool directory that is only ever read.

    Attributes:
        path: The spool directory.
        segments: Paths of its segment files, oldest first.
        notes: What was found amiss with the directory, in words.

    Args:
        path: The spool directory, as `find_spool` gives it.
        files: File layer.
    """

    def __init__(self, path: Path, *, files: Files | None = None) -> None:
        self.path = path
        self.notes: list[str] = []
        self.files: Files = files or OsFiles()
        self._lock_fd = -1
        self.segments: list[Path] = []
        self.total_bytes = 0
        try:
            for name in self.files.names(path):
                if not SEGMENT_NAME.fullmatch(name):
                    continue
                found = (path / name).lstat()
                if not stat.S_ISREG(found.st_mode):
                    # A pipe would block, a link could point at any file of the machine that reads the card.
                    self.notes.append(f"{name} is not a regular file and was left alone")
                    continue
                self.segments.append(path / name)
                self.total_bytes += found.st_size
        except OSError as error:
            raise _unreadable(path, error) from error

    def claim(self) -> None:
        """Keep a daemon on this machine away until `close`; works on read-only media.

        Raises:
            SpoolError: a daemon has the spool. What it has written and not synced must not be taken: after
                a power cut another chunk could stand in that place.
        """
        holder = self.holder()
        if holder is not None:
            raise SpoolError(
                f"spool {self.path} is in use by process {holder or 'unknown'}",
                fix="stop that daemon first; while it runs it delivers by itself",
            )
        self._lock_fd = _share(self.path / LOCK)

    def holder(self) -> str | None:
        """Process id of the daemon that has the spool; None when none has it."""
        fd = -1
        try:
            fd = _share(self.path / LOCK)
        except BlockingIOError:
            with contextlib.suppress(OSError):
                return (self.path / LOCK).read_text(errors="replace")[:32].strip()
            return ""
        finally:
            if fd >= 0:
                os.close(fd)
        return None

    def open(self, segment: Path) -> PatchedFile:
        """A segment for reading, in which unreadable blocks of the medium count as damage.

        Raises:
            SpoolError: this user may not read it: no damage of the card, and true of all of it.
            OSError: it cannot be opened.
        """
        try:
            return PatchedFile(self.files.open(segment))
        except PermissionError as error:
            raise SpoolError(
                f"spool {self.path} cannot be read: {error.strerror}",
                fix="it belongs to the rig's own user: use sudo",
                path=str(segment),
            ) from error

    def receipted(self) -> tuple[dict[int, set[int]], set[int]]:
        """Offsets of receipted records by segment uid, and uids of segments that are done with.

        The database is copied first: SQLite cannot read a journal that it may not write beside.
        """
        path = self.path / RECEIPTS
        with contextlib.suppress(FileNotFoundError), tempfile.TemporaryDirectory(prefix="edgecap-") as name:
            copy = Path(name) / RECEIPTS
            try:
                for suffix in ("", "-wal"):
                    source = path.with_name(path.name + suffix)
                    if suffix and not source.exists():
                        continue
                    found = source.lstat()
                    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_RECEIPTS_BYTES:
                        raise sqlite3.DatabaseError("it is not a regular file of a sensible size")
                    shutil.copyfile(source, copy.with_name(copy.name + suffix))
                receipts = Receipts(self.files, copy)
                try:
                    return receipts.offsets(), receipts.gone()
                finally:
                    receipts.close()
            except FileNotFoundError:
                raise
            except (OSError, sqlite3.Error) as error:
                self.notes.append(f"{RECEIPTS} cannot be read, so everything counts as unsent: {error}")
        return {}, set()

    def quarantined(self) -> int:
        """Files that the rig has set aside."""
        with contextlib.suppress(OSError):
            return len(self.files.names(self.path / QUARANTINE))
        return 0

    def close(self) -> None:
        """Let a daemon have the spool again."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> Card:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_spool(path: Path) -> Path:
    """The spool at or below `path`, so that a card's mount point is enough.

    Raises:
        SpoolError: there is none.
    """
    root = path.expanduser()
    try:
        if not root.is_dir():
            raise SpoolError(f"{path} is not a directory", fix="give the spool directory or the card's mount")
        for place in PLACES:
            found = root / place
            # A link on the card must not lead to this machine's own spool.
            if place and not found.resolve().is_relative_to(root.resolve()):
                continue
            if _looks_like_spool(found):
                return found
    except OSError as error:
        raise _unreadable(path, error) from error
    raise SpoolError(
        f"{path} holds no spool",
        fix=f"give the directory with the .seg files; looked in it and in its {', '.join(PLACES[1:])}",
    )


def _looks_like_spool(path: Path) -> bool:
    if not path.is_dir():
        return False
    return any(entry.name == RECEIPTS or SEGMENT_NAME.fullmatch(entry.name) for entry in path.iterdir())


def _share(path: Path) -> int:
    """A shared lock on a spool's lock file, -1 where there is nothing to lock; needs no write access."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    except OSError:
        # Some file systems cannot lock; nobody else can have locked it there either.
        os.close(fd)
        return -1
    return fd


def _unreadable(path: Path, error: OSError) -> SpoolError:
    return SpoolError(
        f"spool {path} cannot be read: {error.strerror or error}",
        fix="check that the card is mounted and that you may read it",
        path=str(path),
    )
