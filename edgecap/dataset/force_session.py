"""Readings under known loads, from a stored session or as they come from a board, and the record of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from edgecap import __version__
from edgecap.calibration import ForceChannel, ForceRecord
from edgecap.dataset.calibrate_force import Load, calibrate_channel, parse_load, points_of
from edgecap.dataset.session import RecordedSession
from edgecap.dataset.still import Plateau, stillest
from edgecap.errors import CalibrationError, UsageError
from edgecap.model import ChannelInfo, StreamInfo

SETTLE_NS = 300_000_000
"""After a mark: fingers let go, the sensor settles."""
CELSIUS = ("degC", "°C", "C")


@dataclass(frozen=True, slots=True)
class ForceOptions:
    """How readings are taken and what the loads were.

    Attributes:
        model: `linear` or `fsr`.
        window_s: A reading is the stillest stretch of this length …
        hold_s: … within this time after the mark.
        full_counts: End of the converter; 0 takes the descriptor's full scale.
        reference, reference_percent: What the loads were, and how far they are to be trusted (95 %).
        gravity_m_s2: For loads in kg and g.
        temperature_c: Noted; None takes the device's own sensor, if it has one.
        by: Who measured.
    """

    model: str = "linear"
    window_s: float = 1.0
    hold_s: float = 4.0
    full_counts: float = 0.0
    reference: str = ""
    reference_percent: float = 0.5
    gravity_m_s2: float = 9.80665
    temperature_c: float | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Session (empty for a live measurement), and the device's serial number or port."""

    session: str
    source: str


def loads_of_marks(session: RecordedSession, gravity_m_s2: float) -> tuple[list[Load], list[str]]:
    """Loads told by the session's marks, and the marks that tell none."""
    loads, others = [], []
    for mark in session.marks:
        found = parse_load(mark.text, gravity_m_s2)
        if found is None:
            others.append(mark.text or mark.kind)
        else:
            loads.append(Load(mark.t_ns, *found))
    return loads, others


def loads_of_times(session: RecordedSession, at: Sequence[str], gravity_m_s2: float) -> list[Load]:
    """Loads given as `T:NEWTON` or `T:NEWTON:CHANNEL`, T in seconds from the session's start.

    Raises:
        UsageError: not of that form.
    """
    loads = []
    for text in at:
        time, _, rest = text.partition(":")
        value, _, channel = rest.partition(":")
        try:
            t_ns = session.t0_ns + round(float(time) * 1e9)
            found = parse_load(value, gravity_m_s2) or ("", float(value))
        except (ValueError, OverflowError) as error:
            raise UsageError(
                f"--at {text!r} is no load at a time", fix="for example 12.5:4.9 or 12.5:0.5kg:thumb"
            ) from error
        loads.append(Load(t_ns, channel, found[1]))
    return loads


def plateaus_of(
    session: RecordedSession, stream: str, loads: Sequence[Load], options: ForceOptions
) -> list[tuple[Load, Plateau]]:
    """The reading that belongs to each load.

    Raises:
        CalibrationError: no load is told, or one has no reading, because samples were lost or the next mark
            came too soon.
    """
    info = session.info(stream)
    if info.kind == "video":
        raise CalibrationError(f"stream {stream!r} is a camera's", fix="name a force stream")
    if not loads:
        raise CalibrationError(
            f"no mark of session {session.key.session} tells a load",
            fix="record again and mark each: edgecap ctl RIG mark 'thumb 0.5 kg'; or give --at T:LOAD",
        )
    data = session.stream(stream)
    in_order = sorted(loads, key=lambda load: load.t_ns)
    window = round(options.window_s * info.rate_hz_nominal)
    found = []
    for load, after in zip(in_order, [*in_order[1:], None], strict=True):
        end_ns = load.t_ns + SETTLE_NS + round(options.hold_s * 1e9)
        if after is not None:
            end_ns = min(end_ns, after.t_ns)
        # a mark may stand anywhere near a gap: a window must not reach across one
        inside = (data.t_ns >= load.t_ns + SETTLE_NS) & (data.t_ns < end_ns)
        rows = np.flatnonzero(inside)
        runs = np.split(rows, np.flatnonzero(np.diff(data.index[rows]) != 1) + 1) if len(rows) else []
        columns = list(range(data.values.shape[1]))
        seen = [
            p
            for run in runs
            if (p := stillest(data.t_ns[run], data.values[run].astype(np.float64), window, columns))
        ]
        if not seen:
            seconds = (load.t_ns - session.t0_ns) * 1e-9
            raise CalibrationError(
                f"the load of {load.newton:.2f} N at {seconds:.1f} s is not followed by "
                f"{options.window_s:g} s of samples",
                fix="hold each load longer, or give a smaller --window-s",
            )
        found.append((load, min(seen, key=lambda p: float((p.sd**2).sum()))))
    return found


def force_record(
    info: StreamInfo,
    plateaus: Sequence[tuple[Load, Plateau]],
    options: ForceOptions,
    origin: Origin,
) -> tuple[ForceRecord, list[str]]:
    """The record of every channel that was loaded, and why others could not be calibrated.

    Args:
        info: The stream.
        plateaus: Loads with their readings, in counts.
        options: See there.
        origin: Where the readings come from.

    Raises:
        CalibrationError: no channel could be calibrated.
    """
    names = [c.name for c in info.channels]
    points = points_of(plateaus, names)
    if not points:
        raise CalibrationError(
            f"{info.name}: no load is known",
            fix="mark each (`edgecap ctl RIG mark 'thumb 0.5 kg'`), or use --at",
        )
    channels: list[ForceChannel] = []
    refused: list[str] = []
    for k, found in sorted(points.items()):
        full = options.full_counts or _full_counts(info.channels[k])
        try:
            channels.append(
                calibrate_channel(
                    names[k],
                    found,
                    options.model,
                    full_counts=full,
                    reference_percent=options.reference_percent,
                )
            )
        except CalibrationError as error:
            refused.append(str(error))
    if not channels:
        raise CalibrationError(refused[0])
    record = ForceRecord(
        stream=info.name,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        edgecap=__version__,
        by=options.by,
        temperature_c=options.temperature_c,
        channels=tuple(channels),
        reference=options.reference,
        reference_percent=options.reference_percent,
        session=origin.session,
        source=origin.source,
    )
    return record, refused


def temperature_of(session: RecordedSession, device: str) -> float | None:
    """Mean of the first channel in °C that the device has."""
    for info in session.sample_streams():
        columns = [k for k, c in enumerate(info.channels) if c.unit in CELSIUS]
        if info.device == device and columns:
            values = session.stream(info.name).scaled()
            return round(float(values[:, columns[0]].mean()), 2) if len(values) else None
    return None


def _full_counts(channel: ChannelInfo) -> float:
    return channel.full_scale / abs(channel.scale) if channel.full_scale and channel.scale else 0.0
