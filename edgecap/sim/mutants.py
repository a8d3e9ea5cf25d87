"""Valid bytes of every kind that edgecap takes in, and seeded ways to spoil them."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecap.codec import wire
from edgecap.codec.chunk import NO_HASH, Chunk, ChunkId, StreamChain
from edgecap.codec.columns import ColumnEncoder
from edgecap.codec.receipt import encode_receipts
from edgecap.codec.records import encode_records
from edgecap.codec.video import KEY, VideoUnit, encode_units
from edgecap.kernels import framing
from edgecap.model import ClockFit, Gap
from edgecap.source.frames import Ack, Channel, Descriptor, Event, EventCode, Hello, Kind, Log
from edgecap.spool.segment import CHUNK, new_header, record_header

SITE, RIG = "site-a", "rig-01"
BOOT = "5a0c8e1e-3f5e-4c6e-9d0f-0123456789ab"
SESSION = "20260102-030405-abcd"
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0xC0, 0xC1, 0xDD, 0xDF, 0xC6, 0xCF, 0xD3, 0xDB)
"""Bytes at which msgpack, COBS and lengths change their meaning."""
_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


def spoil(rng: random.Random, data: bytes, others: Sequence[bytes], most_bytes: int = 1 << 18) -> bytes:
    """`data` after one to four random changes; `others` are what pieces are taken from."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        _change(rng, out, others)
    return bytes(out[:most_bytes])


def _change(rng: random.Random, out: bytearray, others: Sequence[bytes]) -> None:
    if not out:
        out += rng.randbytes(rng.randint(1, 40))
        return
    # Fields lie at the front: half of all changes do too.
    span = len(out) if rng.random() < 0.5 else min(len(out), 64)
    at = rng.randrange(span)
    way = rng.randrange(10)
    if way <= 1:
        out[at] ^= 1 << rng.randrange(8)
    elif way == 2:
        out[at] = rng.choice(_EDGES)
    elif way == 3:
        out[at] = rng.randrange(256)
    elif way == 4:
        width = rng.choice((2, 4, 8))
        number = rng.choice(_NUMBERS) & ((1 << (8 * width)) - 1)
        out[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
    elif way == 5:
        del out[at : at + rng.choice((1, 2, 4, 30, len(out)))]
    elif way == 6:
        out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 30)))
    elif way == 7:
        piece = out[at : at + rng.choice((1, 4, 16, 200))]
        out[at:at] = piece * rng.choice((1, 2, 50))
    elif way == 8:
        del out[at:]
    else:
        other = rng.choice(others)
        start = rng.randrange(len(other)) if other else 0
        out[at : at + rng.choice((0, 4, 50, 10_000))] = other[start : start + rng.choice((4, 50, 10_000))]


_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 0.5, float("nan"), float("inf")),
    *("", "x" * 65, "session", "../../etc", "a/b", "\0", b"", bytes(32)),
    *([], [[]], {}, {"a": 1}, [1] * 1000),
)


