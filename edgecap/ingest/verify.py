"""What ingest demands of a message before it may become part of the store."""

from __future__ import annotations

from edgecap import topics
from edgecap.codec.chunk import MAX_CHUNK_BYTES, Chunk, unpack_chunk
from edgecap.errors import ChunkError


def verify_chunk(data: bytes) -> Chunk:
    """The chunk in `data`, whichever way it came; its size is looked at before a byte is decoded.

    Raises:
        ChunkError: the bytes are no valid chunk.
        NameRefused: a name in the header is not a valid one.
    """
    if len(data) > MAX_CHUNK_BYTES:
        raise ChunkError(f"message has {len(data)} bytes, the limit is {MAX_CHUNK_BYTES}")
    return unpack_chunk(data)


def verify_message(topic: str, payload: bytes) -> Chunk:
    """The chunk in a message on `up/{stream}`.

    The topic, which the broker's access list guards, must name the same site, rig and stream as the
    header, which it cannot see.

    Raises:
        ChunkError: the bytes are no valid chunk, or belong to another topic.
        NameRefused: the topic or a name in the header is not a valid one.
    """
    address = topics.parse(topic)
    if address.suffix != topics.UP.suffix:
        raise ChunkError(f"topic {topic!r} does not carry chunks")
    chunk = verify_chunk(payload)
    header = chunk.header
    for what, told, meant in (
        ("site", address.site, header.site),
        ("rig", address.rig, header.rig),
        ("stream", address.stream, header.stream),
    ):
        if told != meant:
            raise ChunkError(f"chunk of {what} {meant!r} came on the topic of {what} {told!r}")
    return chunk
