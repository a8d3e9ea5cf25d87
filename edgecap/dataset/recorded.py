"""What a session read back from the store consists of: samples, frames, small pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.model import I64, ClockFit, Gap, StreamInfo


@dataclass(frozen=True, slots=True)
class SampleChunk:
    """One sealed chunk of samples, decoded.

    Attributes:
        seq: Number of the chunk in its stream.
        hash: SHA-256 of the chunk's header: the way back to the store.
        fit: Clock fit that maps `ticks` to `t_ns`.
        index: Device's running number of the first sample; the samples are consecutive.
        ticks: (n,) int64, unwrapped device counter.
        values: (n, c) raw counts, int16, int32 or float32, exactly as recorded.
        frame_n: (m,) int32, samples per serial frame.
        arrival_ns: (m,) int64, rig time at which each serial frame was read.
        t_ns: (n,) int64, rig time; the truth lies within ± `u_ns`.
        gaps: Losses stated in the header or found before this chunk.
    """

    seq: int
    hash: bytes
    fit: ClockFit
    index: int
    ticks: I64
    values: NDArray[Any]
    frame_n: NDArray[np.int32]
    arrival_ns: I64
    t_ns: I64
    gaps: tuple[Gap, ...]

    @property
    def u_ns(self) -> int:
        return self.fit.u_ns

    def sample_arrival_ns(self) -> I64:
        """(n,) rig time at which each sample's serial frame was read."""
        return np.repeat(self.arrival_ns, self.frame_n)


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One encoded frame. `t_ns` is mid-exposure of its middle row, in rig time, within ± `u_ns`."""

    seq: int
    """Chunk in which the frame begins."""
    index: int
    t_ns: int
    u_ns: int
    epoch: int
    key: bool
    data: bytes
    tick: int
    arrival_ns: int
    exposure_ns: int
    line_ns: int
    gaps: tuple[Gap, ...]
    """Losses stated with this frame's chunk or found before it."""
    metadata: bytes = b""
    """What else the camera said of it; see `codec.video.decode_metadata`."""
    locked: bool = True
    """Whether the clock fit behind `t_ns` was."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A small picture of a camera, at the rig time of its frame."""

    seq: int
    t_ns: int
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class StreamData:
    """A whole stream of samples in memory; (n,) and (n, c) arrays as in `SampleChunk`."""

    info: StreamInfo
    index: I64
    ticks: I64
    values: NDArray[Any]
    t_ns: I64
    u_ns: I64
    epoch: NDArray[np.int32]
    arrival_ns: I64
    gaps: tuple[Gap, ...]

    def scaled(self) -> NDArray[np.float64]:
        """(n, c) values in the channels' units."""
        channels = self.info.channels
        offset = np.array([c.offset for c in channels], np.float64)
        return (self.values + offset) * np.array([c.scale for c in channels], np.float64)
