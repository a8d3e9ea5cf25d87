"""msgpack with the strictness that hashed and signed bytes need."""

from __future__ import annotations

from typing import Any

import msgpack

from edgecap.errors import ChunkError

MAX_ITEMS = 1 << 16


def _unique(pairs: list[tuple[object, object]]) -> dict[object, object]:
    """Build a map; two equal keys would let two readers see two different headers."""
    found: dict[object, object] = {}
    for key, value in pairs:
        if key in found:
            raise ChunkError(f"duplicate map key {key!r}")
        found[key] = value
    return found


def pack(value: object) -> bytes:
    """Encode as msgpack."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(data: bytes, *, what: str, max_bytes: int) -> Any:
    """Decode exactly one msgpack value of at most `max_bytes`.

    Raises:
        ChunkError: too long, not msgpack, trailing bytes, a duplicate map key, or more than
            `MAX_ITEMS` items in one container.
    """
    if len(data) > max_bytes:
        raise ChunkError(f"{what} has {len(data)} bytes, the limit is {max_bytes}")
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_unique,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=0,
        )
    except ChunkError as error:
        raise ChunkError(f"{what}: {error.what}") from error
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ChunkError(f"{what} is not one whole msgpack value: {error}", head=data[:32].hex()) from error
