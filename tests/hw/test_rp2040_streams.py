"""The shipped image in the emulator: every sample against what the modelled sensors measured, exactly."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from edgecap.axes import triads
from edgecap.source.serial_mcu import SerialSource
from tests.hw.board import Board, emulated, joined
from tests.hw.emulated import FINGERS, FLASH_ID, MAGNETS, EmulatedBoard, script
from tests.reference import serial_frames as sf

SEED = 23
FORCE, IMU = 0, 1
MAGNETIC = range(2, 6)
"""One stream for each magnetometer."""
SUM, SETTLE = 4, 2


async def record(board: Board, n_rows: int, stream: int = 0) -> dict[int, int]:
    """Sample until the stream has so many rows, stop; what the board says it produced."""
    before = board.n_samples(stream)
    await board.command(sf.OP_START)
    await board.until(lambda: board.n_samples(stream) >= before + n_rows, f"{n_rows} rows of stream {stream}")
    ack = await board.command(sf.OP_STOP)
    return dict(enumerate(ack.numbers))


async def settle(board: Board, chip, n_frames: int = 0) -> dict:
    """The emulator's records once all is quiet."""
    state = await chip.command("state")
    assert state["violations"] == []
    assert state["warnings"] == []  # registers that the emulator does not know
    assert state["uart"] == {"overruns": 0, "lost": 0}
    return await chip.samples()


def rows_converted(analog: np.ndarray, t_us: np.ndarray, positions: int, inputs: int) -> np.ndarray:
    """Rows from the single conversions that the ADC made after each row's instant."""
    starts = np.searchsorted(analog[:, 1], t_us * 1000.0)
    rows = []
    for first in starts:
        row = []
        if positions > 1:
            at = first
            for position in range(positions):
                burst = analog[at : at + SETTLE + SUM + 2]
                mine = burst[burst[:, 2] == 4 + position]
                assert len(mine) >= SETTLE + SUM
                assert mine[SETTLE : SETTLE + SUM, 4].all()  # settled
                row.append(mine[SETTLE : SETTLE + SUM, 3].sum())
                at += len(mine)
        else:
            burst = analog[first : first + SUM * inputs]
            assert burst[:, 2].tolist() == list(range(inputs)) * SUM
            row = [burst[k::inputs, 3].sum() for k in range(inputs)]
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(("kind", "positions", "inputs"), [("glove", 16, 1), ("force4", 1, 4)])
def test_force_rows_are_the_conversions_of_their_instant(images, tmp_path, kind, positions, inputs):
    async def main():
        async with emulated(images, kind, tmp_path, seed=SEED) as (chip, board):
            await chip.command("noise")
            totals = await record(board, 60)
            return board, totals, await settle(board, chip)

    board, totals, measured = asyncio.run(main())
    index, t_us, values = joined(board.samples(FORCE))
    assert index.tolist() == list(range(totals[FORCE]))
    assert set(np.diff(t_us)) == {1000}
    analog = np.array(measured["analog"])
    # The last row's burst may be cut short by nothing: STOP waits for it.
    assert np.array_equal(values, rows_converted(analog, t_us, positions, inputs))
    began = analog[np.searchsorted(analog[:, 1], t_us * 1000.0), 1] / 1000.0 - t_us
    print(f"first conversion {began.min():.2f} to {began.max():.2f} us after the time stamp")
    assert began.min() >= 0
    assert began.max() < 20  # an interrupt may wait for another
    hello = board.hellos()[FORCE]
    span_us = positions * 15 if positions > 1 else 8 * inputs
    assert -hello.lag_us == pytest.approx(span_us / 2, abs=20)


def test_scripted_inputs_come_out_as_they_are(images, tmp_path):
    values = [0, 1, 2047, 4095, *range(100, 1300, 100), 4095, 0, 17, 3000]

    async def main():
        async with emulated(images, "glove", tmp_path, record=False) as (chip, board):
            await chip.command("analog", values=values)
            await record(board, 30)
            return board

    board = asyncio.run(main())
    _, _, rows = joined(board.samples(FORCE))
    assert (rows == SUM * np.array(values[4:20])).all()
    channels = board.hellos()[FORCE].channels
    assert [c.name for c in channels] == [f"taxel-{n}" for n in range(16)]
    assert {(c.unit, c.scale, c.full_scale) for c in channels} == {("count", 0.25, 4095.0)}


