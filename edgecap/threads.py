"""Threads for what would block the event loop."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

THREADS = 8
"""Ports that hang while they are opened hold one each; the uplink and the session need two."""


def full_pool() -> ThreadPoolExecutor:
    """A pool whose threads all run from the start: memory must not depend on how busy a program has been."""
    pool = ThreadPoolExecutor(THREADS, "work")
    together = threading.Barrier(THREADS)  # a thread is started only when none of the others is idle
    for started in [pool.submit(together.wait) for _ in range(THREADS)]:
        started.result()
    return pool
