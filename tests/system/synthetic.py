"""A small session with known contents, sealed as the rig seals it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.codec.chunk import Chunk, StreamChain
from edgecap.codec.columns import CODEC as SAMPLES_CODEC
from edgecap.codec.columns import ColumnEncoder
from edgecap.codec.records import seal_records
from edgecap.codec.video import KEY, VideoUnit, encode_units, split_unit
from edgecap.model import ChannelInfo, ClockFit, ClockPair, Gap, Mark, StreamInfo

SECOND = 1_000_000_000
RAW0 = 7_000 * SECOND
UTC0 = 1_790_000_000 * SECOND
BOOT = "0f9d3c52-8a51-4c53-9a33-1d2a1f0b7c11"
AXES = "xyz"


def imu_info(name: str = "left-hand-imu", device: str = "left-hand") -> StreamInfo:
    channels = [ChannelInfo(f"accel_{a}", "g", 16 / 32768, 16.0) for a in AXES]
    channels += [ChannelInfo(f"gyro_{a}", "deg/s", 2000 / 32768, 2000.0) for a in AXES]
    channels += [ChannelInfo(f"mag_{a}", "uT", 0.15, 4900.0) for a in AXES]
    channels += [ChannelInfo("temperature", "degC", 0.01)]
    return StreamInfo(name, "imu", device, 1000.0, "int16", tuple(channels), lag_ns=3_900_000, tick_ns=1000)


def force_info(name: str = "left-hand-force", device: str = "left-hand") -> StreamInfo:
    channels = tuple(ChannelInfo(f"finger{k}", "N", 0.0005, 50.0) for k in range(5))
    return StreamInfo(name, "force", device, 1000.0, "int24", channels, tick_ns=1000)


def tactile_info(name: str = "left-hand-tactile", device: str = "left-hand") -> StreamInfo:
    channels = tuple(ChannelInfo(f"cell{k}", "kPa", 1.0) for k in range(16))
    return StreamInfo(name, "tactile", device, 100.0, "float32", channels, tick_ns=1000)


def camera_info(name: str = "head-camera", width: int = 320, height: int = 180) -> StreamInfo:
    return StreamInfo(
        name, "video", "head", 30.0, width=width, height=height, codec="h264-annexb", clock="boottime"
    )


def clock_pair(raw_ns: int, *, synced: bool = True) -> ClockPair:
    real = UTC0 + (raw_ns - RAW0) + (raw_ns - RAW0) // 50_000
    return ClockPair(raw_ns, raw_ns - 5, raw_ns + 11, real, 150, synced, 1200, 300, 20.0)


def fit_for(second: int, *, epoch: int = 0) -> ClockFit:
    return ClockFit(
        ref_tick=second * 1_000_000,
        ref_ns=RAW0 + second * SECOND + 137 * second,
        drift_ppm=17.25,
        tick_ns=1000,
        u_ns=max(45_000, 900_000 >> second),
        sigma_ns=8_000.0,
        epoch=epoch,
        locked=True,
        device_boot=77,
    )


@dataclass
class Synthetic:
    """Chunks of a session and what they were made of.

    Attributes:
        chunks: In the order in which the rig sealed them.
        values, ticks: Raw counts (n, c) and ticks (n,) per stream of samples.
        frames: Annex B access units of the camera.
    """

    session: str
    chunks: list[Chunk] = field(default_factory=list)
    values: dict[str, NDArray[Any]] = field(default_factory=dict)
    ticks: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    frames: list[bytes] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def add_samples(
        self,
        info: StreamInfo,
        chain: StreamChain,
        encoder: ColumnEncoder,
        second: int,
        rng: np.random.Generator,
    ) -> None:
        """A second of a stream as one chunk; of the force, 80 samples are lost in the second second."""
        rate = int(info.rate_hz_nominal)
        skip = 80 if info.kind == "force" and second == 1 else 0
        ticks = second * 1_000_000 + np.arange(skip, rate, dtype=np.int64) * (1_000_000 // rate)
        values = _values(info, ticks * 1e-6, rng)
        start_ns = RAW0 + SECOND
        gaps = [Gap(info.name, start_ns, start_ns + skip * 1_000_000, skip, "overrun")] if skip else []
        self.gaps += gaps
        self.chunks.append(_samples(chain, encoder, second * rate + skip, ticks, values, second, gaps))
        before = self.values.get(info.name, values[:0]), self.ticks.get(info.name, ticks[:0])
        self.values[info.name] = np.concatenate([before[0], values])
        self.ticks[info.name] = np.concatenate([before[1], ticks])

    def records(self, second: int, infos: Sequence[StreamInfo], *, synced: bool) -> list[dict[str, Any]]:
        """What the session's own stream tells of a second: a gap in the second one, marks in two."""
        t_ns = RAW0 + second * SECOND
        records: list[dict[str, Any]] = [
            {"type": "clock", "t_ns": t_ns, **msgspec.to_builtins(clock_pair(t_ns, synced=synced))},
            {"type": "verdict", "t_ns": t_ns, "streams": [_verdict(i.name) for i in infos]},
        ]
        if second == 1:
            self.marks.append(Mark(t_ns + 300_000_000, "went-wrong", "dropped the lid"))
            records += [{"type": "gap", "t_ns": g.t0_ns, **msgspec.to_builtins(g)} for g in self.gaps]
        if second == 2:
            self.marks.append(Mark(t_ns + 100_000_000, "recovered", by="operator"))
            event = {"device": "left-hand", "kind": "button-down", "text": ""}
            records.append({"type": "event", "t_ns": t_ns, **event})
        new = [m for m in self.marks if t_ns <= m.t_ns < t_ns + SECOND]
        return records + [{"type": "mark", **msgspec.to_builtins(m)} for m in new]


