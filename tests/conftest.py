"""Every test must leave the process as it found it, and in CI none may be skipped or do less."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something about the machine's other work, not about the example.
settings.register_profile("edgecap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgecap")

MOST_EXAMPLES = int(os.environ.get("EDGECAP_TEST_EXAMPLES", "0"))
"""For an emulated processor, ten times slower: no property is tried on more examples, if this is set, and no
test has a time limit of its own, only the command line's."""

GRACE_S = 3.0
"""Threads and children that were told to end may need this long to be gone."""

ONE_AT_A_TIME = (
    "fault",
    "hw",
    "systemd",
    "contract/test_pi_camera.py",
    "contract/test_uvc_camera.py",
    "system/test_button_and_lights.py",
    "system/test_flow.py",
)
"""Tests that fill a processor, live in a board's real time, or take what the machine has once (mounts,
namespaces, a container): where tests run side by side, these follow one another. Paths below tests/."""

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def in_ci() -> bool:
    """Whether what a test needs must be there: set by .ci/run, and by every CI service."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def do_without(what: str, needs: str) -> None:
    """Let a test go on with less where something is missing; in CI it fails."""
    message = f"without {what}: this needs {needs}"
    if in_ci():
        pytest.fail(f"{message}; in CI nothing may be missing")
    print(message)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run side by side, a file's tests stay together, and so do the files above."""
    from xdist.scheduler import LoadFileScheduling

    class Groups(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "one at a time" if path.removeprefix("tests/").startswith(ONE_AT_A_TIME) else path

    return Groups(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _fail_if_skipped((yield))


def _fail_if_skipped(report: Report) -> Report:
    """A skip is for developers without root, libcamera and the like; in CI it is a failure."""
    if report.outcome == "skipped" and not hasattr(report, "wasxfail") and in_ci():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}; in CI nothing may be skipped"
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fewer examples, if asked for; `leaves_nothing_alive` need not search what was imported by now."""
    for test in session.items if MOST_EXAMPLES else ():
        test.own_markers = [mark for mark in test.own_markers if mark.name != "timeout"]
        own = getattr(getattr(test, "obj", None), "_hypothesis_internal_use_settings", None)
        if own is not None and own.max_examples > MOST_EXAMPLES:
            function = getattr(test.obj, "__func__", test.obj)
            function._hypothesis_internal_use_settings = settings(own, max_examples=MOST_EXAMPLES)
    gc.collect()
    gc.freeze()


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
