"""Takes stock of a spool directory on start: keeps whole records, cuts torn tails, sets the rest aside."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgecap import clock
from edgecap.codec.chunk import unpack_chunk
from edgecap.errors import ChunkError, NameRefused
from edgecap.spool.files import File, Files
from edgecap.spool.held import HeldSegment
from edgecap.spool.patched import PatchedFile
from edgecap.spool.receipts import Receipts
from edgecap.spool.segment import (
    CHUNK,
    FILE_HEADER_BYTES,
    Damage,
    SegmentHeader,
    parse_header,
    scan,
)
from edgecap.spool.segment_index import SegmentIndex, key_of, read_index
from edgecap.spool.segment_writer import write_index

QUARANTINE = "quarantine"
RECEIPTS = "receipts.sqlite"
SEGMENT_NAME = re.compile(r"(\d{8})\.seg")
COPY_BYTES = 1 << 20


@dataclass(slots=True)
class Recovery:
    """What was found on start."""

    segments: int = 0
    last_number: int = 0
    """Highest number of a segment file, kept or not."""
    chunks: int = 0
    """Whole chunks found, receipted ones included."""
    waiting: int = 0
    """Of these, without a receipt."""
    torn_bytes: int = 0
    """Cut from the ends of segments: what a crash left half-written."""
    damaged_bytes: int = 0
    """Found between whole records, or in files that hold none."""
    quarantined: list[str] = field(default_factory=list)
    """Names in the quarantine directory that hold these bytes."""
    notes: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """One line for a log."""
        text = f"{self.waiting} of {self.chunks} chunks in {self.segments} segments wait for a receipt"
        if self.torn_bytes:
            text += f"; {self.torn_bytes} bytes of unfinished records were cut off"
        if self.damaged_bytes:
            text += f"; {self.damaged_bytes} damaged bytes"
        if self.quarantined:
            text += f"; kept in quarantine: {', '.join(self.quarantined)}"
        return "; ".join([text, *self.notes])


class Quarantine:
    """Keeps bytes that are no longer part of the spool; nothing in it is ever deleted."""

    def __init__(self, files: Files, spool: Path) -> None:
        self.files, self.path = files, spool / QUARANTINE

    def keep(self, name: str, file: File, offset: int, length: int) -> str:
        """Copy a range of a file; the same range of the same file is kept once."""
        name = f"{name}-{offset}-{length}-{_crc(file, offset, length):08x}"
        with self._new(name) as target:
            for start in range(0, length, COPY_BYTES):
                target.write_at(start, [file.read_at(offset + start, min(COPY_BYTES, length - start))])
        return self._finish(name)

    def keep_bytes(self, name: str, data: bytes) -> str:
        """Keep `data` under a name made from `name` and its checksum."""
        name = f"{name}-{zlib.crc32(data):08x}"
        with self._new(name) as target:
            target.write_at(0, [data])
        return self._finish(name)

    def move(self, path: Path) -> str:
        """Move a whole file here."""
        self.files.make_dir(self.path)
        taken = set(self.files.names(self.path))
        name = next(
            n for i in range(len(taken) + 1) if (n := f"{path.name}.{i}" if i else path.name) not in taken
        )
        self.files.rename(path, self.path / name)
        self.files.sync_dir(self.path)
        self.files.sync_dir(path.parent)
        return name

    @contextlib.contextmanager
    def _new(self, name: str) -> Iterator[File]:
        self.files.make_dir(self.path)
        part = self.path / f"{name}.part"
        if part.name in self.files.names(self.path):
            self.files.unlink(part)
        file = self.files.create(part)
        try:
            yield file
            file.sync()
        finally:
            file.close()

    def _finish(self, name: str) -> str:
        self.files.rename(self.path / f"{name}.part", self.path / name)
        self.files.sync_dir(self.path)
        return name


def _crc(file: File, offset: int, length: int) -> int:
    crc = 0
    for start in range(0, length, COPY_BYTES):
        crc = zlib.crc32(file.read_at(offset + start, min(COPY_BYTES, length - start)), crc)
    return crc


_NOT_DAMAGE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
"""SQLite's primary codes after which nothing is known to be wrong with the content."""


def _forbids_writing(files: Files, path: Path) -> bool:
    """Whether a database's own header does: its write version is one that SQLite does not know."""
    try:
        with contextlib.closing(files.open(path)) as file:
            return file.read_at(18, 1) > b"\x02"
    except OSError:
        return False


def open_receipts(files: Files, spool: Path, quarantine: Quarantine, report: Recovery) -> Receipts:
    """Open the receipts; a damaged database is set aside and a new one begun."""
    path = spool / RECEIPTS
    try:
        return Receipts(files, path)
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _NOT_DAMAGE and not (code == sqlite3.SQLITE_READONLY and _forbids_writing(files, path)):
            raise
        for name in (path.name, path.name + "-wal", path.name + "-shm"):
            if name in files.names(spool):
                report.quarantined.append(quarantine.move(spool / name))
        report.notes.append(
            f"{path} was damaged ({error}) and begun anew: some chunks will be delivered again, "
            "and a session left open may lack the heads of streams that were delivered already"
        )
        return Receipts(files, path)


