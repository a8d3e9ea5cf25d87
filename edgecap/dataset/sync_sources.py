"""Where the signals to be compared come from: streams of a session, or arrays of a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.session import RecordedSession
from edgecap.dataset.sync import F64, Intervals, Signal
from edgecap.dataset.sync_flow import Picture, decoded_frames, picture_rates, session_pictures
from edgecap.dataset.sync_led import RowFilm, Switching, brightest_stripe
from edgecap.dataset.sync_rotation import orientation_rates
from edgecap.errors import CalibrationError, UsageError
from edgecap.model import I64, ChannelInfo
from edgecap.npz import read_npz

RAD_S = {"rad/s": 1.0, "deg/s": math.pi / 180, "dps": math.pi / 180, "°/s": math.pi / 180}
"""Units of a gyroscope, in rad/s."""
TAP_UNITS = (("g", "m/s^2", "m/s²"), ("N", "mN", "kPa", "Pa", "count"))
"""Units that a tap shows in: an accelerometer's are taken first."""
LED_CHANNEL = "led"
LED_EVENTS = {"led-on": True, "led-off": False}
UNIT_TOLERANCE = 0.05
ARRAYS = ("t_a", "a", "t_b", "b")


def session_gyro(session: RecordedSession, stream: str) -> tuple[Signal, int]:
    """The stream's rotation rates in rad/s, and the bound of its clock in ns."""
    data_t, values, u_ns = _samples(session, stream)
    channels = session.info(stream).channels
    wanted = [k for k, c in enumerate(channels) if c.unit in RAD_S]
    if not wanted:
        raise CalibrationError(
            f"stream {stream!r} has no channel in {', '.join(RAD_S)}", fix=f"it has {_units(channels)}"
        )
    scale = np.array([RAD_S[channels[k].unit] for k in wanted])
    return Signal(data_t, values[:, wanted] * scale), u_ns


def session_taps(session: RecordedSession, stream: str) -> tuple[Signal, int]:
    """The stream's channels that show a tap, in their units, and the bound of its clock in ns."""
    data_t, values, u_ns = _samples(session, stream)
    channels = session.info(stream).channels
    for units in TAP_UNITS:
        wanted = [k for k, c in enumerate(channels) if c.unit in units]
        if wanted:
            return Signal(data_t, values[:, wanted]), u_ns
    raise CalibrationError(
        f"stream {stream!r} has neither force nor acceleration", fix=f"it has {_units(channels)}"
    )


def session_flow(session: RecordedSession, stream: str) -> tuple[Intervals, int]:
    """The camera's rotation from its pictures, and the bound of its clock in ns."""
    return picture_rates(session_pictures(session, stream)), _camera_u_ns(session, stream)


