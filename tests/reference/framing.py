"""Slow, independent readings of hw/PROTOCOL.md: what the framing kernels must equal."""

import struct
import zlib

MAX_BODY = 1024
MAX_ENCODED = 1029


def cobs_encode(body: bytes) -> bytes:
    """Without the delimiter: every zero replaced by the distance to the next, runs of 254 cut."""
    out = bytearray()
    blocks = body.split(b"\0")
    for number, block in enumerate(blocks):
        pieces = [block[i : i + 254] for i in range(0, len(block), 254)] or [b""]
        # A full piece stands for no zero: only if a zero follows it, an empty piece must carry that.
        if len(pieces[-1]) == 254 and number + 1 < len(blocks):
            pieces.append(b"")
        for piece in pieces:
            out.append(len(piece) + 1)
            out += piece
    return bytes(out)


def cobs_decode(code: bytes) -> bytes | None:
    out = b""
    while code:
        length = code[0]
        if length == 0 or length > len(code):
            return None
        out += code[1:length]
        code = code[length:]
        if length < 255 and code:
            out += b"\0"
    return out


def body(
    kind: int, payload: bytes, seq: int = 0, prev_tx_done_us: int | None = None, version: int = 1
) -> bytes:
    head = struct.pack("<BBBBII", version, kind, prev_tx_done_us is not None, 0, seq, (prev_tx_done_us or 0))
    return head + payload + struct.pack("<I", zlib.crc32(head + payload))


def wire(kind: int, payload: bytes, **header: int | None) -> bytes:
    return cobs_encode(body(kind, payload, **header)) + b"\0"


def deframe(data: bytes) -> tuple[list[bytes], dict[str, int], bytes]:
    """Every valid body of a whole stream, counts by cause, and the unfinished tail."""
    *segments, tail = data.split(b"\0")
    bodies, counts = [], {"ok": 0, "crc": 0, "cobs": 0, "long": 0, "short": 0, "version": 0}
    for segment in segments:
        if not segment:
            continue
        decoded = cobs_decode(segment)
        if len(segment) > MAX_ENCODED:
            cause = "long"
        elif decoded is None:
            cause = "cobs"
        elif len(decoded) > MAX_BODY:
            cause = "long"
        elif len(decoded) < 16:
            cause = "short"
        elif zlib.crc32(decoded[:-4]) != int.from_bytes(decoded[-4:], "little"):
            cause = "crc"
        elif decoded[0] != 1:
            cause = "version"
        else:
            cause = "ok"
            bodies.append(decoded)
        counts[cause] += 1
    if len(tail) > MAX_ENCODED:
        counts["long"] += 1
    return bodies, counts, tail


def pack_values(rows: list[list[int]], width: int) -> bytes:
    return b"".join((v & (256**width - 1)).to_bytes(width, "little") for row in rows for v in row)


def samples_payload(
    stream: int, index: int, t0_us: int, deltas_us: int | list[int], rows: list[list[int]], width: int
) -> bytes:
    """`deltas_us`: one number for uniform times (mode 0), a list of n − 1 for mode 1."""
    uniform = isinstance(deltas_us, int)
    times = [deltas_us] if isinstance(deltas_us, int) else deltas_us
    head = struct.pack("<BBBBII", stream, len(rows), 0 if uniform else 1, 0, index, t0_us)
    return head + b"".join(struct.pack("<H", d) for d in times) + pack_values(rows, width)
