"""Every check in its order: later ones use what earlier ones found out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from edgecap.checkup.broker import check_broker
from edgecap.checkup.cache import check_cache
from edgecap.checkup.credentials import check_credentials
from edgecap.checkup.daemon import check_daemon
from edgecap.checkup.devices import check_devices
from edgecap.checkup.disk import check_disk_space, check_disk_speed, check_state_directory
from edgecap.checkup.exam import Exam
from edgecap.checkup.finding import Finding, fail, failed
from edgecap.checkup.latency import check_latency
from edgecap.checkup.panel import check_panel
from edgecap.checkup.permissions import check_permissions
from edgecap.checkup.power import check_power, check_throttling
from edgecap.checkup.temperature import check_temperature
from edgecap.checkup.wall_clock import check_wall_clock
from edgecap.errors import EdgecapError


class Check(NamedTuple):
    """One subject."""

    name: str
    run: Callable[[Exam], Awaitable[list[Finding]]]


CHECKS = (
    Check("daemon", check_daemon),
    Check("kernel cache", check_cache),
    Check("devices", check_devices),
    Check("latency", check_latency),
    Check("button", check_panel),
    Check("permissions", check_permissions),
    Check("state directory", check_state_directory),
    Check("disk speed", check_disk_speed),
    Check("disk space", check_disk_space),
    Check("ntp", check_wall_clock),
    Check("credentials", check_credentials),
    Check("broker", check_broker),
    Check("throttling", check_throttling),
    Check("power", check_power),
    Check("temperature", check_temperature),
)


async def examine(exam: Exam, checks: tuple[Check, ...] = CHECKS) -> AsyncIterator[Finding]:
    """Run checks one after the other; one that cannot be carried out fails, and the others go on."""
    for check in checks:
        exam.tell(check.name)
        try:
            found = await check.run(exam)
        except EdgecapError as error:
            found = [failed(check.name, error)]
        except OSError as error:
            text = f"cannot be looked at: {error.strerror or error}"
            found = [fail(check.name, text, "check the path, and that this user may read it")]
        for finding in found:
            yield finding
