"""Real recordings that the demo and the tests replay; README.md tells where each comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgecap.model import ChannelInfo, SampleDtype, StreamKind

FOLDER = Path(__file__).parent

VIDEO = FOLDER / "gpmf_karma.mp4"
"""12 s of H.264, 854 × 480 at 29.97 Hz, with the camera's accelerometer and gyroscope in its GPMF track."""

IMU_NILSPOD = FOLDER / "imu_nilspod.npz"
"""An inertial sensor laid on its six sides, as `edgecap calibrate imu --npz` reads it."""
SYNC_COMMA2K19 = FOLDER / "sync_comma2k19.npz"
"""Camera orientations and a gyroscope of one car, for `edgecap calibrate sync --method gyro`."""
SYNC_TWISTNSYNC = FOLDER / "sync_twistnsync.npz"
"""Two gyroscopes of one body on unrelated clocks, for `edgecap calibrate sync --method gyro --any-lag`."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One array of real sensor samples, raw as the sensor gave them.

    Attributes:
        name: Key in `RECORDINGS`, and the stream's name when replayed.
        path: A C-contiguous `.npy` file of shape (T, C).
        rate_hz: Samples per second.
        channels: Names, units and scales (`value_in_unit = raw * scale`, SI units where known), in order.
        licence: Licence of the data, with its notice in `licences/`.
        source: Repository and file.
    """

    name: str
    path: Path
    kind: StreamKind
    dtype: SampleDtype
    rate_hz: float
    channels: tuple[ChannelInfo, ...]
    licence: str
    licence_file: Path
    source: str


_INT16_MAX = 32767

GOPRO_ACCL_SCAL = 418
"""SCAL of the GPMF track: counts per m/s²."""
GOPRO_GYRO_SCAL = 3755
"""SCAL of the GPMF track: counts per rad/s."""

_MLX90393_T_PER_COUNT = {"x": 0.3e-6, "y": 0.3e-6, "z": 0.484e-6}


def _gopro(quantity: str, unit: str, counts_per_unit: int) -> tuple[ChannelInfo, ...]:
    """Channels in the track's own order: z (up/down), x (right/left), y (forward/back)."""
    scale = 1.0 / counts_per_unit
    return tuple(ChannelInfo(f"{quantity}_{axis}", unit, scale, _INT16_MAX * scale) for axis in "zxy")


def _anyskin() -> tuple[ChannelInfo, ...]:
    """Two fingertips with five magnetometers of three axes each."""
    return tuple(
        ChannelInfo(f"tip{tip}_mag{magnet}_{axis}", "T", scale, _INT16_MAX * scale)
        for tip in range(2)
        for magnet in range(5)
        for axis, scale in _MLX90393_T_PER_COUNT.items()
    )


def _smartwheel_counts() -> tuple[ChannelInfo, ...]:
    """Strain-gauge readings of a 12-bit converter: six as read, six filtered in the device."""
    return tuple(
        ChannelInfo(f"{form}_{bridge}", "count", 1.0, 4095.0)
        for form in ("raw", "filtered")
        for bridge in range(6)
    )


def _smartwheel_forces() -> tuple[ChannelInfo, ...]:
    forces = tuple(ChannelInfo(f"force_{axis}", "N", 1.0) for axis in "xyz")
    return forces + tuple(ChannelInfo(f"moment_{axis}", "N.m", 1.0) for axis in "xyz")


def _recording(
    name: str,
    file: str,
    *,
    kind: StreamKind,
    dtype: SampleDtype,
    rate_hz: float,
    channels: tuple[ChannelInfo, ...],
    licence: str,
    notice: str,
    source: str,
) -> Recording:
    notice_path = FOLDER / "licences" / notice
    return Recording(name, FOLDER / file, kind, dtype, rate_hz, channels, licence, notice_path, source)


_KARMA = "gopro/gpmf-parser@9a7150632892 samples/karma.mp4"
_WHEEL = "felixchenier/kineticstoolkit@6aa3a6e0c098 data/timeseries/smartwheel.csv"

RECORDINGS: dict[str, Recording] = {
    recording.name: recording
    for recording in (
        _recording(
            "gopro-accl",
            "imu_gopro_karma_accl.npy",
            kind="imu",
            dtype="int16",
            rate_hz=198.385,
            channels=_gopro("accel", "m/s^2", GOPRO_ACCL_SCAL),
            licence="Apache-2.0 OR MIT",
            notice="gpmf-parser.txt",
            source=_KARMA,
        ),
        _recording(
            "gopro-gyro",
            "imu_gopro_karma_gyro.npy",
            kind="imu",
            dtype="int16",
            rate_hz=396.853,
            channels=_gopro("gyro", "rad/s", GOPRO_GYRO_SCAL),
            licence="Apache-2.0 OR MIT",
            notice="gpmf-parser.txt",
            source=_KARMA,
        ),
        _recording(
            "anyskin",
            "tactile_anyskin2.npy",
            kind="tactile",
            dtype="int16",
            rate_hz=100.0,
            channels=_anyskin(),
            licence="MIT",
            notice="anyskin-leaphand.txt",
            source="sissihrx/anyskin-leaphand@89bbd0fdcf95 2fingermodel/2fmodeldata/randomtestdata.txt",
        ),
        _recording(
            "smartwheel",
            "force_smartwheel.npy",
            kind="force",
            dtype="int16",
            rate_hz=240.0,
            channels=_smartwheel_counts(),
            licence="Apache-2.0",
            notice="kineticstoolkit.txt",
            source=_WHEEL,
        ),
        _recording(
            "smartwheel-forces",
            "force_smartwheel_f32.npy",
            kind="force",
            dtype="float32",
            rate_hz=240.0,
            channels=_smartwheel_forces(),
            licence="Apache-2.0",
            notice="kineticstoolkit.txt",
            source=_WHEEL,
        ),
    )
}
"""Every recording by name."""
