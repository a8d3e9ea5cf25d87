"""USB cameras, and any other that V4L2 offers as a capture device, in a process of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from edgecap.clock import now_ns, read_pair
from edgecap.errors import SourceError
from edgecap.model import H264, MJPEG
from edgecap.source.camera_clock import (
    LATE_NS,
    Domain,
    FrameNumbers,
    HostClock,
    find_domain,
    plausible_domains,
)
from edgecap.source.camera_encoder import H264Encoder
from edgecap.source.camera_feed import CameraFeed, open_camera
from edgecap.source.camera_jpeg import JpegEncoder, complete_jpeg
from edgecap.source.camera_link import LinkFrame, Note, Opened, Start, Started
from edgecap.source.camera_outbox import Outbox
from edgecap.source.camera_picture import PictureWatch
from edgecap.source.camera_process import CHILD
from edgecap.source.camera_v4l2 import CaptureDevice, Mode, open_error
from edgecap.topics import check_name

if TYPE_CHECKING:
    import av

Input = Literal["auto", "mjpeg", "yuyv"]
CodecName = Literal["h264", "mjpeg"]
PROBE_FRAMES = 3
FFMPEG_INPUT = {"mjpeg": "mjpeg", "yuyv": "yuyv422"}


class UvcCamera:
    """A V4L2 camera, recorded as H.264 or as the JPEG pictures that it gives.

    Args:
        name: Stream and device name.
        device: Its node, best by a name under `/dev/v4l/by-id`.
        width: Pixels; the camera must have exactly this size.
        height: Pixels.
        fps: Frames per second that it has at this size.
        wanted: What the camera is asked for.
        codec: `mjpeg` keeps a camera's own JPEG.
        bitrate_kbps: Thousands of bits per second of what is encoded here.
        preview_s: Seconds between small pictures; 0 for none.
        child: Program of the camera's process.
    """

    def __init__(
        self,
        name: str,
        device: str = "/dev/video0",
        width: int = 1280,
        height: int = 720,
        fps: float = 30.0,
        *,
        wanted: Input = "auto",
        codec: CodecName = "h264",
        bitrate_kbps: int = 5000,
        preview_s: float = 0.0,
        child: Sequence[str] = CHILD,
    ) -> None:
        self.name = check_name("camera", name)
        self.spec = UvcSpec(name, device, width, height, fps, wanted, codec, bitrate_kbps, preview_s)
        self._child = child

    def open(self) -> AbstractAsyncContextManager[CameraFeed]:
        return open_camera(self.name, self.spec, self._child, preview_s=self.spec.preview_s)


class UvcSpec(msgspec.Struct, frozen=True, tag="uvc"):
    """What the camera's process is told."""

    name: str
    device: str
    width: int
    height: int
    fps: float
    wanted: Input
    codec: CodecName
    bitrate_kbps: int
    preview_s: float = 0.0

    def worker(self) -> UvcWorker:
        return UvcWorker(self)


