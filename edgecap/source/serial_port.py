"""The I/O edge of a serial line: opens the port with pyserial, reads and writes its descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import sys
import termios
from pathlib import Path
from typing import Any

from edgecap.errors import SourceError

MAX_BACKLOG = 4096
"""Bytes to the device that may wait for the line; more is refused."""
POLL_S = 0.002
"""How often the driver is asked whether all is sent: a frame of 22 bytes takes 0.22 ms at 1,000,000 baud."""

_FIXES = {
    errno.ENOENT: (
        "there is no such port",
        "plug the device in, or correct `port`; list ports with ls /dev/serial/by-id",
    ),
    errno.EACCES: ("permission denied", "add this user to group dialout, or install the udev rule"),
    errno.ENOTTY: ("it is not a serial port", "correct `port`; list ports with ls /dev/serial/by-id"),
    errno.EINVAL: ("it does not take these settings", "check `port` and `baud`"),
    errno.EBUSY: ("another program has it open", "stop that program; find it with fuser"),
    errno.EAGAIN: ("another program has it open", "stop that program; find it with fuser"),
    errno.EIO: ("the device does not answer", "unplug it and plug it in again"),
    errno.ENXIO: ("the device is gone", "plug it in again"),
    errno.ENODEV: ("the device is gone", "plug it in again"),
}


def _refusal(device: str, port: str, number: int | None, reason: str) -> SourceError:
    what, fix = _FIXES.get(number or 0, (reason, "check `port` and the cable"))
    return SourceError(f"{device}: cannot open {port}: {what}", fix=fix, errno=number)


def _open_serial(device: str, port: str, baud: int) -> Any:
    try:
        import serial
    except ImportError as error:
        raise SourceError(
            f"{device}: pyserial cannot be imported: {error}", fix="pip install pyserial"
        ) from None
    try:
        opened = serial.Serial(port, baud, timeout=0, write_timeout=0, exclusive=True)
    except serial.SerialException as error:
        number = error.errno
        if number is None:
            # pyserial wraps what the kernel said into text only: a lock held, or settings refused.
            busy = "exclusively lock" in str(error)
            number = errno.EBUSY if busy else errno.ENOTTY if "Inappropriate ioctl" in str(error) else None
        raise _refusal(device, port, number, str(error)) from None
    except OSError as error:
        raise _refusal(device, port, error.errno, error.strerror or str(error)) from None
    except termios.error as error:
        raise _refusal(device, port, error.args[0], str(error.args[-1])) from None
    except ValueError as error:
        raise SourceError(
            f"{device}: {port} cannot run at {baud} baud: {error}", fix="correct `baud`"
        ) from None
    hurry(opened, port)
    return opened


def hurry(opened: Any, port: str) -> None:
    """Ask a USB adapter to pass on what it has at once: FTDI's wait 16 ms for more (FTDI AN232B-04).

    The kernel's ftdi_sio takes ASYNC_LOW_LATENCY as a latency timer of 1 ms; other drivers refuse it or know
    no such timer, which is no reason not to record.
    """
    if Path(port).resolve().name.startswith("ttyUSB"):
        with contextlib.suppress(ValueError, OSError):
            opened.set_low_latency_mode(True)


_LEAST_SHARE = 0.95
"""If the two ends' rates differed by more than five per cent, the last bit would be read half a bit off."""
UART_NAMES = ("ttyAMA", "ttyS", "ttyUSB", "ttyTHS")
"""Drivers behind which bytes are serialised at the baud rate; on ttyACM or a pty the rate means nothing."""


def wire_byte_ns(port: str, baud: int) -> int:
    """Least time that a byte takes on the wire (start, eight bits, stop); 0 where there is no such wire."""
    device = Path(port).resolve().name
    return int(_LEAST_SHARE * 10e9 / baud) if device.startswith(UART_NAMES) else 0


class SerialPort:
    """An open port. All calls on the event loop; none of them blocks."""

    def __init__(self, serial: Any) -> None:
        self._serial = serial
        self.fd: int = serial.fd
        self._loop = asyncio.get_running_loop()
        self._backlog = bytearray()
        self.refused = 0
        """Frames not sent because the line was stuck."""

    @classmethod
    async def open(cls, device: str, port: str, baud: int) -> SerialPort:
        """Open exclusively, in a thread: a USB device may take a while.

        Raises:
            SourceError: naming the device, the port and the fix.
        """
        opening = asyncio.get_running_loop().run_in_executor(None, _open_serial, device, port, baud)
        try:
            return cls(await asyncio.shield(opening))
        except asyncio.CancelledError:
            opening.add_done_callback(_close_result)
            raise

    def read_into(self, space: memoryview) -> int:
        """Read what is there; 0 if nothing is. Raises OSError when the device is gone."""
        try:
            n = os.readv(self.fd, [space])
        except (BlockingIOError, InterruptedError):
            return 0
        if n == 0:
            raise OSError(errno.EIO, "end of file")
        return n

    def write(self, data: bytes) -> bool:
        """Send, or keep until the line takes it; False if too much waits. Raises OSError when it is gone."""
        if self._backlog:
            if len(self._backlog) + len(data) > MAX_BACKLOG:
                self.refused += 1
                return False
            self._backlog += data
            return True
        sent = self._write_some(data)
        if sent < len(data):
            self._backlog += data[sent:]
            self._loop.add_writer(self.fd, self._drain)
        return True

    @property
    def is_clear(self) -> bool:
        """Whether nothing waits to be sent."""
        return not self._backlog

    async def sent(self, limit_s: float) -> bool:
        """Wait until all bytes are on the line; False if they still are not after `limit_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._backlog or self._in_driver():  # noqa: ASYNC110 - no driver tells when it is done
                    await asyncio.sleep(POLL_S)
                return True
        return False

    def close(self) -> None:
        """Close without waiting for unsent bytes."""
        self._loop.remove_reader(self.fd)
        self._loop.remove_writer(self.fd)
        self._backlog.clear()
        if self._in_driver():
            with contextlib.suppress(OSError, termios.error):
                # else closing a UART waits until its queue is sent, for ever if the peer holds it
                termios.tcflush(self.fd, termios.TCOFLUSH)
        with contextlib.suppress(OSError):
            self._serial.close()

    def _in_driver(self) -> int:
        """Bytes that the driver has not sent yet; of a pty 0, though flushing it loses what was not read."""
        try:
            return int.from_bytes(fcntl.ioctl(self.fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    def _write_some(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self.fd, data)
        except (BlockingIOError, InterruptedError):
            return 0

    def _drain(self) -> None:
        try:
            del self._backlog[: self._write_some(self._backlog)]
        except OSError:
            self._backlog.clear()  # the reader learns that the device is gone, and closes
        if not self._backlog:
            self._loop.remove_writer(self.fd)


def _close_result(opening: asyncio.Future[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
