"""Which sessions may leave as a dataset, and files that appear only when they are whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from edgecap.dataset.session import RecordedSession
from edgecap.errors import ExportError
from edgecap.spool.files import nearest_existing

Progress = Callable[[int, int], None]
"""Called with nanoseconds written and nanoseconds in all."""


def require_exportable(session: RecordedSession, *, allow_incomplete: bool) -> None:
    """Raise `ExportError` with the reason when the session is discarded, or not proven to be whole."""
    if allow_incomplete:
        return
    fix = "export it anyway with --allow-incomplete"
    if session.outcome == "discarded":
        raise ExportError(f"session {session.key.session} was discarded by its worker", fix=fix)
    if not session.report.complete:
        missing = "; ".join(session.report.problems) or f"it is {session.outcome}"
        raise ExportError(f"session {session.key.session} is not complete: {missing}", fix=fix)


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Another name to write under; `target` appears when the block is done and all is on disk.

    Raises:
        ExportError: the disk refuses; nothing is left behind. Another program writes it just now.
    """
    partial = target.with_name(f".{target.name}.part")
    with disk_told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with one_writer(partial, target):
            try:
                yield partial
                sync(partial)
                partial.replace(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
                raise


@contextlib.contextmanager
def one_writer(held: Path, target: Path) -> Iterator[None]:
    """Keep other exports off `target` by a lock on `held`, a directory or a file (made when missing).

    A lock ends with its program, however that ends; where the file system knows none, nobody is kept off.

    Raises:
        ExportError: another program writes `target`.
        OSError: `held` cannot be opened.
    """
    file = os.open(held, os.O_RDONLY if held.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(target) from None
        except OSError:
            pass
        else:
            if not (held.exists() and os.path.samestat(os.fstat(file), held.stat())):
                raise _taken(target)  # whoever had it has finished this very moment
        yield
    finally:
        os.close(file)


def _taken(target: Path) -> ExportError:
    return ExportError(
        f"another program is writing {target}", fix="wait for it, or choose another directory with --out"
    )


@contextlib.contextmanager
def disk_told(target: Path) -> Iterator[None]:
    """Turn what a disk refuses into an `ExportError` that names `target` and the free space."""
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"cannot write {target}: {error.strerror or error}", fix=_disk_fix(target.parent)
        ) from error


def settle(folder: Path) -> int:
    """Have all files and directories in it on disk; returns the bytes."""
    size = 0
    for path in folder.rglob("*"):
        sync(path)
        size += path.stat().st_size if path.is_file() else 0
    return size


def sync(path: Path) -> None:
    """Have a file or directory on disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _disk_fix(out_dir: Path) -> str:
    existing = nearest_existing(out_dir)
    free = shutil.disk_usage(existing).free
    return f"{existing} has {free / 1e6:.0f} MB free; choose another --out"
