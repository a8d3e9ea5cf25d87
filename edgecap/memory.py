"""Gives back memory that is no longer needed: for programs that run for weeks."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterator
from typing import NoReturn

TIDY_S = 60.0
_M_ARENA_MAX = -8
"""`malloc.h` of glibc."""


def share_one_heap() -> None:
    """Have all threads allocate from one heap; call before any thread is started.

    By default glibc gives each thread a heap of its own. `malloc_trim` returns the holes in those but not
    their free ends, so that a thread which has once read a backlog would keep the most that it ever needed.
    Several heaps gain nothing here: Python lets one thread work at a time anyhow.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have one heap
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Suspend garbage collection: imports leave no garbage, and the search takes a tenth of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep_for_good() -> None:
    """Exempt what lives now from garbage collection; call once everything is set up.

    Python looks through all objects only when the new ones amount to a quarter of the old ones. With every
    imported module among the old ones, dozens of ended sessions, each held by reference cycles of its own,
    would wait for that.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Collect reference cycles, and return freed memory to the system, which glibc does not do by itself.

    Chunks pass from thread to thread, so the heap fills with holes: a little more each hour, and most of all
    while a backlog is delivered.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have no need of it
    if trim is not None:
        trim(0)


async def stay_tidy(at_rest: Callable[[], bool] = lambda: True) -> NoReturn:
    """Keep what is there now; what comes later is given back, every `TIDY_S`, whenever `at_rest` says so."""
    keep_for_good()
    while True:
        await asyncio.sleep(TIDY_S)
        if at_rest():
            await asyncio.to_thread(give_back)
