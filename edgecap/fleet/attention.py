"""Why an operator should look at a rig now, worst first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from edgecap.host import LOW_BATTERY_PERCENT
from edgecap.model import Verdict, loss_in_words
from edgecap.status import RigStatus

HOURS_LEFT = 1.0
"""Less room than this on a recording rig is worth a walk to it."""
OVERDUE_NS = 35_000_000_000
"""A rig repeats its status every 10 s; three times in a row not heard of while connected is not chance."""

EARLIEST_UTC_NS = 1_600_000_000_000_000_000
"""A wall clock that shows an earlier time (September 2020) has never been set."""

Severity = Literal["losing", "soon", "odd"]
ORDER: tuple[Severity, ...] = ("losing", "soon", "odd")
"""`losing`: data is being lost now; `soon`: it will be; `odd`: nothing is lost, but somebody should know."""
SIGN = {"losing": "●", "soon": "▲", "odd": "◆"}
"""Shapes, so that colour is never needed."""
SAID = {"losing": "losing data", "soon": "soon", "odd": "odd"}


class Reason(NamedTuple):
    """One reason, in words."""

    severity: Severity
    text: str


def reasons(state: str, status: RigStatus | None, age_ns: int, was: str = "") -> list[Reason]:
    """Everything that is wrong with a rig.

    Args:
        state: As last told: `idle`, `recording`, …, `offline` or `unreadable`.
        status: The message itself; None while offline or unreadable.
        age_ns: Since the last word of it.
        was: Its state before it went offline, if that was heard.
    """
    found: list[Reason] = []
    if state == "unreadable":
        found.append(Reason("odd", "speaks another version, or garbage"))
    if state == "offline" and was == "recording":
        # It most likely goes on recording into its spool, but nobody can see whether it does.
        found.append(Reason("odd", "went offline while recording"))
    if status is not None:
        found += _told(status)
        if age_ns > OVERDUE_NS:
            found.append(Reason("odd", f"no word for {age_ns / 1e9:.0f} s though connected"))
    return sorted(found, key=lambda reason: ORDER.index(reason.severity))


def as_told(found: Sequence[Reason]) -> list[dict[str, str]]:
    """Reasons as page and `--json` give them."""
    return [{"severity": reason.severity, "text": reason.text} for reason in found]


def _told(status: RigStatus) -> list[Reason]:
    """What a rig says of itself."""
    found: list[Reason] = []
    if status.fault or status.state == "fault":
        found.append(Reason("losing", status.fault or "fault"))
    # What is wrong with a device comes before what that does to its streams.
    lost: Severity = "losing" if status.state == "recording" else "soon"
    found += [Reason(lost, text) for text in status.problems.values() if text not in status.fault]
    found += [
        Reason("losing", f"{v.stream}: {v.state}{_how(v)}")
        for v in status.streams
        if v.state not in ("ok", "waiting", "drift", "blurred")
    ]
    # What was lost stays lost: whoever looks a minute later must learn of it, too.
    found += [
        Reason("odd", f"{v.stream}: earlier in this session {loss_in_words(v.gaps, v.lost, v.gap_cause)}")
        for v in status.streams
        if v.gaps and v.state != "gaps"
    ]
    found += [
        Reason("odd", f"{v.stream}: blurred, or a bare wall") for v in status.streams if v.state == "blurred"
    ]
    found += [
        Reason("odd", f"{v.stream}: drifts, {v.drift_of}: {v.drift or 0.0:+.3g}")
        for v in status.streams
        if v.state == "drift"
    ]
    if status.desired_error:
        found.append(Reason("odd", status.desired_error))
    spool = status.spool
    if spool.free_bytes <= spool.reserve_bytes:
        found.append(Reason("soon", f"card is full: {spool.free_bytes / 1e6:.0f} MB free"))
    elif spool.hours_left is not None and spool.hours_left < HOURS_LEFT:
        found.append(Reason("soon", f"card full in {60 * spool.hours_left:.0f} min"))
    if not status.clock.trusted and status.utc_ns < EARLIEST_UTC_NS:
        found.append(Reason("odd", "its wall clock was never set: its sessions are dated wrong"))
    if status.battery_percent is not None and status.battery_percent <= LOW_BATTERY_PERCENT:
        found.append(Reason("soon", f"battery at {status.battery_percent:.0f} %"))
    if status.uplink.quarantined:
        found.append(Reason("odd", f"{status.uplink.quarantined} chunks cannot be delivered"))
    if status.uplink.held and not status.uplink.paused:  # a pause is somebody's wish
        found.append(Reason("odd", f"delivery is held: {status.uplink.held}"))
    return found


def _how(verdict: Verdict) -> str:
    """The numbers behind a verdict, as far as it has any."""
    match verdict.state:
        case "silent" if verdict.age_ms >= 1000:
            return f" for {verdict.age_ms / 1e3:.0f} s"
        case "gaps" if verdict.gaps:
            return f", {loss_in_words(verdict.gaps, verdict.lost, verdict.gap_cause)}"
        case "rate":
            return f", {verdict.rate_hz:g} Hz"
        case "saturated" if verdict.saturated:
            return f", {100 * verdict.saturated:.0f} % of its samples at full scale"
        case "clock" if verdict.u_ns:
            return f", times known to ± {verdict.u_ns / 1e6:.3g} ms only"
    return ""