def session_film(session: RecordedSession, stream: str) -> tuple[RowFilm, int]:
    """Brightness of the camera's rows where an LED blinks, and the bound of its clock in ns."""
    frames = []

    def pictures() -> Any:
        for frame, picture in decoded_frames(session, stream):
            frames.append(frame)
            yield picture.to_ndarray(format="gray")

    rows = brightest_stripe(pictures())
    frames = frames[: len(rows)]
    height = session.info(stream).height
    line_ns = frames[0].line_ns
    t_ns = np.array([f.t_ns - (height // 2) * line_ns for f in frames], np.int64)
    exposure_ns = np.array([f.exposure_ns for f in frames], np.int64)
    return RowFilm(t_ns, rows, line_ns, exposure_ns), _camera_u_ns(session, stream)


def session_led(session: RecordedSession, name: str) -> tuple[Switching, int]:
    """When the LED was switched: by a stream's channel `led`, or a device's events `led-on`, `led-off`."""
    if name in session.infos:
        names = [c.name for c in session.info(name).channels]
        if LED_CHANNEL not in names:
            raise CalibrationError(
                f"stream {name!r} has no channel {LED_CHANNEL!r}", fix=f"it has {', '.join(names)}"
            )
        t_ns, values, u_ns = _samples(session, name)
        return _switching(t_ns, values[:, names.index(LED_CHANNEL)]), u_ns
    events = [e for e in session.events if e.get("device") == name and e.get("kind") in LED_EVENTS]
    if not events:
        raise CalibrationError(
            f"session {session.key.session} has neither a stream {name!r} nor LED events of such a device",
            fix="let a board blink while recording: edgecap ctl RIG blink BOARD",
        )
    events.sort(key=lambda e: int(e["t_ns"]))
    t_ns = np.array([int(e["t_ns"]) for e in events], np.int64)
    return Switching(t_ns, np.array([LED_EVENTS[e["kind"]] for e in events], np.bool_)), 0


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """`t_a`, `t_b` (n,) and `a`, `b` (n,) or (n, c) of an npz file.

    Times become int64 ns: whole numbers are ns, others seconds.

    Raises:
        UsageError: not an npz file, or an array is missing or does not fit.
    """
    arrays = read_npz(path, fix="write it with numpy.savez")
    absent = [name for name in ARRAYS if name not in arrays]
    if absent:
        raise UsageError(f"{path} lacks {', '.join(absent)}", fix=f"it needs {', '.join(ARRAYS)}")
    for times, values in (("t_a", "a"), ("t_b", "b")):
        if arrays[times].ndim != 1 or not arrays[values].ndim or len(arrays[times]) != len(arrays[values]):
            raise UsageError(
                f"{path}: {times} {arrays[times].shape} and {values} {arrays[values].shape} differ"
            )
        if not np.issubdtype(arrays[values].dtype, np.number) and arrays[values].dtype != np.bool_:
            raise UsageError(f"{path}: {values} holds {arrays[values].dtype}, no numbers")
        arrays[times] = _nanoseconds(path, times, arrays[times])
    return arrays


def array_signal(arrays: dict[str, NDArray[Any]], which: str) -> Signal:
    """`t_a`, `a` or `t_b`, `b` as samples; a single column may be (n,) or (n, 1)."""
    values = np.asarray(arrays[which], np.float64)
    return Signal(arrays[f"t_{which}"], values.reshape(len(values), -1))


def array_rotation(arrays: dict[str, NDArray[Any]]) -> Intervals | Signal:
    """`a` as rotation: (n, 4) unit quaternions w x y z of a camera, or (n, c) rates."""
    signal = array_signal(arrays, "a")
    if signal.values.shape[1] == 4:
        norms = np.linalg.norm(signal.values, axis=1)
        if len(norms) and np.abs(norms - 1).max() < UNIT_TOLERANCE:
            return orientation_rates(signal.t_ns, signal.values / norms[:, None])
    return signal


def array_flow(arrays: dict[str, NDArray[Any]]) -> Intervals:
    """`a` as grey pictures (n, h, w)."""
    pictures = arrays["a"]
    if pictures.ndim != 3:
        raise UsageError(f"a has shape {pictures.shape}", fix="flow wants grey pictures (n, h, w)")
    times = arrays["t_a"].tolist()
    return picture_rates(
        Picture(t, np.ascontiguousarray(p, np.float32)) for t, p in zip(times, pictures, strict=True)
    )


def array_led(arrays: dict[str, NDArray[Any]]) -> tuple[RowFilm, Switching]:
    """`a` as brightness of rows (n, h), `line_ns` and `exposure_ns`; `b` as the LED's states."""
    rows = np.asarray(arrays["a"], np.float64)
    if rows.ndim != 2 or "line_ns" not in arrays or "exposure_ns" not in arrays:
        raise UsageError(
            f"a has shape {rows.shape}", fix="led wants brightness of rows (n, h), line_ns and exposure_ns"
        )
    exposure_ns = np.broadcast_to(np.asarray(arrays["exposure_ns"], np.int64), len(rows))
    film = RowFilm(arrays["t_a"], rows, int(np.asarray(arrays["line_ns"]).flat[0]), exposure_ns)
    state = np.asarray(arrays["b"], np.float64).reshape(len(arrays["b"]), -1)[:, 0] > 0.5
    return film, Switching(arrays["t_b"], state)


def _samples(session: RecordedSession, stream: str) -> tuple[I64, F64, int]:
    """Times that rise, values in their units, and the typical bound of the clock."""
    info = session.info(stream)
    if info.kind == "video":
        raise CalibrationError(
            f"stream {stream!r} is a camera's and has no samples",
            fix="name the camera first, then the sensor, with --method flow or led",
        )
    data = session.stream(stream)
    if not len(data.t_ns):
        raise CalibrationError(f"stream {stream!r} holds no samples")
    # a new fit may set the clock back by less than its bound
    rising = data.t_ns > np.concatenate([data.t_ns[:1] - 1, np.maximum.accumulate(data.t_ns)[:-1]])
    return data.t_ns[rising], data.scaled()[rising], int(np.median(data.u_ns))


def _camera_u_ns(session: RecordedSession, stream: str) -> int:
    return int(np.median([frame.u_ns for frame in session.frames(stream)]))


def _switching(t_ns: I64, level: F64) -> Switching:
    """Edges of a sampled level: between the last sample before and the first after."""
    state = level > 0.5 * float(level.max())
    after = np.flatnonzero(state[1:] != state[:-1]) + 1
    return Switching((t_ns[after - 1] + t_ns[after]) // 2, state[after])


def _units(channels: tuple[ChannelInfo, ...]) -> str:
    return ", ".join(sorted({c.unit for c in channels})) or "no channels"


def _nanoseconds(path: Path, name: str, times: NDArray[Any]) -> I64:
    if np.issubdtype(times.dtype, np.integer):
        return times.astype(np.int64)
    if not np.issubdtype(times.dtype, np.floating) or not np.isfinite(times).all():
        raise UsageError(f"{path}: {name} are no times", fix="give int64 ns or float64 seconds")
    return np.rint(times.astype(np.float64) * 1e9).astype(np.int64)
