"""The shipped image in the emulator against the real daemon: through the store, and in newtons."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from edgecap.calibration import ForceRecord, find
from edgecap.cli.calibrate_force import measure_live
from edgecap.dataset.calibration_map import add_to_map
from edgecap.dataset.force_session import ForceOptions
from edgecap.dataset.session import RecordedSession, load_session
from edgecap.errors import SourceError
from edgecap.ingest.store import open_store
from edgecap.model import DeviceEvent, Gap, Item, SampleBlock
from edgecap.source.serial_feed import SerialFeed
from edgecap.source.serial_mcu import SerialSource
from tests.hw.emulated import FINGERS, EmulatedBoard
from tests.system.site import Site
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)
PATIENCE_S = 90.0
SUM = 4
"""Conversions in a value: raw counts are so many times the input's."""
TARE = np.array([120, 300, 45, 801])
COUNTS_PER_NEWTON = np.array([200.0, 111.0, 305.0, 98.0])
PRESS = [(0, True), (20_000, False)]
"""Short, because the emulator lives slower than the rig: a machine that has no time for it in the midst of a
press makes a hold of it, which discards."""
CALIBRATED = (0, 3)


def inputs_at(force_n: np.ndarray) -> list[int]:
    """What the four inputs show under a force on each."""
    return [int(v) for v in np.round(TARE + COUNTS_PER_NEWTON * force_n)]


async def advance(board: EmulatedBoard, ms: float) -> None:
    """Until the board has lived through so much of its own time."""
    until = (await board.command("state"))["nanos"] + ms * 1e6
    async with asyncio.timeout(PATIENCE_S):
        while (await board.command("state"))["nanos"] < until:
            await asyncio.sleep(0.05)


async def press(site: Site, board: EmulatedBoard, state: str) -> None:
    """A short press of the button on the board."""
    await board.command("button", edges=PRESS)
    await site.until(state, lambda: site.status.get("state") == state, PATIENCE_S)


async def calibrated(board: EmulatedBoard, file: Path) -> None:
    """As `edgecap calibrate force --port`: a person carries out each request."""

    async def carry_out(request: str) -> None:
        force_n = np.zeros(4)
        if (found := re.search(r"finger taxel-(\d): put (\d+) N on", request)) is not None:
            force_n[int(found[1])] = int(found[2])
        await board.command("analog", values=inputs_at(force_n))
        await advance(board, 5)

    record, refused = await measure_live(
        board.port,
        "hand-force",
        [f"taxel-{k}" for k in CALIBRATED],
        [(f"{n} N", float(n)) for n in (2, 5, 9)],
        ForceOptions(window_s=0.2),
        carry_out,
    )
    assert [c.name for c in record.channels] == [f"taxel-{k}" for k in CALIBRATED]
    assert not refused
    add_to_map(file, record)


def test_newtons_from_pins_to_the_store(images, tmp_path):
    """Calibration, then a recording: gestures on the pin, loads on the inputs, forces in the dataset."""
    seen_n = (1.0, 7.0)
    file = tmp_path / "calibration.json"

    async def main() -> None:
        async with Site(tmp_path) as site, EmulatedBoard(images, "force4", tmp_path, record=False) as board:
            await calibrated(board, file)
            site.add_section(f'[[serial]]\nname = "hand"\nport = "{board.port}"')
            site.add_section(f'[calibration]\nfile = "{file}"')
            await site.start_ingest()
            await site.start_daemon()
            await board.command("analog", values=inputs_at(np.full(4, seen_n[0])))
            await press(site, board, "recording")
            session = str(site.status["session"])
            await advance(board, 800)
            await board.command("analog", values=inputs_at(np.full(4, seen_n[1])))
            await advance(board, 500)
            await press(site, board, "idle")
            report = await site.until_complete(session)
            assert report.outcome == "complete"
            check(load_session(open_store(str(site.store)), site.key(session)))

    def check(session: RecordedSession) -> None:
        data = session.stream("hand-force")
        wanted = np.array([inputs_at(np.full(4, n)) for n in seen_n]) * SUM
        # Every row but the one during which the inputs changed is one of the two, exactly.
        first = (data.values == wanted[0]).all(axis=1)
        second = (data.values == wanted[1]).all(axis=1)
        assert (~(first | second)).sum() <= 1
        assert first.sum() > 300
        assert second.sum() > 300
        assert np.array_equal(data.index, np.arange(len(data.index)))
        record = find(session.manifest["calibration"], ForceRecord, "hand-force")
        assert record is not None
        for k, channel in zip(CALIBRATED, record.channels, strict=True):
            newtons = channel.newtons(data.values[:, k])
            for rows, force_n in ((first, seen_n[0]), (second, seen_n[1])):
                # Inputs are whole counts: rounding takes at most half of one, here and in the calibration.
                assert np.abs(newtons[rows] - force_n).max() < 1.0 / COUNTS_PER_NEWTON[k]

    asyncio.run(main())


