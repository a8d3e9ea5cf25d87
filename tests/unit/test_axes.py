"""Which channels are an accelerometer, gyroscope or magnetometer, however a board spells them."""

from __future__ import annotations

import math

import pytest

from edgecap.axes import triads
from edgecap.model import ChannelInfo, StreamInfo


def stream(*channels: tuple[str, str]) -> StreamInfo:
    infos = tuple(ChannelInfo(name, unit, 1.0) for name, unit in channels)
    return StreamInfo("imu", "imu", "hand", 1000.0, "int16", infos)


@pytest.mark.parametrize("between", ["_", "-", ""])
@pytest.mark.parametrize(
    ("name", "sensor", "unit", "factor"),
    [
        ("accel", "accel", "m/s^2", 1.0),
        ("acc", "accel", "g", 9.80665),
        ("gyro", "gyro", "deg/s", math.pi / 180),
        ("gyr", "gyro", "rad/s", 1.0),
        ("mag", "mag", "uT", 1e-6),
        ("magn", "mag", "G", 1e-4),  # the kernel's name for it
    ],
)
def test_three_axes_in_one_unit_are_a_sensor(between, name, sensor, unit, factor):
    info = stream(("t", "degC"), *((f"{name}{between}{axis}", unit) for axis in "zxy"))
    assert triads(info) == {sensor: ([2, 3, 1], pytest.approx(factor))}


@pytest.mark.parametrize(
    "channels",
    [
        [("accel_x", "g"), ("accel_y", "g")],
        [("accel_x", "g"), ("accel_y", "g"), ("accel_z", "m/s^2")],
        [("accel_x", "N"), ("accel_y", "N"), ("accel_z", "N")],
        [("m0-x", "uT"), ("m0-y", "uT"), ("m0-z", "uT")],
        [("accel--x", "g"), ("accel--y", "g"), ("accel--z", "g")],
    ],
)
def test_anything_else_is_none(channels):
    assert triads(stream(*channels)) == {}
