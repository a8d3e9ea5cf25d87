"""Which frames of a session's cameras become which rows of a LeRobot dataset, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.frames_video import decodable_frames
from edgecap.dataset.session import RecordedSession
from edgecap.errors import ExportError
from edgecap.model import H264, I64, Gap, StreamInfo

Bool = NDArray[np.bool_]
REACH = 0.6
"""Another camera's picture belongs to a row if it is nearer than this many of that camera's periods."""
HOLE_NS = 1_000_000_000
"""Without a frame for longer, another episode begins; at least `HOLE_PERIODS`."""
HOLE_PERIODS = 3
CONTINUOUS_PERIODS = 1.5
CLIP_S = 600
"""A video file ends at the first key frame after it. LeRobot compares a picture's time, as float32, to
0.1 ms: past 1024 s that is no longer possible."""
NONE = -1


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """The n frames of a camera that can be decoded.

    Attributes:
        t_ns: (n,) int64, rig time.
        index: (n,) int64, numbers as the camera counts.
        key, locked: (n,) bool, whether decoding can start there; whether the camera's clock was locked.
        gaps: Losses that the rig stated or that were found between chunks.
    """

    t_ns: I64
    index: I64
    key: Bool
    locked: Bool
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class Pictures:
    """One camera's pictures at m rows.

    Attributes:
        camera: The camera.
        at: (m,) int64, rising numbers of frames among those that can be decoded; `NONE` where there is none.
        is_copied: Whether the frames can stay encoded as they are.
        lost: Frames that the camera counted and that cannot be decoded.
    """

    camera: StreamInfo
    at: I64
    is_copied: bool
    lost: int
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A session's m rows.

    Attributes:
        fps: Rows a second, nominally.
        frames: Those of the camera that gives the rows.
        episodes: (first, end) row of each.
        clips: (first, end) row of each video file; whole episodes, each starting with a key frame.
        continuous: (m,) bool, whether nothing is missing between a row and the one before.
        pictures: By camera; the one that gives the rows comes first.
    """

    fps: int
    frames: FrameTimes
    episodes: list[tuple[int, int]]
    clips: list[tuple[int, int]]
    continuous: Bool
    pictures: list[Pictures]

    @property
    def rows(self) -> int:
        return len(self.frames.t_ns)


def plan_session(session: RecordedSession, cameras: Sequence[StreamInfo]) -> Plan:
    """Read all cameras once; the first of them gives the rows.

    Raises:
        ExportError: it has no frame that can be decoded, or no whole number of frames a second.
    """
    first = cameras[0]
    fps = round(first.rate_hz_nominal)
    if fps < 1:
        raise ExportError(
            f"camera {first.name} of session {session.key.session} has a nominal rate of "
            f"{first.rate_hz_nominal:g} Hz, and LeRobot wants a whole number of frames a second",
            fix="export it with --to frames",
        )
    frames = frame_times(session, first)
    if not len(frames.t_ns):
        raise ExportError(
            f"no frame of camera {first.name} of session {session.key.session} can be decoded",
            fix="export it with --to mcap",
        )
    period_ns = 1e9 / first.rate_hz_nominal
    step_ns = np.diff(frames.t_ns)
    hole = np.abs(step_ns) > max(HOLE_NS, HOLE_PERIODS * period_ns)
    clip_starts = _clip_starts(frames.key, CLIP_S * fps)
    starts = sorted({*clip_starts, *(np.flatnonzero(hole) + 1).tolist()})
    together = (np.diff(frames.index) == 1) & (step_ns > 0) & (step_ns <= CONTINUOUS_PERIODS * period_ns)
    continuous = np.concatenate([[True], together])
    continuous[starts] = True
    rows = len(frames.t_ns)
    pictures = [Pictures(first, np.arange(rows), True, _lost(frames), frames.gaps)]
    for camera in cameras[1:]:
        other = frame_times(session, camera)
        at = nearest(frames, other, camera.rate_hz_nominal or first.rate_hz_nominal)
        is_copied = _can_copy(camera, at, other.key, clip_starts)
        pictures.append(Pictures(camera, at, is_copied, _lost(other), other.gaps))
    return Plan(fps, frames, _spans(starts, rows), _spans(clip_starts, rows), continuous, pictures)


def frame_times(session: RecordedSession, camera: StreamInfo) -> FrameTimes:
    """What a plan wants to know of a camera's frames."""
    gaps = [g for g in session.gaps if g.stream == camera.name]
    found = []
    for frame, data in decodable_frames(session, camera):
        gaps += [g for g in frame.gaps if g not in gaps]
        if data is not None:
            found.append((frame.t_ns, frame.index, frame.key, frame.locked))
    t_ns, index, key, locked = zip(*found, strict=True) if found else ((), (), (), ())
    return FrameTimes(
        np.array(t_ns, np.int64),
        np.array(index, np.int64),
        np.array(key, np.bool_),
        np.array(locked, np.bool_),
        tuple(gaps),
    )


def nearest(rows: FrameTimes, other: FrameTimes, rate_hz: float) -> I64:
    """(m,) the frame of another camera at each row; `NONE` where none is near or a clock was not locked."""
    at = np.full(len(rows.t_ns), NONE, np.int64)
    usable = np.flatnonzero(other.locked)
    if not len(usable):
        return at
    usable = usable[np.argsort(other.t_ns[usable], kind="stable")]
    t_ns = other.t_ns[usable]
    after = np.minimum(np.searchsorted(t_ns, rows.t_ns), len(t_ns) - 1)
    before = np.maximum(after - 1, 0)
    is_before = np.abs(t_ns[before] - rows.t_ns) <= np.abs(t_ns[after] - rows.t_ns)
    found = np.where(is_before, before, after)
    near = np.abs(t_ns[found] - rows.t_ns) <= REACH * 1e9 / rate_hz
    at = np.where(near & rows.locked, usable[found], NONE)
    # Where a corrected clock went back, a picture shown before would come again.
    at[at < np.maximum.accumulate(at)] = NONE
    return at


def _can_copy(camera: StreamInfo, at: I64, key: Bool, clip_starts: Sequence[int]) -> bool:
    if not len(at) or (at == NONE).any():
        return False
    if camera.codec != H264:
        return True
    return bool((np.diff(at) == 1).all() and key[at[list(clip_starts)]].all())


def _clip_starts(key: Bool, rows: int) -> list[int]:
    """The first row, and each key frame that is `rows` or more after the start before it."""
    starts = [0]
    for k in np.flatnonzero(key).tolist():
        if k - starts[-1] >= rows:
            starts.append(k)
    return starts


def _spans(starts: Sequence[int], end: int) -> list[tuple[int, int]]:
    return list(pairwise([*starts, end]))


def _lost(frames: FrameTimes) -> int:
    return int(frames.index[-1]) + 1 - len(frames.index) if len(frames.index) else 0
