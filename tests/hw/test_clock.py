"""The device counter, the two-step stamps and the truth file agree with one another and with the host."""

from __future__ import annotations

import asyncio
import itertools
import random

import numpy as np
import pytest

from edgecap.sim.firmware import motion_imu, read_truth
from tests.hw.board import Board, joined, running
from tests.reference import serial_frames as sf

WRAP = 2**32
SEED = 11


class Truth:
    """The exact map of device counter to rig time, from the truth file."""

    def __init__(self, path):
        records = read_truth(path)
        t_us = np.unwrap(records["t_us"].astype(np.float64), period=WRAP)
        self.slope, _ = np.polyfit(
            t_us - t_us[0], (records["raw_ns"] - records["raw_ns"][0]).astype(np.float64), 1
        )
        self.t0_us, self.raw0_ns = int(records["t_us"][0]), int(records["raw_ns"][0])
        residual = (records["raw_ns"] - records["raw_ns"][0]) - (t_us - t_us[0]) * self.slope
        self.residual_ns = float(np.abs(residual).max())

    def raw_ns(self, t_us: int) -> float:
        since = (t_us - self.t0_us + WRAP // 2) % WRAP - WRAP // 2
        return self.raw0_ns + since * self.slope


async def converse(board: Board, seconds: float, rng: random.Random) -> None:
    """Ping at random phase while samples flow."""
    await board.command(sf.OP_START)
    for number in range(int(seconds * 50)):
        board.ping(1000 + number)
        await asyncio.sleep(rng.uniform(0.01, 0.03))  # the pings' own pace
    await board.until(lambda: len(board.frames(sf.PONG)) == len(board.pings), "all PONGs")
    last = board.frames(sf.PONG)[-1].seq
    await board.until(lambda: board.deframer.frames[-1].seq > last, "the frame after the last PONG")
    await board.command(sf.OP_STOP)


def exchanges(board: Board):
    """Of each PING: sent, t2, t3, transfer-complete (by two-step), arrival."""
    by_seq = {frame.seq: frame for frame in board.deframer.frames}
    for pong in board.frames(sf.PONG):
        number, t2, t3 = np.frombuffer(pong.payload, "<u4")
        done = by_seq[pong.seq + 1].prev_tx_done_us
        assert done is not None
        yield board.pings[int(number)], int(t2), int(t3), done, pong.arrival_ns


@pytest.mark.parametrize("skew_ppm", [0.0, 37.5, -120.0])
@pytest.mark.parametrize("start_us", [0, WRAP - 400_000])
def test_two_step_exchange_skew_and_wrap(binary, tmp_path, skew_ppm, start_us):
    print(f"seed {SEED}")

    async def main():
        streams = [motion_imu(axes=6)]
        async with running(binary, tmp_path, streams, skew_ppm=skew_ppm, start_us=start_us) as (_, board):
            await converse(board, 0.8, random.Random(SEED))
            return board

    board = asyncio.run(main())
    truth = Truth(tmp_path / "truth.bin")
    assert truth.residual_ns < 1.5  # the truth is rounded to whole nanoseconds
    assert truth.slope == pytest.approx(1000 / (1 + skew_ppm * 1e-6), rel=1e-8)
    index, t_us, _ = joined(board.samples())
    records = read_truth(tmp_path / "truth.bin")
    assert np.array_equal(records["t_us"], t_us)
    assert set(np.diff(t_us) % WRAP) == {1000}
    assert (np.diff(t_us) < 0).sum() == (1 if start_us else 0)
    last_of_frame = np.cumsum([len(batch.t_us) for batch in board.samples()]) - 1
    arrivals = np.array([frame.arrival_ns for frame in board.frames(sf.SAMPLES)])
    delays_ns = arrivals - records["raw_ns"][last_of_frame]
    assert delays_ns.min() > 0
    assert delays_ns.min() < 5e6  # others wait for a busy machine
    for sent_ns, t2, t3, done, arrival_ns in exchanges(board):
        assert (t3 - t2) % WRAP < WRAP // 2
        assert (done - t3) % WRAP < WRAP // 2
        # The counter shows whole microseconds, so a stamp may be up to one early.
        assert sent_ns <= truth.raw_ns(t2) + 1000
        assert truth.raw_ns(done) <= arrival_ns
    assert len(index)


def test_every_frame_tells_when_the_one_before_left(binary, tmp_path):
    async def main():
        async with running(binary, tmp_path, [motion_imu(axes=3)]) as (_, board):
            await converse(board, 0.4, random.Random(SEED))
            return board.deframer.frames

    frames = asyncio.run(main())
    truth = Truth(tmp_path / "truth.bin")
    assert frames[0].prev_tx_done_us is None
    for before, after in itertools.pairwise(frames):
        assert after.seq == before.seq + 1
        assert truth.raw_ns(after.prev_tx_done_us) <= before.arrival_ns
    done = [frame.prev_tx_done_us for frame in frames[1:]]
    assert done == sorted(done)


def test_usb_frames_delay_and_the_two_step_stamp_shows_it(plain_binary, tmp_path):
    frame_ns = 4_000_000  # coarse, so that scheduling noise cannot hide it
    waits = {}
    for usb_frame_us in (0, frame_ns // 1000):

        async def main(usb_frame_us=usb_frame_us):
            async with running(plain_binary, tmp_path, [motion_imu(axes=3)], usb_frame_us=usb_frame_us) as (
                _,
                board,
            ):
                await converse(board, 1.0, random.Random(SEED))
                return board

        board = asyncio.run(main())
        truth = Truth(tmp_path / "truth.bin")
        found = list(exchanges(board))
        waits[usb_frame_us] = np.array([(done - t3) % WRAP for _, _, t3, done, _ in found])
        if usb_frame_us:
            into = np.array([truth.raw_ns(done) % frame_ns for *_, done, _ in found])
            assert np.quantile(into, 0.25) < 0.1 * frame_ns  # spread evenly it would be 0.25
    framed = waits[frame_ns // 1000]
    # Spread over 4000 µs where the board runs when it should; a busy machine runs it in bursts.
    assert np.quantile(framed, 0.9) > 1000
    assert np.median(framed) > 1.5 * np.median(waits[0])
