"""Records of an inertial stream: bias at rest, gravity, noise."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgecap import __version__
from edgecap.calibration import (
    STANDARD_GRAVITY_M_S2,
    AccelRecord,
    GyroRecord,
    Matrix,
    NoiseAxis,
    NoiseRecord,
    Record,
    Vector,
)
from edgecap.dataset.allan import allan_curve, noise_figures
from edgecap.dataset.calibrate_imu import fit_poses, fit_six, poses, rest
from edgecap.dataset.inertial import F64, Inertial
from edgecap.dataset.still import rolling_deviation
from edgecap.errors import CalibrationError, UsageError
from edgecap.npz import read_npz

METHODS = ("rest", "six", "poses", "allan")
MOVED_RATIO = 6.0
"""A second that varies by this much more than the typical one was not at rest."""
UNITS = {"accel": "m/s^2", "gyro": "rad/s"}


def imu_record(
    signal: Inertial, method: str, gravity_m_s2: float = STANDARD_GRAVITY_M_S2, **origin: Any
) -> Record:
    """Measure one thing of an inertial stream.

    Args:
        signal: The recording.
        method: One of `METHODS`.
        gravity_m_s2: Where it was recorded.
        origin: `session`, `source`, `by`, `temperature_c` of the record.

    Raises:
        CalibrationError: the recording does not allow it, with the reason.
    """
    head: dict[str, Any] = {"stream": signal.stream, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    head |= {"edgecap": __version__, **origin}
    if method == "rest":
        still = rest(signal)
        return GyroRecord(
            **head,
            bias_rad_s=_vector(still.mean),
            u_bias_rad_s=float(still.u.max()),
            noise_rad_s=float(still.sd.max()),
            seconds=round(still.n / signal.rate_hz, 2),
        )
    if method == "allan":
        return _noise(signal, head)
    found = poses(signal)
    fit = (fit_six if method == "six" else fit_poses)(found, gravity_m_s2)
    return AccelRecord(
        **head,
        method="six" if method == "six" else "poses",
        matrix=cast("Matrix", tuple(_vector(row) for row in fit.matrix)),
        bias_m_s2=_vector(fit.bias),
        u_matrix=fit.u_matrix,
        u_bias_m_s2=fit.u_bias,
        residual_m_s2=fit.residual,
        gravity_m_s2=gravity_m_s2,
        n=len(found),
    )


def _vector(values: F64) -> Vector:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _noise(signal: Inertial, head: dict[str, Any]) -> NoiseRecord:
    """Every axis over the longest stretch without a loss."""
    runs = np.split(np.arange(len(signal.index)), np.flatnonzero(np.diff(signal.index) != 1) + 1)
    run = max(runs, key=len)
    axes = []
    for sensor, values in (("accel", signal.accel), ("gyro", signal.gyro)):
        for k, axis in enumerate("xyz" if values is not None else ""):
            assert values is not None
            name = f"{sensor}_{axis}"
            _require_rest(name, values[run, k], signal.rate_hz)
            try:
                curve = allan_curve(values[run, k], signal.rate_hz)
                figures = noise_figures(curve)
            except CalibrationError as error:
                raise CalibrationError(f"{name}: {error.what}", fix=error.fix) from error
            axes.append(
                NoiseAxis(
                    name=name,
                    unit=UNITS[sensor],
                    white=figures.white,
                    u_white=figures.u_white,
                    instability=figures.instability,
                    instability_at_s=figures.instability_at_s,
                    reached=figures.reached,
                    tau_s=tuple(float(f"{t:.6g}") for t in curve.tau_s),
                    deviation=tuple(float(f"{d:.4g}") for d in curve.deviation),
                )
            )
    return NoiseRecord(
        **head,
        rate_hz=round(signal.rate_hz, 4),
        seconds=round(len(run) / signal.rate_hz, 2),
        axes=tuple(axes),
    )


def _require_rest(name: str, values: F64, rate_hz: float) -> None:
    window = max(16, round(rate_hz))
    if len(values) < 2 * window:
        return
    spread = rolling_deviation(values[:, None], window)[:, 0]
    worst = int(np.argmax(spread))
    if spread[worst] > MOVED_RATIO * float(np.median(spread)) > 0:
        raise CalibrationError(
            f"{name} was moved {worst / rate_hz:.0f} s after the start of its longest stretch",
            fix="record it at rest, on a firm table",
        )


def read_inertial(path: Path, stream: str) -> Inertial:
    """Arrays `t` (int64 ns or float64 s) and `accel` (n, 3) in m/s², `gyro` (n, 3) in rad/s of an npz file.

    Raises:
        UsageError: not an npz file of that form.
    """
    arrays = read_npz(path, fix="write it with numpy.savez")
    t = arrays.get("t")
    sensors = {name: arrays[name].astype(np.float64) for name in UNITS if _is_number(arrays.get(name))}
    if t is None or t.ndim != 1 or len(t) < 16 or not _is_number(t) or not sensors:
        raise UsageError(
            f"{path} lacks t, and accel or gyro", fix="t in s or ns, accel in m/s², gyro in rad/s"
        )
    for name, values in sensors.items():
        if values.shape != (len(t), 3) or not np.isfinite(values).all():
            raise UsageError(
                f"{path}: {name} {values.shape} does not fit t {t.shape}", fix="give (n, 3) numbers"
            )
    t_ns = t.astype(np.int64) if t.dtype.kind in "iu" else np.rint(t * 1e9).astype(np.int64)
    steps = np.diff(t_ns)
    period = float(np.median(steps))
    if period <= 0 or (steps <= 0).any():
        raise UsageError(f"{path}: t does not rise", fix="give times in order")
    index = np.concatenate([[0], np.cumsum(np.maximum(np.rint(steps / period), 1).astype(np.int64))])
    rate_hz = float(index[-1]) * 1e9 / float(t_ns[-1] - t_ns[0])
    return Inertial(stream, t_ns, index, sensors.get("accel"), sensors.get("gyro"), rate_hz)


def _is_number(array: Any) -> bool:
    return array is not None and np.issubdtype(array.dtype, np.number) and array.dtype.kind != "c"
