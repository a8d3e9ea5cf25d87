"""The shipped image in the emulator: button, light, watchdog, and sensors that fail or are not there."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.hw.board import Board, emulated, joined
from tests.reference import serial_frames as sf

FORCE, IMU = 0, 1
THUMB, INDEX, MIDDLE, RING = MAGNETIC = range(2, 6)
LED_RED, LED_DARK = bytes([255, 0, 0, 0]), bytes(4)


def logs(board: Board) -> list[str]:
    """Texts of LOG frames: u8 level, u32 t_us, str."""
    return [frame.payload[6 : 6 + frame.payload[5]].decode() for frame in board.frames(sf.LOG)]


async def until_event(board: Board, code: int, n: int = 1) -> sf.Event:
    await board.until(lambda: len(board.events(code)) >= n, f"{n} events {code}")
    return board.events(code)[n - 1]


def test_a_bouncing_button_is_pressed_once(images, tmp_path):
    bounces_us = (0, 310, 690, 1200, 1900)
    pressed_us = 40_000

    async def main():
        async with emulated(images, "force4", tmp_path) as (chip, board):
            edges = [(1000 + t, k % 2 == 0) for k, t in enumerate(bounces_us)]
            edges += [(pressed_us + t, k % 2 == 1) for k, t in enumerate(bounces_us)]
            began = await chip.command("button", edges=edges)
            up = await until_event(board, sf.BUTTON_UP)
            await board.command(sf.OP_HELLO)
            return board, up, began["nanos"] / 1000

    board, up, began_us = asyncio.run(main())
    (down,) = board.events(sf.BUTTON_DOWN)
    assert board.events(sf.BUTTON_UP) == [up]
    assert 0 <= down.t_us - (began_us + 1000) + 1 < 5
    assert 0 <= up.t_us - (began_us + pressed_us) + 1 < 5
    assert (down.stream, up.stream) == (0xFF, 0xFF)


def test_the_light_shows_what_was_asked_for(images, tmp_path):
    async def main():
        async with emulated(images, "force4", tmp_path) as (chip, board):

            async def show(arguments: bytes) -> list[int]:
                assert (await board.command(sf.OP_LED, arguments)).status == 0
                return (await chip.command("light"))["levels"]

            assert (await chip.command("light"))["levels"] == [0, 0, 0]
            assert await show(bytes([255, 0, 0, 0])) == [255, 0, 0]
            assert await show(bytes([230, 159, 0, 0])) == [230, 159, 0]
            assert await show(bytes([0, 114, 255, 0])) == [0, 114, 255]
            # A rhythm that is never lit, and one that always is: the pattern beside them does not count.
            assert await show(bytes([0, 158, 115, 0, 0, 0, 1, 0, 1])) == [0, 0, 0]
            assert await show(bytes([0, 158, 115, 2, 1, 0, 0, 0, 1])) == [0, 158, 115]
            assert await show(LED_DARK) == [0, 0, 0]

    asyncio.run(main())


def test_led_events_bear_the_instant_of_the_pin(images, tmp_path):
    async def main():
        async with emulated(images, "force4", tmp_path) as (chip, board):
            for k in range(6):
                await board.command(sf.OP_LED, LED_DARK if k % 2 else LED_RED)
            await board.command(sf.OP_LED, bytes([255, 0, 0, 2]))  # blinks: a state's light, no event
            await board.command(sf.OP_HELLO)
            return board, (await chip.samples())["red"]

    board, edges = asyncio.run(main())
    told = sorted(
        [(e.t_us, 1) for e in board.events(sf.LED_ON)] + [(e.t_us, 0) for e in board.events(sf.LED_OFF)]
    )
    assert [on for _, on in told] == [1, 0, 1, 0, 1, 0]
    for (t_us, on), (_, nanos, pin) in zip(told, edges, strict=False):
        assert on == pin
        assert 0 <= t_us - nanos / 1000 + 1 < 20


def test_a_blinking_light_keeps_its_rhythm(images, tmp_path):
    async def main():
        async with emulated(images, "force4", tmp_path) as (chip, board):
            # Two flashes, then 300 ms of dark.
            await board.command(sf.OP_LED, bytes([255, 0, 0, 2, 120, 0, 44, 1, 2]))
            red = []
            while len(red) < 9:
                red = (await chip.samples())["red"]
                await asyncio.sleep(0.05)  # asks again
            return red

    edges = asyncio.run(main())
    steps_ms = np.diff([nanos for _, nanos, _ in edges]) / 1e6
    assert [pin for *_, pin in edges][:8] == [1, 0] * 4
    assert steps_ms[:8] == pytest.approx([120, 120, 120, 300] * 2, abs=0.5)


@pytest.mark.parametrize("how", ["hang", "command"])
def test_a_board_that_stands_still_is_reset_and_says_so(images, tmp_path, how):
    async def main():
        async with emulated(images, "imu", tmp_path) as (chip, board):
            first = board.hellos()[-1]
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples() > 20, "samples")
            before = board.deframer.frames[-1].seq
            if how == "hang":
                await chip.command("hang")
            else:
                await board.command(sf.OP_RESET)
            await board.until(lambda: board.hellos()[-1].boot_id != first.boot_id, "HELLO of the next boot")
            after = next(f for f in reversed(board.deframer.frames) if f.kind == sf.HELLO)
            assert (await chip.command("state"))["resets"] == 1
            assert after.seq < before
            assert board.hellos()[-1].serial == first.serial
            n = board.n_samples()
            await board.command(sf.OP_START)  # idle again: it must be told to start
            await board.until(lambda: board.n_samples() > n + 20, "samples after the reset")
            assert board.samples()[-1].index < 1000

    asyncio.run(main())


SENSOR_FAULTS = [
    ({"whoAmI": 0x12}, "another sensor: WHO_AM_I is not that of an ICM-42688-P"),
    ({"present": False}, "no sensor: WHO_AM_I reads as an open line"),
    ({"int1": False}, "the sensor's interrupt is silent: check its INT1 wire"),
    ({"lsm6dsv16x": True, "int1": False}, "the sensor's interrupt is silent: check its INT1 wire"),
]


@pytest.mark.parametrize(
    ("imu", "reason"), SENSOR_FAULTS, ids=["who-am-i", "absent", "no-interrupt", "lsm6dsv16x"]
)
def test_an_imu_that_cannot_be_used_is_told_of(images, tmp_path, imu, reason):
    async def main():
        async with emulated(images, "glove", tmp_path, imu=imu) as (_, board):
            await board.until(lambda: f"imu: {reason}" in logs(board), "the reason in the log")
            await until_event(board, sf.SENSOR_FAULT)  # before anybody presses a button
            await board.command(sf.OP_START)
            at = len(board.events(sf.SENSOR_FAULT))
            await until_event(board, sf.SENSOR_FAULT, at + 1)
            await board.until(lambda: board.n_samples(FORCE) > 50, "the other streams go on")
            ack = await board.command(sf.OP_STOP)
            told = {(fault.stream, fault.text) for fault in board.events(sf.SENSOR_FAULT)}
            assert told == {(IMU, reason[:63])}
            assert board.n_samples(IMU) == ack.numbers[IMU] == 0
            assert board.n_samples(FORCE) == ack.numbers[FORCE]
            for stream in MAGNETIC:
                assert board.n_samples(stream) == ack.numbers[stream] > 0
            assert not board.events(sf.SENSOR_OK)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["icm42688", "lsm6dsv16x"])
def test_an_imu_that_falls_silent_comes_back(images, tmp_path, kind):
    async def main():
        async with emulated(images, "imu", tmp_path, imu={kind: True}) as (chip, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples() > 50, "samples")
            await chip.command("imu", frozen=True)
            fault = await until_event(board, sf.SENSOR_FAULT)
            await board.until(
                lambda: "imu: the sensor gives no samples any more" in logs(board), "the reason in the log"
            )
            await chip.command("imu", frozen=False)
            back = await until_event(board, sf.SENSOR_OK)
            n = board.n_samples()
            await board.until(lambda: board.n_samples() > n + 50, "samples again")
            ack = await board.command(sf.OP_STOP)
            return board, ack, fault, back, await chip.command("state"), await chip.samples()

    board, ack, fault, back, state, measured = asyncio.run(main())
    assert state["violations"] == []
    index, t_us, rows = joined(board.samples())
    assert index.tolist() == list(range(ack.numbers[0]))  # what it did not give takes no index
    assert (np.diff(t_us) > 500).all()
    pause = int(np.argmax(np.diff(t_us)))
    assert t_us[pause] < fault.t_us <= t_us[pause] + 1100
    assert back.t_us == t_us[pause + 1]
    taken = {tuple(row[2:]): row[1] for row in measured["imu"]}
    late_us = [t - taken[tuple(row)] / 1000 for t, row in zip(t_us, rows.tolist(), strict=True)]
    assert min(late_us) > -1
    assert max(late_us) < 10  # also after the pause, no row bears the time of another


NO_ANSWER = "MLX90393 0x0E: no answer on I2C"


def test_a_magnetometer_that_is_missing_is_named_and_the_others_go_on(images, tmp_path):
    async def main():
        async with emulated(images, "glove", tmp_path, magnets=(0x0C, 0x0D, 0x0F)) as (chip, board):
            await board.until(
                lambda: f"magnetic-middle: {NO_ANSWER}" in logs(board), "it is named in the log"
            )
            await board.command(sf.OP_START)
            fault = await until_event(board, sf.SENSOR_FAULT)
            assert (fault.stream, fault.text) == (MIDDLE, NO_ANSWER)
            await board.until(
                lambda: all(board.n_samples(s) > 20 for s in (THUMB, INDEX, RING)), "the others"
            )
            assert board.n_samples(MIDDLE) == 0
            await chip.command("magnet", address=0x0E, present=True)
            back = await until_event(board, sf.SENSOR_OK)
            assert back.stream == MIDDLE
            await board.until(lambda: board.n_samples(MIDDLE) > 20, "samples once it is there")
            ack = await board.command(sf.OP_STOP)
            return board, ack, await chip.command("state")

    board, ack, state = asyncio.run(main())
    assert state["violations"] == []
    assert {fault.stream for fault in board.events(sf.SENSOR_FAULT)} == {MIDDLE}
    for stream in MAGNETIC:
        index, t_us, _ = joined(board.samples(stream))
        assert index.tolist() == list(range(ack.numbers[stream]))
        # That one is missing, tried again and set up costs the others no round.
        assert np.abs(np.diff(t_us) - 5000).max() < 600


def test_a_magnetometer_lost_in_a_session_leaves_a_gap_and_comes_back(images, tmp_path):
    async def main():
        async with emulated(images, "glove", tmp_path) as (chip, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples(MIDDLE) > 20, "samples")
            await chip.command("magnet", address=0x0E, present=False)
            fault = await until_event(board, sf.SENSOR_FAULT)
            await chip.command("magnet", address=0x0E, present=True)
            back = await until_event(board, sf.SENSOR_OK)
            n = board.n_samples(MIDDLE)
            await board.until(lambda: board.n_samples(MIDDLE) > n + 20, "samples again")
            ack = await board.command(sf.OP_STOP)
            return board, ack, fault, back, await chip.samples()

    board, ack, fault, back, measured = asyncio.run(main())
    assert (fault.stream, fault.text, back.stream) == (MIDDLE, NO_ANSWER, MIDDLE)
    index, t_us, rows = joined(board.samples(MIDDLE))
    assert index.tolist() == list(range(ack.numbers[MIDDLE]))
    steps_us = np.diff(t_us)
    assert (steps_us > 6000).sum() == 1  # one pause, and it is the sensor's
    pause = int(steps_us.argmax())
    assert t_us[pause] < fault.t_us <= t_us[pause] + 5500
    assert back.t_us == t_us[pause + 1]
    # After the pause the sensor has its settings again: every row is a finished measurement of its own.
    measured_rows = {tuple(m[3:]): m[1] for m in measured["magnet"] if m[2] == 0x0E}
    late_us = [measured_rows[tuple(row)] / 1000 - t for t, row in zip(t_us, rows.tolist(), strict=True)]
    assert min(late_us) > 0
    assert max(late_us) < 200
    for stream in (THUMB, INDEX, RING):
        _, t_us, _ = joined(board.samples(stream))
        assert np.abs(np.diff(t_us) - 5000).max() < 600


def test_a_magnetometer_that_lost_its_supply_for_a_moment_is_set_up_anew(images, tmp_path):
    async def main():
        async with emulated(images, "glove", tmp_path) as (chip, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples(MIDDLE) > 20, "samples")
            await chip.command("magnet", address=0x0E)
            reset = "magnetic-middle: MLX90393 0x0E: was reset, supply or wire interrupted?"
            await board.until(lambda: reset in logs(board), "the reason in the log")
            n = board.n_samples(MIDDLE)
            await board.until(lambda: board.n_samples(MIDDLE) > n + 20, "samples again")
            await board.command(sf.OP_STOP)
            return board

    board = asyncio.run(main())
    _, t_us, _ = joined(board.samples(MIDDLE))
    assert np.diff(t_us).max() < 60_000  # no second of waiting
    assert not board.events(sf.SENSOR_FAULT)


def test_a_stuck_bus_ends_in_a_fault_and_not_in_a_hang(images, tmp_path):
    async def main():
        async with emulated(images, "glove", tmp_path) as (chip, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples(THUMB) > 5, "samples")
            await chip.command("i2c", stuck=True)
            await until_event(board, sf.SENSOR_FAULT, len(MAGNETIC))
            faults = {e.stream: e.text for e in board.events(sf.SENSOR_FAULT)}
            assert faults == {
                stream: f"MLX90393 0x{0x0C + k:02X}: I2C bus is stuck, a line is held low"
                for k, stream in enumerate(MAGNETIC)
            }
            n = board.n_samples(FORCE), board.n_samples(IMU)
            await board.until(
                lambda: board.n_samples(FORCE) > n[0] + 50 and board.n_samples(IMU) > n[1] + 50,
                "the other streams go on",
            )
            await chip.command("i2c", stuck=False)
            await until_event(board, sf.SENSOR_OK, len(MAGNETIC))
            ack = await board.command(sf.OP_STOP)
            assert (await chip.command("state"))["resets"] == 0
            assert [board.n_samples(s) for s in range(6)] == ack.numbers
            assert not board.events(sf.OVERRUN)

    asyncio.run(main())


def test_a_sensor_that_holds_the_bus_is_clocked_free(images, tmp_path):
    """It lost count in the middle of a byte and pulls SDA low: up to nine clocks and a stop free the bus."""

    async def main():
        async with emulated(images, "glove", tmp_path) as (chip, board):
            await board.command(sf.OP_START)
            for clocks in (1, 9):
                n = board.n_samples(THUMB)
                await board.until(lambda n=n: board.n_samples(THUMB) > n + 20, "samples")
                await chip.command("i2c", stuck=True, clocks=clocks)
            n = board.n_samples(RING)
            await board.until(lambda: board.n_samples(RING) > n + 20, "samples again")
            ack = await board.command(sf.OP_STOP)
            assert [board.n_samples(s) for s in range(6)] == ack.numbers
            return board, await chip.command("state")

    board, state = asyncio.run(main())
    assert state["resets"] == 0
    assert not board.events(sf.SENSOR_FAULT)  # it took less than the 100 ms after which one is told of
    for stream in MAGNETIC:
        _, t_us, _ = joined(board.samples(stream))
        assert np.diff(t_us).max() < 60_000


def test_a_fifo_that_overflowed_is_told_as_lost_samples(images, tmp_path):
    """The sensor's FIFO holds less than comes between two reads: its oldest samples are gone."""

    async def main():
        async with emulated(images, "imu", tmp_path) as (chip, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples() > 50, "samples")
            for _ in range(2):
                n = board.n_samples()
                n_lost = len(board.events(sf.OVERRUN))
                await chip.command("imu", fifoBytes=32)
                until = (await chip.command("state"))["nanos"] + 20e6
                while (await chip.command("state"))["nanos"] < until:
                    await asyncio.sleep(0.01)  # asks again
                await chip.command("imu", fifoBytes=2048)
                await until_event(board, sf.OVERRUN, n_lost + 1)
                await board.until(lambda n=n: board.n_samples() > n + 50, "samples again")
            ack = await board.command(sf.OP_STOP)
            return board, ack, await chip.samples()

    board, ack, measured = asyncio.run(main())
    index, t_us, rows = joined(board.samples())
    told = sum(e.arg for e in board.events(sf.OVERRUN))
    assert len(index) + told == ack.numbers[0]
    # No row bears the time of another, and the index counts what the sensor measured, seen or not.
    taken = {tuple(row[2:]): (k, row[1] / 1000) for k, row in enumerate(measured["imu"])}
    number, taken_us = np.array([taken[tuple(row)] for row in rows.tolist()]).T
    assert (t_us - taken_us).min() > -1
    assert (t_us - taken_us).max() < 10
    assert np.array_equal(number - number[0], index - index[0])
    assert told >= 4
