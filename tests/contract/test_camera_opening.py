"""How long a camera may take to be there: its program to load, and the camera itself to open."""

from __future__ import annotations

import asyncio
import sys

import pytest

from edgecap.errors import SourceError
from edgecap.source import camera_feed
from edgecap.source.camera_feed import open_camera
from edgecap.source.camera_synthetic import SyntheticCamera
from tests.contract.camera_taker import Taker, play

SLOW_TO_LOAD = """
import sys, time
from pathlib import Path

gate = Path(sys.argv.pop(1))
while not gate.exists():
    time.sleep(0.01)
from edgecap.source import camera_child

camera_child.main()
"""
"""A camera's program on a machine that has no time for it until a file exists."""


def slow_camera(gate):
    spec = SyntheticCamera("head", 160, 96).spec
    return open_camera("head", spec, (sys.executable, "-c", SLOW_TO_LOAD, str(gate)))


def test_a_busy_machine_may_load_for_longer_than_a_camera_may_open(tmp_path, monkeypatch):
    """To begin anew would not be faster: every attempt would be given up like the first."""
    monkeypatch.setattr(camera_feed, "OPEN_LIMIT_S", 0.1)

    async def run():
        async def use():
            async with slow_camera(tmp_path / "gate") as feed:
                pid, taker = feed.pid, Taker(feed)
                await play(feed, taker, 3)
                assert feed.pid == pid
            await taker.end()

        using = asyncio.create_task(use())
        await asyncio.wait([using], timeout=0.5)
        assert not using.done()
        monkeypatch.setattr(camera_feed, "OPEN_LIMIT_S", 60.0)
        (tmp_path / "gate").touch()
        await using

    asyncio.run(run())


def test_a_program_that_never_loads_is_told_from_a_camera_that_does_not_open(tmp_path, monkeypatch):
    monkeypatch.setattr(camera_feed, "LOAD_LIMIT_S", 0.3)

    async def run():
        async with slow_camera(tmp_path / "gate"):
            pytest.fail("it was opened")

    with pytest.raises(SourceError, match=r"program was not loaded within 0\.3 s") as caught:
        asyncio.run(run())
    assert "processor" in caught.value.fix
