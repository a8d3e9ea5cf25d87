"""A plain-Python reader of stored sessions, written from docs/SESSION.md and the two FORMAT.md pages alone.

It shares no code with the package; numpy only holds what the reference column decoder gives.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from tests.reference.columns import ReferenceDecoder

MAGIC = bytes([0xEC, 0x52, 0x63, 0x1E])


@dataclass
class PlainChunk:
    header: dict[str, Any]
    payload: bytes
    hash: bytes


@dataclass
class PlainSession:
    streams: dict[str, list[PlainChunk]] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)

    def problems(self) -> list[str]:
        """SESSION.md § 5: by which rule each stream fails; empty for a complete session."""
        own = self.streams.get("session", [])
        if not own or own[0].header["seq"] != 0:
            return ["1 session"]
        man, found = own[0].hash, []
        opening = msgpack.unpackb(own[0].payload)
        if len(opening) != 1 or opening[0]["type"] != "open":
            found.append("1 session")
        close = msgpack.unpackb(own[-1].payload)[-1]
        if close["type"] != "close":
            return [*found, "1 session"]
        for name, chunks in self.streams.items():
            before = None
            for number, chunk in enumerate(chunks):
                first = name == "session" and chunk.header["seq"] == 0
                wanted = chunk.header["man"] if before is None else before
                if (
                    chunk.header["seq"] != number
                    or chunk.header["man"] != (bytes(32) if first else man)
                    or chunk.header["prev"] != wanted
                ):
                    found.append(f"2 {name}")
                    break
                before = chunk.hash
        found += [f"3 {name}" for name in self.streams if name not in ("session", *close["streams"])]
        for name, stated in close["streams"].items():
            chunks = self.streams.get(name, [])
            last = chunks[-1].hash if chunks else man
            samples = sum(c.header["n"] for c in chunks)
            if (len(chunks), samples, last) != (stated["chunks"], stated["samples"], stated["last_hash"]):
                found.append(f"3 {name}")
        return found

    def samples(self, stream: str) -> list[dict[str, Any]]:
        """Each chunk's columns, with `t_ns` beside."""
        decoder, found = ReferenceDecoder(), []
        for chunk in self.streams[stream]:
            columns = dict(decoder.decode(chunk.payload))
            columns["t_ns"] = [rig_ns(chunk.header["fit"], int(tick)) for tick in columns["tick"]]
            assert sum(columns["frame_n"].tolist()) == len(columns["tick"]) == chunk.header["n"]
            found.append(columns)
        return found

    def frames(self, stream: str) -> list[tuple[int, int, bytes]]:
        """Number, rig time of the first row, and picture of each whole frame."""
        found, parts = [], []
        for chunk in self.streams[stream]:
            for index, tick, _arrival, _exposure, _line, flags, data, *_ in msgpack.unpackb(chunk.payload):
                if not flags & 4:
                    parts, t_ns = [], rig_ns(chunk.header["fit"], tick)
                parts.append(data)
                assert flags >> 3 == len(parts) - 1
                if not flags & 2:
                    found.append((index, t_ns, b"".join(parts)))
        return found


def rig_ns(fit: dict[str, Any], tick: int) -> int:
    d = tick - fit["ref_tick"]
    extra = d * (fit["drift_ppm"] * 1e-6 * fit["tick_ns"])
    return int(fit["ref_ns"] + d * fit["tick_ns"] + math.floor(extra + 0.5))


def read_session(folder: Path) -> PlainSession:
    """All of the session in `STORE/SITE/RIG/SESSION`, of files that are whole up to their ends."""
    places: dict[tuple[str, int], PlainChunk] = {}
    for path in sorted(folder.glob("[0-9]*.seg")):
        for body in bodies(path.read_bytes()):
            version, header_bytes, payload, _signature = msgpack.unpackb(body)
            header = msgpack.unpackb(header_bytes)
            assert version == 1
            assert hashlib.sha256(payload).digest() == header["sha256"]
            place = header["stream"], header["seq"]
            places.setdefault(place, PlainChunk(header, payload, hashlib.sha256(header_bytes).digest()))
    session = PlainSession()
    for stream, seq in sorted(places):
        session.streams.setdefault(stream, []).append(places[stream, seq])
    for chunk in session.streams.get("session", []):
        session.records += msgpack.unpackb(chunk.payload)
    return session


def bodies(data: bytes) -> list[bytes]:
    """The chunks of a segment, which begins with a whole header and has no damage."""
    at, uid, found = 64, data[16:24], []
    while at + 32 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        covered = at.to_bytes(8, "little") + data[at : at + 28] + data[at + 32 : at + 32 + length]
        if (
            data[at : at + 4] != MAGIC
            or data[at + 8 : at + 16] != uid
            or zlib.crc32(covered) != int.from_bytes(data[at + 28 : at + 32], "little")
        ):
            break
        if int.from_bytes(data[at + 24 : at + 28], "little") == 1:
            found.append(data[at + 32 : at + 32 + length])
        at += 32 + length
    return found
