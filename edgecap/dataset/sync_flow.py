"""How a camera turned, from its pictures: shift and roll between successive frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.recorded import VideoFrame
from edgecap.dataset.session import RecordedSession
from edgecap.dataset.sync import F64, Intervals
from edgecap.errors import CalibrationError
from edgecap.kernels.flow import PARAMETERS, align_pictures
from edgecap.model import I64, MJPEG

F32 = NDArray[np.float32]

LONGEST_PIXELS = 256
"""Pictures are reduced to this many pixels on their longer side: at 70° across, one is 5 mrad."""
LEVELS = 3
"""Halvings of the reduced picture, coarsest first."""
ROUNDS = 12
MIN_SHARE = 0.25
"""A motion that less of the picture agrees with is not used."""
MAX_PERIODS = 1.5
"""Frames further apart than this many periods have a loss between them."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A reduced frame: `t_ns` is mid-exposure of its middle row; `grey` (h, w) float32."""

    t_ns: int
    grey: F32


def session_pictures(session: RecordedSession, stream: str) -> Iterator[Picture]:
    """The camera's frames, decoded, grey and small."""
    for frame, decoded in decoded_frames(session, stream):
        scale = min(1.0, LONGEST_PIXELS / max(decoded.width, decoded.height))
        width, height = max(2, round(decoded.width * scale)), max(2, round(decoded.height * scale))
        small = decoded.reformat(width=width, height=height, format="gray", interpolation="AREA")
        yield Picture(frame.t_ns, small.to_ndarray().astype(np.float32))


def decoded_frames(session: RecordedSession, stream: str) -> Iterator[tuple[VideoFrame, Any]]:
    """Each frame with its decoded picture (PyAV's frame); frames that do not decode are left out."""
    try:
        import av
    except ImportError as error:
        raise CalibrationError("reading pictures needs PyAV", fix="pip install 'edgecap[export]'") from error
    if session.info(stream).kind != "video":
        raise CalibrationError(f"stream {stream!r} is not a camera's", fix="name the camera first")
    codec = "mjpeg" if session.info(stream).codec == MJPEG else "h264"
    decoder: Any = av.CodecContext.create(codec, "r")
    waiting: dict[int, VideoFrame] = {}
    for frame in session.frames(stream):
        packet: Any = av.Packet(frame.data)
        packet.pts = frame.index
        waiting[frame.index] = frame
        yield from _decoded(decoder, packet, waiting, av.error.InvalidDataError)
    yield from _decoded(decoder, None, waiting, av.error.InvalidDataError)


def _decoded(
    decoder: Any, packet: Any, waiting: dict[int, VideoFrame], invalid: type[Exception]
) -> Iterator[tuple[VideoFrame, Any]]:
    """What comes out for a packet (None: at the end), beside its frame; nothing if it is damaged."""
    try:
        pictures = list(decoder.decode(packet))
    except invalid:
        return
    for picture in pictures:
        frame = waiting.pop(picture.pts, None)
        if frame is not None:
            yield frame, picture


def picture_rates(pictures: Iterable[Picture]) -> Intervals:
    """Rates of shift and roll between successive pictures.

    Returns:
        Per interval: shift in x and y, and roll as the speed of the picture's side edges, all in pixels of
        the given pictures per s. The mean rate between two frames belongs to their whole interval, and so
        to its midpoint, not to either frame.
        Intervals with a lost frame, or in which most of the picture does not agree on a motion, are left out.

    Raises:
        CalibrationError: fewer than three frames, or no two of them show the same scene.
    """
    t_ns: list[int] = []
    motions: list[F64] = []
    last: list[F32] = []
    half_width = 0.0
    for picture in pictures:
        levels = _levels(picture.grey)
        if last:
            motions.append(_motion(last, levels))
        last = levels
        half_width = picture.grey.shape[1] / 2
        t_ns.append(picture.t_ns)
    if len(motions) < 2:
        raise CalibrationError(f"the camera's recording holds {len(t_ns)} frames only")
    times: I64 = np.array(t_ns, np.int64)
    motion = np.array(motions)
    step_ns = np.diff(times)
    good = np.isfinite(motion).all(axis=1) & (step_ns > 0) & (step_ns <= MAX_PERIODS * np.median(step_ns))
    if good.sum() < 2:
        raise CalibrationError(
            f"the picture's motion could not be followed in any of {len(motions)} intervals",
            fix="film a scene with texture, in light enough for short exposures, and turn more slowly",
        )
    rates = motion[good, :3] * [1.0, 1.0, half_width] / (step_ns[good] * 1e-9)[:, None]
    return Intervals(times[:-1][good], times[1:][good], np.ascontiguousarray(rates))


def _levels(grey: F32) -> list[F32]:
    """The picture and its halvings, coarsest first."""
    levels = [np.ascontiguousarray(grey, np.float32)]
    while len(levels) < LEVELS and min(levels[-1].shape) >= 32:
        fine = levels[-1]
        fine = fine[: fine.shape[0] // 2 * 2, : fine.shape[1] // 2 * 2]
        quarter = 0.25 * (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2])
        levels.append(np.ascontiguousarray(quarter, np.float32))
    return levels[::-1]


def _motion(before: list[F32], after: list[F32]) -> F64:
    """Shift, roll and growth between two pictures in pixels of the finest level; NaN where not found."""
    motion = np.zeros(PARAMETERS)
    motion[:2] = _jump(before[0], after[0])
    share = 0.0
    for level, (a, b) in enumerate(zip(before, after, strict=True)):
        if level:
            motion[:2] *= 2
        _, share = align_pictures(a, b, motion, ROUNDS)
    return motion if share >= MIN_SHARE else np.full(PARAMETERS, np.nan)


def _jump(before: F32, after: F32) -> tuple[float, float]:
    """Whole-pixel shift in x and y by phase correlation.

    Source: Kuglin and Hines 1975.
    """
    height, width = before.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    spectrum = np.fft.rfft2((before - before.mean()) * window).conj() * np.fft.rfft2(
        (after - after.mean()) * window
    )
    surface = np.fft.irfft2(spectrum / np.maximum(np.abs(spectrum), 1e-9), s=before.shape)
    y, x = divmod(int(surface.argmax()), width)
    return float(x - width if x > width // 2 else x), float(y - height if y > height // 2 else y)
