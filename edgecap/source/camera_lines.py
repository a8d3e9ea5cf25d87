"""Read-out time of one row, from the sensor driver's own controls."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from fcntl import ioctl
from pathlib import Path

V4L2_CID_HBLANK = 0x009E0902
V4L2_CID_PIXEL_RATE = 0x009F0902
V4L2_CTRL_CLASS_IMAGE_SOURCE = 0x009E0000
V4L2_CTRL_CLASS_IMAGE_PROC = 0x009F0000


class _Control(ctypes.Structure):
    """`struct v4l2_ext_control` (packed), with its union read as a 64-bit integer."""

    _pack_ = 1
    _fields_ = [
        ("id", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("reserved2", ctypes.c_uint32),
        ("value64", ctypes.c_int64),
    ]


class _Controls(ctypes.Structure):
    """`struct v4l2_ext_controls`."""

    _fields_ = [
        ("ctrl_class", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("error_idx", ctypes.c_uint32),
        ("request_fd", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
        ("controls", ctypes.POINTER(_Control)),
    ]


VIDIOC_G_EXT_CTRLS = 3 << 30 | ctypes.sizeof(_Controls) << 16 | ord("V") << 8 | 71


def read_line_ns(devices: Iterable[int], width: int) -> int:
    """Time from one row to the next, in ns; 0 when the driver does not say.

    Args:
        devices: libcamera's property `SystemDevices`: device numbers of the camera's nodes.
        width: Pixels in a row as the sensor puts them out.

    Source: kernel documentation, "Writing camera sensor drivers": a line takes
        (width + HBLANK) / PIXEL_RATE.
    """
    for number in devices if width > 0 else ():
        node = Path(f"/sys/dev/char/{os.major(number)}:{os.minor(number)}")
        if not node.exists() or not node.resolve().name.startswith("v4l-subdev"):
            continue
        try:
            fd = os.open(f"/dev/{node.resolve().name}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            hblank = _read(fd, V4L2_CTRL_CLASS_IMAGE_SOURCE, V4L2_CID_HBLANK) & 0xFFFFFFFF
            rate_hz = _read(fd, V4L2_CTRL_CLASS_IMAGE_PROC, V4L2_CID_PIXEL_RATE)
        except OSError:
            continue  # a lens or another part without these controls
        finally:
            os.close(fd)
        if rate_hz > 0:
            return round((width + hblank) * 1_000_000_000 / rate_hz)
    return 0


def _read(fd: int, control_class: int, control_id: int) -> int:
    control = _Control(id=control_id)
    controls = _Controls(ctrl_class=control_class, count=1, controls=ctypes.pointer(control))
    ioctl(fd, VIDIOC_G_EXT_CTRLS, controls)
    return int(control.value64)
