"""Whether a stream still agrees with its calibration, judged at quiet moments while it records.

A second in which a sensor hardly varies is a quiet one. What it then reads is compared with the calibration:

* force: a finger that lies still is either free or holds something. Of all quiet seconds the *lowest* is
  taken as free, so that holding does not pass for drift. A reading below zero is drift at once; one above
  needs a minute of recording and enough quiet seconds in which it never came lower.
* gyroscope: the median rate of quiet seconds, which is bias.
* accelerometer: the median length of the acceleration in quiet seconds, which is gravity.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecap.axes import triads
from edgecap.calibration import AccelRecord, ForceChannel, ForceRecord, GyroRecord, find
from edgecap.kernels.statistics import add_moments
from edgecap.model import SampleBlock, StreamInfo

F64 = NDArray[np.float64]

WINDOW_S = 1.0
NOISE_RATIO = 4.0
"""Quiet is what varies by no more than so many times the noise at calibration."""
KEPT = 300
"""Quiet seconds remembered."""
LEAST_BELOW, LEAST_ABOVE = 3, 20
"""Quiet seconds before a finger may be said to read too little, or too much …"""
SPAN_ABOVE_S = 60.0
"""… which takes a recording of this length as well."""
FORCE_LIMIT_SHARE = 0.03
FORCE_LIMIT_N = 0.1
"""A tare off by this share of the calibrated range, and at least this much, is drift."""
LEAST_MEDIAN = 3
GYRO_QUIET_RAD_S, GYRO_LIMIT_RAD_S = 0.015, 0.02
ACCEL_QUIET_M_S2, ACCEL_LIMIT_M_S2 = 0.15, 0.15


@dataclass(frozen=True, slots=True)
class Drift:
    """A departure from the calibration: of what, how much, and from where on it counts."""

    of: str
    value: float
    limit: float

    @property
    def ratio(self) -> float:
        return abs(self.value) / self.limit


class _Check(Protocol):
    """One thing that a calibration says of a stream."""

    def see(self, second: int, mean: F64, deviation: F64) -> None:
        """Take one second: mean and standard deviation of each channel, in counts."""

    def drift(self) -> Drift | None:
        """What is known so far; None before there is enough."""


class _ForceCheck:
    def __init__(self, column: int, channel: ForceChannel, floor: float) -> None:
        self._column, self._channel = column, channel
        self._quiet = max(NOISE_RATIO * channel.noise_counts, floor)
        self._low: deque[tuple[int, float]] = deque(maxlen=KEPT)
        self._limit = max(FORCE_LIMIT_N, FORCE_LIMIT_SHARE * channel.max_n, 2 * channel.u_n)

    def see(self, second: int, mean: F64, deviation: F64) -> None:
        if deviation[self._column] > self._quiet:
            return
        c, x = self._channel, float(mean[self._column])
        newton = float(c.newtons(np.array(x)))
        if c.model == "fsr" and x < c.tare:
            newton = -float(c.newtons(np.array(2 * c.tare - x)))  # the law has no negative side
        if np.isfinite(newton):
            self._low.append((second, newton))

    def drift(self) -> Drift | None:
        if len(self._low) < LEAST_BELOW:
            return None
        newtons = sorted(n for _, n in self._low)
        rest = newtons[1]  # one odd second proves nothing
        if rest > self._limit and (
            len(newtons) < LEAST_ABOVE or self._low[-1][0] - self._low[0][0] < SPAN_ABOVE_S
        ):
            return None
        return Drift(f"tare of {self._channel.name} [N]", rest, self._limit)


class _GyroCheck:
    def __init__(self, columns: list[int], scale: F64, offset: F64, record: GyroRecord) -> None:
        self._columns, self._scale, self._offset, self._record = columns, scale, offset, record
        self._quiet = max(NOISE_RATIO * record.noise_rad_s, GYRO_QUIET_RAD_S)
        self._limit = max(GYRO_LIMIT_RAD_S, 3 * record.u_bias_rad_s)
        self._left: deque[F64] = deque(maxlen=KEPT)

    def see(self, second: int, mean: F64, deviation: F64) -> None:
        if (deviation[self._columns] * np.abs(self._scale) <= self._quiet).all():
            rate = (mean[self._columns] + self._offset) * self._scale
            self._left.append(self._record.apply(rate[None])[0])

    def drift(self) -> Drift | None:
        if len(self._left) < LEAST_MEDIAN:
            return None
        median = np.median(np.array(self._left), axis=0)
        worst = int(np.argmax(np.abs(median)))
        return Drift(f"bias of gyro_{'xyz'[worst]} [rad/s]", float(median[worst]), self._limit)


class _AccelCheck:
    def __init__(self, columns: list[int], scale: F64, offset: F64, record: AccelRecord) -> None:
        self._columns, self._scale, self._offset, self._record = columns, scale, offset, record
        self._limit = max(ACCEL_LIMIT_M_S2, 3 * record.residual_m_s2)
        self._left: deque[float] = deque(maxlen=KEPT)

    def see(self, second: int, mean: F64, deviation: F64) -> None:
        if (deviation[self._columns] * np.abs(self._scale) <= ACCEL_QUIET_M_S2).all():
            measured = (mean[self._columns] + self._offset) * self._scale
            length = float(np.linalg.norm(self._record.apply(measured[None])[0]))
            self._left.append(length - self._record.gravity_m_s2)

    def drift(self) -> Drift | None:
        if len(self._left) < LEAST_MEDIAN:
            return None
        return Drift("length of gravity [m/s^2]", float(np.median(np.array(self._left))), self._limit)


class DriftWatch:
    """Compares one stream with its calibration; cheap enough to be called with every block.

    Args:
        info: The stream.
        calibration: The map of the session; raises `ConfigError` where a record of this stream is damaged.
    """

    def __init__(self, info: StreamInfo, calibration: Mapping[str, Any]) -> None:
        self.checks = _checks(info, calibration)
        self._window = max(16, round(info.rate_hz_nominal * WINDOW_S))
        self._seconds = self._n = 0
        self._next = -1
        c = len(info.channels)
        self._shift, self._sums, self._squares = np.zeros(c), np.zeros(c), np.zeros(c)

    def see(self, block: SampleBlock) -> None:
        """Take a block; a second with a loss in it is not judged."""
        if not self.checks:
            return
        if block.index != self._next:
            self._n = 0
        self._next = block.index + len(block.values)
        if not self._n:
            self._shift[:] = block.values[0]
            self._sums[:] = self._squares[:] = 0.0
        add_moments(block.values.astype(np.float64, "C"), self._shift, self._sums, self._squares)
        self._n += len(block.values)
        if self._n >= self._window:
            mean = self._sums / self._n
            deviation = np.sqrt(np.maximum(self._squares / self._n - mean**2, 0.0))
            self._seconds += 1
            for check in self.checks:
                check.see(self._seconds, mean + self._shift, deviation)
            self._n = 0

    def worst(self) -> Drift | None:
        """What departs most for what is allowed; None while there is nothing to say."""
        known = [d for d in (check.drift() for check in self.checks) if d is not None]
        return max(known, key=lambda d: d.ratio, default=None)


def _checks(info: StreamInfo, calibration: Mapping[str, Any]) -> list[_Check]:
    checks: list[_Check] = []
    force = find(calibration, ForceRecord, info.name)
    if force is not None:
        names = [c.name for c in info.channels]
        floor = 1.0 if info.dtype.startswith("int") else 0.0
        checks += [_ForceCheck(names.index(c.name), c, floor) for c in force.channels if c.name in names]
    found = triads(info)
    gyro, accel = find(calibration, GyroRecord, info.name), find(calibration, AccelRecord, info.name)
    if gyro is not None and "gyro" in found:
        checks.append(_GyroCheck(*_columns(info, *found["gyro"]), gyro))
    if accel is not None and "accel" in found:
        checks.append(_AccelCheck(*_columns(info, *found["accel"]), accel))
    return checks


def _columns(info: StreamInfo, columns: list[int], factor: float) -> tuple[list[int], F64, F64]:
    """Columns, their scale to SI, and their offset in counts."""
    scale = np.array([info.channels[c].scale for c in columns]) * factor
    return columns, scale, np.array([info.channels[c].offset for c in columns])
