"""Raspberry Pi camera through picamera2, in a process of its own.

picamera2 has no drop counter, no removal signal, and an exception in an output or a callback ends its event
thread for good while everything still looks alive. So: nothing that runs on that thread may raise, losses
are read off the sensor timestamps, and the daemon watches for frames and replaces the whole process.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from edgecap.clock import now_ns, read_pair
from edgecap.errors import SourceError
from edgecap.model import H264, MJPEG, ClockPair
from edgecap.source.camera_clock import Domain, FrameNumbers, HostClock, find_domain
from edgecap.source.camera_exposure import ExposurePolicy, limit_exposure
from edgecap.source.camera_feed import CameraFeed, open_camera
from edgecap.source.camera_lines import read_line_ns
from edgecap.source.camera_link import Note, Opened, Start, Started
from edgecap.source.camera_obstacles import absence, end_holders, pi_nodes
from edgecap.source.camera_outbox import Outbox
from edgecap.source.camera_pi_sink import PLANES, FrameSink, as_output, software_jpeg_encoder
from edgecap.source.camera_picture import PictureWatch, reduced_size
from edgecap.source.camera_process import CHILD
from edgecap.topics import check_name

EncoderName = Literal["auto", "hardware", "libav"]
CodecName = Literal["h264", "mjpeg"]
CODECS: dict[str, str] = {"h264": H264, "mjpeg": MJPEG}

PROBE_FRAMES = 5
PROBE_LIMIT_S = 3.0
POLL_S = 0.05
HARDWARE_ENCODER = Path("/dev/video11")
"""The V4L2 codec of a Pi up to 4; a Pi 5 has none."""
APT_PACKAGE = {
    "picamera2": "python3-picamera2",
    "libcamera": "python3-libcamera",
    "pykms": "python3-kms++",
    "kms": "python3-kms++",
}
PIXEL_FORMATS = tuple(PLANES)
"""What every encoder takes."""


AUTOMATIC = ExposurePolicy()


class PiCamera:
    """A camera that libcamera knows, recorded as H.264 or MJPEG.

    Args:
        name: Stream and device name.
        camera_id: libcamera's id (or model) of the camera; empty for the only one.
        width: Pixels; libcamera may choose the nearest size it can.
        height: Pixels.
        fps: Fixed frame rate.
        bitrate_kbps: Thousands of bits per second.
        encoder: `hardware` (Pi up to 4), `libav` (any), or `auto`.
        codec: `h264`, or `mjpeg`, which needs about five times the bit rate.
        exposure: What is fixed about exposure and gain.
        preview_s: Seconds between small pictures; 0 for none.
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
        codec: CodecName = "h264",
        exposure: ExposurePolicy = AUTOMATIC,
        preview_s: float = 0.0,
        child: Sequence[str] = CHILD,
    ) -> None:
        self.name = check_name("camera", name)
        self.spec = PiSpec(
            *(name, camera_id, width, height, fps, bitrate_kbps, encoder), codec, exposure, preview_s
        )
        self._child = child

    def open(self) -> AbstractAsyncContextManager[CameraFeed]:
        return open_camera(self.name, self.spec, self._child, preview_s=self.spec.preview_s)


class PiSpec(msgspec.Struct, frozen=True, tag="pi"):
    """What the camera's process is told."""

    name: str
    camera_id: str
    width: int
    height: int
    fps: float
    bitrate_kbps: int
    encoder: EncoderName
    codec: CodecName = "h264"
    exposure: ExposurePolicy = AUTOMATIC
    preview_s: float = 0.0

    def worker(self) -> PiWorker:
        return PiWorker(self)


