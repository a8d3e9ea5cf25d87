"""Sensors that sample by a clock of their own: each row bears the time at which it was taken."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from edgecap.sim.firmware import FirmwareStream, motion_imu, read_truth
from edgecap.timeline.fit import to_rig_ns
from tests.contract.board_taker import recording
from tests.hw.board import joined, running
from tests.reference import serial_frames as sf

WRAP = 2**32


def own(ppm: float, rate_hz: float = 1000.0) -> FirmwareStream:
    clocked = motion_imu(rate_hz=rate_hz, axes=6)
    return FirmwareStream(clocked.name, clocked.kind, rate_hz, clocked.channels, own_ppm=ppm)


@pytest.mark.parametrize("ppm", [0.0, 3700.0, -9200.0])
@pytest.mark.parametrize("start_us", [0, WRAP - 200_000])
def test_rows_and_times_are_those_of_the_truth(binary, tmp_path, ppm, start_us):
    async def main():
        async with running(binary, tmp_path, [own(ppm), motion_imu("clocked")], start_us=start_us) as (
            _,
            board,
        ):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples(0) > 400, "samples")
            return board, await board.command(sf.OP_STOP)

    board, ack = asyncio.run(main())
    truth = read_truth(tmp_path / "truth.bin")
    for stream in range(2):
        index, t_us, _ = joined(board.samples(stream))
        mine = truth[truth["stream"] == stream]
        assert index.tolist() == mine["index"].tolist() == list(range(ack.numbers[stream]))
        assert np.array_equal(t_us, mine["t_us"])
    _, t_us, _ = joined(board.samples(0))
    steps = np.diff(t_us) % WRAP
    assert steps.mean() == pytest.approx(1000 * (1 + ppm * 1e-6), abs=0.01)
    assert np.ptp(steps) <= 1
    assert set(np.diff(joined(board.samples(1))[1]) % WRAP) == {1000}


async def told_between_samples(firmware, board, command, event):
    """Something befalls the sensor amid a capture; the answer to its end."""
    await board.command(sf.OP_START)
    await board.until(lambda: board.n_samples() > 50, "samples")
    await firmware.command(command)
    await board.until(lambda: board.events(event), "the event")
    n = board.n_samples()
    await board.until(lambda: board.n_samples() > n + 50, "samples after it")
    return await board.command(sf.OP_STOP)


def test_lost_rows_leave_a_jump_and_an_event(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [own(1500.0)]) as (firmware, board):
            return board, await told_between_samples(firmware, board, "lose imu 7", sf.OVERRUN)

    board, ack = asyncio.run(main())
    index, t_us, _ = joined(board.samples())
    jumps = np.flatnonzero(np.diff(index) != 1)
    lost = [event.arg for event in board.events(sf.OVERRUN)]
    assert sum(lost) == 7
    assert (np.diff(index)[jumps] - 1).sum() == 7
    assert len(index) + 7 == ack.numbers[0]
    first = board.events(sf.OVERRUN)[0].t_us
    assert t_us[jumps[0]] < first < t_us[jumps[0] + 1]


def test_a_silent_sensor_is_told_of_and_comes_back(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [own(0.0)]) as (firmware, board):
            return board, await told_between_samples(firmware, board, "silence imu 400", sf.SENSOR_OK)

    board, ack = asyncio.run(main())
    index, t_us, _ = joined(board.samples())
    assert index.tolist() == list(range(ack.numbers[0]))  # it took none
    pause = int(np.argmax(np.diff(t_us)))
    (fault,), (back,) = board.events(sf.SENSOR_FAULT), board.events(sf.SENSOR_OK)
    assert t_us[pause] < fault.t_us <= t_us[pause] + 1010
    assert back.t_us == t_us[pause + 1]


def test_the_daemon_puts_such_rows_into_rig_time(tmp_path):
    async def main() -> None:
        async with recording(tmp_path, own(4200.0), truth=tmp_path / "truth.bin", skew_ppm=40.0) as taker:
            await taker.feed.start()
            await taker.until_samples(1500)
            await taker.device.command("lose imu 9")
            await taker.until_samples(600)
            sent = await taker.stop()
            taker.assert_accounted(sent)
            assert [(gap.lost, gap.cause) for gap in taker.gaps()] == [(9, "overrun")]
            truth = read_truth(tmp_path / "truth.bin")
            true_ns = dict(zip(truth["index"].tolist(), truth["raw_ns"].tolist(), strict=True))
            inside = []
            for block in taker.blocks("hand-imu"):
                t_ns = to_rig_ns(block.fit, block.ticks)
                wanted = [true_ns[i] for i in range(block.index, block.index + len(block.ticks))]
                inside.append(np.abs(t_ns - wanted) <= block.fit.u_ns)
            assert np.concatenate(inside).mean() > 0.999

    asyncio.run(main())
