"""What a camera is told about exposure and gain."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import msgspec

from edgecap.errors import SourceError

MANUAL = 1
"""Of libcamera's `ExposureTimeModeEnum` and `AnalogueGainModeEnum`."""


class ExposurePolicy(msgspec.Struct, frozen=True):
    """Zeros leave it to the camera's automatic exposure, within the fixed frame duration."""

    exposure_us: int = 0
    """A fixed exposure time."""
    gain: float = 0.0
    """A fixed analogue gain."""
    max_exposure_us: int = 0
    """The longest that automatic exposure may choose: shorter blurs less and needs more gain."""

    def check(self, label: str, fps: float) -> None:
        """Raise `SourceError` naming what contradicts itself or the frame rate."""
        frame_us = 1e6 / fps
        longest = max(self.exposure_us, self.max_exposure_us)
        if longest > frame_us:
            raise SourceError(
                f"{label}: an exposure of {longest} µs does not fit a frame of {frame_us:.0f} µs",
                fix=f"lower it, or lower fps to {1e6 / longest:.4g}",
            )
        if self.exposure_us and self.max_exposure_us:
            raise SourceError(
                f"{label}: exposure_us fixes what max_exposure_us would limit", fix="set one of the two to 0"
            )
        if min(self.exposure_us, self.max_exposure_us, self.gain) < 0:
            raise SourceError(f"{label}: exposure and gain cannot be negative", fix="use 0 for automatic")

    def controls(self, label: str, available: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """Libcamera controls for what is fixed.

        Args:
            label: The camera, for errors.
            available: picamera2's `camera_controls`: (least, greatest, default) by name.

        Raises:
            SourceError: The camera cannot be told, or not this value.

        Source: libcamera `control_ids_core.yaml`: since 0.5 a fixed value needs its mode set to manual;
            before, the value alone fixes it.
        """
        wanted: dict[str, Any] = {}
        for name, mode, value, key in (
            ("ExposureTime", "ExposureTimeMode", self.exposure_us, "exposure_us"),
            ("AnalogueGain", "AnalogueGainMode", self.gain, "gain"),
        ):
            if not value:
                continue
            if name not in available:
                raise SourceError(f"{label} has no control {name}", fix=f"set {key} to 0")
            low, high = available[name][:2]
            if not low <= value <= (high or value):
                raise SourceError(f"{label} takes {key} from {low} to {high}, not {value:g}", fix="change it")
            if mode in available:
                wanted[mode] = MANUAL
            wanted[name] = value
        return wanted


def limit_exposure(tuning: Mapping[str, Any], max_exposure_us: int) -> dict[str, Any]:
    """A copy of a Raspberry Pi camera tuning whose automatic exposure takes gain beyond `max_exposure_us`.

    Raises:
        KeyError: It is not laid out as a tuning is.

    Source: "Raspberry Pi Camera Algorithm and Tuning Guide", 5.7 AEC/AGC: `exposure_modes`, each with the
        lists `shutter` (µs) and `gain` that are walked along together.
    """
    limited: dict[str, Any] = deepcopy(dict(tuning))
    if limited.get("version", 1) == 1:
        agc = limited["rpi.agc"]
    else:
        agc = next((a["rpi.agc"] for a in limited["algorithms"] if "rpi.agc" in a), None)
        if agc is None:
            raise KeyError("rpi.agc")
    for channel in agc.get("channels", [agc]):
        for mode in channel["exposure_modes"].values():
            mode["shutter"] = [min(s, max_exposure_us) for s in mode["shutter"]]
    return limited
