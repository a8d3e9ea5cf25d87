"""The compiled kernels: are they in the cache, and can a cache be written?"""

from __future__ import annotations

import asyncio
import os
import time

from edgecap.checkup.exam import Exam
from edgecap.checkup.finding import Facts, Finding, fail, ok


async def check_cache(exam: Exam) -> list[Finding]:
    """Load every kernel; what has to be compiled was not in the cache."""
    exam.tell("loading kernels; compiling them takes a minute or two where they are not cached")
    where = os.environ.get("NUMBA_CACHE_DIR", "")
    named = f"NUMBA_CACHE_DIR={where}" if where else "NUMBA_CACHE_DIR is not set"
    fix = "set NUMBA_CACHE_DIR to a directory that this user can write, then run `edgecap warmup`"
    from edgecap.kernels.compile import cache_state, warm_up

    t0 = time.perf_counter()
    await asyncio.to_thread(lambda: list(warm_up()))
    state, seconds = cache_state(), time.perf_counter() - t0
    facts: Facts = {
        "dir": state.path,
        "loaded": state.loaded,
        "compiled": state.compiled,
        "seconds": round(seconds, 1),
    }
    if not state.writable:
        text = f"no kernel cache can be written ({named}): every start compiles, here for {seconds:.0f} s"
        return [fail("kernel cache", text, fix, **facts)]
    if state.compiled:
        text = f"it was cold: {state.compiled} kernels had to be compiled, in {seconds:.0f} s; now it is warm"
        return [ok("kernel cache", f"{text} ({state.path})", **facts)]
    return [ok("kernel cache", f"warm: {state.loaded} kernels in {seconds:.1f} s from {state.path}", **facts)]
