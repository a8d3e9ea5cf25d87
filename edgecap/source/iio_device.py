"""A Linux IIO device in sysfs: finding it, setting its buffer up, and saying in one line what is wrong.

Source: Linux ABI, `Documentation/ABI/testing/sysfs-bus-iio`. The capture itself needs no ioctl: the device
node belongs to buffer 0, and everything else is an attribute file.
"""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgecap.errors import SourceError
from edgecap.model import ChannelInfo, StreamKind
from edgecap.source.camera_clock import Domain
from edgecap.source.iio_layout import TIMESTAMP, Element, ScanLayout, parse_element

SYS_ROOT = Path("/sys/bus/iio/devices")
DEV_ROOT = Path("/dev")
ClockChoice = Literal["auto", "monotonic_raw", "monotonic", "boottime"]
CLOCKS: dict[str, Domain] = {"monotonic_raw": "raw", "monotonic": "monotonic", "boottime": "boottime"}
"""`current_timestamp_clock` → the host clock that it names; in order of preference."""
MAX_ATTRIBUTE_BYTES = 4096
RATE_TOLERANCE = 0.01
BUFFER_S = 2.0
"""The kernel's buffer holds this much: how long the daemon may be held up without a loss."""
_ATTRIBUTE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_OURS = {"anglvel": "gyro", "magn": "mag", "temp": "temperature"}
_UNIT = {
    "accel": ("m/s^2", 1.0),
    "anglvel": ("rad/s", 1.0),
    "magn": ("G", 1.0),
    "temp": ("degC", 1e-3),
    "voltage": ("V", 1e-3),
    "pressure": ("kPa", 1.0),
}
"""Unit of `(raw + offset) × scale` per sensor, and the factor from the kernel's (milli-°C, mV)."""
_FIX_PERMISSION = "install systemd/udev/70-edgecap.rules and put the daemon's user into group plugdev"
_FIX_OVERLAY = "enable the sensor's overlay (`dtoverlay=` in /boot/firmware/config.txt), reboot, see `dmesg`"
_FIX_BUSY = "stop the program that uses it (`fuser /dev/iio:device*`)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration asks of a device; see `IioConfig` for the meaning of each."""

    device: str
    rate_hz: float = 0.0
    channels: tuple[str, ...] = ()
    attributes: Mapping[str, str] | None = None
    trigger: str = ""
    clock: ClockChoice = "auto"
    batch_s: float = 0.02


@dataclass(frozen=True, slots=True)
class Ready:
    """A device that was set up."""

    layout: ScanLayout
    channels: tuple[ChannelInfo, ...]
    kind: StreamKind
    rate_hz: float
    clock: Domain
    watermark: int


def find_device(root: Path, wanted: str, where: str) -> Path:
    """The one device whose name, label or directory is `wanted`.

    Raises:
        SourceError: no IIO in this kernel, no device, or not exactly one of that name.
    """
    if not root.is_dir():
        raise SourceError(f"{where}: this system has no IIO devices: {root} is not there", fix=_FIX_OVERLAY)
    try:
        found = sorted(p for p in root.iterdir() if p.name.startswith("iio:device"))
    except OSError as error:
        raise SourceError(f"{where}: cannot list {root}: {error.strerror}", fix=_FIX_PERMISSION) from error
    names = {p: [p.name, *(_quiet(p / a) for a in ("label", "name"))] for p in found}
    matching = [p for p in found if wanted in names[p]]
    if len(matching) == 1:
        return matching[0]
    told = ", ".join(next((n for n in reversed(names[p]) if n), p.name) + f" ({p.name})" for p in found)
    if matching:
        same = ", ".join(p.name for p in matching)
        raise SourceError(
            f"{where}: {len(matching)} IIO devices are called {wanted!r}",
            fix=f"set `device` to one of {same}",
        )
    if not found:
        raise SourceError(f"{where}: the kernel has found no IIO device", fix=_FIX_OVERLAY)
    raise SourceError(
        f"{where}: there is no IIO device {wanted!r}", fix=f"there are: {told}; or {_FIX_OVERLAY}"
    )


