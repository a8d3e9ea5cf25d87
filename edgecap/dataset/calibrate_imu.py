"""Bias at rest, and scale, misalignment and bias of an accelerometer against gravity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecap.dataset.inertial import F64, Inertial
from edgecap.dataset.still import Plateau, plateau, rolling_deviation, still_stretches
from edgecap.dataset.sync import student_95
from edgecap.errors import CalibrationError

WINDOW_S = 0.5
"""Stillness is judged over this."""
POSE_S = 1.0
"""A pose must be held still for so long …"""
EDGE_S = 0.2
"""… and its first and last moments are left out."""
STILL_RATIO = 4.0
"""Still is what varies by no more than this times the stillest 5 % of the recording."""
STILL_ACCEL_M_S2, STILL_GYRO_RAD_S = 0.3, 0.05
"""… and by no more than these: a recording in which nothing is still has a stillest part too."""
FACE_DEGREES = 20.0
POSES_NEEDED = 9
APART_DEGREES = 15.0
"""Poses closer than this to one another are one."""
MAX_RESIDUAL = 0.01
"""Root mean square as a share of g: poses that leave more were moved, or the sensor is not linear."""
REST_S = 5.0
AXES = ("+x", "−x", "+y", "−y", "+z", "−z")


@dataclass(frozen=True, slots=True)
class AccelFit:
    """matrix · (measured − bias) = true; half-widths at 95 %; rms of |a| − g over the poses."""

    matrix: F64
    bias: F64
    u_matrix: float
    u_bias: float
    residual: float


def still_plateaus(signal: Inertial, least_s: float) -> list[Plateau]:
    """Means over every stretch in which neither sensor moves; columns accel, then gyro, as there are."""
    parts = [(signal.accel, STILL_ACCEL_M_S2), (signal.gyro, STILL_GYRO_RAD_S)]
    present = [(p, cap) for p, cap in parts if p is not None]
    values = np.concatenate([p for p, _ in present], 1)
    window = max(16, round(WINDOW_S * signal.rate_hz))
    found: list[Plateau] = []
    edge = round(EDGE_S * signal.rate_hz)
    for run in np.split(np.arange(len(values)), np.flatnonzero(np.diff(signal.index) != 1) + 1):
        if len(run) < window:
            continue
        part = values[run]
        typical = np.quantile(rolling_deviation(part, window), 0.05, axis=0)
        caps = np.repeat([cap for _, cap in present], 3)
        limit = np.minimum(np.maximum(STILL_RATIO * typical, caps / 20), caps)
        for stretch in still_stretches(signal.t_ns[run], part, window, limit):
            rows = run[stretch.start + edge : stretch.stop - edge]
            if len(rows) >= max(16, round((least_s - 2 * EDGE_S) * signal.rate_hz)):
                found.append(plateau(signal.t_ns[rows], values[rows]))
    return found


def rest(signal: Inertial) -> Plateau:
    """The gyroscope (n, 3) at rest, all still stretches together.

    Raises:
        CalibrationError: no gyroscope, or it was never still for five seconds.
    """
    if signal.gyro is None:
        raise CalibrationError(f"stream {signal.stream!r} has no gyroscope", fix="name the one that has")
    still = still_plateaus(signal, REST_S)
    if not still:
        raise CalibrationError(
            f"{signal.stream} is never still for {REST_S:g} s", fix="lay it on a table for a minute"
        )
    gyro = slice(-3, None)
    weights = np.array([p.n for p in still], np.float64)
    mean = np.average([p.mean[gyro] for p in still], axis=0, weights=weights)
    between = np.abs([p.mean[gyro] - mean for p in still]).max(0) if len(still) > 1 else np.zeros(3)
    u = np.maximum(np.average([p.u[gyro] for p in still], axis=0, weights=weights), between)
    sd = np.sqrt(np.average([p.sd[gyro] ** 2 for p in still], axis=0, weights=weights))
    return Plateau(still[0].t0_ns, still[-1].t1_ns, mean, sd, u, int(weights.sum()))


def poses(signal: Inertial) -> list[Plateau]:
    """Every still pose, columns accel; raises `CalibrationError` without an accelerometer."""
    if signal.accel is None:
        raise CalibrationError(f"stream {signal.stream!r} has no accelerometer", fix="name the one that has")
    return still_plateaus(signal, POSE_S)


def fit_six(found: Sequence[Plateau], gravity_m_s2: float) -> AccelFit:
    """Twelve parameters from six known directions: measured = S · direction · g + bias, linear.

    The faces of the housing stand for the axes; how far they are from square goes into the result.

    Raises:
        CalibrationError: a face is missing or askew, or the poses contradict one another.
    """
    directions, readings = [], []
    for pose in found:
        axis = int(np.argmax(np.abs(pose.mean[:3])))
        sign = math.copysign(1.0, pose.mean[axis])
        cosine = abs(pose.mean[axis]) / float(np.linalg.norm(pose.mean[:3]))
        if cosine >= math.cos(math.radians(FACE_DEGREES)):
            directions.append(sign * np.eye(3)[axis])
            readings.append(pose.mean[:3])
    seen = {AXES[2 * int(np.argmax(np.abs(d))) + (d.sum() < 0)] for d in directions}
    missing = [name for name in AXES if name not in seen]
    if missing:
        raise CalibrationError(
            f"no still pose with {', '.join(missing)} up among {len(found)}",
            fix="lay the sensor on each of its six sides for three seconds, on a level table",
        )
    truth, measured = np.array(directions) * gravity_m_s2, np.array(readings)
    design = np.concatenate([truth, np.ones((len(truth), 1))], 1)
    inverse = np.linalg.inv(design.T @ design)
    terms = inverse @ (design.T @ measured)
    left = measured - design @ terms
    degrees = 3 * len(truth) - 12
    matrix: F64 = np.asarray(np.linalg.inv(terms[:3].T), np.float64)
    residual = _residual(matrix, terms[3], measured, gravity_m_s2)
    sigma = math.sqrt(float((left**2).sum()) / max(degrees, 1))
    u = student_95(max(degrees, 1)) * sigma * np.sqrt(np.diag(inverse))
    return AccelFit(matrix, terms[3], float(u[:3].max()), float(u[3]), residual)


def fit_poses(found: Sequence[Plateau], gravity_m_s2: float) -> AccelFit:
    """Nine parameters from poses of any direction: |T · (measured − bias)| = g, T upper triangular.

    Gauss-Newton from T = 1, bias = 0. Source: the cost function of D. Tedaldi, A. Pretto and E. Menegatti,
    ICRA 2014, eq. 10; directions need not be known.

    Raises:
        CalibrationError: too few poses, or too much alike.
    """
    kept: list[np.ndarray] = []
    for pose in found:
        unit = pose.mean[:3] / np.linalg.norm(pose.mean[:3])
        if all(unit @ (k / np.linalg.norm(k)) < math.cos(math.radians(APART_DEGREES)) for k in kept):
            kept.append(pose.mean[:3])
    if len(kept) < POSES_NEEDED:
        raise CalibrationError(
            f"{len(kept)} poses that differ by {APART_DEGREES:g}°, {POSES_NEEDED} are needed",
            fix="hold the sensor still in a dozen directions, three seconds each",
        )
    measured = np.array(kept)
    terms = np.array([1, 0, 0, 1, 0, 1, 0, 0, 0], np.float64)  # upper triangle by rows, then the bias
    upper = np.triu_indices(3)

    def lengths(at: F64) -> F64:
        matrix = np.zeros((3, 3))
        matrix[upper] = at[:6]
        out: F64 = np.linalg.norm((measured - at[6:]) @ matrix.T, axis=1) - gravity_m_s2
        return out

    jacobian = np.zeros((len(measured), 9))
    for _ in range(50):
        left = lengths(terms)
        for k in range(9):
            step = np.zeros(9)
            step[k] = 1e-6
            jacobian[:, k] = (lengths(terms + step) - lengths(terms - step)) / 2e-6
        normal = jacobian.T @ jacobian
        if np.linalg.cond(normal) > 1e12:
            raise CalibrationError("the poses are too much alike", fix="turn the sensor all ways up")
        change = np.linalg.solve(normal, jacobian.T @ left)
        terms = terms - change
        if float(np.abs(change).max()) < 1e-10:
            break
    matrix = np.zeros((3, 3))
    matrix[upper] = terms[:6]
    residual = _residual(matrix, terms[6:], measured, gravity_m_s2)
    degrees = len(measured) - 9
    # nine poses fit exactly and say nothing of the error: 2 mg, the usual noise of a hand-held pose
    sigma = math.sqrt(float((lengths(terms) ** 2).sum()) / degrees) if degrees else 0.02
    u = student_95(max(degrees, 1)) * sigma * np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
    return AccelFit(matrix, terms[6:], float(u[:6].max()), float(u[6:].max()), residual)


def _residual(matrix: F64, bias: F64, measured: F64, gravity_m_s2: float) -> float:
    left = np.linalg.norm((measured - bias) @ matrix.T, axis=1) - gravity_m_s2
    residual = float(np.sqrt(np.mean(left**2)))
    if not residual <= MAX_RESIDUAL * gravity_m_s2:
        raise CalibrationError(
            f"the poses disagree by {residual:.3f} m/s² about the length of gravity",
            fix="hold the sensor still in each; check the descriptor's scale",
        )
    return residual
