"""What is asked of a USB adapter's driver, at the system call."""

from __future__ import annotations

import os
import pty
import termios
from array import array
from typing import Any

import pytest
import serial
from serial import serialposix

from edgecap.source.serial_port import hurry

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
