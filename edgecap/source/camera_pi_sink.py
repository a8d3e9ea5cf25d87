"""What runs on picamera2's event thread, which an exception would end for good, without a word."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from edgecap.clock import read_pair
from edgecap.codec.video import MAX_METADATA_BYTES
from edgecap.errors import SourceError
from edgecap.model import H264, MJPEG
from edgecap.source.camera_clock import LATE_NS, FrameNumbers, HostClock, plausible_domains
from edgecap.source.camera_encoder import Encoded, ParameterSets, has_picture
from edgecap.source.camera_jpeg import JpegEncoder, complete_jpeg
from edgecap.source.camera_link import LinkFrame
from edgecap.source.camera_outbox import Outbox
from edgecap.source.camera_picture import PictureWatch

if TYPE_CHECKING:
    import av

REMEMBERED_REQUESTS = 64
"""Metadata kept for frames that are still in the encoder."""
KEPT_METADATA = (
    "AnalogueGain",
    "DigitalGain",
    "FrameDuration",
    "ColourGains",
    "ColourTemperature",
    "Lux",
    "FocusFoM",
    "LensPosition",
    "AeState",
    "AfState",
    "SensorTemperature",
    "FrameWallClock",
)
"""What travels with each frame beside SensorTimestamp and ExposureTime, under libcamera's own names and in
its units; what a camera does not tell is left out."""
PLANES = {"YUV420": ("yuv420p", (1, 2, 2), (1, 2, 2)), "NV12": ("nv12", (1, 1), (1, 2))}
"""libcamera's name → FFmpeg's, and by what each plane's rows (in bytes) and columns divide those of luma."""


def pack_metadata(metadata: Mapping[str, Any]) -> bytes:
    """A msgpack map of what is kept; floats as the 32 bits in which libcamera has them."""
    kept = {k: metadata[k] for k in KEPT_METADATA if isinstance(metadata.get(k), int | float | tuple)}
    packed: bytes = msgpack.Packer(use_single_float=True).pack(kept) if kept else b""
    return packed if len(packed) <= MAX_METADATA_BYTES else b""


