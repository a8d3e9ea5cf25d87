"""A scripted IIO device: sysfs files and a device node under a directory of the test's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

import numpy as np

AXES = "xyz"
SCAN = np.dtype(
    {
        "names": ["accel", "gyro", "temp", "t_ns"],
        "formats": [("<i2", 3), ("<i2", 3), "<i2", "<i8"],
        "offsets": [0, 6, 12, 16],
        "itemsize": 24,
    }
)
"""What the kernel delivers for the device below: 14 bytes of counts, padded to the 8-byte time stamp."""


class IioTree:
    """An accelerometer and gyroscope with a hardware FIFO; its node is a FIFO that the test writes to."""

    def __init__(
        self, root: Path, *, number: int = 0, name: str = "icm42688", rate: str = "200.000000"
    ) -> None:
        self.sys_root, self.dev_root = root / "sys", root / "dev"
        self.name, self.number, self.rate = name, number, rate
        self.dev_root.mkdir(parents=True, exist_ok=True)
        self._fd = -1
        self.plug()

    @property
    def path(self) -> Path:
        return self.sys_root / f"iio:device{self.number}"

    @property
    def node(self) -> Path:
        return self.dev_root / f"iio:device{self.number}"

    def write(self, attribute: str, text: str) -> None:
        path = self.path / attribute
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def read(self, attribute: str) -> str:
        return (self.path / attribute).read_text().strip()

    def plug(self) -> None:
        self.write("name", self.name)
        self.write("current_timestamp_clock", "realtime")
        self.write("sampling_frequency", self.rate)
        self.write("sampling_frequency_available", "12.5 50 100 200 500 1000")
        self.write("in_accel_scale", "0.000598550")
        self.write("in_anglvel_scale", "0.001065264")
        self.write("in_temp_scale", "7.548309")
        self.write("in_temp_offset", "3312.0")
        names = [f"accel_{a}" for a in AXES] + [f"anglvel_{a}" for a in AXES] + ["temp"]
        for index, element in enumerate(names):
            self.element(element, index, "le:s16/16>>0")
        self.element("timestamp", len(names), "le:s64/64>>0")
        self.write("buffer/enable", "0")
        self.write("buffer/length", "2")
        self.write("buffer/watermark", "1")
        os.mkfifo(self.node)
        # held open for writing, so that a reader with nothing to read is told EAGAIN, as the kernel does
        self._fd = os.open(self.node, os.O_RDWR | os.O_NONBLOCK)

    def element(self, name: str, index: int, packing: str) -> None:
        for what, value in (("en", "0"), ("index", str(index)), ("type", packing)):
            self.write(f"scan_elements/in_{name}_{what}", value)

    def unplug(self) -> None:
        shutil.rmtree(self.path)
        self.node.unlink()
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def feed(self, data: bytes) -> None:
        """Deliver bytes, as the kernel does once the capture is enabled."""
        assert os.write(self._fd, data) == len(data)


def scans(t_ns: np.ndarray, first: int = 0) -> bytes:
    """Scans stamped `t_ns`; sample k holds k + 10 · axis, negative for the gyroscope, and 100 + k."""
    out = np.zeros(len(t_ns), SCAN)
    k = first + np.arange(len(t_ns))
    out["t_ns"] = t_ns
    out["accel"] = k[:, None] + 10 * np.arange(3)
    out["gyro"] = -(k[:, None] + 10 * np.arange(3))
    out["temp"] = 100 + k
    return out.tobytes()


@contextlib.contextmanager
def iio_tree(root: Path, **options: object):
    tree = IioTree(root, **options)  # type: ignore[arg-type]
    try:
        yield tree
    finally:
        tree.close()


def host_ns(clock: int = time.CLOCK_MONOTONIC_RAW) -> int:
    return time.clock_gettime_ns(clock)
