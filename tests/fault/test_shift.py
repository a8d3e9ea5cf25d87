"""Some minutes of a working day in fast time: the rig must not grow. bench/shift.py is the whole day."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecap import clock
from edgecap.sim.fast_time import FastTime
from edgecap.sim.partition import Cable
from edgecap.sim.shift import Plan, Shift

SPEED = 4
MORE_RSS = 0.15
"""So short a time does not show small leaks of memory; whatever is lost per session or connection shows."""
MORE_DISK_BYTES = (1 << 20) + (256 << 10)
"""The segment being written stays, full or empty; SQLite keeps the pages that it has needed."""

WAITS = """
import asyncio, sys, threading, time

def told(what, wait, seconds):
    before = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
    wait(seconds)
    print(what, seconds, time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - before, flush=True)

condition = threading.Condition()
with condition:
    told("condition", condition.wait, 1.5)
told("sleep", time.sleep, 1.5)
told("event", threading.Event().wait, 0.7)
told("loop", lambda seconds: asyncio.run(asyncio.sleep(seconds)), 1.5)
for clock in (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC_RAW):
    print("clock", clock, time.clock_gettime_ns(clock), flush=True)
"""


def test_a_program_in_fast_time_waits_by_its_own_clock(tmp_path: Path) -> None:
    with FastTime(tmp_path) as fast:
        fast.speed = 50
        ahead_ns = fast.now_ns() - clock.now_ns()
        began_ns = fast.now_ns()
        done = subprocess.run(
            [sys.executable, "-c", WAITS], env=fast.environ(), capture_output=True, text=True, check=True
        )
        ended_ns = fast.now_ns()
        real_ahead_ns = ended_ns - clock.now_ns()
    lines = [line.split() for line in done.stdout.splitlines()]
    waits = {what: (float(asked), float(took)) for what, asked, took in lines if what != "clock"}
    assert set(waits) == {"condition", "sleep", "event", "loop"}
    for what, (asked, took) in waits.items():
        assert took >= asked * 0.999, what
    clocks = {int(number): int(ns) for what, number, ns in lines if what == "clock"}
    assert began_ns < clocks[time.CLOCK_MONOTONIC_RAW] < ended_ns
    for number, ns in clocks.items():
        # Every clock is ahead of the real one by the same.
        assert ahead_ns < ns - time.clock_gettime_ns(number) + (ended_ns - began_ns)
        assert ns < time.clock_gettime_ns(number) + real_ahead_ns
    assert real_ahead_ns > ahead_ns


def test_the_speed_may_change_and_no_clock_goes_back(tmp_path: Path) -> None:
    with FastTime(tmp_path) as fast:
        last_ns = 0
        for speed in (1, 50, 3, 1, 20):
            fast.speed = speed
            for _ in range(100):
                now_ns = fast.now_ns()
                assert now_ns >= last_ns
                last_ns = now_ns
        assert fast.speed == 20


@pytest.mark.skipif(not Cable.available(), reason="needs root, iproute2 and network namespaces")
@pytest.mark.timeout(240)
def test_sessions_and_absences_leave_the_rig_as_it_was(tmp_path: Path) -> None:
    plan = Plan(
        seed=3,
        speed=SPEED,
        hours=2,
        hour_s=60.0,
        session_s=(3.0, 8.0),
        pause_s=(1.0, 3.0),
        away=((1.2, 1.6),),
        camera=False,
        settle_s=10.0,
    )
    print(plan)
    outcome = asyncio.run(Shift(plan, tmp_path, print).run())
    print(outcome)
    assert not outcome.violations, "\n".join(outcome.violations)
    assert outcome.sessions >= 2
    assert outcome.samples > 1000
    assert sum(outcome.cuts.values()) >= 2
    first, *_, last = rested = [m for m in outcome.measures if m.rested]
    assert len(rested) >= 2
    assert (last.rig_fds, last.rig_threads) == (first.rig_fds, first.rig_threads)
    assert last.ingest_fds <= first.ingest_fds + last.sessions - first.sessions
    assert math.isclose(last.rig_rss, first.rig_rss, rel_tol=MORE_RSS)
    assert math.isclose(last.ingest_rss, first.ingest_rss, rel_tol=MORE_RSS)
    assert last.disk_bytes <= first.disk_bytes + MORE_DISK_BYTES
