"""A UART: the far end of the cable can be pulled and put into another board, and no port vanishes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import termios
import tty
from types import TracebackType
from typing import Self

READ_BYTES = 65536


class UartCable:
    """`async with UartCable() as cable`; `port` is the daemon's end, `plug` puts the other one somewhere."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)
        self._board = -1
        self.said = bytearray()
        """All that the daemon has sent."""

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._master, self._to_board)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.plug(None)
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        os.close(self._slave)

    def plug(self, port: str | None) -> None:
        """Into the board behind a pty, or (None) into nothing; what is on the way gets lost."""
        loop = asyncio.get_running_loop()
        if self._board >= 0:
            loop.remove_reader(self._board)
            os.close(self._board)
            self._board = -1
        if port is not None:
            self._board = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            termios.tcflush(self._board, termios.TCIFLUSH)  # a wire keeps nothing; this pty did
            loop.add_reader(self._board, self._to_daemon)

    def _to_board(self) -> None:
        with contextlib.suppress(OSError):
            data = os.read(self._master, READ_BYTES)
            self.said += data
            if self._board >= 0:
                os.write(self._board, data)

    def _to_daemon(self) -> None:
        try:
            os.write(self._master, os.read(self._board, READ_BYTES))
        except BlockingIOError:
            pass
        except OSError:
            self.plug(None)
