"""A measured lag as a record that travels with calibration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from numpy.typing import NDArray

from edgecap import __version__
from edgecap.dataset.session import RecordedSession
from edgecap.dataset.sync import Intervals, LagEstimate, Limits
from edgecap.dataset.sync_led import lag_of_led
from edgecap.dataset.sync_rotation import lag_of_gyros, lag_of_rotation
from edgecap.dataset.sync_sources import (
    array_flow,
    array_led,
    array_rotation,
    array_signal,
    session_film,
    session_flow,
    session_gyro,
    session_led,
    session_taps,
)
from edgecap.dataset.sync_taps import lag_of_taps
from edgecap.errors import UsageError

RESIDUAL_UNIT = {"flow": "pixel/s", "gyro": "rad/s", "tap": "ns", "led": "ns"}
"""Methods and the unit of what they leave."""


class SyncRecord(msgspec.Struct, frozen=True):
    """The lag of one stream's time stamps behind another's, for a session's `calibration` map.

    To put stream a on stream b's time, subtract `lag_ns` from a's time stamps. It holds what delays either
    sensor, the known delays of the streams' descriptors (`known_lag_ns`) included: nothing was corrected
    before it was measured. `clock_u_ns` bounds each stream's own clock and is not part of `u_ns`.
    """

    a: str
    b: str
    method: str
    lag_ns: int
    u_ns: int
    """Half-width at 95 %."""
    sd_ns: int
    n: int
    """Windows or events used."""
    n_rejected: int
    r2: float | None
    residual: float
    residual_unit: str
    drift_ppm: float | None
    u_drift_ppm: float | None
    known_lag_ns: dict[str, int]
    clock_u_ns: dict[str, int]
    session: str
    date: str
    edgecap: str
    version: int = 1
    """Counts the records that there were under this key; set when it is put into a map."""

    @property
    def key(self) -> str:
        """Its name in a calibration map."""
        return f"sync:{self.a}:{self.b}"

    @property
    def drifts(self) -> bool:
        """Whether the lag is not constant: its trend is larger than its uncertainty."""
        return self.drift_ppm is not None and abs(self.drift_ppm) > (self.u_drift_ppm or 0.0)


def sync_session(session: RecordedSession, a: str, b: str, method: str, limits: Limits) -> SyncRecord:
    """Measure the lag between two streams of a session.

    Raises:
        CalibrationError: the streams do not allow it, with the reason.
    """
    _check(method)
    if method == "flow":
        # the gyroscope first: pictures take long, and what is wrong should be told at once
        gyro, u_b = session_gyro(session, b)
        flow, u_a = session_flow(session, a)
        estimate = lag_of_rotation(flow, gyro, limits)
    elif method == "gyro":
        first, u_a = session_gyro(session, a)
        gyro, u_b = session_gyro(session, b)
        estimate = lag_of_gyros(first, gyro, limits)
    elif method == "tap":
        first, u_a = session_taps(session, a)
        second, u_b = session_taps(session, b)
        estimate = lag_of_taps(first, second, limits)
    else:
        led, u_b = session_led(session, b)
        film, u_a = session_film(session, a)
        estimate = lag_of_led(film, led, limits)
    known = {name: session.infos[name].lag_ns for name in (a, b) if name in session.infos}
    return _record(a, b, method, estimate, known, {a: u_a, b: u_b}, session.key.session)


def sync_arrays(arrays: dict[str, NDArray[Any]], a: str, b: str, method: str, limits: Limits) -> SyncRecord:
    """Measure the lag between arrays as `read_arrays` gives them.

    Raises:
        CalibrationError: the arrays do not allow it, with the reason.
        UsageError: an array does not have the shape that the method wants.
    """
    _check(method)
    if method == "flow":
        estimate = lag_of_rotation(array_flow(arrays), array_signal(arrays, "b"), limits)
    elif method == "gyro":
        first, second = array_rotation(arrays), array_signal(arrays, "b")
        if isinstance(first, Intervals):
            estimate = lag_of_rotation(first, second, limits)
        else:
            estimate = lag_of_gyros(first, second, limits)
    elif method == "tap":
        estimate = lag_of_taps(array_signal(arrays, "a"), array_signal(arrays, "b"), limits)
    else:
        film, led = array_led(arrays)
        estimate = lag_of_led(film, led, limits)
    return _record(a, b, method, estimate, {}, {}, "")


def _check(method: str) -> None:
    if method not in RESIDUAL_UNIT:
        raise UsageError(f"there is no method {method!r}", fix=f"available are: {', '.join(RESIDUAL_UNIT)}")


def _record(
    a: str,
    b: str,
    method: str,
    estimate: LagEstimate,
    known: dict[str, int],
    clock_u_ns: dict[str, int],
    session: str,
) -> SyncRecord:
    return SyncRecord(
        a=a,
        b=b,
        method=method,
        lag_ns=estimate.lag_ns,
        u_ns=estimate.u_ns,
        sd_ns=estimate.sd_ns,
        n=estimate.n,
        n_rejected=estimate.n_rejected,
        r2=estimate.r2,
        residual=estimate.residual,
        residual_unit=RESIDUAL_UNIT[method],
        drift_ppm=estimate.drift_ppm,
        u_drift_ppm=estimate.u_drift_ppm,
        known_lag_ns=known,
        clock_u_ns=clock_u_ns,
        session=session,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        edgecap=__version__,
    )
