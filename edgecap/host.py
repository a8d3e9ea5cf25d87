"""What the kernel tells of the computer: how warm it is, and the battery that it runs on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

SUPPLIES = Path("/sys/class/power_supply")
LOW_BATTERY_PERCENT = 15.0


def _read_number(paths: list[Path]) -> float | None:
    for path in paths:
        try:
            return float(path.read_text())
        except (OSError, ValueError):
            continue
    return None


def temperature_c() -> float | None:
    """Of the processor; None where the kernel does not tell."""
    milli = _read_number([Path("/sys/class/thermal/thermal_zone0/temp")])
    return None if milli is None else milli / 1000


class Battery(NamedTuple):
    """What the kernel says of the battery that the rig runs on."""

    percent: float
    discharging: bool

    @property
    def low(self) -> bool:
        """Whether it will soon cut the rig off."""
        return self.discharging and self.percent <= LOW_BATTERY_PERCENT


def battery() -> Battery | None:
    """The rig's battery; None without one that tells. That of a mouse or headset is not the rig's."""
    for supply in sorted(SUPPLIES.glob("*/capacity")):
        words = {}
        for name in ("scope", "status"):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                words[name] = supply.with_name(name).read_text().strip()
        percent = _read_number([supply])
        if percent is not None and words.get("scope") != "Device":
            return Battery(percent, words.get("status") == "Discharging")
    return None


def battery_percent() -> float | None:
    """How full the rig's battery is; None without one that tells."""
    found = battery()
    return None if found is None else found.percent
