"""A camera's frames as an MP4 that players open, copied without decoding."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av

from edgecap.errors import ExportError
from edgecap.model import H264, MJPEG

DEMUXER = {H264: "h264", MJPEG: "mjpeg"}
"""FFmpeg's name for a file that is nothing but frames of each encoding."""
TIME_BASE = Fraction(1, 1_000_000)


class Mp4Writer:
    """Frames in the order of the camera; a frame's presentation time is in microseconds.

    Args:
        path: Written; the index of the file comes before the pictures (`faststart`).
        codec: `H264` or `MJPEG`.
        first: A frame that decoding can start at; tells what the decoder must know.
        duration_us: Of the last frame.

    Raises:
        ExportError: `first` is not a frame of that encoding.
    """

    def __init__(self, path: Path, codec: str, first: bytes, duration_us: int) -> None:
        self._duration_us = duration_us
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
        self._stream.time_base = TIME_BASE

    def add(self, data: bytes, pts_us: int, *, key: bool) -> None:
        """One access unit or picture; times rise. Raises `OSError` where the disk refuses."""
        packet: Any = av.Packet(data)
        packet.stream, packet.time_base = self._stream, TIME_BASE
        packet.pts = packet.dts = pts_us
        packet.duration = self._duration_us
        packet.is_keyframe = key
        self._file.mux(packet)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
