"""What a stream of a manifest carries, in one line: rate, channels and units, or the size of the picture."""

from __future__ import annotations

from itertools import groupby
from typing import Any

SHOWN = 12
"""Channels of one unit that are named; of more, the first and the last."""


def stream_in_words(info: dict[str, Any]) -> str:
    """`1000 Hz: accel_x accel_y accel_z [m/s2], temp [degC]`; what makes no sense is left out.

    Args:
        info: A stream's descriptor as it came from a rig: anything may be in it.
    """
    rate = info.get("rate_hz_nominal")
    parts = [f"{rate:g} Hz"] if isinstance(rate, int | float) and 0 < rate < 1e9 else []
    width, height = info.get("width"), info.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 < height:
        parts.append(f"{width} × {height} {info.get('codec', '')}".rstrip())
    channels = info.get("channels")
    named = [c for c in channels if isinstance(c, dict)] if isinstance(channels, list) else []
    of_a_unit = []
    for unit, group in groupby(named, key=lambda c: str(c.get("unit", ""))):
        names = [str(c.get("name", "")) for c in group]
        shown = " ".join(names if len(names) <= SHOWN else [names[0], "…", names[-1]])
        of_a_unit.append(f"{shown} [{unit}]" if unit else shown)
    line = ", ".join(parts)
    return f"{line}: {', '.join(of_a_unit)}".lstrip(": ") if of_a_unit else line
