"""Raspberry Pi camera through picamera2, in a process of its own.

picamera2 has no drop counter, no removal signal, and an exception in an output or a callback ends its event
thread for good while everything still looks alive. So: nothing that runs on that thread may raise, losses
are read off the sensor timestamps, and the daemon watches for frames and replaces the whole process.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgecap.clock import now_ns, read_pair
from edgecap.errors import SourceError
from edgecap.model import ClockPair
from edgecap.source.camera_clock import Domain, FrameNumbers, HostClock, plausible_domains
from edgecap.source.camera_encoder import ParameterSets, has_picture
from edgecap.source.camera_feed import CameraFeed, open_camera
from edgecap.source.camera_lines import read_line_ns
from edgecap.source.camera_link import LinkFrame, Note, Opened, Start, Started
from edgecap.source.camera_outbox import Outbox
from edgecap.source.camera_process import CHILD
from edgecap.topics import check_name

EncoderName = Literal["auto", "hardware", "libav"]

PROBE_FRAMES = 5
PROBE_LIMIT_S = 3.0
REMEMBERED_REQUESTS = 64
"""Metadata kept for frames that are still in the encoder."""
POLL_S = 0.05
HARDWARE_ENCODER = Path("/dev/video11")
"""The V4L2 codec of a Pi up to 4; a Pi 5 has none."""
APT_PACKAGE = {
    "picamera2": "python3-picamera2",
    "libcamera": "python3-libcamera",
    "pykms": "python3-kms++",
    "kms": "python3-kms++",
}
PIXEL_FORMATS = ("YUV420", "NV12")
"""What both encoders take."""


class PiCamera:
    """A camera that libcamera knows, recorded as H.264.

    Args:
        name: Stream and device name.
        camera_id: libcamera's id (or model) of the camera; empty for the only one.
        width: Pixels; libcamera may choose the nearest size it can.
        height: Pixels.
        fps: Fixed frame rate.
        bitrate_kbps: Thousands of bits per second.
        encoder: `hardware` (Pi up to 4), `libav` (any), or `auto`.
        child: Program of the camera's process.
    """

    def __init__(
        self,
        name: str,
        camera_id: str = "",
        width: int = 1280,
        height: int = 720,
        fps: float = 30.0,
        *,
        bitrate_kbps: int = 4000,
        encoder: EncoderName = "auto",
        child: Sequence[str] = CHILD,
    ) -> None:
        self.name = check_name("camera", name)
        self.spec = PiSpec(name, camera_id, width, height, fps, bitrate_kbps, encoder)
        self._child = child

    def open(self) -> AbstractAsyncContextManager[CameraFeed]:
        return open_camera(self.name, self.spec, self._child)


class PiSpec(msgspec.Struct, frozen=True, tag="pi"):
    """What the camera's process is told."""

    name: str
    camera_id: str
    width: int
    height: int
    fps: float
    bitrate_kbps: int
    encoder: EncoderName

    def worker(self) -> PiWorker:
        return PiWorker(self)


