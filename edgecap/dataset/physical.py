"""What a stream's raw numbers mean: in SI or their own unit, and calibrated where the manifest says how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.axes import triads
from edgecap.calibration import AccelRecord, ForceRecord, GyroRecord, Record, find
from edgecap.model import StreamInfo

F64 = NDArray[np.float64]
SI_UNIT = {"accel": "m/s²", "gyro": "rad/s", "mag": "T"}
REST = "rest"


@dataclass(frozen=True, slots=True)
class Quantity:
    """Channels of a stream that are converted together.

    Attributes:
        columns: Which of the stream's channels.
        names: The names of these channels.
        units: What `values` is in, one per column.
        values: (n, c) raw counts of the whole stream → (n, len(columns)) float64 in `units`; NaN where a
            calibration has no answer.
        record: The calibration that is applied, if one is.
    """

    columns: list[int]
    names: list[str]
    units: list[str]
    values: Callable[[NDArray[Any]], F64]
    record: Record | None = None


def quantities(info: StreamInfo, calibration: Mapping[str, Any]) -> dict[str, Quantity]:
    """A stream's channels as `accel`, `gyro`, `mag`, `force` and `rest`, as far as it has them.

    The x, y and z of a sensor are in SI. `force` are the channels of a force calibration, in newtons. All
    others are `rest`, in the descriptor's units. No channel is in two of them.

    Raises:
        ConfigError: a record for this stream cannot be used; names it.
    """
    found: dict[str, Quantity] = {}
    for sensor, (columns, factor) in (triads(info) if info.kind in ("imu", "magnetic") else {}).items():
        found[sensor] = _triad(info, sensor, columns, factor, calibration)
    used = {c for quantity in found.values() for c in quantity.columns}
    force = _force(info, calibration, used)
    if force is not None:
        found["force"] = force
        used |= set(force.columns)
    rest = [c for c in range(len(info.channels)) if c not in used]
    if rest:
        units = [info.channels[c].unit for c in rest]
        found[REST] = Quantity(rest, _names(info, rest), units, _scaled(info, rest, 1.0))
    return found


def valid_values(info: StreamInfo, values: NDArray[Any], columns: list[int]) -> NDArray[np.bool_]:
    """(n, c) False where a sensor was at full scale (within one count) or gave no number."""
    channels = [info.channels[c] for c in columns]
    value = values[:, columns] * np.array([c.scale for c in channels], np.float64)
    limits = np.array(
        [c.full_scale - abs(c.scale) if c.full_scale > 0 else np.inf for c in channels], np.float64
    )
    valid: NDArray[np.bool_] = np.isfinite(value) & (np.abs(value) < np.where(limits > 0, limits, np.inf))
    return valid


def _triad(
    info: StreamInfo, sensor: str, columns: list[int], factor: float, calibration: Mapping[str, Any]
) -> Quantity:
    scaled = _scaled(info, columns, factor)
    names, units = _names(info, columns), [SI_UNIT[sensor]] * len(columns)
    record: AccelRecord | GyroRecord | None = None
    if sensor == "accel":
        record = find(calibration, AccelRecord, info.name)
    elif sensor == "gyro":
        record = find(calibration, GyroRecord, info.name)
    if record is None:
        return Quantity(columns, names, units, scaled)
    apply = record.apply
    return Quantity(columns, names, units, lambda raw: apply(scaled(raw)), record)


def _force(info: StreamInfo, calibration: Mapping[str, Any], used: set[int]) -> Quantity | None:
    record = find(calibration, ForceRecord, info.name)
    names = _names(info, range(len(info.channels)))
    channels = [c for c in record.channels if c.name in names] if record else []
    channels = [c for c in channels if names.index(c.name) not in used]
    if record is None or not channels:
        return None
    columns = [names.index(c.name) for c in channels]

    def newtons(values: NDArray[Any]) -> F64:
        return np.stack([c.newtons(values[:, k]) for c, k in zip(channels, columns, strict=True)], 1)

    return Quantity(columns, [c.name for c in channels], ["N"] * len(columns), newtons, record)


def _scaled(info: StreamInfo, columns: list[int], factor: float) -> Callable[[NDArray[Any]], F64]:
    """Converts by the descriptor's scale and offset, times `factor`."""
    scales = np.array([info.channels[c].scale for c in columns], np.float64) * factor
    offsets = np.array([info.channels[c].offset for c in columns], np.float64)

    def values(raw: NDArray[Any]) -> F64:
        scaled: F64 = (raw[:, columns] + offsets) * scales
        return scaled

    return values


def _names(info: StreamInfo, columns: list[int] | range) -> list[str]:
    return [info.channels[c].name for c in columns]
