"""Segment files: the record format of spool and store, and its one reader. FORMAT.md specifies the bytes."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from edgecap import clock
from edgecap.spool.files import File

FILE_MAGIC = b"\x89ECSEG\r\n"
VERSION = 1
FILE_HEADER = struct.Struct("<8sHHIQ16sqqII")
FILE_HEADER_BYTES = FILE_HEADER.size
RECORD_MAGIC = b"\xecRc\x1e"
RECORD_HEADER = struct.Struct("<4sIQqII")
RECORD_HEADER_BYTES = RECORD_HEADER.size
_BEFORE_CRC = RECORD_HEADER_BYTES - 4
_OFFSET = struct.Struct("<Q")

CHUNK = 1
INDEX = 2
MAX_BODY_BYTES = 4 << 20
"""No record body is longer; a length above this is damage."""
SEGMENT_BYTES = 16 << 20
MAX_SEGMENT_BYTES = 2 << 30
READ_BYTES = 256 << 10
SALVAGE_FACTOR = 4
"""Looking for records behind damage checks at most this many times the file's bytes, then gives up."""


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first 64 bytes of a segment.

    `created_ns` and `created_utc_ns` were read together, so that append times, which are rig times of
    kernel boot `boot`, can be told as UTC.
    """

    number: int
    uid: int
    boot: bytes
    created_ns: int
    created_utc_ns: int

    def pack(self) -> bytes:
        parts = (self.number, self.uid, self.boot, self.created_ns, self.created_utc_ns, 0)
        head = FILE_HEADER.pack(FILE_MAGIC, VERSION, FILE_HEADER_BYTES, *parts, 0)[:-4]
        return head + zlib.crc32(head).to_bytes(4, "little")


def new_header(number: int) -> SegmentHeader:
    """A header for a segment that begins now, with a uid of its own."""
    pair = clock.read_pair(1)
    uid = int.from_bytes(os.urandom(8), "little") >> 1
    boot = bytes.fromhex(clock.boot_id().replace("-", ""))
    return SegmentHeader(number, uid, boot, pair.raw_ns, pair.realtime_ns)


def parse_header(data: bytes) -> SegmentHeader | None:
    """The header, or None when the bytes are not a whole header of this version."""
    if len(data) < FILE_HEADER_BYTES or data[:8] != FILE_MAGIC:
        return None
    _, version, length, number, uid, boot, t_ns, utc_ns, _, crc = FILE_HEADER.unpack_from(data)
    if crc != zlib.crc32(data[: FILE_HEADER_BYTES - 4]) or version != VERSION or length != FILE_HEADER_BYTES:
        return None
    return SegmentHeader(number, uid, boot, t_ns, utc_ns)


def record_header(kind: int, uid: int, t_append_ns: int, offset: int, body: bytes) -> bytes:
    """The 32 bytes before `body`; `offset` is where in the file they will stand."""
    head = RECORD_HEADER.pack(RECORD_MAGIC, len(body), uid, t_append_ns, kind, 0)[:_BEFORE_CRC]
    return head + _crc(offset, head, body).to_bytes(4, "little")


def _crc(offset: int, head: bytes, body: bytes) -> int:
    # The offset is covered too: a record quoted inside another one is not taken for one.
    return zlib.crc32(body, zlib.crc32(head, zlib.crc32(_OFFSET.pack(offset))))


@dataclass(frozen=True, slots=True)
class Record:
    """One whole record and where it stands."""

    offset: int
    kind: int
    uid: int
    t_append_ns: int
    body: bytes

    @property
    def end(self) -> int:
        return self.offset + RECORD_HEADER_BYTES + len(self.body)


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that belong to no whole record."""

    offset: int
    length: int
    torn: bool
    """Reaches to the end of the file: what a crash leaves, or a record that is being written."""


