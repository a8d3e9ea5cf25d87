"""What goes wrong on command goes wrong exactly so, and the device says so itself."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import struct

import numpy as np
import pytest

from edgecap.errors import SourceError
from edgecap.model import ChannelInfo
from edgecap.sim.firmware import FirmwareStream, motion_imu, read_truth
from tests.hw.board import joined, running
from tests.reference import serial_frames as sf

WIDE = FirmwareStream("wide", "scalar", 1000.0, tuple(ChannelInfo(f"c{i}", "", 1.0) for i in range(64)))
"""128 kB/s: fills the queue within a quarter of a second."""


async def flowing(board, more=30):
    n = board.n_samples()
    await board.until(lambda: board.n_samples() >= n + more, "samples")


def jumps(index):
    """(position, samples missing) wherever the running number jumps."""
    steps = np.diff(index)
    assert (steps >= 1).all()
    return [(int(i) + 1, int(steps[i]) - 1) for i in np.flatnonzero(steps != 1)]


def after_the_last(index, produced):
    """Samples lost between the last one that came and STOP: a busy machine stalls the board, too."""
    return produced - int(index[-1]) - 1


def test_reset_begins_a_new_life(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=6)], start_us=5000) as (firmware, board):
            await board.command(sf.OP_START)
            await flowing(board)
            answer = dict(pair.split("=") for pair in (await firmware.command("reset")).split())
            await board.until(lambda: len(board.hellos()) == 2, "HELLO after reset")
            first, second = board.hellos()
            assert answer == {"boot_no": "1", "boot_id": str(second.boot_id)}
            assert first.boot_id != second.boot_id
            hello = board.frames(sf.HELLO)[1]
            assert (hello.seq, hello.prev_tx_done_us) == (0, None)
            at = board.deframer.frames.index(hello)
            ack = await board.command(sf.OP_STOP)
            assert ack.numbers == [0]
            assert not [f for f in board.deframer.frames[at:] if f.kind == sf.SAMPLES]
            await board.command(sf.OP_START)
            await flowing(board)
            ack = await board.command(sf.OP_STOP)
            index, t_us, _ = joined(board.samples(0, board.deframer.frames[at:]))
            assert np.array_equal(index, np.arange(ack.numbers[0]))
            assert t_us[0] < 5_000_000  # the counter began anew
            assert set(board.deframer.broken) <= {"cobs", "crc", "length"}

    asyncio.run(main())
    truth = read_truth(tmp_path / "truth.bin")
    assert list(np.unique(truth["boot_no"])) == [0, 1]


def test_power_up_ends_what_was_left_on_the_line(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=3)]) as (firmware, board):
            await firmware.command("garbage 50")
            await firmware.command("reset")
            await board.until(lambda: len(board.hellos()) == 2, "an unharmed HELLO")
            assert sum(board.deframer.broken.values()) > 0

    asyncio.run(main())


def test_reset_by_command_acknowledges_first(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=3)]) as (_, board):
            assert (await board.command(sf.OP_RESET)).status == 0
            await board.until(lambda: len(board.hellos()) == 2, "HELLO after reset")
            first, second = board.hellos()
            assert first.boot_id != second.boot_id

    asyncio.run(main())


def test_a_long_stall_overruns_and_every_lost_sample_is_told(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [WIDE, motion_imu(axes=3)]) as (firmware, board):
            await board.command(sf.OP_START)
            await flowing(board)
            await firmware.command("stall 700")
            board.ping(77)
            await board.until(lambda: board.events(sf.OVERRUN), "overrun")
            await flowing(board, 300)
            ack = await board.command(sf.OP_STOP)
            assert [f.payload[:4] for f in board.frames(sf.PONG)] == [struct.pack("<I", 77)]
            return board, ack.numbers

    board, totals = asyncio.run(main())
    truth = read_truth(tmp_path / "truth.bin")
    frames = board.deframer.frames
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    for stream in range(2):
        index, t_us, _ = joined(board.samples(stream))
        lost = jumps(index)
        told = [event for event in board.events(sf.OVERRUN) if event.stream == stream]
        if tail := after_the_last(index, totals[stream]):
            assert told.pop().arg == tail
        assert [event.arg for event in told] == [n for _, n in lost]
        assert len(index) + sum(n for _, n in lost) + tail == totals[stream]
        mine = truth[truth["stream"] == stream]
        assert np.array_equal(mine["t_us"][index], t_us)
        for event, (at, n) in zip(told, lost, strict=True):
            assert event.t_us == mine["t_us"][index[at] - n]
        for event, (at, _) in zip(told, lost, strict=True):
            # Right before the stream's first batch after the loss.
            place = next(
                i for i, f in enumerate(frames) if f.kind == sf.EVENT and sf.parse_event(f.payload) == event
            )
            (after, *_) = board.samples(stream, frames[place:])
            assert after.index == index[at]
    assert sum(event.arg for event in board.events(sf.OVERRUN)) > 100


def test_a_short_stall_loses_nothing(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=9)]) as (firmware, board):
            await board.command(sf.OP_START)
            await firmware.command("stall 200")
            await flowing(board, 400)
            ack = await board.command(sf.OP_STOP)
            index, _, _ = joined(board.samples())
            assert np.array_equal(index, np.arange(ack.numbers[0]))
            assert not board.events(sf.OVERRUN)

    asyncio.run(main())


def test_a_host_that_does_not_read_costs_overruns_only(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [WIDE]) as (firmware, board):
            await board.command(sf.OP_START)
            await flowing(board)
            board.pause()
            total = (await firmware.totals())["wide"]
            while (await firmware.totals())["wide"] < total + 1500:
                await asyncio.sleep(0.02)
            board.resume()
            await board.until(lambda: board.events(sf.OVERRUN), "overrun")
            await flowing(board, 300)
            ack = await board.command(sf.OP_STOP)
            index, _, _ = joined(board.samples())
            lost = sum(event.arg for event in board.events(sf.OVERRUN))
            assert len(index) + lost == ack.numbers[0]
            assert lost == sum(n for _, n in jumps(index)) + after_the_last(index, ack.numbers[0])
            assert not board.deframer.broken

    asyncio.run(main())


@pytest.mark.parametrize("count", [1, 5])
def test_dropped_frames_leave_a_jump_in_seq(binary, tmp_path, count):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=6)]) as (firmware, board):
            await board.command(sf.OP_START)
            await flowing(board)
            await firmware.command(f"drop {count}")
            await flowing(board, 100)
            ack = await board.command(sf.OP_STOP)
            seqs = [frame.seq for frame in board.deframer.frames]
            assert [n for _, n in jumps(seqs)] == [count]
            index, _, _ = joined(board.samples())
            assert [n for _, n in jumps(index)] == [10 * count]
            assert ack.numbers == [len(index) + 10 * count]
            assert not board.deframer.broken
            assert not board.events(sf.OVERRUN)

    asyncio.run(main())


def test_corrupted_frames_are_discarded_one_by_one(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=6)], seed=2) as (firmware, board):
            await board.command(sf.OP_START)
            await flowing(board)
            await firmware.command("corrupt 20")
            await flowing(board, 100)
            await board.command(sf.OP_STOP)
            seqs = [frame.seq for frame in board.deframer.frames]
            assert [n for _, n in jumps(seqs)] == [20]
            assert sum(board.deframer.broken.values()) >= 20  # a bit that becomes a 0 splits a frame

    asyncio.run(main())


def test_garbage_costs_at_most_the_next_frame(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=6)], seed=9) as (firmware, board):
            await board.command(sf.OP_START)
            await flowing(board)
            for n in (1, 300, 3000):
                await firmware.command(f"garbage {n}")
                await flowing(board, 60)
            await board.command(sf.OP_STOP)
            lost = [n for _, n in jumps([frame.seq for frame in board.deframer.frames])]
            assert set(lost) <= {1}
            assert 1 <= len(lost) <= 3
            assert sum(board.deframer.broken.values()) > 3

    asyncio.run(main())


@pytest.mark.parametrize("power", ["", " power"])
def test_unplugging(binary, tmp_path, power):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=6)]) as (firmware, board):
            await board.command(sf.OP_START)
            await flowing(board)
            link = tmp_path / "port"
            pty = link.readlink()
            await firmware.command("unplug 300" + power)
            await board.until(lambda: board.gone, "hang-up")
            assert not link.is_symlink() or link.readlink() != pty
            await board.until(link.is_symlink, "link again")
            board.open()
            if power:
                await board.until(lambda: len(board.hellos()) == 2, "HELLO")
                assert len({hello.boot_id for hello in board.hellos()}) == 2
                assert (await board.command(sf.OP_STOP)).numbers == [0]
                return
            await flowing(board, 400)
            ack = await board.command(sf.OP_STOP)
            index, _, _ = joined(board.samples())
            missing = sum(n for _, n in jumps(index))
            assert len(index) + missing == ack.numbers[0]
            assert missing <= 40  # what the line itself held when it was cut
            assert not board.events(sf.OVERRUN)

    asyncio.run(main())


def test_a_silent_sensor_is_reported_and_comes_back(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu("imu", axes=6), motion_imu("other")]) as (
            firmware,
            board,
        ):
            await board.command(sf.OP_START)
            await flowing(board)
            await firmware.command("silence imu 300")
            await board.until(lambda: board.events(sf.SENSOR_OK), "the sensor back")
            await flowing(board)
            await board.command(sf.OP_STOP)
            (fault,), (back,) = board.events(sf.SENSOR_FAULT), board.events(sf.SENSOR_OK)
            index, t_us, _ = joined(board.samples(0))
            assert np.array_equal(index, np.arange(len(index)))  # what a sensor never gave takes no index
            (at,) = np.flatnonzero(np.diff(t_us) > 1000)
            assert (fault.stream, back.stream) == (0, 0)
            assert fault.t_us == t_us[at] + 1000
            assert back.t_us == t_us[at + 1]
            assert back.t_us - fault.t_us == pytest.approx(300_000, abs=2000)
            assert set(np.diff(joined(board.samples(1))[1])) == {1000}
            with pytest.raises(SourceError, match="no stream"):
                await firmware.command("silence nothing 10")

    asyncio.run(main())


def test_a_press_is_one_down_and_one_up_in_spite_of_bouncing(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=3)]) as (firmware, board):
            await board.command(sf.OP_START)
            answer = dict(pair.split("=") for pair in (await firmware.command("press 60")).split())
            await board.until(lambda: board.events(sf.BUTTON_UP), "button up")
            await firmware.command("press 1")  # shorter than the debouncing
            await firmware.command("press 40")
            await board.until(lambda: len(board.events(sf.BUTTON_UP)) == 2, "second press")
            await firmware.command("down")
            await board.until(lambda: len(board.events(sf.BUTTON_DOWN)) == 3, "down")
            await firmware.command("up")
            await board.until(lambda: len(board.events(sf.BUTTON_UP)) == 3, "up")
            await board.command(sf.OP_STOP)
            return board, answer

    board, answer = asyncio.run(main())
    assert [event.code for event in board.presses()] == [sf.BUTTON_DOWN, sf.BUTTON_UP] * 3
    truth = read_truth(tmp_path / "truth.bin")
    for events, key in ((board.events(sf.BUTTON_DOWN), "down_ns"), (board.events(sf.BUTTON_UP), "up_ns")):
        raw_ns = np.interp(events[0].t_us, truth["t_us"], truth["raw_ns"])
        assert raw_ns == pytest.approx(int(answer[key]), abs=20e6)
        assert raw_ns >= int(answer[key]) - 2000


def test_an_edge_of_the_button_outlives_the_loss_of_the_frame_that_tells_it(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=3)]) as (firmware, board):
            truth = []
            for number, edge in enumerate(("down", "up"), 1):
                await firmware.command("drop 1")  # nothing else is sent while idle
                truth.append(int((await firmware.command(edge)).partition("=")[2]))
                await board.until(lambda n=number: len(board.frames(sf.EVENT)) == 2 * n, f"{edge}, twice")
            return board.presses(), truth

    (down, up), truth = asyncio.run(main())
    assert (down.code, up.code) == (sf.BUTTON_DOWN, sf.BUTTON_UP)
    assert (up.t_us - down.t_us) * 1000 == pytest.approx(truth[1] - truth[0], abs=30e6)


def test_a_press_is_seen_though_the_machine_sleeps_through_it(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=3)]) as (firmware, board):
            await firmware.command("press 80")
            os.kill(firmware.pid, signal.SIGSTOP)
            await asyncio.sleep(0.3)  # longer than the press
            os.kill(firmware.pid, signal.SIGCONT)
            await board.until(lambda: board.events(sf.BUTTON_UP), "button up")
            return [board.events(code)[0].t_us for code in (sf.BUTTON_DOWN, sf.BUTTON_UP)]

    down_us, up_us = asyncio.run(main())
    assert up_us - down_us >= 75_000


def test_presses_stay_single_though_the_machine_stops_in_the_midst_of_their_bounces(binary, tmp_path):
    rng = random.Random(7)
    print("seed 7")

    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=3)]) as (firmware, board):
            for number in range(1, 9):
                await firmware.command("press 60")
                while len(board.events(sf.BUTTON_UP)) < number:
                    os.kill(firmware.pid, signal.SIGSTOP)
                    await asyncio.sleep(rng.uniform(0.006, 0.03))
                    os.kill(firmware.pid, signal.SIGCONT)
                    await asyncio.sleep(rng.uniform(0.0002, 0.002))
            return [event.code for event in board.presses()]

    assert asyncio.run(main()) == [sf.BUTTON_DOWN, sf.BUTTON_UP] * 8


def test_bad_bytes_from_the_host_are_counted_and_logged(binary, tmp_path):
    rng = random.Random(21)
    print("seed 21")

    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=3)]) as (_, board):
            for number in range(40):
                board.send_raw(rng.randbytes(rng.randrange(1, 1500)))
                good = bytearray(sf.seal(sf.COMMAND, 0, struct.pack("<HB", 1, sf.OP_RESET)))
                good[rng.randrange(len(good) - 1)] ^= 1 << rng.randrange(8)
                board.send_raw(bytes(good))
                board.send_raw(sf.seal(rng.randrange(3, 0x81), 0, rng.randbytes(30)))
                board.send_raw(sf.seal(sf.COMMAND, 0, rng.randbytes(rng.randrange(3))))
                board.send_raw(b"\0\0\0")
                board.ping(number)
                await board.until(lambda n=number: len(board.frames(sf.PONG)) > n, "PONG")
            await board.until(lambda: board.frames(sf.LOG), "LOG")
            level, _, n = struct.unpack_from("<BIB", board.frames(sf.LOG)[0].payload)
            text = board.frames(sf.LOG)[0].payload[6:].decode()
            assert (level, n) == (30, len(text))
            assert text.endswith(" frames from the host refused")
            assert len(board.hellos()) == 1
            assert not board.deframer.broken

    asyncio.run(main())
