"""Receipts: ingest's word that it holds chunks durably; the only thing that lets a rig forget them.

On the wire: msgpack map `{"v": 1, "worker": str, "t_utc_ns": int, "items": [[boot, session, stream,
first_seq, bin], …], "sig": nil}`, where `bin` is the concatenated 32-byte header hashes of consecutive
seqs from `first_seq`. `sig` is reserved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from edgecap.codec import wire
from edgecap.codec.chunk import ChunkId
from edgecap.errors import ChunkError
from edgecap.topics import check_name

VERSION = 1
MAX_RECEIPT_BYTES = 112 * 1024
MAX_CHUNKS = 2048
"""Chunks per receipt: their hashes and names stay below `MAX_RECEIPT_BYTES`, up to long names."""
HASH_BYTES = 32
_MAX_SEQ = 1 << 62


class ReceiptItem(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive chunks of one stream."""

    boot: str
    session: str
    stream: str
    first_seq: int
    hashes: bytes

    def ids(self) -> Iterator[ChunkId]:
        """Every chunk it names."""
        for k in range(len(self.hashes) // HASH_BYTES):
            digest = self.hashes[k * HASH_BYTES : (k + 1) * HASH_BYTES]
            yield ChunkId(self.boot, self.session, self.stream, self.first_seq + k, digest)


class Receipt(msgspec.Struct, frozen=True):
    """A decoded, valid receipt."""

    v: int
    worker: str
    t_utc_ns: int
    items: tuple[ReceiptItem, ...]
    sig: bytes | None = None

    def ids(self) -> Iterator[ChunkId]:
        """Every chunk it names."""
        for item in self.items:
            yield from item.ids()


def encode_receipts(ids: Iterable[ChunkId], *, worker: str, t_utc_ns: int) -> list[bytes]:
    """Pack ids into as few receipts as fit, neighbouring seqs into one item."""
    ordered = sorted(set(ids), key=lambda i: (i.boot, i.session, i.stream, i.seq, i.hash))
    receipts: list[bytes] = []
    for at in range(0, len(ordered), MAX_CHUNKS):
        items: list[list[object]] = []
        runs: list[bytearray] = []
        before: ChunkId | None = None
        for chunk in ordered[at : at + MAX_CHUNKS]:
            if before is None or (chunk.boot, chunk.session, chunk.stream, chunk.seq) != (
                before.boot,
                before.session,
                before.stream,
                before.seq + 1,
            ):
                runs.append(bytearray())
                items.append([chunk.boot, chunk.session, chunk.stream, chunk.seq])
            runs[-1] += chunk.hash
            before = chunk
        receipts += _packed(
            [[*item, bytes(run)] for item, run in zip(items, runs, strict=True)], worker, t_utc_ns
        )
    return receipts


def _packed(items: list[list[object]], worker: str, t_utc_ns: int) -> list[bytes]:
    """One receipt, or halves where single seqs of long names make it too long."""
    data = wire.pack({"v": VERSION, "worker": worker, "t_utc_ns": t_utc_ns, "items": items, "sig": None})
    if len(data) <= MAX_RECEIPT_BYTES:
        return [data]
    half = len(items) // 2
    return _packed(items[:half], worker, t_utc_ns) + _packed(items[half:], worker, t_utc_ns)


def decode_receipt(data: bytes) -> Receipt:
    """Parse and validate a receipt.

    Raises:
        ChunkError: names the first rule that the bytes break.
        NameRefused: a session or stream is not a valid name.
    """
    fields = wire.unpack(data, what="receipt", max_bytes=MAX_RECEIPT_BYTES)
    if isinstance(fields, dict) and isinstance(fields.get("v"), int) and fields["v"] != VERSION:
        raise ChunkError(
            f"receipt has format version {fields['v']}, this program reads version {VERSION}",
            fix="update edgecap on this side",
        )
    try:
        receipt = msgspec.convert(fields, Receipt, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise ChunkError(f"receipt: {error}") from error
    for item in receipt.items:
        check_name("session", item.session)
        check_name("stream", item.stream)
        if len(item.boot) > 64:
            raise ChunkError("receipt: boot has at most 64 characters")
        if not 0 <= item.first_seq < _MAX_SEQ:
            raise ChunkError(f"receipt: first_seq {item.first_seq} is out of range")
        if not item.hashes or len(item.hashes) % HASH_BYTES:
            raise ChunkError(f"receipt: {len(item.hashes)} bytes of hashes, not a multiple of {HASH_BYTES}")
    return receipt
