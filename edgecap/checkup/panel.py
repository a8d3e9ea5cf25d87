"""The rig's own button, light and buzzer."""

from __future__ import annotations

from edgecap.checkup.exam import Exam
from edgecap.checkup.finding import Finding, failed, none, ok
from edgecap.errors import SourceError


async def check_panel(exam: Exam) -> list[Finding]:
    """Claim the pins for a moment, or take the daemon's word."""
    if exam.panel is None:
        return [none("button", "no pins are configured in [button]; a glove's own button always works")]
    if exam.daemon is not None:
        problem = exam.told.problems.get("button") if exam.told is not None else None
        if problem:
            return [
                failed("button", SourceError(*problem.split("; ", 1)[:1], fix=problem.partition("; ")[2]))
            ]
        if exam.told is None:
            return [none("button", f"the daemon is running and holds the pins; {exam.untold}")]
        return [ok("button", "the daemon is running and holds the pins")]
    pins = exam.config.button
    try:
        with exam.panel():
            parts = {"button": pins.gpio, "LED": pins.led_gpio, "buzzer": pins.buzzer_gpio}
            claimed = [f"{name} on GPIO {pin}" for name, pin in parts.items() if pin >= 0]
            claimed += [f"LED {pins.led_name}"] if pins.led_name else []
            return [ok("button", f"{', '.join(claimed)}: can be claimed")]
    except SourceError as error:
        return [failed("button", error)]
