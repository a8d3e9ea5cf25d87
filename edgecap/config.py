"""TOML → typed configuration; an unknown key is refused with the nearest valid one."""

from __future__ import annotations

import os
import re
import string
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from edgecap.config_faults import in_words, refuse_twins, refuse_unknown
from edgecap.errors import ConfigError
from edgecap.topics import NAME_PATTERN

DEFAULT_PATHS = (Path("edgecap.toml"), Path("/etc/edgecap/edgecap.toml"))

MAX_CALIBRATION_BYTES = 64 * 1024
MAX_TASK_CHARS = 1000
MAX_REFERENCE_CHARS = 200
MAX_USES = 32
"""The manifest must fit one chunk."""

Name = Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$", description="1 to 64 of a-z, 0-9 and '-'")]
Reference = Annotated[str, Meta(min_length=1, max_length=MAX_REFERENCE_CHARS)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Path1 = Annotated[str, Meta(min_length=1)]
FrameRate = Annotated[float, Meta(gt=0, le=1000)]
Pixels = Annotated[int, Meta(ge=16, le=16_384)]
BitRate = Annotated[int, Meta(ge=1, le=1_000_000)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every table of the file."""


class BrokerConfig(Section, frozen=True):
    """`[broker]`: where to deliver. The environment variable EDGECAP_BROKER overrides `url`.

    A file's path may begin with one of `PATH_VARIABLES`: `${CREDENTIALS_DIRECTORY}/broker-key`.
    """

    url: str = ""
    """`mqtt[s]://[user@]host:port`; empty records without delivering."""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


class SpoolConfig(Section, frozen=True):
    """`[spool]`: where recordings wait until ingest has proved that it stored them."""

    dir: Path1 = "/var/lib/edgecap/spool"
    reserve_mb: Annotated[int, Meta(ge=1, le=1 << 42)] = 512
    """Free space that recording never uses: a session is closed cleanly before it is touched."""
    segment_mb: Annotated[int, Meta(ge=1, le=1024)] = 16


class SessionConfig(Section, frozen=True):
    """`[session]`: what is recorded, by whom, under which consent."""

    task: Annotated[str, Meta(max_length=MAX_TASK_CHARS)] = ""
    operator: Annotated[str, Meta(max_length=MAX_REFERENCE_CHARS)] = ""
    consent: Annotated[str, Meta(max_length=MAX_REFERENCE_CHARS)] = ""
    consent_scope: Annotated[tuple[Reference, ...], Meta(max_length=MAX_USES)] = ()
    """The uses that the consent allows, in its own words: `["training", "publication"]`."""


class CalibrationConfig(Section, frozen=True):
    """`[calibration]`: what travels in every manifest; written by `edgecap calibrate`."""

    file: str = ""
    """A JSON map; empty for none."""


class CaptureConfig(Section, frozen=True):
    """`[capture]`: how samples become chunks."""

    chunk_seconds: Annotated[float, Meta(ge=0.1, le=10)] = 1.0
    codec_level: Literal["fast", "max", "stream"] = "stream"


class UplinkConfig(Section, frozen=True):
    """`[uplink]`: how chunks are delivered."""

    window: Annotated[int, Meta(ge=1, le=64)] = 8
    resend_seconds: Seconds = 60.0
    max_kbit_s: Annotated[int, Meta(ge=0)] = 0
    """Bandwidth cap; 0 for none."""
    paused: bool = False


class SerialConfig(Section, frozen=True):
    """`[[serial]]`: a microcontroller; its streams are named by its own descriptors."""

    name: Name
    port: Path1
    baud: Annotated[int, Meta(ge=1, le=100_000_000)] = 1_000_000
    rates: dict[str, Annotated[float, Meta(ge=0.1, le=10_000)]] = {}
    """Hz by stream, where the board's own is not wanted: `rates = { imu = 500 }`."""


class IioConfig(Section, frozen=True):
    """`[[iio]]`: a sensor on this computer's own bus with a Linux IIO driver; one stream, of this name."""

    name: Name
    device: Path1
    """The device's name or label (`cat /sys/bus/iio/devices/*/name`), or its directory, `iio:device0`."""
    rate_hz: Annotated[float, Meta(ge=0, le=100_000)] = 0.0
    """One that the device offers; 0 keeps its present rate."""
    channels: tuple[str, ...] = ()
    """Such as `accel_x`, `gyro_z`, `temperature`; empty for all."""
    attributes: dict[str, str] = {}
    """Files of the device's directory and what to write into them first: `in_accel_scale = "0.0048"`."""
    trigger: str = ""
    """Name of a trigger, for drivers without a hardware FIFO."""
    clock: Literal["auto", "monotonic_raw", "monotonic", "boottime"] = "auto"
    """Clock of the time stamps; `auto` takes the first that the kernel accepts, in this order."""
    batch_ms: Annotated[float, Meta(ge=1, le=1000)] = 20.0
    """The kernel collects samples for so long (watermark of its FIFO)."""
    latency_us: Annotated[float, Meta(ge=0, le=1_000_000)] = 200.0
    """What the driver's stamps may be late by; becomes part of the stated bound."""
    lag_us: Annotated[float, Meta(ge=0, le=10_000_000)] = 0.0
    """Group delay of the sensor's low-pass filter, by its data sheet; recorded, never applied."""


class CameraSection(Section, frozen=True):
    """What every `[[camera]]` has."""

    name: Name
    preview_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    """How often a small picture becomes part of the session; 0 for never."""


class FileCameraConfig(CameraSection, frozen=True, kw_only=True, tag_field="backend", tag="file"):
    """`[[camera]]` with `backend = "file"`: a video file played in real time."""

    path: Path1
    fps: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    """0 keeps the clip's own frame times."""
    loop: bool = True
    bitrate_kbps: BitRate = 2000


class SyntheticCameraConfig(CameraSection, frozen=True, tag_field="backend", tag="synthetic"):
    """`[[camera]]` with `backend = "synthetic"`: a seeded moving scene."""

    width: Pixels = 640
    height: Pixels = 480
    fps: FrameRate = 30.0
    bitrate_kbps: BitRate = 2000
    seed: int = 0


class PiCameraConfig(CameraSection, frozen=True, tag_field="backend", tag="picamera2"):
    """`[[camera]]` with `backend = "picamera2"`: a Raspberry Pi camera (docs/CAMERA.md)."""

    camera_id: str = ""
    """libcamera's id; empty takes the only camera."""
    width: Pixels = 1280
    height: Pixels = 720
    fps: FrameRate = 30.0
    bitrate_kbps: BitRate = 5000
    encoder: Literal["auto", "hardware", "libav"] = "auto"
    codec: Literal["h264", "mjpeg"] = "h264"
    exposure_us: Annotated[int, Meta(ge=0)] = 0
    """A fixed exposure time; 0 for automatic."""
    gain: Annotated[float, Meta(ge=0)] = 0.0
    """A fixed analogue gain; 0 for automatic."""
    max_exposure_us: Annotated[int, Meta(ge=0)] = 0
    """The longest that automatic exposure may choose; 0 for the frame duration."""


class UvcCameraConfig(CameraSection, frozen=True, tag_field="backend", tag="uvc"):
    """`[[camera]]` with `backend = "uvc"`: a USB camera, or any other on V4L2 (docs/CAMERA.md)."""

    device: Path1 = "/dev/video0"
    """Better the name under /dev/v4l/by-id, which stays when another camera is plugged in."""
    width: Pixels = 1280
    height: Pixels = 720
    fps: FrameRate = 30.0
    input: Literal["auto", "mjpeg", "yuyv"] = "auto"
    """What the camera is asked for; `auto` prefers MJPEG, which fits USB 2 at any size."""
    codec: Literal["h264", "mjpeg"] = "h264"
    """`mjpeg` keeps the camera's own JPEG pictures; `h264` decodes and encodes them."""
    bitrate_kbps: BitRate = 5000
    """Of what is encoded here; a camera's own JPEG has the size that it has."""


CameraConfig = FileCameraConfig | SyntheticCameraConfig | PiCameraConfig | UvcCameraConfig


class ButtonConfig(Section, frozen=True):
    """`[button]`: button, LED and passive piezo on GPIO; -1 for none. A glove's own button always works."""

    gpio: Annotated[int, Meta(ge=-1, le=27)] = -1
    led_gpio: Annotated[int, Meta(ge=-1, le=27)] = -1
    led_name: Annotated[str, Meta(pattern="^[A-Za-z0-9_:-]*$", max_length=64)] = ""
    """An LED of the kernel's (/sys/class/leds), in place of `led_gpio`: it lapses when the program hangs."""
    buzzer_gpio: Annotated[int, Meta(ge=-1, le=27)] = -1


class Config(Section, frozen=True):
    """The whole file."""

    site: Name
    rig: Name
    broker: BrokerConfig = BrokerConfig()
    spool: SpoolConfig = SpoolConfig()
    session: SessionConfig = SessionConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    capture: CaptureConfig = CaptureConfig()
    uplink: UplinkConfig = UplinkConfig()
    button: ButtonConfig = ButtonConfig()
    serial: tuple[SerialConfig, ...] = ()
    iio: tuple[IioConfig, ...] = ()
    camera: tuple[CameraConfig, ...] = ()


class IngestConfig(Section, frozen=True):
    """`[ingest]` of a site: where recordings are stored."""

    store: str = "/var/lib/edgecap-ingest"
    """A directory, or s3://bucket/prefix."""
    worker: str = ""
    """Name of this worker; empty takes host and process id."""
    share: bool = False
    """Divide the chunks among all workers that say so."""
    gather_seconds: Annotated[float, Meta(ge=0, le=30)] = 0.0
    """Store what has come at the latest after so long; 0 for what suits the store."""


class SiteConfig(Section, frozen=True):
    """The file of `edgecap ingest` and `edgecap fleet` as services."""

    broker: BrokerConfig = BrokerConfig()
    ingest: IngestConfig = IngestConfig()


PATH_VARIABLES = ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY", "RUNTIME_DIRECTORY")
"""What systemd sets for a unit, and a path in `[broker]` may begin with."""

FileConfig = TypeVar("FileConfig", bound=Section)


def load_config(path: Path | None) -> Config:
    """Read and validate a configuration.

    Args:
        path: The file; None looks for `edgecap.toml` here and then in /etc/edgecap.

    Raises:
        ConfigError: names the file, the key and the nearest valid key or the expected type.
    """
    if path is None:
        path = next((p for p in DEFAULT_PATHS if p.exists()), None)
        if path is None:
            raise ConfigError(
                "no configuration found",
                fix=f"pass --config FILE, or create one of {', '.join(map(str, DEFAULT_PATHS))}",
            )
    return parse_config(_read(path), str(path))


def load_site_config(path: Path) -> SiteConfig:
    """Read and validate the configuration of a site's services; raises `ConfigError` as `load_config`."""
    return _parse(_read(path), SiteConfig, str(path))


def broker_file(broker: BrokerConfig, key: str) -> Path | None:
    """The file that `key` of `[broker]` names, with systemd's directories filled in; None where it is empty.

    Raises:
        ConfigError: it needs a directory that only the service has.
    """
    path: str = getattr(broker, key)
    try:
        return Path(string.Template(path).substitute(os.environ)) if path else None
    except KeyError as error:
        raise ConfigError(
            f"`broker.{key}` = {path!r}: {error.args[0]} is set by systemd, and only inside the service",
            fix="run this through the service, or name the file itself on the command line",
        ) from error


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"cannot read {path}: {reason}", fix="check the path and its permissions"
        ) from error


def parse_config(text: str, where: str = "config") -> Config:
    """Validate TOML text; raises `ConfigError` as `load_config`."""
    config = _parse(text, Config, where)
    refuse_twins(config, where)
    return config


def _parse(text: str, table: type[FileConfig], where: str) -> FileConfig:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not valid TOML: {error}") from error
    refuse_unknown(tree, table, where)
    _refuse_variables(tree.get("broker"), where)
    try:
        return msgspec.convert(tree, table)
    except msgspec.ValidationError as error:
        raise in_words(error, tree, table, where) from error


def _refuse_variables(broker: Any, where: str) -> None:
    """A path may only begin with what systemd sets; a slip is told when the file is checked, not at night."""
    for key, value in broker.items() if isinstance(broker, dict) else ():
        if not key.endswith("_file") or not isinstance(value, str) or "$" not in value:
            continue
        if not re.fullmatch(rf"\$\{{({'|'.join(PATH_VARIABLES)})\}}/[^$]+", value):
            raise ConfigError(
                f"{where}: key `broker.{key}`: {value!r} has a variable that nobody sets",
                fix="begin the path with one of " + ", ".join(f"${{{v}}}" for v in PATH_VARIABLES),
            )


def load_calibration(path: str) -> dict[str, Any]:
    """The calibration records for the manifest; raises `ConfigError` when the file is not a JSON map."""
    if not path:
        return {}
    fix = "write it with `edgecap calibrate`, or leave `calibration.file` empty"
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the calibration {path}: {error.strerror}", fix=fix) from error
    if len(data) > MAX_CALIBRATION_BYTES:
        raise ConfigError(
            f"the calibration {path} has {len(data)} bytes, the limit is {MAX_CALIBRATION_BYTES}", fix=fix
        )
    try:
        records = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the calibration {path} is not a JSON map: {error}", fix=fix) from error
    from edgecap.calibration import check  # needs numpy, which most uses of a configuration do not

    check(records)
    return records


def config_schema() -> dict[str, Any]:
    """JSON Schema of the file."""
    return msgspec.json.schema(Config)