def opening_record(session: str, infos: Sequence[StreamInfo], **told: Any) -> dict[str, Any]:
    """What a session of this rig begins with; `told` is what this one says otherwise."""
    return {
        "type": "open",
        "t_ns": RAW0,
        "v": 1,
        "site": "lab",
        "rig": "rig-07",
        "boot": BOOT,
        "session": session,
        "utc_ns": UTC0,
        "utc_trusted": True,
        "clock": msgspec.to_builtins(clock_pair(RAW0)),
        "streams": msgspec.to_builtins(list(infos)),
        "calibration": {},
        "versions": {},
        "config": {},
    } | told


def make_session(
    *,
    seconds: int = 4,
    session: str = "20261121-101500-k3fz",
    outcome: str = "complete",
    synced: bool = True,
    size: tuple[int, int] = (320, 180),
    seed: int = 1,
    calibration: dict[str, Any] | None = None,
) -> Synthetic:
    """Seal `seconds` of IMU, force, tactile and video with two marks and one gap in the force."""
    made = Synthetic(session)
    rng = np.random.default_rng(seed)
    names = {"site": "lab", "rig": "rig-07", "boot": BOOT, "session": session}
    infos = [imu_info(), force_info(), tactile_info(), camera_info(width=size[0], height=size[1])]
    own = StreamChain(**names, stream="session")
    manifest = opening_record(
        session,
        infos,
        task="Screw the lid onto the jar and put it on the shelf",
        operator="p-014",
        consent="c-2026-031",
        utc_trusted=synced,
        clock=msgspec.to_builtins(clock_pair(RAW0, synced=synced)),
        calibration=calibration
        or {"left-hand-force": {"version": 3, "zero": [1, 2, 3, 4, 5], "by": "scale-2"}},
        versions={"edgecap": "0", "python": platform.python_version()},
        config={"site": "lab"},
    )
    made.chunks.append(seal_records(own, [manifest]))
    chains = {info.name: StreamChain(**names, stream=info.name, man=own.man) for info in infos}
    encoders = {info.name: ColumnEncoder(key_interval=3) for info in infos}
    frames = encode_video(seconds, size)
    made.frames = [data for data, _ in frames]
    camera = chains[infos[-1].name]
    for second in range(seconds):
        for info in infos[:-1]:
            made.add_samples(info, chains[info.name], encoders[info.name], second, rng)
        for group in range(second * 30, second * 30 + 30, 15):
            made.chunks += _video(camera, frames[group : group + 15], group)
        made.chunks.append(seal_records(own, made.records(second, infos, synced=synced)))
    end_ns = RAW0 + seconds * SECOND
    last = {"type": "clock", "t_ns": end_ns, **msgspec.to_builtins(clock_pair(end_ns, synced=synced))}
    made.chunks.append(seal_records(own, [last]))
    samples = {name: len(ticks) for name, ticks in made.ticks.items()} | {infos[-1].name: seconds * 30}
    streams = {
        name: {"chunks": c.seq, "last_hash": c.prev, "samples": samples[name], "device_sent": None}
        for name, c in chains.items()
    }
    close = {"type": "close", "t_ns": end_ns, "outcome": outcome, "reason": "", "streams": streams}
    made.chunks.append(seal_records(own, [close]))
    return made


