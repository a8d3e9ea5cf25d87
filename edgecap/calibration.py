"""Calibration records: what `edgecap calibrate` writes, what travels in manifests, and how it is applied.

A calibration map is a JSON object of records by key (`force:STREAM`, `accel:STREAM`, …). Keys that are not
known here are carried along untouched. Uncertainties (`u_…`) are half-widths at 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.errors import ConfigError

F64 = NDArray[np.float64]
Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]
Four = tuple[float, float, float, float]

STANDARD_GRAVITY_M_S2 = 9.80665


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What every record tells of itself."""

    kind: ClassVar[str] = ""

    stream: str
    version: int = 1
    """Counts the records that there were under this key; set when it is put into a map."""
    date: str
    edgecap: str
    by: str = ""
    """Who measured."""
    session: str = ""
    """The stored session it was measured from; empty for a live measurement or a file."""
    source: str = ""
    """File or port, where it was not a session; the device's serial number, where known."""
    temperature_c: float | None = None

    @property
    def key(self) -> str:
        """Its name in a calibration map."""
        return f"{self.kind}:{self.stream}"


class ForceChannel(msgspec.Struct, frozen=True, kw_only=True):
    """Newtons of one channel of raw counts `x`.

    `linear`: F = gain · (x − tare). `fsr`, for a force-sensing resistor in a voltage divider, whose
    conductance goes with y = x / (full_counts − x): F = gain · (y − y(tare))^exponent.
    """

    name: str
    model: Literal["linear", "fsr"]
    tare: float
    """Counts without load."""
    gain: float
    """N per count, or N per unit of y."""
    exponent: float = 1.0
    full_counts: float = 0.0
    u_tare: float
    """Counts."""
    u_gain: float
    u_exponent: float = 0.0
    u_n: float
    """Of the force at the greatest load, N."""
    residual_n: float
    """Root mean square of what the model leaves, N."""
    nonlinearity: float = 0.0
    """Greatest departure of a parabola through the points from the line, as a share of the range."""
    max_n: float
    """Greatest load measured; beyond it the model is extrapolated."""
    n: int
    """Plateaus used."""
    noise_counts: float
    """Standard deviation of a sample without load."""

    def newtons(self, counts: NDArray[np.generic]) -> F64:
        """Newtons of raw counts, in their shape; NaN where an `fsr` is at the end of its converter."""
        x = np.asarray(counts, np.float64)
        if self.model == "linear":
            return self.gain * (x - self.tare)
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.where(x < self.full_counts, x / (self.full_counts - x), np.nan)
        rest = self.tare / (self.full_counts - self.tare)
        return np.where(np.isnan(y), np.nan, self.gain * np.maximum(y - rest, 0.0) ** self.exponent)


class ForceRecord(Record, frozen=True, kw_only=True):
    """Newtons of a force stream's channels."""

    kind: ClassVar[str] = "force"

    channels: tuple[ForceChannel, ...]
    reference: str = ""
    """What the loads were: scale or weights, in words."""
    reference_percent: float = 0.0
    """Its own uncertainty, part of `u_gain` and `u_n`."""


class AccelRecord(Record, frozen=True, kw_only=True):
    """Acceleration: a = matrix · (measured − bias), measured in m/s² by the descriptor's scale."""

    kind: ClassVar[str] = "accel"

    method: Literal["six", "poses"]
    """`six`: six known directions, twelve parameters. `poses`: any directions, of known length only."""
    matrix: Matrix
    bias_m_s2: Vector
    u_matrix: float
    u_bias_m_s2: float
    residual_m_s2: float
    """Root mean square of |a| − g over the poses."""
    gravity_m_s2: float
    n: int
    """Poses."""

    def apply(self, measured: F64) -> F64:
        """(n, 3) m/s² by the descriptor → (n, 3) m/s²."""
        true: F64 = (measured - np.array(self.bias_m_s2)) @ np.array(self.matrix).T
        return true


class GyroRecord(Record, frozen=True, kw_only=True):
    """Rotation: w = measured − bias, measured in rad/s by the descriptor's scale."""

    kind: ClassVar[str] = "gyro"

    bias_rad_s: Vector
    u_bias_rad_s: float
    noise_rad_s: float
    """Standard deviation of a sample at rest, of the noisiest axis."""
    seconds: float
    """At rest."""

    def apply(self, measured: F64) -> F64:
        """(n, 3) rad/s by the descriptor → (n, 3) rad/s."""
        true: F64 = measured - np.array(self.bias_rad_s)
        return true


class NoiseAxis(msgspec.Struct, frozen=True, kw_only=True):
    """Allan deviation of one channel, in its SI unit."""

    name: str
    unit: str
    white: float
    """Unit/√Hz: angle (or velocity) random walk, from the slope of −½, at 1 s."""
    u_white: float
    instability: float
    """Bias instability: the minimum of the curve / 0.664; an upper bound where it was not reached."""
    instability_at_s: float
    reached: bool
    """Whether the curve rises again after its minimum."""
    tau_s: tuple[float, ...]
    deviation: tuple[float, ...]


class NoiseRecord(Record, frozen=True, kw_only=True):
    """Noise of an inertial stream at rest."""

    kind: ClassVar[str] = "noise"

    rate_hz: float
    seconds: float
    axes: tuple[NoiseAxis, ...]


class CameraRecord(Record, frozen=True, kw_only=True):
    """Intrinsics of a camera, in pixels of its full picture, in the terms of Kalibr."""

    kind: ClassVar[str] = "camera"

    camera_model: Literal["pinhole"] = "pinhole"
    intrinsics: Four
    """fu, fv, pu, pv."""
    distortion_model: Literal["radtan", "equidistant"]
    distortion_coeffs: Four
    """k1, k2, p1, p2, or k1 … k4."""
    resolution: tuple[int, int]
    u_intrinsics: Four | None = None
    u_distortion: Four | None = None
    residual_px: float = 0.0
    """Root mean square over all corners."""
    view_residuals_px: tuple[float, ...] = ()
    coverage: float = 0.0
    """Share of the picture's cells in which corners were seen."""
    board: str = ""
    t_cam_imu: tuple[Four, Four, Four, Four] | None = None
    """IMU to camera coordinates, taken over from Kalibr."""
    timeshift_cam_imu_s: float | None = None
    """t_imu = t_cam + shift, taken over from Kalibr."""


KINDS: dict[str, type[Record]] = {
    r.kind: r for r in (ForceRecord, AccelRecord, GyroRecord, NoiseRecord, CameraRecord)
}
R = TypeVar("R", bound=Record)


def find(calibration: Mapping[str, Any], kind: type[R], stream: str) -> R | None:
    """The record of one kind for a stream; None where the map has none.

    Raises:
        ConfigError: the map has one that is not of that form; names the key.
    """
    key = f"{kind.kind}:{stream}"
    if key not in calibration:
        return None
    try:
        record = msgspec.convert(calibration[key], kind)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"calibration record {key!r} cannot be used: {error}", fix="measure it again, or take it out"
        ) from error
    return record


def check(calibration: Mapping[str, Any]) -> None:
    """Raise `ConfigError` naming the first record of a known kind that cannot be used."""
    for key in calibration:
        kind, _, stream = key.partition(":")
        if kind in KINDS:
            find(calibration, KINDS[kind], stream)
