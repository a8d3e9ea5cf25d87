"""Which columns of a stream are the x, y and z of an accelerometer, gyroscope or magnetometer."""

from __future__ import annotations

import math
import re

from edgecap.model import StreamInfo

GRAVITY_M_S2 = 9.80665
_DEGREE = math.pi / 180.0
SI_FACTOR: dict[str, dict[str, float]] = {
    "accel": {
        **dict.fromkeys(("m/s2", "m/s^2", "m/s²", "m_s2"), 1.0),
        "g": GRAVITY_M_S2,
        "mg": GRAVITY_M_S2 * 1e-3,
    },
    "gyro": {
        **dict.fromkeys(("rad/s", "rad_s"), 1.0),
        "mrad/s": 1e-3,
        **dict.fromkeys(("deg/s", "dps", "°/s", "deg_s"), _DEGREE),
        "mdps": _DEGREE * 1e-3,
    },
    "mag": {
        "T": 1.0,
        "mT": 1e-3,
        **dict.fromkeys(("uT", "µT", "μT"), 1e-6),
        "nT": 1e-9,
        **dict.fromkeys(("G", "gauss", "Gauss"), 1e-4),
    },
}
"""Factor from a channel's unit to the SI unit."""
_AXIS = re.compile(r"(accel|acc|gyro|gyr|magn?)[_-]?([xyz])")
_SENSOR = {"acc": "accel", "accel": "accel", "gyr": "gyro", "gyro": "gyro", "mag": "mag", "magn": "mag"}


def triads(info: StreamInfo) -> dict[str, tuple[list[int], float]]:
    """Which columns are `accel`, `gyro` and `mag`, each as x, y, z, and the factor to SI of its unit."""
    found: dict[str, dict[str, int]] = {}
    for column, channel in enumerate(info.channels):
        match = _AXIS.fullmatch(channel.name)
        if match and channel.unit in SI_FACTOR[_SENSOR[match[1]]]:
            found.setdefault(_SENSOR[match[1]], {})[match[2]] = column
    return {
        sensor: ([axes["x"], axes["y"], axes["z"]], SI_FACTOR[sensor][info.channels[axes["x"]].unit])
        for sensor, axes in found.items()
        if len(axes) == 3 and len({info.channels[c].unit for c in axes.values()}) == 1
    }