class UvcWorker:
    """The device through FFmpeg's V4L2 reader, inside the camera's process.

    It streams only between start and stop: an idle rig neither films nor lights the camera's lamp.
    """

    def __init__(self, spec: UvcSpec) -> None:
        self._spec = spec
        self._label = f"camera {spec.name}"
        self._mode = Mode("mjpeg", 0, 0, Fraction(30))
        self._domain: Domain = "monotonic"

    def prepare(self) -> None:
        import av  # noqa: F401 - it stays loaded

    def open(self, clock: str = "") -> Opened:
        spec = self._spec
        if not 0.1 <= spec.fps <= 1000:
            raise SourceError(f"{self._label}: {spec.fps:g} fps is not possible", fix="use 5 to 120")
        device = CaptureDevice(self._label, spec.device)
        try:
            self._mode = device.choose(spec.wanted, spec.width, spec.height, spec.fps)
            device.fix_rate()
        finally:
            device.close()
        self._domain = cast("Domain", clock) if clock else self._probe()
        return Opened(
            spec.width,
            spec.height,
            float(self._mode.rate_hz),
            clock=self._domain,
            serial_number=device.bus,
            firmware=device.card,
            codec=MJPEG if spec.codec == "mjpeg" else H264,
        )

    def run(self, start: Start, outbox: Outbox, stop: threading.Event) -> tuple[int, bool]:
        clock = HostClock(self._domain)
        numbers = FrameNumbers(round(10**9 / self._mode.rate_hz), start.next_index, start.last_tick)
        watch = PictureWatch(outbox, self._spec.preview_s)
        recoder = Recoder(self._spec, self._mode)
        broken, cause = 0, "camera"
        with self._container() as container:
            outbox.put_word(Started(start.anchor_ns or now_ns()))
            for tick, data in self._packets(container):
                if stop.is_set():
                    break
                pair = read_pair(tries=2)
                clock.note(pair)
                if self._domain not in plausible_domains([(tick, pair)], LATE_NS):
                    raise SourceError(
                        f"{self._label}: its time stamps are not in {self._domain} any more",
                        fix="see the log",
                    )
                if tick <= start.last_tick:
                    continue
                index = numbers.number(tick)
                if not outbox.has_room():
                    cause = "queue"
                    continue
                data, key, picture = recoder.recode(data, tick, look=watch.due(tick))
                if not data:
                    broken += 1
                    continue
                outbox.put_frame(LinkFrame(index, tick, 0, 0, clock.fit(tick), key, data, cause))
                cause = "camera"
                if picture is not None:
                    watch.offer(tick, picture)
        watch.close()
        if broken:
            outbox.put_word(Note(f"{broken} frames came damaged over the cable and were left out"))
        return numbers.next_index, False

    def _probe(self) -> Domain:
        """Take a few frames to see in which clock their time stamps are."""
        with self._container() as container:
            packets = self._packets(container)
            return find_domain(((tick, read_pair(tries=2)) for tick, _ in packets), PROBE_FRAMES)

    def _container(self) -> Any:
        import av

        mode = self._mode
        options = {
            "input_format": FFMPEG_INPUT[mode.input],
            "video_size": f"{mode.width}x{mode.height}",
            "framerate": f"{mode.rate_hz.numerator}/{mode.rate_hz.denominator}",
        }
        try:
            return av.open(self._spec.device, format="v4l2", options=options)
        except OSError as error:
            raise open_error(self._label, self._spec.device, error) from error

    def _packets(self, container: Any) -> Iterator[tuple[int, bytes]]:
        """What the device gives, as (time stamp in ns, bytes); a buffer in which it saw an error is empty."""
        track = container.streams.video[0]
        found = track.codec_context
        if (found.width, found.height) != (self._mode.width, self._mode.height):
            raise SourceError(
                f"{self._label}: {self._spec.device} gives {found.width}×{found.height} instead",
                fix=f"set width = {found.width}, height = {found.height}",
            )
        try:
            for packet in container.demux(track):
                if packet.pts is not None:
                    yield round(packet.pts * packet.time_base * 10**9), bytes(packet)
        except OSError as error:
            raise open_error(self._label, self._spec.device, error) from error
        raise SourceError(f"{self._label}: {self._spec.device} gives nothing more", fix="plug it in again")


class Recoder:
    """From what the camera gives to what is recorded; a damaged frame comes out empty.

    Args:
        spec: Which codec and bit rate.
        mode: What the camera gives.
    """

    def __init__(self, spec: UvcSpec, mode: Mode) -> None:
        import av

        self._is_jpeg = mode.input == "mjpeg"
        self._keeps = self._is_jpeg and spec.codec == "mjpeg"
        self._encoder: H264Encoder | JpegEncoder | None = None
        if not self._keeps:
            settings = (mode.width, mode.height, mode.rate_hz, spec.bitrate_kbps)
            if spec.codec == "mjpeg":
                self._encoder = JpegEncoder(*settings)
            else:
                self._encoder = H264Encoder(*settings, full_range=self._is_jpeg)
        self._invalid = av.error.InvalidDataError
        decoder: Any = av.CodecContext.create("mjpeg" if self._is_jpeg else "rawvideo", "r")
        if not self._is_jpeg:
            decoder.width, decoder.height, decoder.pix_fmt = mode.width, mode.height, FFMPEG_INPUT["yuyv"]
        decoder.thread_count = 1
        self._decoder = decoder

    def recode(self, data: bytes, tick_ns: int, *, look: bool) -> tuple[bytes, bool, av.VideoFrame | None]:
        """Recode one frame.

        Returns:
            The recorded bytes, whether decoding can start there, and the picture if `look`.
        """
        if self._is_jpeg:
            data = complete_jpeg(data)
        if not data:
            return b"", False, None
        if self._encoder is None:
            return data, True, self._decode(data) if look else None
        picture = self._decode(data)
        if picture is None:
            return b"", False, None
        encoded = self._encoder.encode(picture, tick_ns)
        return encoded.data, encoded.key, picture if look else None

    def _decode(self, data: bytes) -> av.VideoFrame | None:
        import av

        try:
            pictures = self._decoder.decode(av.Packet(data))
        except self._invalid:
            return None
        return pictures[-1] if pictures else None
