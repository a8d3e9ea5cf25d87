"""A stored session of given signals and pictures, as a rig would have sealed it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from edgecap.codec.chunk import Chunk, StreamChain
from edgecap.codec.columns import CODEC, ColumnEncoder
from edgecap.codec.records import seal_records
from edgecap.codec.video import KEY, VideoUnit, encode_units
from edgecap.dataset.sync import Signal
from edgecap.ingest.store import open_store
from edgecap.model import ChannelInfo, ClockFit, StreamInfo
from tests.system.synthetic import BOOT, RAW0, opening_record

SESSION = "20261121-121500-k3fz"
U_NS = 40_000
CAMERA_U_NS = 2_000
GROUP = 10


class Rig:
    """Collects streams, then writes them into a store."""

    def __init__(self) -> None:
        self.infos: list[StreamInfo] = []
        self.records: list[dict[str, Any]] = []
        self._signals: dict[str, tuple[Signal, float]] = {}
        self._films: dict[str, tuple[list[Any], np.ndarray, int, int]] = {}

    def add_samples(
        self,
        name: str,
        signal: Signal,
        unit: str,
        scale: float,
        *,
        lag_ns: int = 0,
        names: tuple[str, ...] = (),
    ) -> None:
        """A stream of int16 counts of `scale` units; times to a microsecond."""
        names = names or tuple("led" if unit == "" else f"c{k}" for k in range(signal.values.shape[1]))
        channels = tuple(ChannelInfo(n, unit, scale) for n in names)
        period_ns = float(np.median(np.diff(signal.t_ns)))
        self.infos.append(
            StreamInfo(name, "imu", "head", 1e9 / period_ns, "int16", channels, lag_ns=lag_ns, tick_ns=1000)
        )
        self._signals[name] = signal, scale

    def add_film(
        self, name: str, pictures: list[np.ndarray], t_ns: list[int], *, line_ns: int, exposure_ns: int
    ) -> None:
        """A camera's grey pictures (h, w) uint8; `t_ns` is mid-exposure of the middle row."""
        height, width = pictures[0].shape
        self.infos.append(
            StreamInfo(
                name, "video", "head", 30.0, width=width, height=height, codec="h264-annexb", clock="raw"
            )
        )
        ticks = np.array(t_ns, np.int64) + exposure_ns // 2 - line_ns * (height // 2)
        self._films[name] = pictures, ticks, line_ns, exposure_ns

    def write(self, path: Path) -> str:
        """Seal everything into a store; returns its URL."""
        names = {"site": "lab", "rig": "rig-07", "boot": BOOT, "session": SESSION}
        own = StreamChain(**names, stream="session")
        manifest = opening_record(
            SESSION, self.infos, task="calibration", operator="p-001", consent="c-1", utc_ns=0
        )
        chunks = [seal_records(own, [manifest])]
        if self.records:
            chunks.append(seal_records(own, self.records))
        for info in self.infos:
            chain = StreamChain(**names, stream=info.name, man=own.man)
            if info.name in self._signals:
                chunks += _samples(chain, *self._signals[info.name])
            else:
                chunks += _film(chain, *self._films[info.name])
        store = open_store(str(path), create=True)
        store.append(chunks)
        store.commit()
        store.close()
        return str(path)


def _samples(chain: StreamChain, signal: Signal, scale: float) -> list[Chunk]:
    encoder = ColumnEncoder()
    fit = ClockFit(0, RAW0, 0.0, 1000, U_NS, 8_000.0, 0, True)
    ticks = (signal.t_ns - RAW0) // 1000
    counts = np.clip(np.rint(signal.values / scale), -32768, 32767).astype(np.int16)
    chunks = []
    for k in range(0, len(ticks), 1000):
        part = ticks[k : k + 1000]
        columns = {
            "tick": part,
            "values": counts[k : k + 1000],
            "frame_n": np.array([len(part)], np.int32),
            "arrival_ns": np.array([RAW0 + int(part[-1]) * 1000 + 10**6], np.int64),
            "index": np.array([k], np.int64),
        }
        chunks.append(
            chain.seal(
                kind="samples",
                codec=CODEC,
                payload=encoder.encode(columns),
                t0_ns=RAW0 + int(part[0]) * 1000,
                t1_ns=RAW0 + int(part[-1]) * 1000,
                n=len(part),
                raw_bytes=sum(a.nbytes for a in columns.values()),
                fit=fit,
            )
        )
    return chunks


def _film(
    chain: StreamChain, pictures: list[np.ndarray], ticks: np.ndarray, line_ns: int, exposure_ns: int
) -> list[Chunk]:
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = pictures[0].shape
    encoder.pix_fmt = "yuv420p"
    encoder.framerate, encoder.time_base = 30, Fraction(1, 30)
    params = f"keyint={GROUP}:scenecut=0:bframes=0"
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20", "x264-params": params}
    packets: list[Any] = []
    for k, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
        frame.pts = k
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    fit = ClockFit(0, 0, 0.0, 1, CAMERA_U_NS, 500.0, 0, True)
    chunks = []
    for start in range(0, len(packets), GROUP // 2):
        units = [
            VideoUnit(
                k,
                int(ticks[k]),
                int(ticks[k]) + 40_000_000,
                exposure_ns,
                line_ns,
                KEY if packets[k].is_keyframe else 0,
                bytes(packets[k]),
            )
            for k in range(start, min(start + GROUP // 2, len(packets)))
        ]
        chunks.append(
            chain.seal(
                kind="video",
                codec="h264-annexb",
                payload=encode_units(units),
                t0_ns=units[0].tick,
                t1_ns=units[-1].tick,
                n=len(units),
                raw_bytes=sum(len(u.data) for u in units),
                fit=fit,
            )
        )
    return chunks
