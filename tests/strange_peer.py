"""What answers on a serial port without being a board of ours, or as one that describes itself wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import AsyncIterator
from typing import Any

from edgecap.source.frames import Channel, Descriptor, Hello


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A port behind which something answers whatever is sent with always the same bytes."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    loop = asyncio.get_running_loop()

    def answer_it() -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(master, 4096)
            os.write(master, answer)

    loop.add_reader(master, answer_it)
    try:
        yield os.ttyname(slave)
    finally:
        loop.remove_reader(master)
        os.close(master)
        os.close(slave)


def hello(**changes: Any) -> bytes:
    """A HELLO of one stream, with fields of its descriptor changed."""
    fields: dict[str, Any] = {
        "stream": 0,
        "kind": 1,
        "dtype": 1,
        "rate_mhz": 1000,
        "lag_us": 0,
        "name": "imu",
        "channels": (Channel("x", "N", 1.0, 0.0),),
    }
    return Hello(1, 0, 1, "fw 1", "sn", Descriptor(**(fields | changes))).pack()
