"""A video file as a camera: plays in real time, each frame at the clip's own time."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgecap.errors import SourceError
from edgecap.source.camera_feed import CameraFeed, open_camera
from edgecap.source.camera_link import Opened, Start
from edgecap.source.camera_outbox import Outbox
from edgecap.source.camera_playback import play
from edgecap.topics import check_name

if TYPE_CHECKING:
    import av


class FileCamera:
    """Plays the video track of a file as if it were a camera.

    Args:
        name: Stream and device name.
        path: Anything FFmpeg can read.
        fps: Present frames at this constant rate instead of the clip's own times.
        loop: Begin anew one frame duration after the last frame; otherwise the camera falls silent.
        bitrate_kbps: Of the H.264 it is encoded to.
        width: Scale to this width; `None` keeps the clip's (made even).
        height: Scale to this height.
        preview_s: Seconds between small pictures; 0 for none.
    """

    def __init__(
        self,
        name: str,
        path: Path | str,
        *,
        fps: float | None = None,
        loop: bool = True,
        bitrate_kbps: int = 2000,
        width: int | None = None,
        height: int | None = None,
        preview_s: float = 0.0,
    ) -> None:
        self.name = check_name("camera", name)
        size = width or 0, height or 0
        self.spec = FileSpec(name, str(path), fps or 0.0, loop, bitrate_kbps, *size, preview_s)

    def open(self) -> AbstractAsyncContextManager[CameraFeed]:
        return open_camera(self.name, self.spec, preview_s=self.spec.preview_s)


class FileSpec(msgspec.Struct, frozen=True, tag="file"):
    """What the camera's process is told."""

    name: str
    path: str
    fps: float
    loop: bool
    bitrate_kbps: int
    width: int
    height: int
    preview_s: float = 0.0

    def worker(self) -> FileWorker:
        return FileWorker(self)


class FileWorker:
    """The file, inside the camera's process."""

    def __init__(self, spec: FileSpec) -> None:
        self._spec = spec
        self._clip: Clip | None = None

    def prepare(self) -> None:
        import av  # noqa: F401 - it stays loaded

    def open(self, clock: str = "") -> Opened:
        clip = self._clip = Clip(self._spec)
        return Opened(clip.width, clip.height, float(clip.rate_hz), firmware=Path(self._spec.path).name)

    def run(self, start: Start, outbox: Outbox, stop: threading.Event) -> tuple[int, bool]:
        assert self._clip is not None
        s = self._spec
        return play(self._clip, s.bitrate_kbps, start, outbox, stop, preview_s=s.preview_s)


class Clip:
    """The frames of a file in presentation order, looped or not, as a `Scene`.

    The times come from one pass over the packets, without decoding, so that any frame's time is exact
    (a rational number of ticks of the file's own time base, rounded to 1 ns once).
    """

    def __init__(self, spec: FileSpec) -> None:
        self._path = Path(spec.path)
        self._loop = spec.loop
        self._label = f"camera {spec.name}: {self._path}"
        with self._container() as container:
            track = self._track(container)
            self._time_base = Fraction(track.time_base)
            packets = sorted(
                (p.pts, p.duration or 0)
                for p in container.demux(track)
                if p.pts is not None and p.size and not p.is_discard
            )
            self._pts: list[int] = [pts for pts, _ in packets]
            if not self._pts:
                raise SourceError(f"{self._label} has no video frames", fix="give another file")
            self.rate_hz = self._nominal_rate(track, packets[-1][1])
            self.full_range = (
                "yuvj" in str(track.codec_context.pix_fmt) or track.codec_context.color_range == 2
            )
            self.width = spec.width or track.codec_context.width & ~1
            self.height = spec.height or track.codec_context.height & ~1
        last = packets[-1][1] or round(1 / self.rate_hz / self._time_base)
        if spec.fps > 0:
            # a constant rate replaces the clip's own times: offsets count frames, the unit is one frame
            self.rate_hz = Fraction(spec.fps).limit_denominator(100_000)
            self._offsets, self._unit = list(range(len(self._pts))), 1 / self.rate_hz
            self._period = len(self._pts)
        else:
            self._offsets, self._unit = [pts - self._pts[0] for pts in self._pts], self._time_base
            self._period = self._offsets[-1] + max(last, 1)
        if next(self.frames(0), None) is None:
            raise SourceError(f"{self._label} cannot be decoded", fix="give another file, or convert it")

    def offset_ns(self, index: int) -> int:
        cycle, at = divmod(index, len(self._offsets))
        return round((cycle * self._period + self._offsets[at]) * self._unit * 1_000_000_000)

    def first_after(self, offset_ns: int) -> int:
        units = Fraction(offset_ns, 1_000_000_000) / self._unit
        cycle = max(int(units // self._period), 0)
        at = bisect.bisect_right(self._offsets, units - cycle * self._period)
        return cycle * len(self._offsets) + at

    def frames(self, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
        n = len(self._pts)
        cycle, at = divmod(first, n)
        if not self._loop and cycle:
            return
        with self._container() as container:
            track = self._track(container)
            while True:
                container.seek(self._pts[at], stream=track)
                for position, frame in self._decode(container, track):
                    if position >= at:
                        yield cycle * n + position, frame
                if not self._loop:
                    return
                cycle, at = cycle + 1, 0

    def _decode(self, container: Any, track: Any) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode from where the container stands; a packet that cannot be decoded is a missing frame."""
        import av

        position_of = {pts: k for k, pts in enumerate(self._pts)}
        for packet in container.demux(track):
            try:
                decoded = packet.decode()
            except av.InvalidDataError:
                continue
            for frame in decoded:
                position = position_of.get(frame.pts)
                if position is not None:
                    yield position, frame
        track.codec_context.flush_buffers()

    def _container(self) -> Any:
        import av

        if not self._path.is_file():
            raise SourceError(f"{self._label} is not a file", fix="give the path of a video file")
        try:
            return av.open(str(self._path))
        except PermissionError as error:
            raise SourceError(f"{self._label} may not be read", fix="check its permissions") from error
        except (av.FFmpegError, OSError) as error:
            raise SourceError(
                f"{self._label} is not a video file that can be read", fix="give an MP4, MKV or MOV file"
            ) from error

    def _track(self, container: Any) -> Any:
        if not container.streams.video:
            raise SourceError(f"{self._label} has no video track", fix="give a file that has one")
        track = container.streams.video[0]
        if track.codec_context is None or not track.codec_context.codec.is_decoder:
            raise SourceError(
                f"{self._label} has a video track in an unknown codec", fix="convert it to H.264"
            )
        track.thread_type = "FRAME"  # FFmpeg decodes ahead in threads of its own
        track.codec_context.thread_count = 2
        return track

    def _nominal_rate(self, track: Any, last_duration: int) -> Fraction:
        if track.average_rate:
            return Fraction(track.average_rate)
        if len(self._pts) > 1 and self._pts[-1] > self._pts[0]:
            span = (self._pts[-1] - self._pts[0]) * self._time_base
            return Fraction(len(self._pts) - 1) / span
        return 1 / (last_duration * self._time_base) if last_duration else Fraction(30)
