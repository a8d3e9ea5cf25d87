"""The shipped image on a USB host in the emulator: a serial port that opens, closes, and loses no byte."""

from __future__ import annotations

import asyncio
import random

import numpy as np

from edgecap.model import SampleBlock
from edgecap.source.serial_mcu import SerialSource
from tests.hw.board import emulated, joined
from tests.hw.emulated import FLASH_ID, EmulatedBoard
from tests.hw.test_rp2040_daemon import started
from tests.reference import serial_frames as sf

SEED = 31
SERIAL = "rp2040-" + FLASH_ID.hex()
GET_DESCRIPTOR, GET_CONFIGURATION, SET_LINE_CODING, GET_LINE_CODING = 6, 8, 0x20, 0x21
DEVICE, CONFIGURATION, STRING = 0x100, 0x200, 0x300


def text_of(answer: list[int]) -> str:
    assert answer[:2] == [len(answer), 3]
    return bytes(answer[2:]).decode("utf-16-le")


def test_what_the_host_is_told(images, tmp_path):
    async def main():
        async with emulated(images, "imu", tmp_path, usb=True) as (chip, _):

            async def ask(*setup: int, data: list[int] | None = None) -> list[int]:
                answer: list[int] = (await chip.command("control", setup=list(setup), data=data))["answer"]
                return answer

            device = await ask(0x80, GET_DESCRIPTOR, DEVICE, 0, 64)
            assert len(device) == device[0] == 18
            assert device[8:12] == [0x8A, 0x2E, 0x0A, 0x00]
            head = await ask(0x80, GET_DESCRIPTOR, CONFIGURATION, 0, 9)
            whole = await ask(0x80, GET_DESCRIPTOR, CONFIGURATION, 0, 255)
            assert whole[:9] == head
            assert len(whole) == head[2] | head[3] << 8
            pieces, at = [], 0
            while at < len(whole):
                pieces.append(whole[at : at + whole[at]])
                at += whole[at]
            assert at == len(whole)
            interfaces = [p for p in pieces if p[1] == 4]
            assert len(interfaces) == whole[4] == 2
            assert sum(p[4] for p in interfaces) == len([p for p in pieces if p[1] == 5]) == 3
            assert text_of(await ask(0x80, GET_DESCRIPTOR, STRING + device[14], 0x0409, 255)) == "edgecap"
            assert text_of(await ask(0x80, GET_DESCRIPTOR, STRING + device[16], 0x0409, 255)) == SERIAL
            assert await ask(0x80, GET_CONFIGURATION, 0, 0, 1) == [1]
            coding = [0x00, 0xC2, 0x01, 0x00, 0, 0, 8]
            assert await ask(0x21, SET_LINE_CODING, 0, 0, 7, data=coding) == []
            assert await ask(0xA1, GET_LINE_CODING, 0, 0, 7) == coding

    asyncio.run(main())


def test_samples_and_stamps_over_usb(images, tmp_path):
    rng = random.Random(SEED)

    async def main():
        async with emulated(images, "glove", tmp_path, usb=True, seed=SEED) as (chip, board):
            await chip.command("noise")
            await board.command(sf.OP_START)
            for number in range(20):
                board.ping(1000 + number)
                await asyncio.sleep(rng.uniform(0.005, 0.03))  # the pings' own pace
            await board.until(lambda: board.n_samples(1) > 100, "samples")
            await board.until(lambda: len(board.frames(sf.PONG)) == 20, "all PONGs")
            ack = await board.command(sf.OP_STOP)
            return board, ack, await chip.command("state"), await chip.samples()

    board, ack, state, measured = asyncio.run(main())
    assert state["violations"] == state["warnings"] == []
    assert not board.deframer.broken
    for stream in range(3):
        index, _, _ = joined(board.samples(stream))
        assert index.tolist() == list(range(ack.numbers[stream]))
    _, _, rows = joined(board.samples(1))
    taken = np.array(measured["imu"])
    first = int(np.flatnonzero((taken[:, 2:] == rows[0]).all(axis=1))[0])
    assert np.array_equal(taken[first : first + len(rows), 2:], rows)
    # Frames in order, the last delimiter of each as it came to the host; one goes ahead of the first frame.
    frames = board.deframer.frames
    came_us = np.array(measured["sent"])[-len(frames) :, 1] / 1000.0
    for k in range(1, len(frames)):
        if frames[k].prev_tx_done_us is not None and frames[k].seq == frames[k - 1].seq + 1:
            assert -5 < came_us[k - 1] - frames[k].prev_tx_done_us < 100
    # A whole packet would leave the host waiting for more: each frame ends in a shorter one.
    packets = measured["packets"]
    assert all(length <= 64 for length in packets)
    ends = np.cumsum(packets)
    shorts = {int(end) for end, length in zip(ends, packets, strict=True) if length < 64}
    assert int(ends[-1]) in shorts
    assert len(shorts) >= len(frames) - 4  # HELLO at power-up went to the UART


def test_a_port_that_is_closed_leaves_the_uart_to_the_board(images, tmp_path):
    async def main():
        async with emulated(images, "imu", tmp_path, usb=True) as (chip, board):
            await board.command(sf.OP_START)
            await board.until(lambda: board.n_samples() > 50, "samples over USB")
            await chip.command("open", open=False)
            before = len((await chip.samples())["packets"])
            n = board.n_samples()
            await board.until(lambda: board.n_samples() > n + 50, "samples over the UART")
            assert len((await chip.samples())["packets"]) <= before + 1
            await chip.command("open", open=True)
            n = board.n_samples()
            await board.until(lambda: board.n_samples() > n + 50, "samples over USB again")
            assert len((await chip.samples())["packets"]) > before + 5
            assert (await chip.command("state"))["resets"] == 0
            await board.command(sf.OP_STOP)

    asyncio.run(main())


def test_a_host_that_stops_taking_packets_loses_nothing_but_what_it_is_told(images, tmp_path):
    async def main():
        async with emulated(images, "imu", tmp_path, usb=True) as (chip, board):
            for _ in range(40):  # far more than a packet, faster than the main loop obeys
                board.send(sf.PING, (7).to_bytes(4, "little"))
            await board.until(lambda: len(board.frames(sf.PONG)) == 40, "every PONG")
            assert (await chip.command("state"))["resets"] == 0

    asyncio.run(main())


def test_the_daemon_takes_a_board_on_usb(images, tmp_path):
    async def main():
        async with EmulatedBoard(images, "force4", tmp_path, usb=True, record=False) as chip:
            await chip.command("analog", values=[100, 2000, 4095, 7])
            async with SerialSource("hand", chip.port).open() as feed:
                assert {i.serial_number for i in feed.info} == {SERIAL}
                await started(feed)
                force = []
                async with asyncio.timeout(90):
                    async for item in feed:
                        if isinstance(item, SampleBlock) and item.stream == "hand-force":
                            force.append(item.values)
                            if sum(map(len, force)) > 200:
                                break
                await feed.stop()
                return np.concatenate(force)

    values = asyncio.run(main())
    assert (values == 4 * np.array([100, 2000, 4095, 7])).all()