class PiWorker:
    """picamera2, inside the camera's process."""

    def __init__(self, spec: PiSpec) -> None:
        self._spec = spec
        self._label = f"camera {spec.name}"
        self._picamera2: Any = None
        self._picam2: Any = None
        self._domain: Domain = "monotonic"
        self._line_ns = 0
        self._looked_at = "main"

    def prepare(self) -> None:
        self._picamera2 = self._import()
        import av  # noqa: F401 - picamera2 would load it only when frames are already due

    def open(self, clock: str = "") -> Opened:
        spec = self._spec
        if not 1 <= spec.fps <= 240 or spec.width < 16 or spec.height < 16:
            raise SourceError(
                f"{self._label}: {spec.width}×{spec.height} at {spec.fps:g} fps is not possible",
                fix="use a size and rate that the sensor has; see `rpicam-hello --list-cameras`",
            )
        spec.exposure.check(self._label, spec.fps)
        picamera2 = self._picamera2
        cameras = picamera2.global_camera_info()
        position = self._choose(cameras)
        tuning = self._limited_tuning(picamera2, str(cameras[position].get("Model", "")))
        try:
            self._picam2 = picamera2(position, tuning=tuning)
            stream = self._configure()
            self._domain = cast("Domain", clock) if clock else self._probe()
        except TimeoutError as error:
            raise SourceError(f"{self._label} gives no frames", fix="check its cable") from error
        except (RuntimeError, OSError, ValueError, KeyError, IndexError) as error:
            raise self._refusal(error) from error
        finally:
            if tuning is not None:
                Path(tuning).unlink(missing_ok=True)
        width, height = stream["size"]
        return Opened(
            width,
            height,
            spec.fps,
            clock=self._domain,
            serial_number=str(cameras[position]["Id"]),
            firmware=str(cameras[position].get("Model", "")),
            codec=CODECS[spec.codec],
        )

    def run(self, start: Start, outbox: Outbox, stop: threading.Event) -> tuple[int, bool]:
        duration_ns = round(1_000_000_000 / self._spec.fps)
        watch = PictureWatch(outbox, self._spec.preview_s)
        output = FrameSink(
            outbox,
            HostClock(self._domain),
            FrameNumbers(duration_ns, start.next_index, start.last_tick),
            self._line_ns,
            CODECS[self._spec.codec],
            watch,
            self._looked_at,
        )
        encoder = self._encoder(output)
        self._picam2.pre_callback = output.note_request
        try:
            self._picam2.start_encoder(encoder, as_output(output, encoder), name="main")
            outbox.put_word(Started(start.anchor_ns or now_ns()))
            self._picam2.start()
            while not stop.wait(POLL_S):
                if output.failure:
                    raise SourceError(f"{self._label} failed: {output.failure}", fix="see the log")
        except (RuntimeError, OSError, ValueError) as error:
            raise SourceError(f"{self._label} cannot record: {error}", fix="see the log") from error
        self._picam2.stop_recording()
        self._picam2.pre_callback = None
        watch.close()
        if output.unknown:
            outbox.put_word(Note(f"{output.unknown} frames came without metadata"))
        return output.produced, False

    def _import(self) -> Any:
        os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")  # what it then says is worth passing on
        try:
            from picamera2 import Picamera2, encoders  # noqa: F401 - the encoders take the longer
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
        usb = [str(c["Id"]) for c in cameras if "/usb" in str(c["Id"])]
        known = ", ".join(str(c["Id"]) for c in cameras if str(c["Id"]) not in usb)
        if usb and (wanted in usb or not known):
            raise SourceError(
                f"{self._label}: {wanted or usb[0]} is a USB camera",
                fix='set backend to "uvc" and its device',
            )
        if not cameras:
            raise absence(self._label, pi_nodes())
        if not wanted and len(cameras) - len(usb) > 1:
            raise SourceError(
                f"{self._label}: there are several cameras", fix=f"set camera_id to one of {known}"
            )
        found = [
            k
            for k, c in enumerate(cameras)
            if str(c["Id"]) not in usb and (not wanted or wanted in (str(c["Id"]), str(c.get("Model"))))
        ]
        if len(found) != 1:
            raise SourceError(
                f"{self._label}: {'no camera is' if not found else 'several cameras are'} {wanted!r}",
                fix=f"set camera_id to one of {known}",
            )
        return found[0]

    def _limited_tuning(self, picamera2: Any, model: str) -> str | None:
        """A tuning file that limits automatic exposure; None to use the camera's own."""
        longest_us = self._spec.exposure.max_exposure_us
        if not longest_us:
            return None
        try:
            limited = limit_exposure(picamera2.load_tuning_file(f"{model}.json"), longest_us)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f"{self._label}: max_exposure_us needs the tuning file of {model!r}, which is not there",
                fix="set max_exposure_us to 0; exposure_us fixes the exposure instead",
            ) from error
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            json.dump(limited, file)
        # libcamera reads it when its manager starts, and listing the cameras has started one
        os.environ["LIBCAMERA_RPI_TUNING_FILE"] = file.name
        picamera2._cm.reset()
        return file.name

    def _refusal(self, error: Exception) -> SourceError:
        """An error of picamera2 as one line with a fix."""
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        words = str(cause)
        if getattr(cause, "errno", 0) == errno.EBUSY or "busy" in words.lower():
            return SourceError(f"{self._label} is in use by another process", fix=end_holders(pi_nodes()))
        if getattr(cause, "errno", 0) in (errno.EACCES, errno.EPERM) or "ermission denied" in words:
            return SourceError(
                f"{self._label} may not be opened by this user", fix="add it to the group video, log in anew"
            )
        return SourceError(
            f"{self._label} cannot be opened: {words}", fix="check its cable; see the log of libcamera"
        )

    def _configure(self) -> dict[str, Any]:
        """Set sizes, format, a fixed frame duration and exposure; return what libcamera made of it."""
        spec = self._spec
        duration_us = round(1_000_000 / spec.fps)
        allowed = self._picam2.camera_controls
        controls = spec.exposure.controls(self._label, allowed)
        if "FrameDurationLimits" in allowed:
            controls["FrameDurationLimits"] = (duration_us, duration_us)
        main = {"size": (spec.width, spec.height), "format": PIXEL_FORMATS[0]}
        small = {"size": reduced_size(spec.width, spec.height), "format": PIXEL_FORMATS[0]}
        make = self._picam2.create_video_configuration
        self._picam2.configure(make(main=main, lores=small, controls=controls))
        configured = self._picam2.camera_configuration()
        stream: dict[str, Any] = configured["main"]
        if stream["format"] not in PIXEL_FORMATS:
            raise ValueError(f"it gives {stream['format']}, not one of {', '.join(PIXEL_FORMATS)}")
        if (configured.get("lores") or {}).get("format") in PIXEL_FORMATS:
            self._looked_at = "lores"
        sensor_width = ((configured.get("sensor") or {}).get("output_size") or (0, 0))[0]
        self._line_ns = read_line_ns(self._picam2.camera_properties.get("SystemDevices", ()), sensor_width)
        return stream

    def _probe(self) -> Domain:
        """Take a few frames to see in which clock their timestamps are."""
        self._picam2.start()
        domain = find_domain(self._stamps(), PROBE_FRAMES)
        self._picam2.stop()  # not after an error, when it might hang: the process ends anyway
        return domain

    def _stamps(self) -> Iterator[tuple[int, ClockPair]]:
        while True:
            metadata = self._picam2.capture_metadata(wait=PROBE_LIMIT_S)
            yield int(metadata["SensorTimestamp"]), read_pair(tries=2)

    def _encoder(self, sink: FrameSink) -> Any:
        """The encoder, with a key frame and its parameter sets every second."""
        from picamera2 import encoders

        spec = self._spec
        hardware = spec.encoder == "hardware" or (spec.encoder == "auto" and HARDWARE_ENCODER.exists())
        if hardware and not HARDWARE_ENCODER.exists():
            raise SourceError(
                f"{self._label}: this machine has no hardware encoder", fix='set encoder to "auto" or "libav"'
            )
        if spec.codec == "mjpeg":
            if hardware:
                return encoders.MJPEGEncoder(bitrate=spec.bitrate_kbps * 1000)
            rate_hz = Fraction(spec.fps).limit_denominator(100_000)
            return software_jpeg_encoder(sink, rate_hz, spec.bitrate_kbps)
        settings = {"bitrate": spec.bitrate_kbps * 1000, "repeat": True, "iperiod": max(round(spec.fps), 1)}
        if hardware:
            return encoders.H264Encoder(framerate=spec.fps, **settings)
        encoder = encoders.LibavH264Encoder(framerate=round(spec.fps), **settings)
        encoder.threads = 1  # more of them hold frames back
        return encoder