def encode_video(seconds: int, size: tuple[int, int]) -> list[tuple[bytes, bool]]:
    """Annex B access units of a moving picture, 30 per second, a key frame every 15."""
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.framerate, encoder.time_base = 30, Fraction(1, 30)
    encoder.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "x264-params": "keyint=15:scenecut=0:bframes=0",
    }
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    packets = []
    for k in range(seconds * 30):
        phase = k * 4
        image = np.stack([(x + phase) % 256, (y * 2) % 256, (x + y - phase) % 256], -1).astype(np.uint8)
        centre = size[0] / 2 + size[0] / 3 * np.sin(k / 20), size[1] / 2
        image[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (size[1] / 6) ** 2] = (250, 240, 90)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = k
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return [(bytes(p), bool(p.is_keyframe)) for p in packets]


def _values(info: StreamInfo, t_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[Any]:
    n, c = len(t_s), len(info.channels)
    tap = np.exp(-(((t_s % 2.0) - 1.2) ** 2) / 0.002)
    if info.kind == "imu":
        signal = np.stack([np.sin(2 * np.pi * (0.3 + 0.17 * k) * t_s + k) for k in range(c)], 1)
        signal = signal * ([800] * 3 + [2500] * 3 + [150] * 3 + [20])
        signal[:, 2] += 2048 + tap * 6000
        return np.rint(signal + rng.normal(0, 12, (n, c))).astype(np.int16)
    grip = np.clip(np.sin(2 * np.pi * 0.25 * t_s), 0, None)[:, None] * (1 + np.arange(c) % 5) / 5
    if info.kind == "force":
        return np.rint(grip * 24_000 + tap[:, None] * 30_000 + rng.normal(0, 40, (n, c))).astype(np.int32)
    return (grip * 20 * (1 + np.sin(np.arange(c) + t_s[:, None])) + rng.normal(0, 0.3, (n, c))).astype(
        np.float32
    )


def _samples(
    chain: StreamChain,
    encoder: ColumnEncoder,
    index: int,
    ticks: NDArray[np.int64],
    values: NDArray[Any],
    second: int,
    gaps: list[Gap],
) -> Chunk:
    n = len(ticks)
    frame_n = np.full(-(-n // 10), 10, np.int32)
    frame_n[-1] -= int(frame_n.sum()) - n
    last_of_frame = np.cumsum(frame_n) - 1
    arrival_ns = RAW0 + ticks[last_of_frame] * 1000 + 1_200_000
    columns = {
        "tick": ticks,
        "values": values,
        "frame_n": frame_n,
        "arrival_ns": arrival_ns,
        "index": np.array([index], np.int64),
    }
    return chain.seal(
        kind="samples",
        codec=SAMPLES_CODEC,
        payload=encoder.encode(columns),
        t0_ns=RAW0 + int(ticks[0]) * 1000,
        t1_ns=RAW0 + int(ticks[-1]) * 1000,
        n=n,
        raw_bytes=sum(a.nbytes for a in columns.values()),
        fit=fit_for(second),
        gaps=gaps,
    )


def _video(chain: StreamChain, group: list[tuple[bytes, bool]], first: int) -> list[Chunk]:
    """Two chunks per group, the second beginning in the middle of a frame."""
    units = [
        VideoUnit(
            first + k,
            RAW0 + 20_000_000 + (first + k) * SECOND // 30,
            RAW0 + 55_000_000 + (first + k) * SECOND // 30,
            8_000_000,
            18_000,
            KEY if key else 0,
            data,
        )
        for k, (data, key) in enumerate(group)
    ]
    half = len(units) // 2
    first_part, rest = split_unit(units[half], len(units[half].data) // 2, 1 << 20)
    fit = ClockFit(0, 0, 0.0, 1, 2_000, 500.0, 0, True)
    return [
        chain.seal(
            kind="video",
            codec="h264-annexb",
            payload=encode_units(part),
            t0_ns=part[0].tick,
            t1_ns=part[-1].tick,
            n=n,
            raw_bytes=sum(len(u.data) for u in part),
            fit=fit,
        )
        for part, n in (
            ([*units[:half], first_part], half + 1),
            ([rest, *units[half + 1 :]], len(units) - half - 1),
        )
    ]


def _verdict(stream: str) -> dict[str, Any]:
    return {"stream": stream, "state": "ok", "rate_hz": 999.5, "n": 1000, "u_ns": 45_000}
