"""What a serial source says of ports and boards that it cannot use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgecap.errors import SourceError
from edgecap.sim.firmware import HostFirmware
from edgecap.source import serial_feed
from edgecap.source.frames import Kind
from edgecap.source.serial_mcu import SerialSource
from tests.contract.board_taker import TWO
from tests.reference import framing as reference
from tests.strange_peer import answering, hello


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
        (
            reference.wire(Kind.HELLO, hello()[:5] + b"\x03" + hello()[6:]),
            "does not say who it is within 0.3 s: of 3 parts of its HELLO only 0 came",
        ),
        (reference.cobs_encode(bytes((1, 6, *bytes(14)))) + b"\0", "a frame that is whole: "),
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
    monkeypatch.setattr(serial_feed, "HELLO_LIMIT_S", 0.3)

    async def run() -> None:
        async with answering(answer) as port:
            assert reason in await refusal(port)

    asyncio.run(run())
