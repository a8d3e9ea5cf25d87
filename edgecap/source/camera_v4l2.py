"""What a V4L2 device says of itself: is it a camera, which formats, sizes and rates does it have."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Iterator
from fcntl import ioctl
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from edgecap.errors import SourceError
from edgecap.source.camera_obstacles import end_holders

_CAPABILITY = struct.Struct("<16s32s32s6I")
_FORMAT = struct.Struct("<3I32s5I")
_SIZE = struct.Struct("<11I")
_INTERVAL = struct.Struct("<13I")
_CONTROL = struct.Struct("<Ii")


def _request(direction: int, number: int, layout: struct.Struct) -> int:
    return direction << 30 | layout.size << 16 | ord("V") << 8 | number


QUERYCAP = _request(2, 0, _CAPABILITY)
ENUM_FMT = _request(3, 2, _FORMAT)
S_CTRL = _request(3, 28, _CONTROL)
ENUM_FRAMESIZES = _request(3, 74, _SIZE)
ENUM_FRAMEINTERVALS = _request(3, 75, _INTERVAL)
"""Kernel documentation, "Video for Linux API", and `videodev2.h` for the layouts."""

CAP_CAPTURE, CAP_CAPTURE_MPLANE, CAP_STREAMING, CAP_DEVICE_CAPS = 0x1, 0x1000, 0x04000000, 0x80000000
CAPTURE, DISCRETE = 1, 1
CID_EXPOSURE_AUTO_PRIORITY = 0x009A0903
INPUTS = {"mjpeg": "MJPG", "yuyv": "YUYV"}
"""Our name of a format → its code in V4L2."""
MAX_ENTRIES = 256
RATE_TOLERANCE = 0.01


class Mode(NamedTuple):
    """What to ask a device for."""

    input: str
    width: int
    height: int
    rate_hz: Fraction


class Sizes(NamedTuple):
    """Sizes of one format: some, or all on a grid (least, greatest, step)."""

    discrete: list[tuple[int, int]]
    grid: tuple[tuple[int, int, int], tuple[int, int, int]] | None

    def nearest(self, width: int, height: int) -> tuple[int, int]:
        """The size that differs least in both directions."""
        if self.grid is not None:
            across, down = (_on_grid(*g, v) for g, v in zip(self.grid, (width, height), strict=True))
            return across, down
        return min(self.discrete, key=lambda s: abs(s[0] - width) + abs(s[1] - height))


def _on_grid(least: int, greatest: int, step: int, value: int) -> int:
    steps = round((min(max(value, least), greatest) - least) / max(step, 1))
    return least + steps * max(step, 1)


class CaptureDevice:
    """An open V4L2 node that captures.

    Args:
        label: The camera, for errors.
        device: Path of the node.

    Raises:
        SourceError: It is not there, not ours to open, or not a camera.
    """

    def __init__(self, label: str, device: str) -> None:
        self._label, self.device = label, device
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise open_error(label, device, error) from error
        try:
            driver, card, bus, _, capabilities, own, *_ = self._ask(QUERYCAP, _CAPABILITY, bytes(104))
        except OSError as error:
            self.close()
            raise SourceError(f"{label}: {device} is not a video device", fix=others(device)) from error
        self.driver, self.card, self.bus = (_text(x) for x in (driver, card, bus))
        own = own if capabilities & CAP_DEVICE_CAPS else capabilities
        if not own & CAP_CAPTURE or not own & CAP_STREAMING:
            self.close()
            fix = 'use backend = "picamera2"' if own & CAP_CAPTURE_MPLANE else others(device)
            raise SourceError(f"{label}: {device} ({self.card}) is not a capture device", fix=fix)

    def close(self) -> None:
        os.close(self._fd)

    def choose(self, wanted: str, width: int, height: int, fps: float) -> Mode:
        """The mode that is exactly what is wanted, or `SourceError` naming the nearest that there is."""
        codes = self._formats()
        inputs = [name for name, code in INPUTS.items() if code in codes and wanted in ("auto", name)]
        if not inputs:
            raise SourceError(
                f"{self._label}: {self.device} ({self.card}) gives neither MJPEG nor YUYV"
                if wanted == "auto"
                else f"{self._label}: {self.device} ({self.card}) gives no {wanted.upper()}",
                fix=f"it has {', '.join(codes) or 'no format'}; set another input or use another camera",
            )
        modes = {}
        for name in inputs:
            sizes = self._sizes(INPUTS[name])
            if sizes.nearest(width, height) == (width, height):
                modes[name] = self._rates(INPUTS[name], width, height)
        if not modes:
            near = [self._sizes(INPUTS[n]).nearest(width, height) for n in inputs]
            w, h = min(near, key=lambda s: abs(s[0] - width) + abs(s[1] - height))
            raise SourceError(
                f"{self._label}: {self.device} ({self.card}) has no {width}×{height}",
                fix=f"the nearest is width = {w}, height = {h}",
            )
        for name, rates in modes.items():
            for rate_hz in rates or [Fraction(fps).limit_denominator(1001)]:
                if abs(float(rate_hz) / fps - 1) <= RATE_TOLERANCE:
                    return Mode(name, width, height, rate_hz)
        known = sorted({round(float(r), 2) for rates in modes.values() for r in rates})
        nearest = min(known, key=lambda r: abs(r - fps))
        raise SourceError(
            f"{self._label}: {self.device} has no {fps:g} fps at {width}×{height}",
            fix=f"set fps = {nearest:g}; it has {', '.join(f'{r:g}' for r in known)}",
        )

    def fix_rate(self) -> None:
        """Forbid the camera to lengthen its frames in the dark; one without that control does not do it."""
        with contextlib.suppress(OSError):
            self._ask(S_CTRL, _CONTROL, _CONTROL.pack(CID_EXPOSURE_AUTO_PRIORITY, 0))

    def _formats(self) -> list[str]:
        rows = self._enumerate(ENUM_FMT, _FORMAT, lambda i: _FORMAT.pack(i, CAPTURE, 0, b"", *[0] * 5))
        return [struct.pack("<I", row[4]).decode("ascii", "replace") for row in rows]

    def _sizes(self, code: str) -> Sizes:
        pixels = _code(code)
        rows = list(self._enumerate(ENUM_FRAMESIZES, _SIZE, lambda i: _SIZE.pack(i, pixels, *[0] * 9)))
        if not rows:
            raise SourceError(f"{self._label}: {self.device} lists no sizes", fix="use another camera")
        if rows[0][2] != DISCRETE:
            low_w, high_w, step_w, low_h, high_h, step_h = rows[0][3:9]
            return Sizes([], ((low_w, high_w, step_w), (low_h, high_h, step_h)))
        return Sizes([(row[3], row[4]) for row in rows], None)

    def _rates(self, code: str, width: int, height: int) -> list[Fraction]:
        """Frame rates of a size, fastest first; empty when the driver does not list them."""
        head = (_code(code), width, height)
        rows = list(
            self._enumerate(ENUM_FRAMEINTERVALS, _INTERVAL, lambda i: _INTERVAL.pack(i, *head, *[0] * 9))
        )
        if rows and rows[0][4] != DISCRETE:
            return []  # any within a range: the driver takes the nearest, and the verdict tells the rate
        return [Fraction(row[6], row[5]) for row in rows if row[5]]

    def _enumerate(
        self, request: int, layout: struct.Struct, question: Callable[[int], bytes]
    ) -> Iterator[tuple[Any, ...]]:
        """Answers to a question that is asked with a running number, until the driver has no more."""
        for index in range(MAX_ENTRIES):
            try:
                row = self._ask(request, layout, question(index))
            except OSError:
                return
            yield row

    def _ask(self, request: int, layout: struct.Struct, question: bytes) -> tuple[Any, ...]:
        answer = bytearray(question)
        ioctl(self._fd, request, answer)
        return layout.unpack(answer)


def open_error(label: str, device: str, error: OSError) -> SourceError:
    """Why a node cannot be opened or set up, and what helps."""
    match error.errno:
        case errno.ENOENT:
            return SourceError(f"{label}: there is no {device}", fix=others(device))
        case errno.EACCES | errno.EPERM:
            return SourceError(
                f"{label}: {device} may not be opened by this user",
                fix="add it to the group video, log in anew",
            )
        case errno.EBUSY:
            return SourceError(f"{label}: {device} is in use by another process", fix=end_holders([device]))
        case errno.ENODEV | errno.ENXIO | errno.EIO:
            return SourceError(f"{label}: {device} is unplugged or broken", fix="plug it in again")
    return SourceError(
        f"{label}: {device} cannot be opened: {os.strerror(error.errno or 0)}", fix="try `v4l2-ctl --all`"
    )


def others(device: str) -> str:
    """Which other nodes there are."""
    known = sorted({*Path("/dev/v4l/by-id").glob("*index0"), *Path("/dev").glob("video*")} - {Path(device)})
    return f"set device to one of {', '.join(map(str, known[:6]))}" if known else "connect the camera"


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")


def _code(code: str) -> int:
    return int.from_bytes(code.encode(), "little")
