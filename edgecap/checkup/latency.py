"""USB serial adapters that hold bytes back."""

from __future__ import annotations

from pathlib import Path

from edgecap.checkup.exam import Exam, read_int
from edgecap.checkup.finding import Finding, fail, ok

MOST_MS = 1


async def check_latency(exam: Exam) -> list[Finding]:
    """One row per port whose adapter has a latency timer (FTDI's have); it has been opened by now."""
    findings = []
    for serial in exam.config.serial:
        tty = _tty_of(serial.port)
        timer_ms = read_int(exam.roots.sys / "class/tty" / tty / "device/latency_timer")
        if timer_ms is None:
            continue
        check, text = f"latency {serial.name}", f"{tty}'s adapter passes bytes on after {timer_ms} ms"
        if timer_ms > MOST_MS:
            file = f"/sys/class/tty/{tty}/device/latency_timer"
            fix = f"install systemd/udev/70-edgecap.rules, or: echo 1 | sudo tee {file}"
            findings.append(fail(check, text, fix, latency_ms=timer_ms))
        else:
            findings.append(ok(check, text, latency_ms=timer_ms))
    return findings


def _tty_of(port: str) -> str:
    """The kernel's name of a port, through udev's links."""
    return Path(port).resolve().name