def recover(
    files: Files, spool: Path, receipts: Receipts, quarantine: Quarantine, report: Recovery
) -> Iterator[HeldSegment]:
    """Every segment of the spool that still holds a chunk, oldest first."""
    receipted, gone = receipts.offsets(), receipts.gone()
    held: set[int] = set()
    names = [m for m in map(SEGMENT_NAME.fullmatch, files.names(spool)) if m]
    for match in names:
        path = spool / match[0]
        report.last_number = max(report.last_number, int(match[1]))
        try:
            found = recover_segment(path, int(match[1]), quarantine, report)
        except OSError as error:
            # One bad file must not keep the rig from recording.
            report.notes.append(f"{path} cannot be read and stays as it is: {error.strerror or error}")
            continue
        if found is None:
            continue
        segment = HeldSegment.adopt(files, path, *found)
        segment.finish_offsets(receipted.get(segment.uid, set()))
        if segment.uid in gone:
            segment.let_go()
            files.unlink(path)
            continue
        report.segments += 1
        report.chunks += len(segment.done)
        report.waiting += sum(segment.waiting)
        held.add(segment.uid)
        yield segment
    if gone or receipted:
        files.sync_dir(spool)
        for uid in (gone | receipted.keys()) - held:
            receipts.forget_segment(uid)


def recover_segment(
    path: Path, number: int, quarantine: Quarantine, report: Recovery
) -> tuple[SegmentHeader, SegmentIndex, int, bool] | None:
    """Make a segment that nobody writes any more whole: cut its torn tail, seal it.

    Where the medium cannot read it all, the file stays as it is; what can be read counts.

    Returns:
        Header, index, size, and whether the medium could read it; None when it held no chunk and was taken
        away.
    """
    files = quarantine.files
    file = PatchedFile(files.open(path))
    try:
        size = file.size()
        header = parse_header(file.read_at(0, FILE_HEADER_BYTES))
        sealed = read_index(file, size) if header is not None else None
        found: _Found | None
        if header is not None and sealed is not None and sealed[1].uid == header.uid:
            found = _Found(header, sealed[0], size, sealed=True)
        else:
            found = _salvage(path, number, file, quarantine, report)
    finally:
        file.close()
    if file.lost:
        report.notes.append(f"{path}: {len(file.lost)} blocks cannot be read; the file stays as it is")
        return None if found is None else (found.header, found.index, size, False)
    if found is None:
        _clear(path, size, header, quarantine, report)
        return None
    if not found.sealed:
        size = _seal(files, path, found, report)
    return found.header, found.index, size, True


@dataclass(frozen=True, slots=True)
class _Found:
    """What a segment file holds: `end` is where its last whole record ends."""

    header: SegmentHeader
    index: SegmentIndex
    end: int
    sealed: bool


def _salvage(
    path: Path, number: int, file: PatchedFile, quarantine: Quarantine, report: Recovery
) -> _Found | None:
    """Index a segment from its whole records; None when it has none."""
    header: SegmentHeader | None = None
    index, end, uid = SegmentIndex(), 0, 0
    damage: list[Damage] = []
    for item in scan(file):
        if isinstance(item, SegmentHeader):
            header, end = item, FILE_HEADER_BYTES
            continue
        if isinstance(item, Damage):
            damage.append(item)
            continue
        end, uid = item.end, item.uid
        if item.kind == CHUNK:
            try:
                chunk = unpack_chunk(item.body)
                index.add(chunk, item.offset, item.t_append_ns, key_of(chunk))
            except (ChunkError, NameRefused) as error:
                report.notes.append(f"{path}: the record at {item.offset} is not a chunk: {error}")
                damage.append(Damage(item.offset, item.end - item.offset, torn=False))
    if not len(index):
        return None
    if header is None:
        header = SegmentHeader(number, uid, bytes(16), clock.now_ns(), time.time_ns())
        report.notes.append(f"{path}: its header was damaged; when its chunks were appended is not known")
    kept = True
    for part in damage if not file.lost else ():
        if part.torn:
            report.torn_bytes += part.length
        else:
            report.damaged_bytes += part.length
        try:
            report.quarantined.append(quarantine.keep(path.name, file, part.offset, part.length))
        except OSError as error:
            report.notes.append(f"{path}: damaged bytes could not be copied to quarantine: {error.strerror}")
            kept = False
    # Nothing is cut that could not be kept: the segment then stays as it is.
    return _Found(header, index, end, sealed=not kept)


def _seal(files: Files, path: Path, found: _Found, report: Recovery) -> int:
    """Cut what lies behind the last whole record and write the index there; returns the new size."""
    file = files.open(path, write=True)
    try:
        file.truncate(found.end)
        file.write_at(0, [found.header.pack()])
        write_index(file, found.end, found.header.uid, found.index)
        file.sync()
    except OSError as error:
        report.notes.append(f"{path}: it could not be sealed: {error.strerror}")
    finally:
        size = file.size()
        file.close()
    return size


def _clear(
    path: Path, size: int, header: SegmentHeader | None, quarantine: Quarantine, report: Recovery
) -> None:
    """Take away a segment without a single whole chunk: what it holds goes to quarantine."""
    if size == 0 or (header is not None and size == FILE_HEADER_BYTES):
        quarantine.files.unlink(path)
        return
    report.torn_bytes += size
    report.quarantined.append(quarantine.move(path))
