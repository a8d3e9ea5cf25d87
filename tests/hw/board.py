"""The host's end of the line for tests: talks to a running firmware through the slow reference parser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np

from edgecap.sim.firmware import FirmwareStream, HostFirmware
from tests.hw.emulated import EmulatedBoard
from tests.reference import serial_frames as sf

TIMEOUT_S = 60.0
BUTTON = (sf.BUTTON_DOWN, sf.BUTTON_UP)


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


class Board:
    """An opened port: every frame that came, and a way to wait for more."""

    def __init__(self, firmware: HostFirmware | EmulatedBoard) -> None:
        self.firmware = firmware
        self.deframer = sf.Deframer()
        self.gone = False
        self.pings: dict[int, int] = {}
        """Host's time just before each PING was written, by id."""
        self._fd = -1
        self._seq = 0
        self._command_id = 0
        self._news = asyncio.Event()

    def open(self) -> None:
        self._fd = os.open(self.firmware.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self.gone = False
        self.resume()

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def pause(self) -> None:
        """Stop reading, as a host that is busy does."""
        asyncio.get_running_loop().remove_reader(self._fd)

    def resume(self) -> None:
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        arrival_ns = now_ns()
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            data = b""
        if not data:
            self.gone = True
            self.close()
        self.deframer.feed(data, arrival_ns)
        self._news.set()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"waited {TIMEOUT_S} s for: {what}"
            self._news.clear()
            # The condition may hang on the firmware itself rather than on its frames: look now and then.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 0.05)

    def send(self, kind: int, payload: bytes) -> None:
        self.send_raw(sf.seal(kind, self._seq, payload))
        self._seq += 1

    def send_raw(self, data: bytes) -> None:
        assert os.write(self._fd, data) == len(data)

    def ping(self, number: int) -> None:
        self.pings[number] = now_ns()
        self.send(sf.PING, struct.pack("<I", number))

    async def command(self, op: int, args: bytes = b"") -> sf.Ack:
        self._command_id += 1
        number = self._command_id
        self.send(sf.COMMAND, struct.pack("<HB", number, op) + args)
        await self.until(lambda: any(ack.id == number for ack in self.acks()), f"no ACK to op {op}")
        return next(ack for ack in self.acks() if ack.id == number)

    def frames(self, kind: int) -> list[sf.Frame]:
        return [frame for frame in self.deframer.frames if frame.kind == kind]

    def acks(self) -> list[sf.Ack]:
        return [sf.parse_ack(frame.payload) for frame in self.frames(sf.ACK)]

    def hellos(self) -> list[sf.Hello]:
        return [sf.parse_hello(frame.payload) for frame in self.frames(sf.HELLO)]

    def events(self, code: int) -> list[sf.Event]:
        events = [sf.parse_event(frame.payload) for frame in self.frames(sf.EVENT)]
        return [event for event in (self.presses() if code in BUTTON else events) if event.code == code]

    def presses(self) -> list[sf.Event]:
        """Edges of the button in the order in which they were told; each once, though it is told again."""
        told = [sf.parse_event(frame.payload) for frame in self.frames(sf.EVENT)]
        edges = [event for event in told if event.code in BUTTON]
        return [event for event, before in zip(edges, [None, *edges], strict=False) if event != before]

    def samples(self, stream: int = 0, frames: list[sf.Frame] | None = None) -> list[sf.Samples]:
        hello = next(h for h in reversed(self.hellos()) if h.stream == stream)
        chosen = self.frames(sf.SAMPLES) if frames is None else [f for f in frames if f.kind == sf.SAMPLES]
        return [
            sf.parse_samples(frame.payload, hello.dtype, len(hello.channels))
            for frame in chosen
            if frame.payload[0] == stream
        ]

    def n_samples(self, stream: int = 0) -> int:
        return sum(f.payload[1] for f in self.frames(sf.SAMPLES) if f.payload[0] == stream)


def joined(batches: list[sf.Samples]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index, counter and values of every sample."""
    index = np.concatenate([batch.index + np.arange(len(batch.t_us)) for batch in batches])
    t_us = np.concatenate([batch.t_us for batch in batches]).astype(np.int64)
    return index, t_us, np.concatenate([batch.values for batch in batches])


@contextlib.asynccontextmanager
async def running(
    binary: Path, folder: Path, streams: list[FirmwareStream], **options: object
) -> AsyncIterator[tuple[HostFirmware, Board]]:
    """A firmware with its port open and its HELLOs read; truth goes to `folder/truth.bin`."""
    firmware = HostFirmware(
        streams,
        link=folder / "port",
        truth=folder / "truth.bin",
        binary=binary,
        **options,  # type: ignore[arg-type]
    )
    async with firmware:
        board = Board(firmware)
        board.open()
        try:
            await board.until(lambda: len(board.hellos()) >= max(1, len(streams)), "no HELLO")
            yield firmware, board
        finally:
            board.close()


@contextlib.asynccontextmanager
async def emulated(
    images: Path, kind: str, folder: Path, **options: object
) -> AsyncIterator[tuple[EmulatedBoard, Board]]:
    """An emulated board with its port open and its HELLOs read."""
    async with EmulatedBoard(images, kind, folder, **options) as chip:  # type: ignore[arg-type]
        board = Board(chip)
        board.open()
        try:
            await board.command(sf.OP_HELLO)
            await board.until(
                lambda: board.hellos() and board.hellos()[-1].parts <= len(board.hellos()), "no HELLO"
            )
            yield chip, board
        finally:
            board.close()
