"""The nouns of edgecap, all frozen. Arrays are C-contiguous; times are int64 nanoseconds of the rig clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]

ChunkKind = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,64}(?!\n)$")]
"""What a payload holds: `samples`, `video`, `event`, `depth`, or what a later version makes. Only who decodes
it has to know which; spool, uplink, ingest and store pass on kinds that they never heard of."""
StreamKind = Literal["imu", "force", "tactile", "magnetic", "scalar", "video", "preview", "session"]
SampleDtype = Literal["int16", "int24", "int32", "float32"]

SESSION_STREAM = "session"
"""The stream that carries a session's own records (manifest, marks, gaps, clock pairs, close)."""
PREVIEW_SUFFIX = "-preview"
"""A camera's name with this is its stream of small pictures."""
H264, MJPEG = "h264-annexb", "mjpeg"
"""Encodings of video: Annex B access units; whole JPEG pictures."""

NUMPY_DTYPE: dict[str, np.dtype[np.generic]] = {
    "int16": np.dtype(np.int16),
    "int24": np.dtype(np.int32),
    "int32": np.dtype(np.int32),
    "float32": np.dtype(np.float32),
}
"""How each descriptor dtype is held in memory; int24 is sign-extended to int32."""


class ChannelInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of a stream: `value_in_unit = (raw + offset) * scale`."""

    name: str
    unit: str
    scale: float
    full_scale: float = 0.0
    """Largest magnitude the sensor can report, in `unit`; 0 when unknown."""
    offset: float = 0.0
    """In raw counts."""


class StreamInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes one stream; travels in the session manifest."""

    name: str
    kind: StreamKind
    device: str
    """The device of the rig that produces it, e.g. `left-hand`."""
    rate_hz_nominal: float
    dtype: str = ""
    """A `SampleDtype` for samples; empty for video."""
    channels: tuple[ChannelInfo, ...] = ()
    lag_ns: int = 0
    """Known constant delay of the sensor (filter group delay); recorded, never applied silently."""
    tick_ns: int = 1
    """Nanoseconds per tick of the device's counter."""
    clock: str = "mcu"
    """What the ticks count: `mcu`, or the host clock `raw`, `monotonic`, `boottime`."""
    serial_number: str = ""
    firmware: str = ""
    width: int = 0
    height: int = 0
    codec: str = ""
    """Encoding of video: `H264` or `MJPEG`."""

    @property
    def silent_after_ns(self) -> int:
        """A stream that gives nothing for longer is silent: a second, or 2.5 of its own periods."""
        return max(1_000_000_000, round(2.5e9 / self.rate_hz_nominal) if self.rate_hz_nominal > 0 else 0)


class ClockFit(msgspec.Struct, frozen=True):
    """Ticks to rig time: `t_ns = ref_ns + (tick - ref_tick) * tick_ns * (1 + drift_ppm * 1e-6)`."""

    ref_tick: int
    ref_ns: int
    drift_ppm: float
    """Rig seconds gained per device second, in parts per million."""
    tick_ns: int
    u_ns: int
    """Hard half-width: the true time lies within ± this of the mapped one."""
    sigma_ns: float
    epoch: int
    """Counts restarts of the device clock (reset, suspend, crossed band) within the daemon's life."""
    locked: bool
    device_boot: int = 0
    delay_p50_ns: int = 0
    """Median one-way delay in excess of the smallest seen."""
    delay_p99_ns: int = 0

    def rig_ns(self, tick: int) -> int:
        """Rig time of one tick, to the nanosecond what `timeline.fit.to_rig_ns` gives for arrays."""
        ticks, extra_ns_per_tick = tick - self.ref_tick, self.drift_ppm * 1e-6 * self.tick_ns
        return self.ref_ns + ticks * self.tick_ns + math.floor(ticks * extra_ns_per_tick + 0.5)


class Gap(msgspec.Struct, frozen=True):
    """A stated loss: no sample of `stream` exists between `t0_ns` and `t1_ns`."""

    stream: str
    t0_ns: int
    t1_ns: int
    lost: int
    """Samples or frames lost; -1 when it cannot be counted."""
    cause: str
    """One of `GAP_CAUSES`."""


GAP_CAUSES = {
    "overrun": "the board had no room left for them",
    "reset": "the board was reset",
    "silent": "the sensor gave none",
    "line": "lost on the line: check cable and hub",
    "unplugged": "the device was gone",
    "camera": "the camera gave none",
    "queue": "the rig was too busy",
    "disk": "the card could not take them",
    "codec": "they could not be sealed",
    "crash": "the daemon was cut off",
}
"""Every cause of a gap, and what it is called for people."""


def loss_in_words(gaps: int, lost: int, cause: str) -> str:
    """`2 gaps, 290 samples lost (the last: the board was reset)`; what cannot be counted is not."""
    found = f"{gaps} gap{'s' if gaps != 1 else ''}"
    if lost > 0:
        found += f", {lost} sample{'s' if lost != 1 else ''} lost"
    last = "the last: " if gaps > 1 else ""
    return f"{found} ({last}{GAP_CAUSES.get(cause, cause)})" if cause else found