def read_record(file: File, offset: int, uid: int | None = None) -> Record | None:
    """The record at `offset`, or None when there is no whole one (of segment `uid`)."""
    head = file.read_at(offset, RECORD_HEADER_BYTES)
    parsed = _plausible(head, uid)
    if parsed is None:
        return None
    length, found_uid, t_ns, kind, crc = parsed
    body = file.read_at(offset + RECORD_HEADER_BYTES, length)
    if len(body) != length or _crc(offset, head[:_BEFORE_CRC], body) != crc:
        return None
    return Record(offset, kind, found_uid, t_ns, body)


def _plausible(head: bytes, uid: int | None) -> tuple[int, int, int, int, int] | None:
    if len(head) < RECORD_HEADER_BYTES:
        return None
    magic, length, found_uid, t_ns, kind, crc = RECORD_HEADER.unpack_from(head)
    if magic != RECORD_MAGIC or not 0 < length <= MAX_BODY_BYTES or uid not in (None, found_uid):
        return None
    return length, found_uid, t_ns, kind, crc


class _Window:
    """Reads a file in large pieces; at most one piece and one record are in memory."""

    def __init__(self, file: File, size: int) -> None:
        self.file, self.size = file, size
        self._start, self._data = 0, b""

    def at(self, offset: int, n: int) -> bytes:
        start = offset - self._start
        if start < 0 or start + n > len(self._data):
            self._start = offset
            self._data = self.file.read_at(offset, min(max(n, READ_BYTES), max(0, self.size - offset)))
            start = 0
        return self._data[start : start + n]

    def record(self, offset: int, uid: int | None) -> tuple[Record | None, int]:
        """The record at `offset` if it is whole, and how many body bytes were checked to say so."""
        head = self.at(offset, RECORD_HEADER_BYTES)
        parsed = _plausible(head, uid)
        if parsed is None:
            return None, 0
        length, found_uid, t_ns, kind, crc = parsed
        if offset + RECORD_HEADER_BYTES + length > self.size:
            return None, 0
        body = self.at(offset + RECORD_HEADER_BYTES, length)
        if len(body) != length or _crc(offset, head[:_BEFORE_CRC], body) != crc:
            return None, length
        return Record(offset, kind, found_uid, t_ns, body), length

    def find_magic(self, offset: int) -> int:
        """Where the next record could begin, at or after `offset`; the file's size if nowhere."""
        while offset + RECORD_HEADER_BYTES <= self.size:
            piece = self.at(offset, min(READ_BYTES, self.size - offset))
            found = piece.find(RECORD_MAGIC)
            if found >= 0:
                return offset + found
            if len(piece) < len(RECORD_MAGIC):
                break
            offset += len(piece) - len(RECORD_MAGIC) + 1
        return self.size


def scan(file: File, size: int | None = None) -> Iterator[SegmentHeader | Record | Damage]:
    """Read a segment from its beginning: header, records, and whatever is damaged, in order of offset.

    A damaged file header does not lose the records, nor a damaged record those behind it. Memory is bounded
    by one record, time by `SALVAGE_FACTOR` times the file's size.

    Args:
        file: The segment, possibly being written or hostile.
        size: How much of it to read; all of it by default.
    """
    window = _Window(file, min(file.size() if size is None else size, MAX_SEGMENT_BYTES))
    header = parse_header(window.at(0, min(FILE_HEADER_BYTES, window.size)))
    uid: int | None = None
    offset, damaged_from = 0, -1
    if header is not None:
        uid, offset = header.uid, FILE_HEADER_BYTES
        yield header
    elif window.size:
        damaged_from, offset = 0, window.find_magic(min(FILE_HEADER_BYTES, window.size))
    budget = SALVAGE_FACTOR * window.size
    while offset < window.size:
        record, checked = window.record(offset, uid)
        if record is not None:
            if damaged_from >= 0:
                yield Damage(damaged_from, offset - damaged_from, torn=False)
                damaged_from = -1
            uid = record.uid
            yield record
            offset = record.end
            continue
        if damaged_from < 0:
            damaged_from = offset
        budget -= checked + RECORD_HEADER_BYTES
        if budget < 0:
            break
        offset = window.find_magic(offset + 1)
    if damaged_from >= 0:
        yield Damage(damaged_from, window.size - damaged_from, torn=True)