@contextlib.asynccontextmanager
async def feeding(board: EmulatedBoard) -> AsyncIterator[tuple[SerialFeed, list[Item]]]:
    items: list[Item] = []
    async with SerialSource("hand", board.port).open() as feed:

        async def take() -> None:
            async for item in feed:
                items.append(item)

        task = asyncio.create_task(take())
        yield feed, items
    await asyncio.wait_for(task, 10)


async def started(feed: SerialFeed) -> None:
    """START, as often as it takes: a machine that is busy may leave the emulator no second to answer in."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await feed.start()
            except SourceError as error:
                if "did not answer" not in str(error):
                    raise


def rows(items: list[Item], stream: str) -> int:
    return sum(len(i.ticks) for i in items if isinstance(i, SampleBlock) and i.stream == stream)


def test_the_daemon_survives_the_watchdogs_reset(images, tmp_path):
    async def main() -> None:
        async with EmulatedBoard(images, "imu", tmp_path) as board, feeding(board) as (feed, items):
            (info,) = feed.info
            assert (info.name, info.lag_ns) == ("hand-imu", 900_000)
            await started(feed)
            await until(lambda: rows(items, info.name) > 200, PATIENCE_S)
            await board.command("hang")
            await until(
                lambda: any(isinstance(i, DeviceEvent) and i.kind == "reset" for i in items), PATIENCE_S
            )
            n = rows(items, info.name)
            await until(lambda: rows(items, info.name) > n + 200, PATIENCE_S)
            await feed.stop()
            check(items, feed)

    def check(items: list[Item], feed: SerialFeed) -> None:
        blocks = [i for i in items if isinstance(i, SampleBlock)]
        gaps = [i for i in items if isinstance(i, Gap)]
        assert len({block.fit.epoch for block in blocks}) >= 2
        assert any(gap.cause == "reset" for gap in gaps)
        assert feed.statistics().resets == 1
        position = 0
        for item in items:  # every sample that was produced was received, or is in a gap
            if isinstance(item, Gap):
                position += max(item.lost, 0)
            elif isinstance(item, SampleBlock):
                assert item.index == position
                position += len(item.ticks)

    asyncio.run(main())


def test_rows_with_times_of_their_own_reach_the_daemon_exactly(images, tmp_path):
    async def main() -> None:
        async with EmulatedBoard(images, "imu", tmp_path, imu={"ppm": 2500}) as board:
            async with feeding(board) as (feed, items):
                await started(feed)
                await until(lambda: rows(items, "hand-imu") > 500, PATIENCE_S)
                sent = await feed.stop()
                await until(
                    lambda: isinstance(items[-1], DeviceEvent) and items[-1].kind == "stopped", PATIENCE_S
                )
            check(items, sent, (await board.samples())["imu"])

    def check(items: list[Item], sent: dict[str, int], taken: list[list[float]]) -> None:
        blocks = [i for i in items if isinstance(i, SampleBlock)]
        values = np.concatenate([b.values for b in blocks])
        ticks = np.concatenate([b.ticks for b in blocks])
        assert len(values) == sent.get(
            "hand-imu", len(values)
        )  # absent if the machine was too busy to answer
        assert not [i for i in items if isinstance(i, Gap)]
        measured = np.array(taken)
        first = int(np.flatnonzero((measured[:, 2:] == values[0]).all(axis=1))[0])
        mine = measured[first : first + len(values)]
        assert np.array_equal(mine[:, 2:], values)
        # Ticks are the board's counter, up to where the daemon began to count it.
        late_us = (ticks - ticks[0]) - (mine[:, 1] - mine[0, 1]) / 1000
        assert np.abs(late_us).max() < 5

    asyncio.run(main())


def test_what_is_wrong_with_a_sensor_reaches_status_and_light(images, tmp_path):
    async def main() -> None:
        broken = EmulatedBoard(images, "imu", tmp_path, imu={"whoAmI": 0})
        async with Site(tmp_path) as site, broken as board:
            site.add_section(f'[[serial]]\nname = "hand"\nport = "{board.port}"')
            await site.start_daemon()
            await site.until("shown while idle", lambda: site.status.get("led") == "sensor-fault", PATIENCE_S)
            assert "WHO_AM_I reads as an open line" in site.status["problems"]["hand"]
            await press(site, board, "recording")
            await site.until(
                "told",
                lambda: any("WHO_AM_I reads as an open line" in json.dumps(e) for e in site.events),
                PATIENCE_S,
            )
            await site.until("shown", lambda: site.status["led"] == "sensor-fault", PATIENCE_S)
            # The light on the board itself: two orange flashes, then dark.
            levels = set()
            async with asyncio.timeout(PATIENCE_S):
                while levels != {(230, 159, 0), (0, 0, 0)}:
                    levels = (levels | {tuple((await board.command("light"))["levels"])}) - {(0, 158, 115)}
            assert await site.stop_daemon() == 0

    asyncio.run(main())


def test_a_missing_magnetometer_is_named_and_the_rest_is_recorded(images, tmp_path):
    """One line with address and finger in log, events, status and doctor; every other stream is whole."""
    line = "hand-magnetic-middle: MLX90393 0x0E: no answer on I2C"

    async def doctor(site: Site) -> str:
        args = ["doctor", "--config", str(site.config()), "--seconds", "2"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgecap", *args, stdout=asyncio.subprocess.PIPE
        )
        return (await process.communicate())[0].decode()

    async def main() -> None:
        glove = EmulatedBoard(images, "glove", tmp_path, record=False, magnets=(0x0C, 0x0D, 0x0F))
        async with Site(tmp_path) as site, glove as board:
            site.add_section(f'[[serial]]\nname = "hand"\nport = "{board.port}"')
            for _ in range(3):  # a machine that is busy may leave the emulator no second to answer in
                said = await doctor(site)
                named = any("device hand" in row and line in row for row in said.splitlines())
                if named:
                    break
            assert named, said
            await site.start_ingest()
            await site.start_daemon()
            await press(site, board, "recording")
            session = str(site.status["session"])
            await site.until(
                "named", lambda: line in site.status.get("problems", {}).get("hand", ""), PATIENCE_S
            )
            assert any(line in json.dumps(e) for e in site.events)
            await advance(board, 1000)
            await board.command("magnet", address=0x0E)
            await site.until("back", lambda: not site.status["problems"], PATIENCE_S)
            await advance(board, 500)
            await press(site, board, "idle")
            assert (await site.until_complete(session)).outcome == "complete"
            assert line in (site.out / "daemon.log").read_text()
            check(load_session(open_store(str(site.store)), site.key(session)))

    def check(session: RecordedSession) -> None:
        fingers = [session.stream(f"hand-magnetic-{finger}") for finger in FINGERS]
        counts = [len(finger.index) for finger in fingers]
        assert counts[2] > 50  # from when it was there
        assert min(counts[0], counts[1], counts[3]) > counts[2] + 100
        for finger in fingers:
            assert np.array_equal(finger.index, np.arange(len(finger.index)))

    asyncio.run(main())
