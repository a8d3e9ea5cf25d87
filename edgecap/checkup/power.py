"""Power: under-voltage and throttling of a Raspberry Pi, supply and battery."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

from edgecap.checkup.exam import Exam, read_int, read_text
from edgecap.checkup.finding import Facts, Finding, fail, none, ok

THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"
NOW = {
    0: "the voltage is too low",
    1: "the clock is capped",
    2: "it is throttled",
    3: "it is at its soft temperature limit",
}
SINCE = {
    16: "the voltage was too low",
    17: "the clock was capped",
    18: "it was throttled",
    19: "it was at its soft temperature limit",
}
"""Bits of get_throttled (raspberrypi.com/documentation/computers/os.html#get_throttled)."""
SUPPLY_FIX = "use a 5 V supply of 3 A (Pi 5: 5 A) and a short thick cable, or a power bank that holds 5 V"
HEAT_FIX = "give it a heat sink or a fan, and air"
LOW_PERCENT = 20
COMMAND_S = 5


async def check_throttling(exam: Exam) -> list[Finding]:
    """The firmware's own flags: now, and since power-up."""
    flags = read_int(exam.roots.sys / THROTTLED, 16)
    if flags is None:
        flags = await asyncio.to_thread(_ask_firmware)
    alarms = _voltage_alarms(exam)
    if flags is None and alarms is None:
        return [none("throttling", "this kernel does not tell: not a Raspberry Pi")]
    flags = flags or 0
    facts: Facts = {"get_throttled": hex(flags), "voltage_alarm": bool(alarms)}
    now = [text for bit, text in NOW.items() if flags >> bit & 1]
    since = [text for bit, text in SINCE.items() if flags >> bit & 1]
    if alarms and NOW[0] not in now:
        now.insert(0, NOW[0])
    low = bool(flags & (1 << 0 | 1 << 16)) or bool(alarms)
    fix = SUPPLY_FIX if low else HEAT_FIX
    if now:
        return [fail("throttling", "now " + ", ".join(now), fix, **facts)]
    if since:
        return [fail("throttling", "since power-up " + ", ".join(since), fix, **facts)]
    return [ok("throttling", "no under-voltage and no throttling since power-up", **facts)]


def _ask_firmware() -> int | None:
    """`vcgencmd get_throttled`, where the kernel has no file for it."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
        return int(done.stdout.strip().partition("=")[2], 16)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _voltage_alarms(exam: Exam) -> bool | None:
    """The kernel's under-voltage alarm (driver raspberrypi-hwmon); None where there is none."""
    found = None
    for alarm in (exam.roots.sys / "class/hwmon").glob("hwmon*/in0_lcrit_alarm"):
        if read_text(alarm.with_name("name")) == "rpi_volt":
            found = bool(found) or bool(read_int(alarm))
    return found


async def check_power(exam: Exam) -> list[Finding]:
    """Batteries and mains adapters that the kernel knows."""
    supplies = sorted((exam.roots.sys / "class/power_supply").glob("*"))
    findings = []
    for supply in supplies:
        kind = read_text(supply / "type") or "unknown"
        check = f"power {supply.name}"
        percent, status = read_int(supply / "capacity"), read_text(supply / "status") or "unknown"
        if percent is None:
            online = read_int(supply / "online")
            if online is not None:
                state = "online" if online else "not plugged in"
                findings.append((ok if online else none)(check, f"{kind}: {state}", online=bool(online)))
            continue
        facts: Facts = {"percent": percent, "status": status}
        if percent < LOW_PERCENT and status == "Discharging":
            fix = "charge or exchange it before the next session"
            findings.append(fail(check, f"{kind} at {percent} %, discharging", fix, **facts))
        else:
            findings.append(ok(check, f"{kind} at {percent} %, {status.lower()}", **facts))
    return findings or [none("power", "the kernel knows no battery and no supply")]
