"""Event payloads: a msgpack array of maps, each with a `type` and a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecap.codec import wire
from edgecap.codec.chunk import MAX_CHUNK_BYTES, Chunk, StreamChain
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


def seal_records(chain: StreamChain, records: Sequence[dict[str, Any]]) -> Chunk:
    """Seal records, at least one and each with its `t_ns`, as the chain's next event chunk."""
    payload = encode_records(records)
    times = [int(r["t_ns"]) for r in records]
    return chain.seal(
        kind="event",
        codec=CODEC,
        payload=payload,
        t0_ns=min(times),
        t1_ns=max(times),
        n=len(records),
        raw_bytes=len(payload),
    )
