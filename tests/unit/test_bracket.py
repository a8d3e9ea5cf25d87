"""How sensors bracket video: cameras wait for sensors that are there, and for none known to be missing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest

from edgecap.clock import now_ns
from edgecap.daemon import recording as module
from edgecap.daemon.recording import Live, OpenSource, start_sources, stop_sources
from edgecap.errors import SourceError
from edgecap.model import ClockFit, DeviceEvent, Item, SampleBlock, StreamInfo
from edgecap.source.item_queue import ItemQueue


class Device:
    """A source that does as the test says, and notes what it was told."""

    def __init__(self, name: str, *streams: str, kind: str = "force", refuses: bool = False) -> None:
        self.info = tuple(StreamInfo(s, kind, name, 100.0) for s in streams or (name,))  # type: ignore[arg-type]
        self.queue = ItemQueue()
        self.refuses = refuses
        self.told: list[str] = []
        self.open = OpenSource(name, self, Live())

    async def start(self) -> None:
        self.told.append("start")
        if self.refuses:
            raise SourceError(f"{self.open.name} did not answer start", fix="check its cable")

    async def stop(self) -> dict[str, int]:
        self.told.append("stop")
        self.queue.put(DeviceEvent(self.open.name, "stopped", now_ns()))
        return {}

    def __aiter__(self) -> AsyncIterator[Item]:
        return self.queue.__aiter__()

    def fails(self, kind: str, text: str, sensor: str = "") -> None:
        self.open.note(DeviceEvent(self.open.name, kind, now_ns(), text, sensor), now_ns())

    def gives(self, stream: str) -> None:
        t_ns = np.array([now_ns()], np.int64)
        fit = ClockFit(0, 0, 0.0, 1000, 0, 0.0, 0, True)
        self.open.saw(SampleBlock(stream, 0, t_ns, np.zeros((1, 1)), np.ones(1, np.int32), t_ns, fit))

    async def serve(self) -> None:
        """Take what it yields, as the daemon does."""
        async for item in self.queue:
            assert isinstance(item, DeviceEvent)
            self.open.note(item, now_ns())
            if item.kind == "stopped":
                self.open.live.stopped.set()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits in vain waits for longer than the test."""
    for limit in ("FIRST_SAMPLE_S", "BRACKET_S", "STOP_S"):
        monkeypatch.setattr(module, limit, 3600.0)


@contextlib.asynccontextmanager
async def served(*devices: Device) -> AsyncIterator[list[OpenSource]]:
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tasks = [group.create_task(d.serve()) for d in devices]
        yield [d.open for d in devices]
        for task in tasks:
            task.cancel()


async def turns(n: int = 20) -> None:
    """Let everybody go on who can."""
    for _ in range(n):
        await asyncio.sleep(0)


def test_cameras_wait_for_every_sensor_that_is_there() -> None:
    async def run() -> None:
        glove, camera = Device("glove", "imu", "force"), Device("camera", kind="video")
        async with served(glove, camera) as sources:
            starting = asyncio.create_task(start_sources(sources))
            await turns()
            glove.gives("imu")
            await turns()
            assert (glove.told, camera.told) == (["start"], [])
            glove.gives("force")
            assert await starting == []
            assert camera.told == ["start"]

    asyncio.run(run())


def test_no_camera_waits_for_a_sensor_that_is_known_to_be_missing() -> None:
    async def run() -> None:
        glove, head = Device("glove", "imu", "force"), Device("head", "head-imu")
        mute, camera = Device("mute", refuses=True), Device("camera", kind="video")
        glove.fails("fault", "force: no answer on I2C", "force")
        head.fails("disconnected", "/dev/x: gone")
        async with served(glove, head, mute, camera) as sources:
            starting = asyncio.create_task(start_sources(sources))
            await turns()
            glove.gives("imu")
            problems = await starting
            assert [str(p) for p in problems] == [
                "head is disconnected: /dev/x: gone; plug it in again",
                "mute did not answer start; check its cable",
            ]
            # To ask one that is away costs a second of unanswered commands.
            assert (head.told, camera.told) == ([], ["start"])
            glove.gives("imu")
            glove.open.live.last_ns = 1 << 62  # beyond the last frame
            await stop_sources(sources)

    asyncio.run(run())


@pytest.mark.parametrize("end", ["fault", "disconnected"])
def test_one_that_fails_while_it_is_waited_for_is_waited_for_no_more(end: str) -> None:
    async def run() -> None:
        glove, camera = Device("glove", "force"), Device("camera", kind="video")
        async with served(glove, camera) as sources:
            starting = asyncio.create_task(start_sources(sources))
            await turns()
            assert camera.told == []
            glove.fails(end, "no data", "force" if end == "fault" else "")
            await starting
            assert camera.told == ["start"]
            stopping = asyncio.create_task(stop_sources(sources))
            await stopping  # nor does the end wait for samples that cannot come

    asyncio.run(run())


def test_one_that_does_not_stop_is_left_behind_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, well = Device("glove"), Device("wrist")

    async def never() -> dict[str, int]:
        await asyncio.Event().wait()
        return {}

    stuck.stop = never  # type: ignore[method-assign]

    async def run() -> None:
        serving = asyncio.create_task(well.serve())
        try:
            monkeypatch.setattr(module, "STOP_S", 0.01)
            await stop_sources([stuck.open])
            monkeypatch.setattr(module, "STOP_S", 60.0)
            await stop_sources([well.open])
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    asyncio.run(run())
    assert [r.message for r in caplog.records] == [
        "glove did not stop within 0.01 s: what it sent last may be missing"
    ]