def _quiet(path: Path) -> str:
    """An attribute that need not be there."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_ATTRIBUTE_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""


class IioDevice:
    """One device's attribute files.

    Args:
        path: Its directory in sysfs.
        dev_root: Where its device node is.
        where: How messages call it.
    """

    def __init__(self, path: Path, dev_root: Path, where: str) -> None:
        self.path = path
        self.node = dev_root / path.name
        self.where = where
        # Since 5.11 both are kept as links for buffer 0; either will do.
        self._scan = next((p for p in ("scan_elements", "buffer0") if (path / p).is_dir()), "scan_elements")
        self._buffer = next((p for p in ("buffer", "buffer0") if (path / p).is_dir()), "buffer")

    def open_node(self) -> int:
        """The device node, for non-blocking reads; raises `SourceError` if it is busy or barred."""
        try:
            return os.open(self.node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            fix = {
                errno.EBUSY: _FIX_BUSY,
                errno.EACCES: _FIX_PERMISSION,
                errno.EPERM: _FIX_PERMISSION,
                errno.ENOENT: "the driver has no buffer: choose another device or driver",
            }.get(error.errno or 0, _FIX_OVERLAY)
            reason = "another program is reading it" if error.errno == errno.EBUSY else error.strerror
            raise SourceError(
                f"{self.where}: cannot open {self.node}: {reason}", fix=fix, errno=error.errno
            ) from error

    def enable(self, *, on: bool) -> None:
        """Start or stop the capture."""
        self._write(f"{self._buffer}/enable", "1" if on else "0")

    def set_up(self, wanted: Wanted) -> Ready:
        """Bring the device to what is wanted; its buffer is off afterwards.

        Raises:
            SourceError: names the attribute, and what the device offers instead.
        """
        if not (self.path / self._buffer).is_dir() or not (self.path / self._scan).is_dir():
            raise SourceError(f"{self.where} has no buffer: it can only be polled", fix="use another driver")
        self.enable(on=False)
        for name, value in (wanted.attributes or {}).items():
            self._set_attribute(name, value)
        if wanted.trigger:
            self._set_trigger(wanted.trigger)
        clock = self._set_clock(wanted.clock)
        elements = self._choose(wanted.channels)
        rate_hz = self._set_rate(wanted.rate_hz, elements)
        layout = ScanLayout(elements, self.where)
        for element in self._elements():
            self._write(
                f"{self._scan}/in_{element}_en", "1" if any(e.name == element for e in elements) else "0"
            )
        watermark = self._set_length(rate_hz, wanted.batch_s)
        channels = tuple(self._channel(e) for e in layout.channels)
        return Ready(layout, channels, _kind(layout.channels), rate_hz, clock, watermark)

    # ── settings ────────────────────────────────────────────────────────────────────────────────────

    def _set_attribute(self, name: str, value: str) -> None:
        if not _ATTRIBUTE.fullmatch(name) or name in (".", ".."):
            raise SourceError(
                f"{self.where}: {name!r} is no attribute", fix="name files of the device's directory"
            )
        self._write(name, value)

    def _set_trigger(self, trigger: str) -> None:
        self._write("trigger/current_trigger", trigger)

    def _set_clock(self, choice: ClockChoice) -> Domain:
        """Ask for a clock that rig time can be derived from, and believe only what is read back."""
        attribute = "current_timestamp_clock"
        problem: SourceError | None = None
        for name in CLOCKS if choice == "auto" else (choice,):
            try:
                self._write(attribute, name)
            except SourceError as error:
                problem = error
                continue
            if self._read(attribute) == name:
                return CLOCKS[name]
        if problem is not None:
            raise problem
        raise SourceError(
            f"{self.where} stamps with {self._read(attribute)!r} whatever it is told",
            fix=f"it must offer one of {', '.join(CLOCKS)}",
        )

    def _set_rate(self, rate_hz: float, elements: Sequence[Element]) -> float:
        """Set the rate of every sensor involved, and return what the device says it is."""
        sensors = dict.fromkeys(_sensor(e.name) for e in elements if e.name != TIMESTAMP)
        candidates = ("sampling_frequency", *(f"in_{s}_sampling_frequency" for s in sensors))
        attributes = [a for a in candidates if (self.path / a).exists()]
        if not attributes:
            raise SourceError(
                f"{self.where} tells no sampling_frequency",
                fix="set the rate at its trigger and report the driver",
            )
        for attribute in attributes:
            if rate_hz:
                try:
                    self._write(attribute, f"{rate_hz:g}")
                except SourceError as error:
                    if error.evidence.get("errno") != errno.EINVAL:
                        raise
            is_hz = self._number(attribute)
            if rate_hz and abs(is_hz / rate_hz - 1) > RATE_TOLERANCE:
                offered = _quiet(self.path / f"{attribute}_available") or f"{is_hz:g}"
                raise SourceError(f"{self.where} cannot sample at {rate_hz:g} Hz", fix=f"it offers {offered}")
        rates = {self._number(a) for a in attributes}
        if len(rates) > 1:
            raise SourceError(f"{self.where}: its sensors run at different rates", fix="set `rate_hz`")
        return rates.pop()

    def _set_length(self, rate_hz: float, batch_s: float) -> int:
        """Room in the kernel, and how many samples it collects before it wakes us; returns the latter."""
        length = max(2, math.ceil(rate_hz * BUFFER_S))
        self._write(f"{self._buffer}/length", str(length))
        if not (self.path / self._buffer / "watermark").exists():
            return 1
        watermark = min(max(1, round(rate_hz * batch_s)), length // 2)
        largest = _quiet(self.path / self._buffer / "hwfifo_watermark_max")
        if largest.isdecimal() and int(largest[:9]) > 0:
            watermark = min(watermark, int(largest[:9]))
        self._write(f"{self._buffer}/watermark", str(watermark))
        return watermark

    # ── channels ────────────────────────────────────────────────────────────────────────────────────

    def _elements(self) -> list[str]:
        names = sorted(p.name for p in (self.path / self._scan).glob("in_*_en"))
        return [n.removeprefix("in_").removesuffix("_en") for n in names]

    def _choose(self, channels: Sequence[str]) -> list[Element]:
        present = self._elements()
        by_name = {**{n: n for n in present}, **{_our_name(n): n for n in present}}
        names = [by_name.get(c, "") for c in channels] if channels else [n for n in present if n != TIMESTAMP]
        if not all(names):
            absent = channels[names.index("")]
            known = ", ".join(_our_name(n) for n in present if n != TIMESTAMP) or "none"
            raise SourceError(f"{self.where} has no channel {absent!r}", fix=f"it has {known}")
        if TIMESTAMP in present:
            names.append(TIMESTAMP)
        return [
            parse_element(
                name,
                self._read(f"{self._scan}/in_{name}_index"),
                self._read(f"{self._scan}/in_{name}_type"),
                self.where,
            )
            for name in dict.fromkeys(names)
        ]

    def _channel(self, element: Element) -> ChannelInfo:
        unit, factor = _UNIT.get(_sensor(element.name), ("", 1.0))
        scale = self._shared(element.name, "scale", 1.0) * factor
        if not scale:
            raise SourceError(f"{self.where}: channel {element.name} has scale 0", fix="report the driver")
        offset = self._shared(element.name, "offset", 0.0)
        full = 2.0 ** (element.bits - (element.form == "i")) * abs(scale) if element.form != "f" else 0.0
        return ChannelInfo(_our_name(element.name), unit, scale, full, offset)

    def _shared(self, name: str, what: str, default: float) -> float:
        """An attribute of the channel, or of all channels of its sensor, or of the device."""
        for attribute in (f"in_{name}_{what}", f"in_{_sensor(name)}_{what}", what):
            if (self.path / attribute).exists():
                return self._number(attribute)
        return default

    # ── files ───────────────────────────────────────────────────────────────────────────────────────

    def _number(self, attribute: str) -> float:
        text = self._read(attribute)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (attribute.endswith("frequency") and value <= 0):
            raise SourceError(
                f"{self.where}: {attribute} is {text[:40]!r}, no usable number", fix="report the driver"
            )
        return value

    def _read(self, attribute: str) -> str:
        try:
            with (self.path / attribute).open("rb") as file:
                return file.read(MAX_ATTRIBUTE_BYTES).decode("utf-8", "replace").strip()
        except OSError as error:
            raise self._problem(attribute, "read", error) from error

    def _write(self, attribute: str, value: str) -> None:
        try:
            fd = os.open(self.path / attribute, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise self._problem(attribute, f"set to {value!r}", error) from error

    def _problem(self, attribute: str, verb: str, error: OSError) -> SourceError:
        offered = _quiet(self.path / f"{attribute}_available")
        fix = {
            errno.EBUSY: _FIX_BUSY,
            errno.EACCES: _FIX_PERMISSION,
            errno.EPERM: _FIX_PERMISSION,
            errno.EINVAL: f"it offers {offered}" if offered else self._fix_refused(attribute),
            errno.ENOENT: "the driver does not have it",
        }.get(error.errno or 0, "plug it in again")
        reason = "the buffer is in use" if error.errno == errno.EBUSY else error.strerror
        return SourceError(
            f"{self.where}: {attribute} cannot be {verb}: {reason}", fix=fix, errno=error.errno
        )

    def _fix_refused(self, attribute: str) -> str:
        if not attribute.endswith("/enable"):
            return "the driver refuses the value"
        triggers = [_quiet(p / "name") for p in sorted(self.path.parent.glob("trigger*"))]
        there = f"there are: {', '.join(filter(None, triggers))}" if any(triggers) else "there is none"
        return f"without a hardware FIFO the driver needs a `trigger` ({there}); see `dmesg`"


def _sensor(name: str) -> str:
    """`accel_x` → `accel`; `voltage3` → `voltage`; `magn_x` → `magn`."""
    return re.sub(r"[0-9].*$", "", name.split("_", maxsplit=1)[0])


def _our_name(name: str) -> str:
    """`anglvel_x` → `gyro_x`: the names by which exports know the axes."""
    sensor, rest = _sensor(name), name[len(_sensor(name)) :]
    return _OURS.get(sensor, sensor) + rest


def _kind(channels: Sequence[Element]) -> StreamKind:
    sensors = {_sensor(e.name) for e in channels}
    if sensors & {"accel", "anglvel"}:
        return "imu"
    return "magnetic" if "magn" in sensors else "scalar"