class PiWorker:
    """picamera2, inside the camera's process."""

    def __init__(self, spec: PiSpec) -> None:
        self._spec = spec
        self._label = f"camera {spec.name}"
        self._picam2: Any = None
        self._domain: Domain = "monotonic"
        self._line_ns = 0

    def open(self) -> Opened:
        spec = self._spec
        if not 1 <= spec.fps <= 240 or spec.width < 16 or spec.height < 16:
            raise SourceError(
                f"{self._label}: {spec.width}×{spec.height} at {spec.fps:g} fps is not possible",
                fix="use a size and rate that the sensor has; see `rpicam-hello --list-cameras`",
            )
        picamera2 = self._import()
        cameras = picamera2.global_camera_info()
        position = self._choose(cameras)
        try:
            self._picam2 = picamera2(position)
            stream = self._configure()
            samples = self._probe()
        except TimeoutError as error:
            raise SourceError(f"{self._label} gives no frames", fix="check its cable") from error
        except (RuntimeError, OSError, ValueError, KeyError, IndexError) as error:
            cause = error.__cause__ or error
            raise SourceError(
                f"{self._label} cannot be opened: {cause.__cause__ or cause}",
                fix="end other programs that use it (`fuser /dev/media*`), check its cable",
            ) from error
        self._domain = plausible_domains(samples)[0]
        width, height = stream["size"]
        return Opened(
            width,
            height,
            spec.fps,
            clock=self._domain,
            serial_number=str(cameras[position]["Id"]),
            firmware=str(cameras[position].get("Model", "")),
        )

    def run(self, start: Start, outbox: Outbox, stop: threading.Event) -> tuple[int, bool]:
        duration_ns = round(1_000_000_000 / self._spec.fps)
        output = FrameSink(
            outbox,
            HostClock(self._domain),
            FrameNumbers(duration_ns, start.next_index, start.last_tick),
            self._line_ns,
        )
        encoder = self._encoder()
        self._picam2.pre_callback = output.note_request
        try:
            self._picam2.start_encoder(encoder, _as_output(output, encoder), name="main")
            outbox.put_word(Started(start.anchor_ns or now_ns()))
            self._picam2.start()
            while not stop.wait(POLL_S):
                if output.failure:
                    raise SourceError(f"{self._label} failed: {output.failure}", fix="see the log")
        except (RuntimeError, OSError, ValueError) as error:
            raise SourceError(f"{self._label} cannot record: {error}", fix="see the log") from error
        self._picam2.stop_recording()
        self._picam2.pre_callback = None
        if output.unknown:
            outbox.put_word(Note(f"{output.unknown} frames came without metadata"))
        return output.produced, False

    def _import(self) -> Any:
        os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")  # what it then says is worth passing on
        try:
            from picamera2 import Picamera2
        except ModuleNotFoundError as error:
            missing = (error.name or "picamera2").partition(".")[0]
            package = APT_PACKAGE.get(missing)
            fix = f"sudo apt install {package}" if package else f"install the Python module {missing}"
            raise SourceError(
                f"{self._label}: the Python module {missing} is missing",
                fix=f"{fix}, and make the venv with --system-site-packages",
            ) from error
        except (ImportError, OSError, RuntimeError) as error:
            raise SourceError(
                f"{self._label}: picamera2 cannot be loaded: {error}",
                fix="sudo apt install python3-picamera2",
            ) from error
        return Picamera2

    def _choose(self, cameras: Sequence[dict[str, Any]]) -> int:
        """Position of the wanted camera in picamera2's (sorted) list."""
        wanted = self._spec.camera_id
        known = ", ".join(str(c["Id"]) for c in cameras)
        if not cameras:
            raise SourceError(
                f"{self._label}: libcamera finds no camera",
                fix="check the ribbon cable, `dtoverlay` in config.txt, and `rpicam-hello --list-cameras`",
            )
        if not wanted and len(cameras) > 1:
            raise SourceError(
                f"{self._label}: there are several cameras", fix=f"set camera_id to one of {known}"
            )
        found = [
            k for k, c in enumerate(cameras) if not wanted or wanted in (str(c["Id"]), str(c.get("Model")))
        ]
        if len(found) != 1:
            raise SourceError(
                f"{self._label}: {'no camera is' if not found else 'several cameras are'} {wanted!r}",
                fix=f"set camera_id to one of {known}",
            )
        return found[0]

    def _configure(self) -> dict[str, Any]:
        """Set size, format and a fixed frame duration; return what libcamera made of it."""
        spec = self._spec
        duration_us = round(1_000_000 / spec.fps)
        controls = {"FrameDurationLimits": (duration_us, duration_us)}
        allowed = self._picam2.camera_controls
        config = self._picam2.create_video_configuration(
            main={"size": (spec.width, spec.height), "format": PIXEL_FORMATS[0]},
            controls={k: v for k, v in controls.items() if k in allowed},
        )
        self._picam2.configure(config)
        stream: dict[str, Any] = self._picam2.camera_configuration()["main"]
        if stream["format"] not in PIXEL_FORMATS:
            raise ValueError(f"it gives {stream['format']}, not one of {', '.join(PIXEL_FORMATS)}")
        sensor = self._picam2.camera_configuration().get("sensor") or {}
        sensor_width = (sensor.get("output_size") or (0, 0))[0]
        self._line_ns = read_line_ns(self._picam2.camera_properties.get("SystemDevices", ()), sensor_width)
        return stream

    def _probe(self) -> list[tuple[int, ClockPair]]:
        """Take a few frames to see in which clock their timestamps are."""
        samples = []
        self._picam2.start()
        for _ in range(PROBE_FRAMES):
            metadata = self._picam2.capture_metadata(wait=PROBE_LIMIT_S)
            samples.append((int(metadata["SensorTimestamp"]), read_pair(tries=2)))
        self._picam2.stop()  # not after an error, when it might hang: the process ends anyway
        return samples

    def _encoder(self) -> Any:
        """The encoder, with a key frame and its parameter sets every second."""
        from picamera2 import encoders

        spec = self._spec
        hardware = spec.encoder == "hardware" or (spec.encoder == "auto" and HARDWARE_ENCODER.exists())
        if hardware and not HARDWARE_ENCODER.exists():
            raise SourceError(
                f"{self._label}: this machine has no hardware encoder", fix='set encoder to "auto" or "libav"'
            )
        settings = {"bitrate": spec.bitrate_kbps * 1000, "repeat": True, "iperiod": max(round(spec.fps), 1)}
        if hardware:
            return encoders.H264Encoder(framerate=spec.fps, **settings)
        encoder = encoders.LibavH264Encoder(framerate=round(spec.fps), **settings)
        encoder.threads = 1  # more of them hold frames back
        return encoder


