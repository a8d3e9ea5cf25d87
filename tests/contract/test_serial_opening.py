"""What a serial source says of ports and boards that it cannot use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgecap.errors import SourceError
from edgecap.sim.firmware import (
    HostFirmware,
)
from edgecap.source import serial_mcu
from edgecap.source.frames import Hello, Kind
from edgecap.source.serial_mcu import SerialSource
from tests.contract.board_taker import TWO
from tests.reference import framing as reference


async def refusal(port: str) -> str:
    with pytest.raises(SourceError) as caught:
        async with SerialSource("hand", port).open():
            pass
    text = str(caught.value)
    assert "\n" not in text
    assert "hand" in text
    assert port in text
    assert caught.value.fix
    return text


def test_ports_that_cannot_be_opened_are_named_with_the_fix(tmp_path: Path) -> None:
    regular = tmp_path / "file"
    regular.touch()

    async def run() -> None:
        assert "there is no such port" in await refusal(str(tmp_path / "none"))
        assert "it is not a serial port" in await refusal(str(regular))
        async with HostFirmware(TWO, link=tmp_path / "mcu") as device:
            async with SerialSource("hand", device.port).open():
                assert "another program has it open" in await refusal(device.port)
            async with SerialSource("hand", device.port).open():
                pass  # and is free again

    asyncio.run(run())


@contextlib.asynccontextmanager
async def peer(answer: bytes) -> AsyncIterator[str]:
    """A port behind which something else than edgecap's firmware answers whatever is sent."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    loop = asyncio.get_running_loop()

    def answer_it() -> None:
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
    from edgecap.source.frames import Channel, Descriptor

    fields: dict[str, Any] = {
        "stream": 0,
        "kind": 1,
        "dtype": 1,
        "rate_mhz": 1000,
        "lag_us": 0,
        "name": "imu",
    }
    fields["channels"] = (Channel("x", "N", 1.0, 0.0),)
    return Hello(1, 0, 1, "fw 1", "sn", Descriptor(**(fields | changes))).pack()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "does not answer within"),
        (b"Hello, I am a printer\r\n\0", "bytes that are no frames"),
        (
            reference.wire(Kind.HELLO, hello(), version=2),
            "speaks version 2 of the protocol, edgecap speaks 1",
        ),
        (reference.wire(Kind.LOG, b"\x14" + bytes(5)), "does not say who it is"),
        (reference.wire(Kind.HELLO, hello(kind=9)), "stream 0 'imu': kind 9 is unknown"),
        (reference.wire(Kind.HELLO, hello(dtype=0)), "dtype 0 is unknown"),
        (reference.wire(Kind.HELLO, hello(rate_mhz=0)), "its rate is 0"),
        (reference.wire(Kind.HELLO, hello(channels=())), "it has no channels"),
        (reference.wire(Kind.HELLO, hello(name="IMU 1")), "'hand-IMU 1' is no stream name"),
    ],
)
def test_peers_that_are_no_device_are_refused_with_reason(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, reason: str
) -> None:
    monkeypatch.setattr(serial_mcu, "HELLO_LIMIT_S", 0.3)

    async def run() -> None:
        async with peer(answer) as port:
            assert reason in await refusal(port)

    asyncio.run(run())