def respell(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """A msgpack or JSON value with one of its parts replaced, removed, doubled or moved."""
    if depth > 6 or rng.random() < 0.15 or not isinstance(value, (dict, list)) or not value:
        return rng.choice(_VALUES)
    if isinstance(value, dict):
        found = dict(value)
        key = rng.choice(list(found))
        way = rng.random()
        if way < 0.15:
            del found[key]
        elif way < 0.25:
            found[rng.choice(("zz", "type", "v", "seq"))] = rng.choice(_VALUES)
        else:
            found[key] = respell(rng, found[key], depth + 1)
        return found
    items = list(value)
    at = rng.randrange(len(items))
    way = rng.random()
    if way < 0.15:
        del items[at]
    elif way < 0.3:
        items.insert(at, items[rng.randrange(len(items))])
    else:
        items[at] = respell(rng, items[at], depth + 1)
    return items


# ── what is valid ───────────────────────────────────────────────────────────────────────────────────


def sample_tables(seed: int = 1) -> list[dict[str, Any]]:
    """Tables as the daemon makes them: several types and widths, steps with jitter."""
    rng = np.random.default_rng(seed)
    tables = []
    for dtype, channels in ((np.int16, 3), (np.int32, 2), (np.float32, 2)):
        n = 60
        walk = rng.normal(0, 30, (n, channels)).cumsum(0)
        values = (walk / 4).round() * np.float32(0.01) if dtype is np.float32 else walk
        tables.append(
            {
                "tick": (np.arange(n) * 1000 + rng.integers(0, 3, n)).astype(np.int64),
                "values": values.astype(dtype),
                "frame_n": np.full(n // 10, 10, np.int32),
                "arrival_ns": (np.arange(n // 10) * 10_000_000 + rng.integers(0, 90_000, n // 10)).astype(
                    np.int64
                ),
                "index": np.array([7], np.int64),
            }
        )
    return tables


def text(seed: int) -> dict[str, Any]:
    """A table of float32 that were read from text of five digits."""
    walk = np.random.default_rng(seed).normal(0, 0.1, (60, 2)).cumsum(0)
    return {"values": np.array([[f"{v:.5g}" for v in row] for row in walk]).astype(np.float32)}


def column_payloads() -> list[list[bytes]]:
    """Per stream a key payload and one that continues it."""
    found = []
    for first, second in zip([*sample_tables(1), text(1)], [*sample_tables(2), text(2)], strict=True):
        encoder = ColumnEncoder("stream")
        found.append([encoder.encode(first), encoder.encode(second)])
        found.append([ColumnEncoder("fast").encode(first)])
    return found


def record_maps() -> list[dict[str, Any]]:
    """Records of a session stream."""
    return [
        {"type": "mark", "t_ns": 5, "kind": "note", "text": "ü", "by": "ctl"},
        {"type": "gap", "stream": "hand-imu", "t0_ns": 1, "t1_ns": 2, "lost": 3, "cause": "line"},
        {"type": "close", "t_ns": 9, "outcome": "complete", "streams": {"hand-imu": {"chunks": 1}}},
    ]


def video_units() -> list[VideoUnit]:
    return [
        VideoUnit(k, k * 33_333, k * 33_400, 8, 9, KEY if k == 0 else 0, bytes([k]) * 40) for k in range(4)
    ]


def _chain(stream: str, man: bytes = NO_HASH) -> StreamChain:
    return StreamChain(site=SITE, rig=RIG, boot=BOOT, session=SESSION, stream=stream, man=man)


def sealed_chunks() -> list[Chunk]:
    """A short session of every kind of chunk."""
    fit = ClockFit(1, 2, 3.5, 1000, 5000, 100.0, 0, True)
    gaps = (Gap("hand-imu", 1, 2, 3, "line"),)
    records = encode_records(record_maps())
    found = [
        _chain("session").seal(
            kind="event", codec="msgpack", payload=records, t0_ns=5, t1_ns=9, n=3, raw_bytes=len(records)
        )
    ]
    man = found[0].hash
    for number, payloads in enumerate(column_payloads()):
        chain = _chain(f"hand-{number}", man)
        found += [
            chain.seal(
                kind="samples",
                codec="columns-1",
                payload=payload,
                t0_ns=1_000,
                t1_ns=2_000,
                n=60,
                raw_bytes=900,
                fit=fit,
                gaps=gaps,
                quality={"gaps": 1, "lost": 0.5, "state": "ok"},
            )
            for payload in payloads
        ]
    frames = encode_units(video_units())
    camera = _chain("head-cam", man)
    found.append(
        camera.seal(
            kind="video", codec="h264-annexb", payload=frames, t0_ns=1, t1_ns=2, n=4, raw_bytes=160, fit=fit
        )
    )
    return found


def receipts() -> list[bytes]:
    ids = [c.id for c in sealed_chunks()]
    more = [ChunkId(BOOT, SESSION, "hand-imu", k, bytes([k]) * 32) for k in range(8)]
    return encode_receipts(ids, worker="w-1", t_utc_ns=1) + encode_receipts(
        [*ids, *more], worker="w-2", t_utc_ns=2
    )


def commands() -> list[bytes]:
    return [
        json.dumps({"id": "c-1", "cmd": "start", "args": {"task": "fold"}, "expires_utc_s": 0}).encode(),
        json.dumps({"id": "c-2", "cmd": "mark", "args": {"kind": "note", "text": "\u00fc"}}).encode(),
        json.dumps({"id": "c-3", "cmd": "stop"}).encode(),
    ]


IMU = Descriptor(0, 1, 1, 1_000_000, 0, "imu", (Channel("x", "g", 0.5, 1.0), Channel("y", "g", 0.5, 1.0)))
LOAD = Descriptor(1, 2, 2, 100_000, -5, "load", (Channel("f", "N", 0.1, 0.0),))


def device_frame(kind: int, payload: bytes, seq: int) -> bytes:
    """A frame as a device sends it."""
    return enclose(struct.pack("<BBBBII", 1, kind, 0, 0, seq & 0xFFFFFFFF, 0) + payload)


def enclose(body: bytes) -> bytes:
    """A body with its CRC, coded and delimited; cut to the longest that the line allows."""
    body = body[: framing.MAX_BODY - framing.CRC_BYTES]
    body += struct.pack("<I", zlib.crc32(body))
    out = np.empty(framing.MAX_ENCODED + 1, np.uint8)
    return out[: framing.cobs_encode(np.frombuffer(body, np.uint8), out)].tobytes()


def sample_payload(index: int, n: int) -> bytes:
    """SAMPLES of `IMU`: sample k holds its own number in both channels."""
    rows = np.repeat((np.arange(index, index + n) % 30_000).astype("<i2"), 2)
    return struct.pack("<BBBBIIH", 0, n, 0, 0, index, 1000 * index, 1000) + rows.tobytes()


def device_bodies() -> list[tuple[int, bytes]]:
    """Kind and payload of frames that a device sends, in order."""
    return [
        (Kind.HELLO, Hello(7, 0, 2, "fw", "sn", IMU).pack()),
        (Kind.HELLO, Hello(7, 1, 2, "fw", "sn", LOAD).pack()),
        (Kind.ACK, Ack(1, 0, "", (5, 6)).pack()),
        *((Kind.SAMPLES, sample_payload(k, 8)) for k in range(0, 64, 8)),
        (Kind.PONG, struct.pack("<III", 3, 70_000, 70_050)),
        (Kind.EVENT, Event(EventCode.OVERRUN, 0, 64_000, 4).pack()),
        (Kind.LOG, Log(20, 65_000, "hello").pack()),
        (Kind.SAMPLES, sample_payload(68, 8)),
    ]


def segment_file() -> tuple[bytes, list[bytes]]:
    """A segment of the spool, and the bodies of its records."""
    header = new_header(3)
    out = bytearray(header.pack())
    bodies = [c.packed for c in sealed_chunks()[:5]]
    for body in bodies:
        out += record_header(CHUNK, header.uid, 5_000, len(out), body) + body
    return bytes(out), bodies


def reheaded(chunk: Chunk, fields: dict[str, Any]) -> bytes:
    """A chunk whose header says something else; the envelope is sound."""
    return wire.pack([1, wire.pack(fields), chunk.payload, chunk.signature])
