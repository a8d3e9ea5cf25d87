"""A START or STOP whose answer never came may have been obeyed all the same: no board samples for nobody."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from edgecap.errors import SourceError
from edgecap.sim.firmware import HostFirmware
from edgecap.source import conversation
from edgecap.source.frames import Kind, Op
from edgecap.source.serial_feed import SerialFeed
from edgecap.source.serial_mcu import SerialSource
from tests.contract.board_taker import TWO, Taker, recording
from tests.reference import serial_frames
from tests.system.uart_cable import UartCable


async def refuses_rates(feed: SerialFeed) -> bool:
    """Whether the board samples: it takes a new rate while idle only, after every command before."""
    try:
        await feed.set_rate("hand-imu", 200.0)
    except SourceError as error:
        assert "stop sampling first" in str(error)
        return True
    return False


def ops(said: bytes) -> bytes:
    """The COMMANDs among what the daemon has sent."""
    line = serial_frames.Deframer()
    line.feed(said)
    return bytes(f.payload[2] for f in line.frames if f.kind == Kind.COMMAND)


def test_a_start_that_nobody_answered_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            os.kill(taker.device.pid, signal.SIGSTOP)
            try:
                with monkeypatch.context() as impatient:
                    impatient.setattr(conversation, "ACK_TRIES", 1)
                    with pytest.raises(SourceError, match="did not answer start"):
                        await taker.feed.start()
            finally:
                os.kill(taker.device.pid, signal.SIGCONT)
            assert not await refuses_rates(taker.feed)
            await taker.feed.start()
            await taker.until_samples(20)
            taker.assert_accounted(await taker.stop())

    asyncio.run(run())


def test_a_start_under_way_at_the_end_is_taken_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with HostFirmware(TWO, link=tmp_path / "board") as device, UartCable() as cable:
            cable.plug(device.port)
            async with SerialSource("hand", cable.port).open() as feed:
                cable.plug(None)
                starting = asyncio.create_task(feed.start())
                await asyncio.sleep(0)
                starting.cancel()
                await asyncio.wait([starting])
            async with asyncio.timeout(60):
                while Op.STOP not in (after_start := ops(cable.said).partition(bytes([Op.START]))[2]):
                    await asyncio.sleep(0.01)
            assert Op.START not in after_start

    asyncio.run(run())


def test_a_stop_that_was_lost_on_the_line_is_said_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with HostFirmware(TWO, link=tmp_path / "board") as device, UartCable() as cable:
            cable.plug(device.port)
            async with SerialSource("hand", cable.port).open() as feed:
                taker = Taker(feed, device)
                task = asyncio.create_task(taker.take())
                await feed.start()
                await taker.until_samples(20)
                cable.plug(None)
                with monkeypatch.context() as impatient:
                    impatient.setattr(conversation, "ACK_TRIES", 1)
                    assert await taker.stop() == {}
                cable.plug(device.port)
                async with asyncio.timeout(60):
                    while await refuses_rates(feed):
                        await asyncio.sleep(0.01)
            await asyncio.wait_for(task, 60)

    asyncio.run(run())


def test_a_stop_that_nobody_waits_for_any_more_ends_the_recording_all_the_same(tmp_path: Path) -> None:
    async def run() -> None:
        async with recording(tmp_path) as taker:
            await taker.feed.start()
            await taker.until_samples(20)
            os.kill(taker.device.pid, signal.SIGSTOP)
            try:
                stopping = asyncio.create_task(taker.feed.stop())
                await asyncio.sleep(0)
                stopping.cancel()
                await asyncio.wait([stopping])
            finally:
                os.kill(taker.device.pid, signal.SIGCONT)
            await taker.until(lambda: taker.events("stopped"))
            assert {g.lost for g in taker.gaps()} == {-1}  # nobody knows what came after
            async with asyncio.timeout(60):
                while await refuses_rates(taker.feed):
                    await asyncio.sleep(0.01)
            after = len(taker.blocks("hand-imu"))
            await taker.feed.start()
            await taker.until_samples(20)
            await taker.feed.stop()
            assert taker.blocks("hand-imu")[after].index == 0

    asyncio.run(run())
