"""The hottest of the kernel's thermal zones."""

from __future__ import annotations

from edgecap.checkup.exam import Exam, read_int, read_text
from edgecap.checkup.finding import Facts, Finding, fail, none, ok

HOT_C = 80.0
"""From here on a Pi slows down (raspberrypi.com/documentation: throttling begins between 80 and 85 °C)."""


async def check_temperature(exam: Exam) -> list[Finding]:
    """Compared with what a Pi bears; other boards tell their own limit by throttling."""
    found: list[tuple[float, str]] = []
    for zone in (exam.roots.sys / "class/thermal").glob("thermal_zone*"):
        milli = read_int(zone / "temp")
        if milli is not None:
            found.append((milli / 1000, read_text(zone / "type") or zone.name))
    if not found:
        return [none("temperature", "this kernel does not tell")]
    hottest, name = max(found)
    text = f"{hottest:.0f} °C ({name})"
    facts: Facts = {"celsius": hottest, "zone": name}
    if hottest >= HOT_C:
        return [fail("temperature", text, "give it a heat sink or a fan, and air", **facts)]
    return [ok("temperature", text, **facts)]
