"""Chunks: one stream's bounded, sealed bytes. FORMAT.md beside this file is the specification."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgecap.codec import wire
from edgecap.errors import ChunkError
from edgecap.model import SESSION_STREAM, ChunkKind, ClockFit, Gap
from edgecap.topics import check_name

VERSION = 1
MAX_CHUNK_BYTES = 112 * 1024
MAX_HEADER_BYTES = 16 * 1024
NO_HASH = bytes(32)


class ChunkHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The hashed map at the front of a chunk; unknown keys are ignored on reading."""

    site: str
    rig: str
    boot: str
    session: str
    stream: str
    seq: int
    kind: ChunkKind
    t0_ns: int
    t1_ns: int
    n: int
    codec: str
    raw_bytes: int
    sha256: bytes
    man: bytes
    prev: bytes
    fit: ClockFit | None = None
    gaps: tuple[Gap, ...] = ()
    quality: dict[str, float | int | str] = {}
    enc: str | None = None


@dataclass(frozen=True, slots=True)
class ChunkId:
    """What makes a chunk the same chunk again."""

    boot: str
    session: str
    stream: str
    seq: int
    hash: bytes
    """SHA-256 of the header bytes; it covers the payload through the header's own `sha256`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A sealed chunk: parsed header beside the exact bytes that are hashed, stored and sent."""

    header: ChunkHeader
    header_bytes: bytes
    payload: bytes
    signature: bytes | None
    packed: bytes

    @property
    def hash(self) -> bytes:
        """SHA-256 of the header bytes."""
        return hashlib.sha256(self.header_bytes).digest()

    @property
    def id(self) -> ChunkId:
        h = self.header
        return ChunkId(h.boot, h.session, h.stream, h.seq, self.hash)


def pack_chunk(header: ChunkHeader, payload: bytes, signature: bytes | None = None) -> Chunk:
    """Seal a chunk; `header.sha256` must already be that of `payload`.

    Raises:
        ChunkError: the result would be larger than `MAX_CHUNK_BYTES`.
    """
    header_bytes = wire.pack(msgspec.to_builtins(header, builtin_types=(bytes,)))
    packed = wire.pack([VERSION, header_bytes, payload, signature])
    if len(packed) > MAX_CHUNK_BYTES:
        raise ChunkError(
            f"chunk {header.stream}/{header.seq} has {len(packed)} bytes, the limit is {MAX_CHUNK_BYTES}",
            fix="close the chunk earlier (fewer samples or frames)",
        )
    return Chunk(header, header_bytes, payload, signature, packed)


def unpack_chunk(data: bytes) -> Chunk:
    """Parse and verify a chunk: sizes, version, types, names, hash of the payload.

    Raises:
        ChunkError: names the first rule that the bytes break.
        NameRefused: a name in the header is not a valid name.
    """
    parts = wire.unpack(data, what="chunk", max_bytes=MAX_CHUNK_BYTES)
    if not isinstance(parts, list) or len(parts) < 1 or not isinstance(parts[0], int):
        raise ChunkError("chunk is not an array that starts with its version")
    if parts[0] != VERSION:
        raise ChunkError(
            f"chunk has format version {parts[0]}, this program reads version {VERSION}",
            fix="update edgecap on this side",
        )
    if len(parts) != 4:
        raise ChunkError(f"chunk has {len(parts)} parts instead of 4")
    _, header_bytes, payload, signature = parts
    if not isinstance(header_bytes, bytes) or not isinstance(payload, bytes):
        raise ChunkError("chunk header and payload must be binary")
    if signature is not None and not isinstance(signature, bytes):
        raise ChunkError("chunk signature must be binary or nil")
    header = _header(header_bytes)
    found = hashlib.sha256(payload).digest()
    if found != header.sha256:
        raise ChunkError(
            f"chunk {header.stream}/{header.seq}: payload hash {found.hex()[:16]}… "
            f"differs from the header's {header.sha256.hex()[:16]}…"
        )
    return Chunk(header, header_bytes, payload, signature, bytes(data))


def _header(data: bytes) -> ChunkHeader:
    fields = wire.unpack(data, what="chunk header", max_bytes=MAX_HEADER_BYTES)
    try:
        header = msgspec.convert(fields, ChunkHeader, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise ChunkError(f"chunk header: {error}") from error
    for what in ("site", "rig", "session", "stream"):
        check_name(what, getattr(header, what))
    if len(header.boot) > 64 or len(header.codec) > 64:
        raise ChunkError("chunk header: boot and codec have at most 64 characters")
    for what in ("sha256", "man", "prev"):
        if len(getattr(header, what)) != 32:
            raise ChunkError(f"chunk header: {what} must have 32 bytes")
    for what in ("seq", "n", "raw_bytes"):
        if getattr(header, what) < 0:
            raise ChunkError(f"chunk header: {what} must not be negative")
    if header.t1_ns < header.t0_ns:
        raise ChunkError("chunk header: t1_ns lies before t0_ns")
    return header


class StreamChain:
    """Seals the chunks of one stream of one session, numbering and hash-chaining them.

    Args:
        site, rig, boot, session, stream: Names that go into every header.
        man: Hash of the session's opening header; `NO_HASH` for the session stream itself.
        seq: Number of the next chunk (not 0 when a stream is continued after a crash).
        prev: Hash of the previous header; `man` when there is none.
    """

    def __init__(
        self,
        *,
        site: str,
        rig: str,
        boot: str,
        session: str,
        stream: str,
        man: bytes = NO_HASH,
        seq: int = 0,
        prev: bytes | None = None,
    ) -> None:
        self.site, self.rig, self.boot, self.session, self.stream = site, rig, boot, session, stream
        self.man = man
        self.seq = seq
        self.prev = man if prev is None else prev

    def seal(
        self,
        *,
        kind: ChunkKind,
        codec: str,
        payload: bytes,
        t0_ns: int,
        t1_ns: int,
        n: int,
        raw_bytes: int,
        fit: ClockFit | None = None,
        gaps: Sequence[Gap] = (),
        quality: dict[str, Any] | None = None,
    ) -> Chunk:
        """Seal `payload` as this stream's next chunk and advance the chain."""
        header = ChunkHeader(
            site=self.site,
            rig=self.rig,
            boot=self.boot,
            session=self.session,
            stream=self.stream,
            seq=self.seq,
            kind=kind,
            t0_ns=t0_ns,
            t1_ns=t1_ns,
            n=n,
            codec=codec,
            raw_bytes=raw_bytes,
            sha256=hashlib.sha256(payload).digest(),
            man=self.man,
            prev=self.prev,
            fit=fit,
            gaps=tuple(gaps),
            quality=quality or {},
        )
        chunk = pack_chunk(header, payload)
        self.seq += 1
        self.prev = chunk.hash
        if self.stream == SESSION_STREAM and self.man == NO_HASH:
            self.man = chunk.hash
        return chunk