@pytest.mark.parametrize(("ppm", "lsm"), [(0, False), (4000, False), (-7000, False), (3000, True)])
def test_imu_rows_bear_the_instant_at_which_the_sensor_took_them(images, tmp_path, ppm, lsm):
    """The board finds out by itself which sensor is fitted, and describes that one."""

    async def main():
        imu = {"ppm": ppm, "lsm6dsv16x": lsm}
        async with emulated(images, "imu", tmp_path, seed=SEED, imu=imu) as (chip, board):
            totals = await record(board, 150)
            assert (await chip.command("state"))["violations"] == []
            return board, totals, await settle(board, chip)

    board, totals, measured = asyncio.run(main())
    index, t_us, rows = joined(board.samples(0))
    assert index.tolist() == list(range(totals[0]))
    taken = np.array(measured["imu"])
    first = int(np.flatnonzero((taken[:, 2:] == rows[0]).all(axis=1))[0])
    mine = taken[first : first + len(rows)]
    assert np.array_equal(mine[:, 2:], rows)  # every one, in order
    late_us = t_us - mine[:, 1] / 1000.0
    print(f"stamped {late_us.min():.2f} to {late_us.max():.2f} us after the sensor's interrupt")
    assert late_us.min() > -1.0  # whole microseconds, rounded down
    assert late_us.max() < 10
    assert np.diff(t_us).mean() == pytest.approx(1000 * (1 + ppm * 1e-6), abs=0.2)
    hello = board.hellos()[0]
    assert hello.lag_us == (0 if lsm else 900)
    accel, gyro = hello.channels[0], hello.channels[3]
    assert accel.scale == pytest.approx(16 * 9.80665 / 32768, rel=1e-6)
    assert gyro.scale == pytest.approx(np.radians(0.070 if lsm else 2000 / 32768), rel=1e-6)
    assert gyro.full_scale == pytest.approx(32768 * gyro.scale)
    assert not board.events(sf.OVERRUN)


def test_magnetic_rows_are_what_every_sensor_measured(images, tmp_path):
    async def main():
        async with emulated(images, "glove", tmp_path, seed=SEED) as (chip, board):
            totals = await record(board, 20, MAGNETIC[-1])
            return board, totals, await settle(board, chip)

    board, totals, measured = asyncio.run(main())
    taken = np.array(measured["magnet"])
    for stream, address, finger in zip(MAGNETIC, MAGNETS, FINGERS, strict=True):
        hello = board.hellos()[stream]
        assert hello.name == f"magnetic-{finger}"
        assert [(c.name, c.unit) for c in hello.channels] == [(f"mag-{a}", "uT") for a in "xyz"]
        index, t_us, rows = joined(board.samples(stream))
        assert index.tolist() == list(range(totals[stream]))
        assert np.abs(np.diff(t_us) - 5000).max() < 500
        mine = taken[taken[:, 2] == address]
        first = int(np.flatnonzero((mine[:, 3:] == rows[0]).all(axis=1))[0])
        mine = mine[first : first + len(rows)]
        assert np.array_equal(mine[:, 3:], rows)
        begun_us = mine[:, 1] / 1000.0 - t_us
        assert begun_us.min() > 0
        assert begun_us.max() < 200  # each row bears the time of its own sensor's command


def test_only_the_magnetometers_that_are_fitted_are_streams(images, tmp_path):
    plain = (images / "edgecap-glove.bin").read_bytes()
    fitted = tmp_path / "fitted.bin"
    fitted.write_bytes(script("uf2").with_magnets(plain, "index,ring"))

    async def main():
        magnets = (MAGNETS[1], MAGNETS[3])
        async with emulated(images, "glove", tmp_path, magnets=magnets, image=fitted) as (chip, board):
            totals = await record(board, 5, 3)
            return board, totals, await settle(board, chip)

    board, totals, measured = asyncio.run(main())
    names = ["force", "imu", "magnetic-index", "magnetic-ring"]
    assert [board.hellos()[k].name for k in range(board.hellos()[-1].parts)] == names
    assert len(totals) == len(names)
    assert not board.events(sf.SENSOR_FAULT)
    taken = np.array(measured["magnet"])
    for stream, address in ((2, MAGNETS[1]), (3, MAGNETS[3])):
        mine = {tuple(row[3:]) for row in taken[taken[:, 2] == address].tolist()}
        assert all(tuple(row) in mine for row in joined(board.samples(stream))[2].tolist())


@pytest.mark.parametrize("kind", ["glove", "imu"])
def test_descriptors_name_axes_as_datasets_read_them(images, tmp_path, kind):
    """Channel names of the shipped image are those by which exports and calibration find an axis."""

    async def main():
        async with (
            EmulatedBoard(images, kind, tmp_path, record=False) as board,
            SerialSource("hand", board.port).open() as feed,
        ):
            return {info.name: triads(info) for info in feed.info}

    found = asyncio.run(main())
    assert set(found["hand-imu"]) == {"accel", "gyro"}
    if kind == "glove":
        assert found["hand-force"] == {}
        for finger in FINGERS:
            assert found[f"hand-magnetic-{finger}"] == {"mag": ([0, 1, 2], 1e-6)}


