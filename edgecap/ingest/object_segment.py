"""Segments as objects: the same records as in a file, with nothing in them but what the chunks say."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from edgecap.codec.chunk import Chunk
from edgecap.model import SESSION_STREAM
from edgecap.spool.segment import CHUNK, FILE_HEADER_BYTES, INDEX, SegmentHeader, record_header
from edgecap.spool.segment_index import SegmentIndex, key_of

CONFLICT = "conflict."
OBJECT_NAME = re.compile(
    r"(conflict\.)?[a-z0-9-]{1,64}\.\d{8,20}\.[a-z0-9-]{1,64}\.[0-9a-f]{32}(-[0-9a-f]{8})?\.seg"
)
_NO_BOOT = bytes(16)


class SegmentObject(NamedTuple):
    """One object to be stored; `name` is without the session's folder."""

    name: str
    data: bytes


def pack_segment(chunks: Sequence[Chunk], worker: str, *, conflict: bool = False) -> SegmentObject:
    """The object that holds `chunks` of one session.

    The same chunks from the same worker are the same bytes under the same name: no clock and no random
    number takes part, so append times read 0 and the time of arrival is that of the object. The chunks of a
    stream lie together, the session's own first: whoever reads one stream reads one piece.

    Args:
        chunks: At least one; few enough for one index.
        worker: Who stores them; part of the name.
        conflict: Their places in the streams are taken by other chunks.
    """
    ordered = sorted(chunks, key=_place)
    uid = int.from_bytes(hashlib.sha256(b"".join(c.hash for c in ordered)).digest()[:8], "little") >> 1
    parts = [SegmentHeader(1, uid, _NO_BOOT, 0, 0).pack()]
    identity = hashlib.sha256(parts[0])
    offset = FILE_HEADER_BYTES
    index = SegmentIndex()
    for chunk in ordered:
        head = record_header(CHUNK, uid, 0, offset, chunk.packed)
        parts += (head, chunk.packed)
        identity.update(head)
        index.add(chunk, offset, 0, key_of(chunk))
        offset += len(head) + len(chunk.packed)
    body = index.pack(offset)
    parts += (record_header(INDEX, uid, 0, offset, body), body)
    # Record headers hold the CRC of each packed chunk, the index every chunk's hash: this names all bytes.
    identity.update(body)
    first = ordered[0].header
    name = f"{first.stream}.{first.seq:010d}.{worker}.{identity.hexdigest()[:32]}.seg"
    return SegmentObject(f"{CONFLICT}{name}" if conflict else name, b"".join(parts))


def other_name(found: SegmentObject) -> str:
    """Where an object goes when something else has its name."""
    tail = hashlib.sha256(found.data).hexdigest()[32:40]
    return f"{found.name.removesuffix('.seg')}-{tail}.seg"


def _place(chunk: Chunk) -> tuple[bool, str, int]:
    h = chunk.header
    return h.stream != SESSION_STREAM, h.stream, h.seq
