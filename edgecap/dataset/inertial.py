"""Accelerometer and gyroscope of a recording in SI units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.axes import triads
from edgecap.dataset.recorded import StreamData
from edgecap.dataset.session import RecordedSession
from edgecap.errors import CalibrationError
from edgecap.model import I64

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Inertial:
    """Samples of one stream.

    Attributes:
        stream: Its name.
        t_ns, index: (n,) rig time, and the running number (a jump is a loss).
        accel, gyro: (n, 3) in m/s² and rad/s by the descriptor's scales; None if it has none.
        rate_hz: As measured.
    """

    stream: str
    t_ns: I64
    index: I64
    accel: F64 | None
    gyro: F64 | None
    rate_hz: float


def inertial(session: RecordedSession, stream: str) -> Inertial:
    """The stream's three axes of each sensor; raises `CalibrationError` if it has neither."""
    info = session.info(stream)
    found = triads(info) if info.kind != "video" else {}
    if not {"accel", "gyro"} & set(found):
        raise CalibrationError(
            f"stream {stream!r} has neither accel_x, _y, _z in m/s² nor gyro_x, _y, _z in rad/s or the like",
            fix=f"its channels are: {', '.join(f'{c.name} [{c.unit}]' for c in info.channels) or 'none'}",
        )
    data = session.stream(stream)
    if len(data.t_ns) < 16:
        raise CalibrationError(f"stream {stream!r} holds {len(data.t_ns)} samples")
    scaled = data.scaled()
    axes = {name: scaled[:, columns] * factor for name, (columns, factor) in found.items()}
    return Inertial(
        stream,
        data.t_ns,
        data.index,
        axes.get("accel"),
        axes.get("gyro"),
        _rate_hz(data, info.rate_hz_nominal),
    )


def _rate_hz(data: StreamData, nominal: float) -> float:
    """By the running number over the recording, where one device clock lasted through it."""
    span_ns = int(data.t_ns[-1] - data.t_ns[0])
    steps = int(data.index[-1] - data.index[0])
    measured = steps * 1e9 / span_ns if span_ns > 0 and steps > 0 else 0.0
    return measured if abs(measured / nominal - 1) < 0.2 else nominal
