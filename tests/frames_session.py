"""Stored sessions given chunk by chunk: losses, resets and pauses where a test wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.codec.chunk import Chunk, StreamChain
from edgecap.codec.columns import CODEC, ColumnEncoder
from edgecap.codec.records import seal_records
from edgecap.codec.video import KEY, VideoUnit, encode_units
from edgecap.dataset.session import RecordedSession, load_session
from edgecap.ingest.store import SessionKey, open_store
from edgecap.model import MJPEG, ClockFit, Gap, StreamInfo
from tests.reference.frames import Sample
from tests.system.synthetic import BOOT, RAW0, opening_record

SESSION = "20261121-131500-fr4m"


@dataclass
class Part:
    """Consecutive samples, sealed as one chunk."""

    index: int
    ticks: NDArray[np.int64]
    values: NDArray[Any]
    fit: ClockFit
    gaps: list[Gap] = field(default_factory=list)

    def samples(self, info: StreamInfo) -> list[Sample]:
        """As the oracle wants them; exact for a fit of 1 ns ticks without drift."""
        scale = [c.scale for c in info.channels]
        limit = [c.full_scale - abs(c.scale) if c.full_scale else float("inf") for c in info.channels]
        found = []
        for k, (tick, row) in enumerate(zip(self.ticks.tolist(), self.values.tolist(), strict=True)):
            values = tuple(v * s for v, s in zip(row, scale, strict=True))
            full = tuple(v == v and abs(v) >= m for v, m in zip(values, limit, strict=True))
            t_ns = self.fit.ref_ns + tick - self.fit.ref_tick
            found.append(
                Sample(t_ns, self.index + k, self.fit.epoch, self.fit.locked, self.fit.u_ns, values, full)
            )
        return found


def fit_at(offset_ns: int = 0, *, epoch: int = 0, locked: bool = True, u_ns: int = 40_000) -> ClockFit:
    """Ticks are nanoseconds since `RAW0`."""
    return ClockFit(0, RAW0 + offset_ns, 0.0, 1, u_ns, 8_000.0, epoch, locked)


def jpeg_camera(name: str, rate_hz: float) -> StreamInfo:
    return StreamInfo(name, "video", name, rate_hz, width=32, height=16, codec=MJPEG, clock="raw")


def store_session(
    path: Path,
    streams: Sequence[tuple[StreamInfo, Sequence[Part]]],
    *,
    cameras: Mapping[str, Sequence[VideoUnit]] | None = None,
    infos: Sequence[StreamInfo] = (),
    gaps: Sequence[Gap] = (),
    calibration: Mapping[str, Any] | None = None,
    camera_locked_from: int = 0,
    session: str = SESSION,
    end_ns: int = RAW0 + 10**9,
) -> RecordedSession:
    """Seal a session.

    `cameras` are frames by stream of `infos`, in tick = rig time, ten in a chunk; the clock is locked in the
    chunks that begin at frame `camera_locked_from` or later.
    """
    names = {"site": "lab", "rig": "rig-07", "boot": BOOT, "session": session}
    own = StreamChain(**names, stream="session")
    opening = opening_record(
        session,
        [info for info, _ in streams] + list(infos),
        task="stack cups",
        operator="p-1",
        consent="c-9",
        calibration=dict(calibration or {}),
    )
    chunks = [seal_records(own, [opening])]
    chains, counts = {}, {}
    codecs = {info.name: info.codec for info in infos}
    for info, parts in streams:
        chains[info.name] = chain = StreamChain(**names, stream=info.name, man=own.man)
        encoder = ColumnEncoder()
        chunks += [_seal(chain, encoder, part) for part in parts]
        counts[info.name] = sum(len(p.ticks) for p in parts)
    for name, units in (cameras or {}).items():
        chains[name] = chain = StreamChain(**names, stream=name, man=own.man)
        counts[name] = len(units)
        for at in range(0, len(units), 10):
            chunks.append(_film(chain, units[at : at + 10], codecs[name], locked=at >= camera_locked_from))
    records = [{"type": "gap", **msgspec.to_builtins(g)} for g in gaps]
    records = [{**r, "t_ns": g.t1_ns} for r, g in zip(records, gaps, strict=True)]
    totals = {
        name: {"chunks": c.seq, "last_hash": c.prev, "samples": counts[name], "device_sent": None}
        for name, c in chains.items()
    }
    close = {"type": "close", "t_ns": end_ns, "outcome": "complete", "reason": "", "streams": totals}
    chunks.append(seal_records(own, [*records, close]))
    store = open_store(str(path), create=True)
    store.append(chunks)
    store.commit()
    return load_session(store, SessionKey("lab", "rig-07", session))


def _seal(chain: StreamChain, encoder: ColumnEncoder, part: Part) -> Chunk:
    columns = {
        "tick": part.ticks,
        "values": part.values,
        "frame_n": np.array([len(part.ticks)], np.int32),
        "arrival_ns": np.array([RAW0 + int(part.ticks[-1]) + 10**6], np.int64),
        "index": np.array([part.index], np.int64),
    }
    return chain.seal(
        kind="samples", codec=CODEC, payload=encoder.encode(columns), n=len(part.ticks),
        t0_ns=RAW0 + int(part.ticks[0]), t1_ns=RAW0 + int(part.ticks[-1]),
        raw_bytes=sum(a.nbytes for a in columns.values()), fit=part.fit, gaps=part.gaps,
    )  # fmt: skip


def _film(chain: StreamChain, units: Sequence[VideoUnit], codec: str, *, locked: bool) -> Chunk:
    return chain.seal(
        kind="video", codec=codec, payload=encode_units(units), n=len(units), t0_ns=units[0].tick,
        t1_ns=units[-1].tick, raw_bytes=sum(len(u.data) for u in units),
        fit=ClockFit(0, 0, 0.0, 1, 2_000, 500.0, 0, locked),
    )  # fmt: skip


def unit(index: int, mid_ns: int, exposure_ns: int, jpeg: bytes) -> VideoUnit:
    """A frame without line time whose mid-exposure is at `mid_ns`."""
    return VideoUnit(index, mid_ns + exposure_ns // 2, mid_ns + 10**7, exposure_ns, 0, KEY, jpeg)


def jpegs(count: int, width: int = 32, height: int = 16) -> list[bytes]:
    """Grey pictures, each a little brighter than the one before."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 30)
    found = []
    for k in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((height, width), 4 * k, np.uint8), format="gray")
        frame = frame.reformat(format="yuvj420p")
        frame.pts = k
        found += encoder.encode(frame)
    return [bytes(p) for p in [*found, *encoder.encode(None)]]
