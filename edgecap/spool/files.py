"""The file layer: everything the spool and the store ask of a file system, so that tests can fail it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol


class File(Protocol):
    """An open file; every failure is an `OSError`."""

    def write_at(self, offset: int, parts: Sequence[bytes]) -> None:
        """Write all of `parts`, one after another, from `offset`."""

    def read_at(self, offset: int, n: int) -> bytes:
        """Read up to `n` bytes; fewer only at the end of the file."""

    def size(self) -> int: ...

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """Return once the data is on the medium (fdatasync)."""

    def close(self) -> None: ...


class Files(Protocol):
    """A file system; every failure is an `OSError`."""

    def create(self, path: Path) -> File:
        """Make a new file for reading and writing; refuses one that exists."""

    def open(self, path: Path, *, write: bool = False) -> File:
        """Open a file that exists."""

    def rename(self, old: Path, new: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def make_dir(self, path: Path) -> None:
        """Make a directory; its parent exists. Fine if it is there already."""

    def sync_dir(self, path: Path) -> None:
        """Make creations, renames and removals in a directory durable (fsync)."""

    def names(self, path: Path) -> list[str]:
        """Names in a directory, sorted; empty when there is no such directory."""

    def free_bytes(self, path: Path) -> int:
        """Bytes that this process may still write below `path`."""

    def lock(self, path: Path, owner: str) -> Callable[[], None]:
        """Take a lock file, write `owner` into it, return its release.

        Raises:
            BlockingIOError: someone else holds it.
        """

    def database(self, path: Path) -> sqlite3.Connection:
        """Open an SQLite file, made if missing, for use by any thread."""


class OsFile:
    """A file of the operating system."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write_at(self, offset: int, parts: Sequence[bytes]) -> None:
        todo = [memoryview(p) for p in parts if p]
        while todo:
            n = os.pwritev(self._fd, todo, offset)
            offset += n
            while todo and n >= len(todo[0]):
                n -= len(todo.pop(0))
            if todo:
                todo[0] = todo[0][n:]

    def read_at(self, offset: int, n: int) -> bytes:
        data = os.pread(self._fd, n, offset)
        if not data or len(data) == n:
            return data
        parts, got = [data], len(data)
        while got < n and (data := os.pread(self._fd, n - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class OsFiles:
    """The file system of the operating system."""

    def create(self, path: Path) -> OsFile:
        return OsFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))

    def open(self, path: Path, *, write: bool = False) -> OsFile:
        return OsFile(os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC))

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def make_dir(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def sync_dir(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def names(self, path: Path) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(found.name for found in path.iterdir())
        return []

    def free_bytes(self, path: Path) -> int:
        s = os.statvfs(path)
        return s.f_bavail * s.f_frsize

    def lock(self, path: Path, owner: str) -> Callable[[], None]:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, owner.encode(), 0)
        except OSError:
            os.close(fd)
            raise
        return lambda: os.close(fd)

    def database(self, path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)


def make_dirs(files: Files, path: Path) -> None:
    """Make a directory and whichever of its parents are missing."""
    try:
        files.make_dir(path)
    except FileNotFoundError:
        make_dirs(files, path.parent)
        files.make_dir(path)


def refusal(files: Files, path: Path, error: OSError | sqlite3.Error) -> tuple[str, int]:
    """Why a disk refused, and the bytes that are free there: -1 where it does not say."""
    reason, free = getattr(error, "strerror", None) or str(error), -1
    with contextlib.suppress(OSError):
        free = files.free_bytes(path)
        reason = f"{reason} ({free / 1e6:.0f} MB free)"
    return reason, free


def nearest_existing(path: Path) -> Path:
    """The path itself, or the directory nearest above it that exists."""
    path = path.absolute()
    while not os.path.exists(path):  # noqa: PTH110 - what may not be searched counts as absent
        path = path.parent
    return path