class FrameSink:
    """Takes encoded frames on picamera2's event thread; whatever goes wrong here is kept, never raised."""

    def __init__(self, outbox: Outbox, clock: HostClock, numbers: FrameNumbers, line_ns: int) -> None:
        self.failure = ""
        self.unknown = 0
        self._outbox, self._clock, self._numbers = outbox, clock, numbers
        self._line_ns = line_ns
        self._sets = ParameterSets()
        self._requests: dict[int, tuple[int, int]] = {}
        self._awaits_key = False

    @property
    def produced(self) -> int:
        return self._numbers.next_index

    def note_request(self, request: Any) -> None:
        """`pre_callback`: keep a request's times until its encoded frame comes."""
        with self._guarded():
            metadata = request.get_metadata()
            tick = int(metadata["SensorTimestamp"])
            self._requests[tick // 1000] = (tick, int(metadata.get("ExposureTime", 0)) * 1000)
            while len(self._requests) > REMEMBERED_REQUESTS:
                del self._requests[next(iter(self._requests))]

    def take(self, data: bytes, timestamp_us: int) -> None:
        """An encoded frame, `timestamp_us` being its sensor timestamp in µs."""
        with self._guarded():
            data, key = self._sets.complete(bytes(data))
            if not has_picture(data):
                return  # parameter sets in a packet of their own; they go with the next key frame
            pair = read_pair(tries=2)
            self._clock.note(pair)
            tick, exposure_ns = self._times(timestamp_us)
            if self._clock.domain not in plausible_domains([(tick, pair)]):
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
            self._outbox.put_frame(LinkFrame(index, tick, exposure_ns, self._line_ns, fit, key, data, cause))

    def _times(self, timestamp_us: int) -> tuple[int, int]:
        """Raw sensor timestamp and exposure of a frame; picamera2 rounds through a float, hence ± 1 µs."""
        for candidate in (timestamp_us, timestamp_us + 1, timestamp_us - 1):
            if candidate in self._requests:
                return self._requests.pop(candidate)
        self.unknown += 1
        return timestamp_us * 1000, 0

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """The boundary to picamera2's thread, which an exception would end without a word."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            self.failure = self.failure or f"{type(error).__name__}: {error}"


def _as_output(sink: FrameSink, encoder: Any) -> Any:
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
