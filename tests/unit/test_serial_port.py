"""What is asked of a USB adapter's driver, at the system call."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import termios
import tty
from array import array
from typing import Any

import pytest
import serial
from serial import serialposix

from edgecap.source.serial_port import SerialPort, hurry

ASYNC_LOW_LATENCY = 0x2000
FLAGS = 4
"""Position in `struct serial_struct` (linux/serial.h), in ints."""


@pytest.mark.parametrize(("port", "asked"), [("/dev/ttyUSB7", True), ("/dev/ttyACM0", False)])
def test_an_adapter_is_asked_not_to_wait(monkeypatch: pytest.MonkeyPatch, port: str, asked: bool) -> None:
    told: list[int] = []

    def ioctl(_: int, request: int, buffer: Any = None) -> int:
        if request == termios.TIOCSSERIAL:
            assert isinstance(buffer, array)
            told.append(buffer[FLAGS])
        return 0

    master, slave = pty.openpty()
    with serial.Serial(os.ttyname(slave)) as opened:
        hurry(opened, port)  # a pty knows no such thing: no reason not to record
        monkeypatch.setattr(serialposix.fcntl, "ioctl", ioctl)
        hurry(opened, port)
    os.close(master)
    os.close(slave)
    assert told == [ASYNC_LOW_LATENCY] * asked


def test_last_words_are_not_thrown_away_with_the_port() -> None:
    """A pty hands over what was written a moment later, as a UART takes its time to send it."""

    async def heard(master: int, port: str) -> bytes:
        opened = await SerialPort.open("hand", port, 1_000_000)
        opened.write(b"last words")
        assert await opened.sent(30.0)
        opened.close()
        async with asyncio.timeout(30):
            while not (found := _read(master)):
                await asyncio.sleep(0.001)
        return found

    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    try:
        for _ in range(60):  # each time thrown away with a chance of one in six
            assert asyncio.run(heard(master, os.ttyname(slave))) == b"last words"
    finally:
        os.close(slave)
        os.close(master)


def test_a_line_that_takes_nothing_is_waited_for_no_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []

    async def close(port: str) -> None:
        opened = await SerialPort.open("hand", port, 1_000_000)
        monkeypatch.setattr(fcntl, "ioctl", lambda *_: (22).to_bytes(4, "little"))  # a UART held by its peer
        monkeypatch.setattr(termios, "tcflush", lambda fd, _: flushed.append(fd))
        assert not await opened.sent(0.01)
        opened.close()

    master, slave = pty.openpty()
    asyncio.run(close(os.ttyname(slave)))
    os.close(slave)
    os.close(master)
    assert flushed  # else closing would wait for ever


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 100)
    except BlockingIOError:
        return b""
