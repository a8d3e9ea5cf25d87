"""Receipts carried back by hand: the file that an import leaves for the rig, and the rig's side of it.

A receipts file is a sequence of msgpack values:

1. a map `{"format": "edgecap-receipts", "v": 1, "worker": str, "store": str, "t_utc_ns": int}`;
2. any number of `bin`, each a receipt exactly as it is published over MQTT (edgecap/codec/receipt.py);
3. an integer: how many receipts there are. Without it the file was cut short, and what is whole still holds.

A damaged file can release nothing wrongly: a chunk goes only if a receipt names its hash.
"""

from __future__ import annotations

import contextlib
import logging
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import msgpack

from edgecap.codec import wire
from edgecap.codec.receipt import MAX_RECEIPT_BYTES, Receipt, decode_receipt
from edgecap.errors import ChunkError, NameRefused, SpoolError
from edgecap.spool.files import File, Files, OsFiles
from edgecap.spool.recovery import Quarantine
from edgecap.spool.spool import Spool

FORMAT = "edgecap-receipts"
VERSION = 1
SUFFIX = ".receipts"
RECEIPTS_NAME = f"handover{SUFFIX}"
"""The name under which an import leaves its receipts in the spool."""
READ_BYTES = 64 << 10
MOST_CHECKED = 256
"""Chunks that a start reads back after a handover; what came since is rarely more."""

log = logging.getLogger("edgecap.spool")


class ReceiptsWriter:
    """Writes a receipts file; it appears under its name, whole and durable, with `commit`.

    Args:
        path: The file; one that is there is replaced by the commit.
        worker: Who stored the chunks.
        store: Where, as a person would say it.
        t_utc_ns: When the import began.
        files: File layer.
    """

    def __init__(
        self, path: Path, *, worker: str, store: str, t_utc_ns: int, files: Files | None = None
    ) -> None:
        self.path = path
        self.receipts = 0
        self._files: Files = files or OsFiles()
        self._part = path.with_name(f".{path.name}.part")
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(self._part)
        self._file: File | None = self._files.create(self._part)
        with contextlib.suppress(OSError):
            # Who runs the dock need not be who runs the rig; nothing in it is secret.
            self._part.chmod(0o644)
        self._size = 0
        self._write({"format": FORMAT, "v": VERSION, "worker": worker, "store": store, "t_utc_ns": t_utc_ns})

    def add(self, receipt: bytes) -> None:
        """Append a receipt; raises `OSError`."""
        self._write(receipt)
        self.receipts += 1

    def commit(self) -> None:
        """Give the file its name; raises `OSError`."""
        assert self._file is not None
        self._write(self.receipts)
        self._file.sync()
        self._file.close()
        self._file = None
        self._files.rename(self._part, self.path)
        self._files.sync_dir(self.path.parent)

    def close(self) -> None:
        """Take away what was not committed."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(OSError):
                self._files.unlink(self._part)

    def __enter__(self) -> ReceiptsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, value: object) -> None:
        assert self._file is not None
        data = wire.pack(value)
        self._file.write_at(self._size, [data])
        self._size += len(data)


def read_receipts(file: File) -> Iterator[Receipt]:
    """The receipts of a file, one at a time; memory is bounded by one.

    Raises:
        ChunkError: at the first thing that breaks the format; what was yielded before is valid.
        NameRefused: a receipt holds an invalid name.
    """
    values = _values(file)
    head = next(values, None)
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ChunkError("it is not a receipts file")
    if head.get("v") != VERSION:
        raise ChunkError(
            f"receipts file has format version {head.get('v')}, this program reads version {VERSION}",
            fix="update edgecap on this side",
        )
    count = 0
    for value in values:
        if isinstance(value, bytes):
            yield decode_receipt(value)
            count += 1
        elif value == count and next(values, None) is None:
            return
        else:
            raise ChunkError(f"receipts file goes wrong behind its receipt {count}")
    raise ChunkError(f"receipts file was cut short behind its receipt {count}")


def _values(file: File) -> Iterator[object]:
    unpacker = msgpack.Unpacker(
        raw=False,
        max_buffer_size=MAX_RECEIPT_BYTES + 2 * READ_BYTES,
        max_bin_len=MAX_RECEIPT_BYTES,
        max_str_len=4096,
        max_array_len=0,
        max_map_len=64,
        max_ext_len=0,
    )
    offset = 0
    try:
        while data := file.read_at(offset, READ_BYTES):
            offset += len(data)
            unpacker.feed(data)
            yield from unpacker
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ChunkError(f"receipts file is not msgpack near byte {offset}: {error}") from error


def apply_receipts(spool: Spool, *, files: Files | None = None) -> int:
    """Release what receipts files in the spool's directory name, then remove them; counts released chunks.

    Call it on start, after interrupted sessions have been closed. A file that is damaged releases what it
    still says and goes to quarantine. A crash in between repeats the work, which changes nothing.
    """
    layer: Files = files or OsFiles()
    released = 0
    for name in layer.names(spool.path):
        if name.endswith(SUFFIX) and not name.startswith("."):
            released += _apply(spool, layer, spool.path / name)
    if released:
        _check_rest(spool)
    return released


def _check_rest(spool: Spool) -> None:
    """Set aside what the import could not read either: without an uplink nobody else would find it."""
    for entry in spool.pending(MOST_CHECKED):
        try:
            spool.read(entry.id)
        except SpoolError as error:
            log.warning("%s", error)
    spool.release(())  # lets segments go that held nothing else


def _is_regular(path: Path) -> bool:
    """Whether opening it cannot block, and leads nowhere else."""
    with contextlib.suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return True


def _apply(spool: Spool, files: Files, path: Path) -> int:
    released = 0
    problem = ""
    try:
        if not _is_regular(path):
            log.warning("%s is not a regular file and was left alone", path)
            return 0
        file = files.open(path)
        try:
            for receipt in read_receipts(file):
                released += spool.release(receipt.ids())
        except (ChunkError, NameRefused) as error:
            problem = str(error)
        finally:
            file.close()
        if problem:
            kept = Quarantine(files, spool.path).move(path)
            log.warning("%s is damaged and was set aside as %s: %s", path, kept, problem)
        else:
            files.unlink(path)
            files.sync_dir(spool.path)
    except OSError as error:
        # It stays: the next start reads it once more.
        log.warning("%s cannot be read or removed: %s", path, error.strerror or error)
    return released