MARK_KINDS = ("went-wrong", "recovered", "subtask", "note")
"""What a worker or operator may mark."""


class Mark(msgspec.Struct, frozen=True):
    """A timed event from the worker or operator."""

    t_ns: int
    kind: str
    """One of `MARK_KINDS`."""
    text: str = ""
    by: str = "button"


class ClockPair(msgspec.Struct, frozen=True):
    """One paired reading of the host's clocks, taken within `width_ns`."""

    raw_ns: int
    monotonic_ns: int
    boottime_ns: int
    realtime_ns: int
    width_ns: int
    ntp_synced: bool
    ntp_max_error_us: int
    ntp_est_error_us: int
    ntp_freq_ppm: float


StreamState = Literal[
    "ok",
    "waiting",
    "silent",
    "rate",
    "gaps",
    "saturated",
    "clock",
    "dark",
    "overexposed",
    "blurred",
    "drift",
]
"""What may hold for a stream while it records."""


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the rig says about one of its streams while recording."""

    stream: str
    state: StreamState
    """The worst thing that holds; `ok` when none does."""
    rate_hz: float
    n: int
    gaps: int = 0
    lost: int = 0
    saturated: float = 0.0
    """Share of samples at full scale in the last window."""
    u_ns: int = 0
    age_ms: float = 0.0
    """Since the last sample arrived."""
    sharpness: float | None = None
    """Of the last picture measured, as are the three below (`PictureReport`); cameras only."""
    brightness: float | None = None
    crushed: float | None = None
    clipped: float | None = None
    drift: float | None = None
    """Greatest departure from the calibration found at quiet moments; None without one, or too few."""
    drift_of: str = ""
    """Of what, in which unit, and from where on it counts: `tare of thumb [N], limit 0.3`."""
    gap_cause: str = ""
    """Of the last gap, as in `Gap.cause`; empty before the first."""


@dataclass(frozen=True, slots=True)
class SampleBlock:
    """Consecutive samples of one stream, as they came in one read.

    Attributes:
        stream: Name of the stream.
        index: Device's running number of the first sample; samples inside a block are consecutive.
        ticks: (n,) int64, unwrapped device counter at each sample.
        values: (n, c) array in the stream's dtype, raw counts.
        frame_n: (m,) int32, samples that each serial frame carried; sums to n.
        arrival_ns: (m,) int64, rig time at which each frame was read.
        fit: The clock fit in force when the block was made.
    """

    stream: str
    index: int
    ticks: I64
    values: NDArray[np.generic]
    frame_n: NDArray[np.int32]
    arrival_ns: I64
    fit: ClockFit


@dataclass(frozen=True, slots=True)
class FramePacket:
    """One encoded video frame (access unit).

    Attributes:
        stream: Name of the stream.
        index: Running number of the frame as the camera counts; a jump is a loss.
        data: Encoded bytes; Annex B with SPS and PPS on every key frame for H.264.
        key: Whether decoding can start here.
        tick: Sensor timestamp in the stream's own clock and tick length (first row read out).
        arrival_ns: Rig time at which the encoded frame reached the daemon.
        exposure_ns: Exposure time; 0 when unknown.
        line_ns: Read-out time of one row; 0 for a global shutter or when unknown.
        fit: Maps `tick` to rig time.
    """

    stream: str
    index: int
    data: bytes
    key: bool
    tick: int
    arrival_ns: int
    exposure_ns: int
    line_ns: int
    fit: ClockFit
    metadata: bytes = b""
    """What else the camera said of this frame: a msgpack map in its own words and units; may be empty."""


@dataclass(frozen=True, slots=True)
class PictureReport:
    """How a camera's picture looks, measured a few times a second on a reduction to 320 pixels across.

    Attributes:
        stream: Name of the camera's stream.
        t_ns: Rig time of the frame (first row read out).
        sharpness: Variance of the Laplacian of grey values 0 to 255; low for blur or a bare wall.
        brightness: Mean grey value, 0 to 1.
        crushed: Share of pixels that are black.
        clipped: Share of pixels that are white.
        jpeg: The reduced picture at a low rate; empty otherwise.
    """

    stream: str
    t_ns: int
    sharpness: float
    brightness: float
    crushed: float
    clipped: float
    jpeg: bytes = b""


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """Something a device reported: a button edge, a fault, a (re)connection.

    `kind` is one of `button-down`, `button-up`, `led-on`, `led-off`, `connected`, `disconnected`, `reset`,
    `fault`, `log`, `stopped` (the last item of a source after `Feed.stop`).
    """

    device: str
    kind: str
    t_ns: int
    text: str = ""
    sensor: str = ""
    """Stream of one sensor among others: its `fault` lasts until a `log` of the same sensor."""


Item = SampleBlock | FramePacket | PictureReport | Gap | DeviceEvent
"""What a source yields."""
