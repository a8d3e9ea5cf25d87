"""A few small pictures of a camera's recording, each with its true time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.recorded import VideoFrame
from edgecap.dataset.session import RecordedSession
from edgecap.model import H264, MJPEG

DECODER = {H264: "h264", MJPEG: "mjpeg"}
"""FFmpeg's name for each encoding of video."""
MAX_GROUP = 300
"""Frames kept since the last key frame; a camera whose groups are longer shows its key frames."""
NEAR = 0.05
"""A key frame within this share of the spacing is near enough to a wanted time."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture (h, w, 3) uint8 and its rig time."""

    t_ns: int
    image: NDArray[np.uint8]


def thumbnails(session: RecordedSession, stream: str, count: int, height: int) -> list[Thumbnail]:
    """About `count` pictures, evenly spread over the session; decodes little else.

    A key frame near a wanted time is taken as it is; only where key frames are sparse, the frames between
    the last one and the wanted time are decoded as well.
    """
    step = max(session.t1_ns - session.t0_ns, 1) / count
    wanted = session.t0_ns + step / 2
    codec = DECODER.get(session.info(stream).codec)
    if codec is None:
        return []
    found: list[Thumbnail] = []
    group: list[VideoFrame] = []
    for frame in session.frames(stream):
        if frame.key:
            group = [frame]
        elif group and len(group) < MAX_GROUP:
            group.append(frame)
        if not group or frame.t_ns < wanted - (step * NEAR if frame.key else 0):
            continue
        picture = _decode(group, height, codec)
        if picture is not None:
            found.append(Thumbnail(group[-1].t_ns, picture))
        while wanted <= frame.t_ns + step * NEAR:
            wanted += step
        if len(found) == count:
            break
    return found


def _decode(group: list[VideoFrame], height: int, codec: str) -> NDArray[np.uint8] | None:
    """The last picture of a group that starts with a key frame; None where the decoder gives none."""
    decoder: Any = av.CodecContext.create(codec, "r")
    last = None
    try:
        for frame in group:
            for picture in decoder.decode(av.Packet(frame.data)):
                last = picture
        for picture in decoder.decode(None):
            last = picture
    except av.error.InvalidDataError:
        return None
    if last is None:
        return None
    width = max(2, round(last.width * height / last.height / 2) * 2)
    image: NDArray[np.uint8] = last.reformat(width=width, height=height, format="rgb24").to_ndarray()
    return image
