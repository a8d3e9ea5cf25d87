"""Memory goes back to the system, whichever thread needed it; each case is a program of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PRELUDE = """
import asyncio, gc, os, sys, threading, weakref
from concurrent.futures import ThreadPoolExecutor
from edgecap import memory

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

class Knot:
    def __init__(self):
        self.me = self
"""

BURSTS = """
memory.share_one_heap()
THREADS, CHUNK, CHUNKS = 6, 1500, 4000
del_me = bytearray(24 << 20)  # glibc learns from it to keep as much at the end of a heap
del del_me
barrier = threading.Barrier(THREADS)

def burst():
    kept = [bytearray(CHUNK) for _ in range(CHUNKS)]
    barrier.wait()
    del kept
    barrier.wait()

with ThreadPoolExecutor(THREADS) as pool:
    list(pool.map(lambda _: barrier.wait(), range(THREADS)))
    memory.give_back()
    before = rss()
    list(pool.map(lambda _: burst(), range(THREADS)))
    needed = rss() - before
    memory.give_back()
    print(needed, rss() - before)
"""

KNOTS = """
memory.TIDY_S = 0.001
resting, rested = False, 0
knot = Knot()
gone = weakref.ref(knot)
gc.disable()
del knot  # before everything stands: not kept for good

def at_rest():
    global rested
    rested += resting
    return resting

async def main():
    global resting
    tidy = asyncio.create_task(memory.stay_tidy(at_rest))
    while not gc.get_freeze_count():
        await asyncio.sleep(0)
    assert gone() is None
    knot = Knot()
    later = weakref.ref(knot)
    del knot
    await asyncio.sleep(0.05)
    assert later() is not None, "collected while busy"
    resting = True
    while later() is not None:
        await asyncio.sleep(0.001)
    assert rested
    tidy.cancel()

asyncio.run(main())
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's heap")
def test_what_threads_needed_for_a_moment_goes_back() -> None:
    needed, kept = map(int, run(BURSTS).split())
    print(f"needed {needed / 1e6:.1f} MB, kept {kept / 1e6:.1f} MB")
    assert needed > 20e6
    assert kept < 5e6


def test_whatever_comes_after_the_start_is_collected_at_rest() -> None:
    run(KNOTS)
