"""Video payloads: encoded access units with their raw sensor times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgecap.codec import wire
from edgecap.codec.chunk import MAX_CHUNK_BYTES
from edgecap.errors import ChunkError

KEY = 1
CONTINUES = 2
CONTINUATION = 4
PART = 8
"""Flags hold the part's number times this: 0 for a frame's first, so that a missing part is noticed."""
FRAME_OVERHEAD_BYTES = 64
"""More than what one frame's numbers add to its data."""
MAX_METADATA_BYTES = 1024
LIMIT = 1 << 63
"""Integers lie within 64 bits, signed."""


@dataclass(frozen=True, slots=True)
class VideoUnit:
    """A frame, or a part of one, as it lies in a chunk.

    `flags` is the sum of `KEY`, `CONTINUES` (the frame goes on in the next chunk), `CONTINUATION` (this part
    is not the frame's first) and `PART` times the part's number. Times as in `model.FramePacket`.
    """

    index: int
    tick: int
    arrival_ns: int
    exposure_ns: int
    line_ns: int
    flags: int
    data: bytes
    metadata: bytes = b""
    """msgpack map of what else the camera said of the frame; on its first part only."""


def encode_units(units: Sequence[VideoUnit]) -> bytes:
    """Pack units into a chunk payload."""
    return wire.pack(
        [
            [
                *(u.index, u.tick, u.arrival_ns, u.exposure_ns, u.line_ns, u.flags, u.data),
                *([u.metadata] if u.metadata else []),
            ]
            for u in units
        ]
    )


def decode_units(payload: bytes) -> list[VideoUnit]:
    """Unpack a chunk payload; raises `ChunkError` when it is not one."""
    rows = wire.unpack(payload, what="video payload", max_bytes=MAX_CHUNK_BYTES)
    if not isinstance(rows, list):
        raise ChunkError("video payload is not an array of frames")
    units = []
    for row in rows:
        if (
            not isinstance(row, list)
            or len(row) < 7
            or not all(type(x) is int and -LIMIT <= x < LIMIT for x in row[:6])
            or not isinstance(row[6], bytes)
        ):
            raise ChunkError("video payload: a frame is six 64-bit integers and its data")
        units.append(VideoUnit(*row[:7], *(m for m in row[7:8] if isinstance(m, bytes))))
    return units


def decode_metadata(metadata: bytes) -> dict[str, Any]:
    """A frame's metadata as a map; raises `ChunkError` when it is not one."""
    if not metadata:
        return {}
    found = wire.unpack(metadata, what="frame metadata", max_bytes=MAX_METADATA_BYTES)
    if not isinstance(found, dict):
        raise ChunkError("frame metadata is not a map")
    return found


def split_unit(unit: VideoUnit, first_bytes: int, part_bytes: int) -> Iterator[VideoUnit]:
    """Cut a frame that does not fit one chunk: at most `first_bytes`, then `part_bytes` each."""
    start, limit, flags, part = 0, first_bytes, unit.flags, 0
    while True:
        end = start + limit
        last = end >= len(unit.data)
        yield VideoUnit(
            unit.index,
            unit.tick,
            unit.arrival_ns,
            unit.exposure_ns,
            unit.line_ns,
            flags | (0 if last else CONTINUES),
            unit.data[start:end],
            b"" if part else unit.metadata,
        )
        if last:
            return
        part += 1
        start, limit, flags = end, part_bytes, unit.flags | CONTINUATION | part * PART


def join_units(units: Iterable[VideoUnit]) -> Iterator[VideoUnit]:
    """Put continued frames together again; a frame whose parts are not all there is left out."""
    parts: list[VideoUnit] = []
    for unit in units:
        if not unit.flags & CONTINUATION:
            parts = [unit]
        elif (
            parts
            and parts[-1].index == unit.index
            and parts[-1].flags & CONTINUES
            and unit.flags // PART == len(parts)
        ):
            parts.append(unit)
        else:
            parts = []
            continue
        if not unit.flags & CONTINUES:
            first = parts[0]
            data = b"".join(p.data for p in parts) if len(parts) > 1 else first.data
            yield VideoUnit(
                first.index,
                first.tick,
                first.arrival_ns,
                first.exposure_ns,
                first.line_ns,
                first.flags & KEY,
                data,
                first.metadata,
            )
            parts = []
