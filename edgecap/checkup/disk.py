"""The spool's disk: can it be written, how fast is what is written safe, how much fits."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time

from edgecap.checkup.exam import Exam
from edgecap.checkup.finding import Facts, Finding, fail, none, ok

BLOCK_BYTES = 128 * 1024
BLOCKS = 32
SLOW_MS = 1000.0
"""The spool syncs every 0.5 s; a card that takes longer than this holds the recording up."""
MARGIN = 2.0
"""How many times faster than the sensors a disk should be: uploading reads from it, too."""


async def check_state_directory(exam: Exam) -> list[Finding]:
    """Make a file where the spool is."""
    where = exam.existing_dir()
    made = "" if where == exam.spool_dir.absolute() else f"{exam.spool_dir} will be made in {where}; "
    if exam.daemon is not None and exam.told is not None and "spool" not in exam.told.problems:
        return [ok("state directory", f"the daemon writes into {exam.spool_dir}")]
    try:
        with tempfile.TemporaryFile(dir=where):
            pass
    except OSError as error:
        text = f"{where} cannot be written: {error.strerror}"
        fix = (
            "run this as the daemon's user (sudo -u edgecap …); check owner, mode and mount of the directory"
        )
        return [fail("state directory", text, fix)]
    return [ok("state directory", f"{made}{where} can be written")]


async def check_disk_speed(exam: Exam) -> list[Finding]:
    """Write a few MB in blocks, each made durable by fdatasync."""
    where = exam.existing_dir()
    exam.tell(f"writing {BLOCKS * BLOCK_BYTES >> 20} MB into {where}")
    try:
        times_ms = await asyncio.to_thread(_write, str(where))
    except OSError as error:
        return [none("disk speed", f"nothing can be written into {where}: {error.strerror}")]
    p50, p99 = times_ms[len(times_ms) // 2], times_ms[min(len(times_ms) - 1, len(times_ms) * 99 // 100)]
    mb_s = BLOCKS * BLOCK_BYTES / 1e3 / sum(times_ms)
    facts: Facts = {"sync_p50_ms": round(p50, 2), "sync_p99_ms": round(p99, 2), "mb_s": round(mb_s, 1)}
    text = f"{mb_s:.1f} MB/s in blocks of 128 KiB, each synced in {p50:.1f} ms (p99 {p99:.1f} ms)"
    fix = "use a faster card (class A2) or a USB disk for the spool; check the card's health"
    if p99 > SLOW_MS:
        return [fail("disk speed", f"{text}; a sync may take {SLOW_MS:g} ms at most", fix, **facts)]
    if exam.bytes_s is not None and mb_s * 1e6 < MARGIN * exam.bytes_s:
        return [fail("disk speed", f"{text}; the sensors need {exam.bytes_s / 1e6:.1f} MB/s", fix, **facts)]
    return [ok("disk speed", text, **facts)]


def _write(where: str) -> list[float]:
    """Milliseconds that each block took to be durable, sorted."""
    times_ms = []
    with tempfile.TemporaryFile(dir=where) as file:
        for _ in range(BLOCKS):
            block = os.urandom(BLOCK_BYTES)  # a card that compresses must not look faster than it is
            t0 = time.perf_counter()
            file.write(block)
            file.flush()
            os.fdatasync(file.fileno())
            times_ms.append((time.perf_counter() - t0) * 1e3)
    return sorted(times_ms)


async def check_disk_space(exam: Exam) -> list[Finding]:
    """Free space against the reserve, and the hours that fit at the measured rate."""
    found = os.statvfs(exam.existing_dir())
    free = found.f_bavail * found.f_frsize
    reserve = exam.config.spool.reserve_mb << 20
    room = free - reserve
    facts: Facts = {"free_bytes": free, "reserve_bytes": reserve, "hours": None}
    text = f"{free / 1e9:.1f} GB free, {reserve / 1e9:.1f} GB of it kept in reserve"
    if room <= 0:
        fix = "let the uplink drain, hand the card over (docs/HANDOVER.md), or use a larger card"
        return [fail("disk space", f"{text}: no session can start", fix, **facts)]
    if exam.bytes_s:
        hours = facts["hours"] = round(room / exam.bytes_s / 3600, 1)
        text += f"; at least {hours:g} h fit at {exam.bytes_s / 1e6:.2f} MB/s before compression"
    elif exam.told is not None and exam.told.spool.hours_left is not None:
        hours = facts["hours"] = exam.told.spool.hours_left
        text += f"; {hours:g} h fit at the present rate"
    return [ok("disk space", text, **facts)]
