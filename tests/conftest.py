"""Every test must leave the process as it found it: no task, thread or child process alive."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

GRACE_S = 3.0
"""Threads and children that were told to end may need this long to be gone."""


def _children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= {int(pid) for pid in (task / "children").read_text().split()}
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def leaves_nothing_alive() -> Iterator[None]:
    """Fail a test that leaves threads or children behind; asyncio.run itself ends tasks."""
    threads = set(threading.enumerate())
    children = _children()
    yield
    gc.collect()
    deadline = time.monotonic() + GRACE_S
    while True:
        left_threads = [t.name for t in threading.enumerate() if t not in threads and t.is_alive()]
        left_children = _children() - children
        if not left_threads and not left_children:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left alive: threads {left_threads}, child processes {sorted(left_children)}")
        time.sleep(0.01)
