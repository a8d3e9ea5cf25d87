"""What a program that runs for weeks owes its machine: memory that it does not need any more."""

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
    """Call before any thread is started: have all of them allocate from the same heap.

    glibc gives each its own, of which `malloc_trim` returns the holes and not the free end, and a thread that
    has once read a backlog keeps the most that it ever needed. Python lets one thread work at a time anyhow.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have one heap
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile: for imports, which leave none; it takes a tenth of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep_for_good() -> None:
    """Call when everything stands: what lives now is kept, and never looked at again.

    Python looks through all objects only when those that are new amount to a quarter of the others. With
    every imported module among the others, sessions that have ended wait for that by the dozen, each in a
    knot of its own.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Collect what is lost in knots, and return freed memory to the system.

    glibc alone keeps it. Chunks pass from thread to thread, so the heap fills with holes, a little more each
    hour, and most of all while a backlog is delivered.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have no need of it
    if trim is not None:
        trim(0)


async def stay_tidy(at_rest: Callable[[], bool] = lambda: True) -> NoReturn:
    """Keep what is there now, and give back whatever comes to it, every `TIDY_S` at rest."""
    keep_for_good()
    while True:
        await asyncio.sleep(TIDY_S)
        if at_rest():
            await asyncio.to_thread(give_back)
