"""Devices that come, go and fail: each is tried again by itself, and none stops another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.daemon import devices as module
from edgecap.daemon import recording
from edgecap.daemon.devices import Devices, twins
from edgecap.daemon.recording import FAULT_SHOWN_NS, Live, OpenSource, in_one
from edgecap.errors import SourceError
from edgecap.model import ClockFit, DeviceEvent, FramePacket, Item, StreamInfo
from edgecap.source.item_queue import ItemQueue
from tests.waiting import until


class Scripted:
    """A source whose first attempts at opening fail; what it yields is put into its queue."""

    def __init__(self, name: str, failures: int = 0, serial_number: str = "", kind: str = "imu") -> None:
        self.name = name
        self.queue = ItemQueue()
        self.attempts = 0
        self.opened = 0
        self._failures = failures
        clock = "mcu" if kind == "imu" else "monotonic"
        self.info = (StreamInfo(name, kind, name, 100.0, clock=clock, serial_number=serial_number),)  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Scripted]:
        self.attempts += 1
        if self.attempts <= self._failures:
            raise SourceError(f"{self.name}: not there", fix="plug it in")
        self.opened += 1
        try:
            yield self
        finally:
            self.opened -= 1

    async def start(self) -> None: ...

    async def stop(self) -> dict[str, int]:
        return {}

    def __aiter__(self) -> AsyncIterator[Item]:
        return self.queue.__aiter__()

    def tell(self, kind: str, text: str = "", t_ns: int = 0) -> None:
        self.queue.put(DeviceEvent(self.name, kind, t_ns, text))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(module, "RETRY_LAST_S", 0.002)


def a_frame(stream: str, t_ns: int) -> FramePacket:
    return FramePacket(stream, 0, b"", True, t_ns, t_ns, 0, 0, ClockFit(0, 0, 0.0, 1, 0, 0.0, 0, True))


async def stopped(device: OpenSource) -> None:
    device.live.stopped.set()
    await device.stop()


@contextlib.contextmanager
def clock_at(t_ns: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "now_ns", lambda: t_ns)
        yield


def kept(*sources: Scripted) -> tuple[Devices, list[tuple[str, Item]]]:
    """Devices under test, and what they handed over."""
    taken: list[tuple[str, Item]] = []

    async def take(source: OpenSource, item: Item) -> None:
        taken.append((source.name, item))

    devices = Devices(sources, take, lambda: None)

    return devices, taken


def test_one_that_is_missing_stops_nobody_and_is_awaited() -> None:
    async def run() -> None:
        good, late, never = Scripted("good"), Scripted("late", 3), Scripted("never", 10**9)
        devices, taken = kept(good, late, never)
        assert devices.working  # nothing is known yet
        task = asyncio.create_task(devices.run())
        await devices.all_tried()
        assert devices.working
        await until(lambda: len(devices.open) == 2)
        assert [d.name for d in devices.open] == ["good", "late"]
        assert devices.problems(0) == {"never": "never: not there; plug it in"}
        await until(lambda: never.attempts > 5)
        connected = [(n, i.text) for n, i in taken if isinstance(i, DeviceEvent) and i.kind == "connected"]
        assert connected == [("good", ""), ("late", "it is there now")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (good.opened, late.opened) == (0, 0)

    asyncio.run(run())


def test_working_follows_what_comes_and_goes() -> None:
    async def run() -> None:
        board, camera = Scripted("board"), Scripted("camera", kind="video")
        devices, _ = kept(board, camera)
        task = asyncio.create_task(devices.run())
        await devices.all_tried()
        board.tell("disconnected", "/dev/ttyX: gone")
        await until(lambda: devices.problems(0))
        assert devices.problems(0) == {"board": "board is disconnected: /dev/ttyX: gone; plug it in again"}
        assert devices.working
        camera.tell("fault", "camera: no frames")
        await until(lambda: not devices.working)
        assert list(devices.problems(FAULT_SHOWN_NS * 9)) == ["board", "camera"]  # for as long as it lasts
        camera.tell("connected", "back")
        await until(lambda: devices.working)
        board.tell("connected", "back")
        await until(lambda: not devices.problems(0))
        board.tell("fault", "imu overran: 3 samples lost", t_ns=5)
        await until(lambda: devices.problems(5))
        assert devices.working
        assert devices.problems(5 + FAULT_SHOWN_NS) == {}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_boards_that_give_one_serial_number() -> None:
    def opened(name: str, serial: str, kind: str = "imu") -> OpenSource:
        return OpenSource(name, Scripted(name, 0, serial, kind), Live())

    found = twins([opened("a", "7"), opened("b", "8"), opened("c", "7"), opened("d", ""), opened("e", "")])
    assert set(found) == {"a", "c"}
    assert found["a"] == found["c"]
    assert found["a"].startswith("a and c give the same serial number '7'; ")
    assert twins([opened("a", "cam", "video"), opened("b", "cam", "video")]) == {}  # two modes of one camera


@given(st.lists(st.sampled_from(["connected", "disconnected", "fault", "log", "reset"]), max_size=12))
def test_a_device_that_was_lost_is_lost_until_it_is_connected(kinds: list[str]) -> None:
    device = OpenSource("board", Scripted("board"), Live())
    for k, kind in enumerate(kinds):
        device.note(DeviceEvent("board", kind, k, "why"), k)
    lost = [k for k, kind in enumerate(kinds) if kind in ("connected", "disconnected")][-1:]
    away = bool(lost) and kinds[lost[0]] == "disconnected"
    assert device.away == away
    assert bool(device.problem(10**18)) == away


@given(st.data())
def test_each_sensors_fault_stands_until_that_sensor_is_back(data: st.DataObject) -> None:
    device = OpenSource("glove", Scripted("glove"), Live())
    sensors = ["glove-magnetic-index", "glove-magnetic-ring", "glove-imu"]
    standing: dict[str, tuple[str, int]] = {}
    t_ns = 0

    def known(at_ns: int) -> dict[str, str]:
        # While it samples a fault stands until it is over; while idle it is told again and again.
        return {
            s: said
            for s, (said, told_ns) in standing.items()
            if device.started or at_ns - told_ns < FAULT_SHOWN_NS
        }

    for _ in range(data.draw(st.integers(0, 16))):
        t_ns += data.draw(st.integers(1, FAULT_SHOWN_NS // 2))
        kind = data.draw(st.sampled_from(["fault", "fault", "log", "samples", "start", "stop", "reset"]))
        sensor = data.draw(st.sampled_from(sensors))
        text = f"{sensor}: MLX90393 0x0E: no answer on I2C"

        before = known(t_ns)
        if kind in ("start", "stop"):
            standing = {s: (said, t_ns) for s, said in before.items()}
            with clock_at(t_ns):
                asyncio.run(device.start() if kind == "start" else stopped(device))
            continue
        if kind == "reset":
            standing.clear()
        else:
            standing.pop(sensor, None)
        if kind == "fault":
            standing[sensor] = text, t_ns
        if kind == "samples":
            device.saw(a_frame(sensor, t_ns))
        else:
            named = sensor if kind != "reset" else ""
            changed = device.note(DeviceEvent("glove", kind, 0, text, named), t_ns)
            assert changed == (known(t_ns) != before)
        for at_ns in (t_ns, t_ns + FAULT_SHOWN_NS):
            problem, expected = device.problem(at_ns), known(at_ns)
            assert all(said in problem for said in expected.values())
            assert not any(s in problem for s in set(sensors) - set(expected))
            assert problem.endswith("; check wiring and power of what is named") == bool(expected)
            assert "\n" not in problem


def test_what_an_idle_device_tells_again_is_no_news() -> None:
    async def run() -> None:
        glove = Scripted("glove")
        devices, taken = kept(glove)
        task = asyncio.create_task(devices.run())
        await devices.all_tried()
        fault = DeviceEvent("glove", "fault", 0, "glove-imu: sensor gives no data", "glove-imu")
        for item in (
            fault,
            fault,
            fault,
            DeviceEvent("glove", "log", 0, "glove-imu: sensor is back", "glove-imu"),
        ):
            glove.queue.put(item)
        glove.queue.put(fault)
        await until(lambda: len(taken) == 4)
        assert [i.kind for _, i in taken if isinstance(i, DeviceEvent)] == [
            "connected",
            "fault",
            "log",
            "fault",
        ]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_a_sensors_fault_does_not_hide_that_of_its_board() -> None:
    device = OpenSource("glove", Scripted("glove"), Live())
    device.note(DeviceEvent("glove", "fault", 5, "glove-magnetic-ring: no answer", "glove-magnetic-ring"), 5)
    device.note(DeviceEvent("glove", "fault", 6, "glove-imu overran: 3 samples lost in the device"), 6)
    said = "glove-magnetic-ring: no answer, glove-imu overran: 3 samples lost in the device; check"
    assert device.problem(7).startswith(said)
    device.note(DeviceEvent("glove", "fault", 8, "glove-magnetic-ring is silent", "glove-magnetic-ring"), 8)
    assert device.problem(9).startswith("glove-magnetic-ring: no answer, glove-imu overran")  # said once
    device.note(DeviceEvent("glove", "disconnected", 10, "/dev/x: gone"), 10)
    assert device.problem(11) == "glove is disconnected: /dev/x: gone; plug it in again"


def test_the_fixes_of_several_texts_are_at_the_end_each_once() -> None:
    assert in_one(["a is silent: too long; correct it", "b is silent"], "check b") == (
        "a is silent: too long, b is silent; correct it"
    )
    assert in_one(["a; c", "b; c", "a; d", ""], "e") == "a, b; c; d"
    assert in_one(["a", "b"], "e") == "a, b; e"
    assert in_one([], "") == ""


def test_silence_hides_no_better_cause_and_ends_with_the_next_samples() -> None:
    device = OpenSource("glove", Scripted("glove"), Live())
    device.started = True
    silent = DeviceEvent("glove", "fault", 20, "glove is silent", "glove")
    device.note(DeviceEvent("glove", "disconnected", 10, "/dev/x: gone"), 10)
    device.note(silent, 20)
    assert device.problem(21) == "glove is disconnected: /dev/x: gone; plug it in again"
    device.note(DeviceEvent("glove", "connected", 30, "/dev/x is back"), 30)
    assert device.problem(31) == ""
    device.note(silent, 40)
    assert device.problem(41).startswith("glove is silent; check wiring and power")
    assert device.able == set()
    device.saw(a_frame("glove", 42))
    assert device.problem(42) == ""
    assert device.able == {"glove"}