def test_an_exchange_is_stamped_within_what_truly_happened(images, tmp_path):
    rng = random.Random(SEED)

    async def main():
        async with emulated(images, "imu", tmp_path, seed=SEED) as (chip, board):
            await board.command(sf.OP_START)
            for number in range(40):
                board.ping(1000 + number)
                await asyncio.sleep(rng.uniform(0.005, 0.03))  # the pings' own pace
            await board.until(lambda: len(board.frames(sf.PONG)) == 40, "all PONGs")
            await board.command(sf.OP_STOP)
            await board.until(lambda: board.deframer.frames[-1].kind == sf.ACK, "the last frame")
            return board, await settle(board, chip)

    board, measured = asyncio.run(main())
    # Frame k of the board ends with the (k + 2)nd delimiter: one goes ahead of the first frame.
    sent_us = np.array(measured["sent"])[1:, 1] / 1000.0
    by_seq = {frame.seq: frame for frame in board.deframer.frames}
    lead_us = []
    for seq, frame in by_seq.items():
        if seq - 1 in by_seq:
            lead_us.append(sent_us[seq - 1] - frame.prev_tx_done_us)
    print(f"transfer-complete is {min(lead_us):.2f} to {max(lead_us):.2f} us after its stamp")
    assert min(lead_us) >= 0.5  # the receiver has the last byte half a bit before its stop bit ends
    assert max(lead_us) < 15
    received_us = np.array(measured["received"])[:, 1] / 1000.0
    pings = received_us[2:42]  # after the delimiters of HELLO and START
    for arrived_us, pong in zip(pings, board.frames(sf.PONG), strict=True):
        _, t2, t3 = np.frombuffer(pong.payload, "<u4").astype(np.int64)
        assert -1 < t2 - arrived_us < 40
        assert t2 <= t3 < sent_us[pong.seq]


def test_who_the_board_is(images, tmp_path):
    async def main():
        found = []
        for seed in (1, 2):
            async with emulated(images, "imu", tmp_path, seed=seed) as (chip, board):
                state = await chip.command("state")
                found.append((board.hellos()[-1], state["baud"]))
        return found

    (first, baud), (second, _) = asyncio.run(main())
    assert baud == 1_000_000
    assert first.serial == second.serial == "rp2040-" + FLASH_ID.hex()
    assert first.boot_id != second.boot_id
    assert first.firmware.startswith("edgecap-fw ")


def test_a_serial_number_in_the_image_is_said(images, tmp_path):
    plain = (images / "edgecap-imu.bin").read_bytes()
    at = plain.index(b"edgecap serial=") + len(b"edgecap serial=")
    named = tmp_path / "named.bin"
    named.write_bytes(plain[:at] + b"head-0042" + plain[at + 9 :])

    async def main():
        async with emulated(images, "imu", tmp_path, image=named) as (_, board):
            return board.hellos()[-1].serial

    assert asyncio.run(main()) == "head-0042"


def test_rates_that_a_sensor_cannot_do_are_refused(images, tmp_path):
    async def main():
        async with emulated(images, "glove", tmp_path) as (chip, board):

            async def ask(stream: int, rate_mhz: int) -> tuple[int, str]:
                ack = await board.command(sf.OP_RATE, bytes([stream]) + rate_mhz.to_bytes(4, "little"))
                return ack.status, ack.text

            assert await ask(IMU, 500_000) == (3, "this stream cannot be sampled at that rate")
            assert await ask(MAGNETIC[0], 1_000_000) == (3, "this stream cannot be sampled at that rate")
            assert await ask(FORCE, 10_000_000) == (3, "this stream cannot be sampled at that rate")
            assert await ask(FORCE, 2_000_000) == (0, "")
            assert (await board.command(sf.OP_TARE, bytes([FORCE]))).status == 3
            await chip.command("noise")
            await record(board, 60)
            return board

    board = asyncio.run(main())
    _, t_us, _ = joined(board.samples(FORCE))
    assert set(np.diff(t_us)) == {500}


@pytest.mark.parametrize(("kind", "most"), [("glove", 0.5), ("hand", 0.4), ("force4", 0.2), ("imu", 0.2)])
def test_the_processor_sleeps_most_of_the_time(images, tmp_path, kind, most):
    """By the count of instruction cycles; waiting for buses and converters is sleep, or it shows here."""

    async def main():
        async with emulated(images, kind, tmp_path, record=False) as (chip, board):
            states = []
            await board.command(sf.OP_START)
            for _ in range(2):
                n = board.n_samples()
                await board.until(lambda n=n: board.n_samples() > n + 100, "rows")
                states.append(await chip.command("state"))
            await board.command(sf.OP_STOP)
            return states

    before, after = asyncio.run(main())
    awake = (after["cycles"] - before["cycles"]) * 8 / (after["nanos"] - before["nanos"])
    print(f"{kind}: awake {awake:.1%} of the time")
    assert awake < most