def picture_of(buffer: np.ndarray[Any, Any], stream: Mapping[str, Any]) -> av.VideoFrame:
    """A frame in memory of its own, from libcamera's planes with their padded rows.

    Args:
        buffer: Bytes of all planes, one after the other.
        stream: picamera2's configuration of the stream: `format`, `size`, `stride`.
    """
    import av

    name, narrower, shorter = PLANES[stream["format"]]
    width, height = stream["size"]
    frame = av.VideoFrame(width, height, name)
    at = 0
    flat = np.frombuffer(buffer, np.uint8)
    for plane, divide, rows_by in zip(frame.planes, narrower, shorter, strict=True):
        stride, rows = stream["stride"] // divide, height // rows_by
        source = flat[at : at + stride * rows].reshape(rows, stride)
        target = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
        n = min(width // divide, plane.line_size)
        target[:rows, :n] = source[:, :n]
        at += stride * rows
    return frame


class FrameSink:
    """Takes requests and encoded frames; whatever goes wrong here is kept, never raised.

    Args:
        outbox: Takes the frames.
        clock: Of the sensor timestamps.
        numbers: Counts frames by their timestamps.
        line_ns: Read-out time of one row.
        codec: What the encoder makes.
        watch: Looks at pictures; None for not.
        looked_at: Which of picamera2's streams it looks at.
    """

    def __init__(
        self,
        outbox: Outbox,
        clock: HostClock,
        numbers: FrameNumbers,
        line_ns: int,
        codec: str = H264,
        watch: PictureWatch | None = None,
        looked_at: str = "lores",
    ) -> None:
        self.failure = ""
        self.unknown = 0
        self._outbox, self._clock, self._numbers = outbox, clock, numbers
        self._line_ns = line_ns
        self._codec, self._watch, self._looked_at = codec, watch, looked_at
        self._sets = ParameterSets()
        self._requests: dict[int, tuple[int, int, bytes]] = {}
        self._lock = threading.Lock()  # a hardware encoder hands frames over on a thread of its own
        self._picture: tuple[int, av.VideoFrame] | None = None
        self._awaits_key = False

    @property
    def produced(self) -> int:
        return self._numbers.next_index

    def note_request(self, request: Any) -> None:
        """`pre_callback`: keep a request's numbers until its frame is encoded, and sometimes its picture."""
        with self.guarded():
            metadata = request.get_metadata()
            tick = int(metadata["SensorTimestamp"])
            exposure_ns = int(metadata.get("ExposureTime", 0)) * 1000
            with self._lock:
                self._requests[tick // 1000] = tick, exposure_ns, pack_metadata(metadata)
                while len(self._requests) > REMEMBERED_REQUESTS:
                    del self._requests[next(iter(self._requests))]
            if self._watch is not None and self._picture is None and self._watch.due(tick):
                buffer = request.make_buffer(self._looked_at)
                self._picture = tick, picture_of(buffer, request.config[self._looked_at])

    def take(self, data: bytes, timestamp_us: int) -> None:
        """An encoded frame, `timestamp_us` being its sensor timestamp in µs."""
        with self.guarded():
            data, key = self._complete(bytes(data))
            if not data:
                return
            pair = read_pair(tries=2)
            self._clock.note(pair)
            tick, exposure_ns, metadata = self._numbers_of(timestamp_us)
            if self._clock.domain not in plausible_domains([(tick, pair)], LATE_NS):
                raise SourceError(f"timestamps are not in {self._clock.domain} any more")
            index = self._numbers.number(tick)
            if self._awaits_key and not key:
                return
            if not self._outbox.has_room():
                self._awaits_key = True  # without this frame the following ones do not decode
                return
            cause = "queue" if self._awaits_key else "camera"
            self._awaits_key = False
            fit = self._clock.fit(tick)
            self._outbox.put_frame(
                LinkFrame(index, tick, exposure_ns, self._line_ns, fit, key, data, cause, metadata)
            )
            if self._watch is not None and self._picture is not None and self._picture[0] <= tick:
                self._watch.offer(*self._picture)
                self._picture = None

    def _complete(self, data: bytes) -> Encoded:
        """A frame that can be sent; without data if it is none."""
        if self._codec == MJPEG:
            return Encoded(complete_jpeg(data), True)
        unit = self._sets.complete(data)
        # parameter sets in a packet of their own go with the next key frame
        return unit if has_picture(unit.data) else Encoded(b"", False)

    def _numbers_of(self, timestamp_us: int) -> tuple[int, int, bytes]:
        """Raw sensor timestamp, exposure and metadata; picamera2 rounds through a float, hence ± 1 µs."""
        with self._lock:
            for candidate in (timestamp_us, timestamp_us + 1, timestamp_us - 1):
                if candidate in self._requests:
                    return self._requests.pop(candidate)
        self.unknown += 1
        return timestamp_us * 1000, 0, b""

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """The boundary to picamera2's thread, which an exception would end without a word."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            self.failure = self.failure or f"{type(error).__name__}: {error}"


def as_output(sink: FrameSink, encoder: Any) -> Any:
    """`sink` as picamera2's `Output`."""
    from picamera2.outputs import Output

    class CameraOutput(Output):  # type: ignore[misc]
        def outputframe(
            self,
            frame: bytes,
            keyframe: bool = True,
            timestamp: int | None = None,
            packet: Any = None,
            audio: bool = False,
        ) -> None:
            if not audio and frame is not None:
                sink.take(frame, (encoder.firsttimestamp or 0) + (timestamp or 0))

    return CameraOutput()


def software_jpeg_encoder(sink: FrameSink, rate_hz: Fraction, bitrate_kbps: int) -> Any:
    """A picamera2 `Encoder` that makes JPEG in its event thread.

    picamera2's own ones take no NV12, and give buffers back to the camera while their threads still read.
    """
    from picamera2.encoders import Encoder

    class JpegStream(Encoder):  # type: ignore[misc]
        def _send_streams(self, output: Any) -> None:
            """picamera2 would describe the streams to the output, which knows them already."""

        def _start(self) -> None:
            self._jpeg = JpegEncoder(self.width, self.height, rate_hz, bitrate_kbps)

        def _encode(self, stream: str, request: Any) -> None:
            with sink.guarded():
                frame = picture_of(request.make_buffer(stream), request.config[stream])
                data = self._jpeg.encode(frame).data
                self.outputframe(data, True, self._timestamp(request))

    return JpegStream()
