"""A camera's frames as an MP4 that players open, copied without decoding."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av

from edgecap.dataset.h264 import ParameterSets
from edgecap.dataset.recorded import VideoFrame
from edgecap.dataset.session import RecordedSession
from edgecap.errors import ExportError
from edgecap.model import H264, MJPEG, StreamInfo
from edgecap.topics import check_name

DEMUXER = {H264: "h264", MJPEG: "mjpeg"}
"""FFmpeg's name for a file that is nothing but frames of each encoding."""
TIME_BASE = Fraction(1, 1_000_000)


def carried_cameras(session: RecordedSession) -> list[StreamInfo]:
    """The cameras of a session.

    Raises:
        ExportError: there is none, or one whose encoding no MP4 can carry.
        NameRefused: a camera's name is none.
    """
    cameras = session.video_streams()
    if not cameras:
        raise ExportError(
            f"session {session.key.session} has no camera, so there are no frames",
            fix="export it with --to mcap",
        )
    for camera in cameras:
        check_name("camera", camera.name)
        if camera.codec not in DEMUXER:
            raise ExportError(
                f"stream {camera.name} is encoded as {camera.codec!r}, which no MP4 can carry",
                fix=f"it can carry {', '.join(DEMUXER)}",
            )
    return cameras


def decodable_frames(
    session: RecordedSession, camera: StreamInfo
) -> Iterator[tuple[VideoFrame, bytes | None]]:
    """A camera's frames with the bytes that a decoder wants; None while it cannot decode yet."""
    sets = ParameterSets()
    for frame in session.frames(camera.name):
        yield frame, sets.complete(frame.data, key=frame.key) if camera.codec == H264 else frame.data


class Mp4Writer:
    """Frames in the order of the camera.

    Args:
        path: Written; the index of the file comes before the pictures (`faststart`).
        codec: `H264` or `MJPEG`.
        first: A frame that decoding can start at; tells what the decoder must know.
        duration: How long the last frame lasts.
        time_base: What times and durations count, in seconds.

    Raises:
        ExportError: `first` is not a frame of that encoding.
    """

    def __init__(
        self, path: Path, codec: str, first: bytes, duration: int, time_base: Fraction = TIME_BASE
    ) -> None:
        self._duration, self._time_base = duration, time_base
        self._file: Any = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        try:
            with av.open(io.BytesIO(first), format=DEMUXER[codec]) as source:
                template = source.streams.video[0]
                if not template.width:
                    raise IndexError("it has no picture")
                self._stream: Any = self._file.add_stream_from_template(template, opaque=True)
        except (av.error.FFmpegError, IndexError) as error:
            self._file.close()
            raise ExportError(
                f"the first frame is not {codec}: {error}", fix="export it with --to mcap"
            ) from error
        self._stream.time_base = time_base

    def add(self, data: bytes, pts: int, *, key: bool) -> None:
        """One access unit or picture; times rise. Raises `OSError` where the disk refuses."""
        packet: Any = av.Packet(data)
        packet.stream, packet.time_base = self._stream, self._time_base
        packet.pts = packet.dts = pts
        packet.duration = self._duration
        packet.is_keyframe = key
        self._file.mux(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
