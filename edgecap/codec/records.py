"""Event payloads: a msgpack array of maps, each with a `type` and a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecap.codec import wire
from edgecap.codec.chunk import MAX_CHUNK_BYTES
from edgecap.errors import ChunkError

CODEC = "msgpack"


def encode_records(records: Sequence[dict[str, Any]]) -> bytes:
    """Pack records into an event payload."""
    return wire.pack(list(records))


def decode_records(payload: bytes) -> list[dict[str, Any]]:
    """Unpack an event payload; raises `ChunkError` when it is not one."""
    records = wire.unpack(payload, what="event payload", max_bytes=MAX_CHUNK_BYTES)
    if not isinstance(records, list) or not all(
        isinstance(r, dict) and isinstance(r.get("type"), str) for r in records
    ):
        raise ChunkError("event payload is not an array of maps with a type")
    return records
