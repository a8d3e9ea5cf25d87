"""What cameras and boards do is asked here; how soon, only where a test sets its own limit."""

from __future__ import annotations

import pytest

from edgecap.source import camera_feed, camera_watchdog, conversation


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that runs other tests beside is slow to start a process, and to give any frame."""
    for limit in ("OPEN_LIMIT_S", "START_LIMIT_S", "FIRST_FRAME_LIMIT_S"):
        monkeypatch.setattr(camera_feed, limit, 60.0)
    monkeypatch.setattr(conversation, "ACK_TRIES", 30)  # a board is a process here, too
    if "watchdog" not in request.fixturenames:
        for limit in ("LEAST_S", "MOST_S"):
            monkeypatch.setattr(camera_watchdog, limit, 60.0)


@pytest.fixture
def watchdog() -> None:
    """The camera's own patience: one whose process a busy machine holds up for a second is replaced, too."""
