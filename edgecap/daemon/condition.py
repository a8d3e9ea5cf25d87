"""What is wrong with a rig now: in words for the operator, and as its light shows it to the worker."""

from __future__ import annotations

from edgecap.clock import now_ns
from edgecap.daemon.devices import Devices
from edgecap.daemon.running_session import RunningSession
from edgecap.host import battery
from edgecap.session.machine import Led, State, led_for
from edgecap.spool import Spool

HARMLESS = ("ok", "waiting", "drift", "blurred")
"""Verdicts that the worker need not act on: a bare wall is no sharper than a blurred room."""


class Condition:
    """Asks devices, parts, the running session and the card how they are.

    Args:
        devices: Of the rig.
        session: Whose verdicts count while it runs.
        spool: On the card.

    Attributes:
        broken: Parts of the rig other than devices that do not work, each with why and the fix.
    """

    def __init__(self, devices: Devices, session: RunningSession, spool: Spool) -> None:
        self.broken: dict[str, str] = {}
        self._devices, self._session, self._spool = devices, session, spool

    def problems(self) -> dict[str, str]:
        """What is wrong with devices and parts, each in a line that names the fix."""
        return self._devices.problems(now_ns()) | self.broken

    def note_part(self, name: str, problem: str) -> bool:
        """Take in that a part does not work, or (empty) that it does; returns whether a problem is new."""
        known = self.broken.pop(name, None)
        if problem:
            self.broken[name] = problem
        return bool(problem) and problem != known

    def led(self, state: State, *, consent: bool) -> Led:
        """What the light shows."""
        stats, found = self._spool.stats(), battery()
        harmless = all(v.state in HARMLESS for v in self._session.verdicts)
        return led_for(
            state,
            sensors_ok=harmless and not self.problems(),
            disk_ok=stats.free_bytes > stats.reserve_bytes,
            consent=consent,
            battery_ok=not (found is not None and found.low),
        )
