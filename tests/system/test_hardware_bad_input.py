"""Hardware that is not as it should be: one clear line in the log, in `doctor`, in status, and on the light.

All broken devices are configured on one rig at once, beside a board that works: none may stop another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pty
import signal
import tty
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPWMPin

from edgecap.checkup import Check, Exam, examine
from edgecap.checkup.daemon import check_daemon
from edgecap.checkup.devices import check_devices
from edgecap.checkup.disk import check_state_directory
from edgecap.checkup.panel import check_panel
from edgecap.cli.run import panel_of, serve, sources_of
from edgecap.config import load_config
from edgecap.daemon import grounded, recording
from edgecap.daemon.recording import _BOARD_PATTERN as BOARD_PATTERN
from edgecap.kernels.compile import warm_up
from edgecap.mqtt import parse_broker
from edgecap.session.machine import LEDS
from edgecap.sim.firmware import FirmwareStream, HostFirmware, motion_imu
from edgecap.source.camera_pi import PiCamera
from edgecap.source.frames import Channel, Descriptor, Hello, Kind
from edgecap.source.protocol import Source
from tests.camera.virtual_camera import CHILD, PREFIX, PYTHON, use_virtual_libcamera
from tests.reference import framing as reference
from tests.system.site import Site
from tests.system.uart_cable import UartCable
from tests.unprivileged import file_permissions_hold

pytestmark = pytest.mark.timeout(240)
HARDWARE = (
    Check("daemon", check_daemon),
    Check("devices", check_devices),
    Check("button", check_panel),
    Check("state directory", check_state_directory),
)


@dataclass(frozen=True)
class Broken:
    """One thing that is wrong, and the words that must be in its line."""

    name: str
    words: str
    fix: str
    camera: bool = False


TABLE = (
    Broken("old-board", "speaks version 2 of the protocol, edgecap speaks 1", "update its firmware"),
    Broken("liar", "describes itself wrongly: stream 0 'imu': its rate is 0", "update its firmware"),
    Broken("barred", "permission denied", "group dialout"),
    Broken("absent", "there is no such port", "plug the device in"),
    Broken("no-clip", "/no/clip.mp4 is not a file", "give the path"),
    Broken("head-imu", "no IIO device", "overlay"),
    Broken("button", "GPIO 17 cannot be used", "check the pin number"),
    Broken("taken-cam", "is in use by another process", "end", camera=True),
    Broken("no-cam", "finds no camera", "connect one", camera=True),
)
"""Each device's row; two boards with one serial number and a swapped board have tests of their own below."""


@dataclass
class Seen:
    """What a person could see."""

    log: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    light: str = ""
    beside: list[Any] = field(default_factory=list)
    """What doctor found while the daemon ran …"""
    alone: list[Any] = field(default_factory=list)
    """… and when it did not."""


class Log(logging.Handler):
    """Keeps lines of level WARNING and above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    handler, logger = Log(), logging.getLogger("edgecap")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)


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


@contextlib.asynccontextmanager
async def daemon(site: Site, config: Path, sources: list[Source] | None = None) -> AsyncIterator[None]:
    """The daemon in this process, as `edgecap run` composes it; ended by SIGTERM."""
    loaded = load_config(config)
    await asyncio.to_thread(lambda: list(warm_up()))  # compiling takes longer than a test is patient
    task = asyncio.create_task(
        serve(loaded, parse_broker(site.broker.url), sources or sources_of(loaded)), name="serve"
    )
    try:
        yield
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(60):
            await task


async def doctor(config: Path, sources: list[Source] | None = None) -> list[Any]:
    loaded = load_config(config)
    exam = Exam(loaded, sources or sources_of(loaded), panel=panel_of(loaded, lambda **_: None), seconds=1.0)
    return [f async for f in examine(exam, HARDWARE)]


def light(name: str) -> str:
    """How the firmware tells of a light that was asked for: colour, pattern, rhythm."""
    led = LEDS[name]
    parts = (*led.rgb, BOARD_PATTERN[name], led.on_ms, led.off_ms, led.flashes)
    return " ".join(map(str, parts))


def row(findings: list[Any], check: str) -> Any:
    (found,) = [f for f in findings if f.check == check]
    return found


def hello(*, rate_mhz: int) -> bytes:
    """A HELLO of one stream."""
    channels = (Channel("x", "N", 1.0, 0.0),)
    return Hello(1, 0, 1, "fw 1", "sn", Descriptor(0, 1, 1, rate_mhz, 0, "imu", channels)).pack()


def cameras() -> list[Source]:
    """Real picamera2: one that another process holds, and none at all because no overlay is loaded."""
    if not PYTHON.exists():
        assert "EDGECAP_TEST_LIBCAMERA" not in os.environ, f"no libcamera in {PREFIX}"
        return []
    held = PiCamera("taken-cam", "Front", 640, 480, child=(str(PYTHON), str(CHILD), "--held", "1"))
    blind = ("env", "LIBCAMERA_PIPELINES_MATCH_LIST=none", str(PYTHON), str(CHILD))
    return [held, PiCamera("no-cam", "", 640, 480, child=blind)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """One rig with everything broken at once, looked at from everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        if PYTHON.exists():
            use_virtual_libcamera(patch)
        # Real gpiozero without pins: as on a machine that is not a Pi.
        patch.setenv("GPIOZERO_PIN_FACTORY", "native")
        patch.setattr(Device, "pin_factory", None)
        yield asyncio.run(look(tmp_path_factory.mktemp("broken")))


async def look(out: Path) -> Seen:
    found = Seen()
    old = reference.wire(Kind.HELLO, hello(rate_mhz=1000), version=2)
    liar = reference.wire(Kind.HELLO, hello(rate_mhz=0))
    with logged() as lines, file_permissions_hold():
        async with Site(out) as site, answering(old) as old_port, answering(liar) as liar_port:
            glove = await site.add_device("glove", [motion_imu()])
            barred = await site.add_device("barred", [motion_imu()])
            os.chmod(barred.port, 0)  # noqa: PTH101 - the pty behind the link
            for name, port in (("old-board", old_port), ("liar", liar_port), ("absent", "/dev/not-there")):
                site.add_section(f'[[serial]]\nname = "{name}"\nport = "{port}"')
            site.add_section('[[iio]]\nname = "head-imu"\ndevice = "icm42688"')
            site.add_section('[[camera]]\nbackend = "file"\nname = "no-clip"\npath = "/no/clip.mp4"')
            site.add_section("[button]\ngpio = 17\nled_gpio = 5")
            config = site.config()
            sources = sources_of(load_config(config)) + cameras()
            expected = {b.name for b in TABLE if not b.camera or len(cameras())}
            async with daemon(site, config, sources):
                await site.until("told", lambda: set(site.status.get("problems", {})) == expected)
                found.status = site.status
                await site.until("shown", lambda: site.status["led"] == "sensor-fault")
                found.light = await glove.command("led")
                found.beside = await doctor(config, sources)
                # The board that works records all the same.
                await glove.press(80)
                await site.until_state("recording")
                await site.samples("glove-imu", 200)
                await glove.press(80)
                await site.until_state("idle")
            found.log = list(lines)
            found.alone = await doctor(config, sources)
    return found


@pytest.mark.parametrize("broken", TABLE, ids=lambda b: b.name)
def test_one_line_everywhere(seen: Seen, broken: Broken) -> None:
    if broken.camera and not PYTHON.exists():
        pytest.skip(f"no libcamera in {PREFIX}: run tests/camera/build_libcamera.sh {PREFIX}")
    told = seen.status["problems"][broken.name]
    assert [line for line in seen.log if line == told], seen.log
    check = broken.name if broken.name == "button" else f"device {broken.name}"
    beside, alone = row(seen.beside, check), row(seen.alone, check)
    for text in (told, f"{beside.text}; {beside.fix}", f"{alone.text}; {alone.fix}"):
        assert broken.words in text
        assert broken.fix in text
        assert "\n" not in text
    assert beside.verdict == alone.verdict == "fail"


def test_the_light_shows_it_and_what_works_goes_on(seen: Seen) -> None:
    assert (seen.status["state"], seen.status["led"]) == ("idle", "sensor-fault")
    assert seen.light.startswith(light("sensor-fault"))
    beside, alone = row(seen.beside, "device glove"), row(seen.alone, "device glove")
    assert beside.verdict == alone.verdict == "ok"
    assert "the daemon is running and holds it" in beside.text
    assert row(seen.alone, "stream glove-imu").verdict == "ok"
    assert abs(row(seen.alone, "stream glove-imu").facts["rate_hz"] - 1000) < 50
    assert row(seen.alone, "clock glove").verdict == "ok"


def test_a_rig_without_any_working_device_is_in_fault_until_one_comes(tmp_path: Path) -> None:
    async def run() -> None:
        async with Site(tmp_path) as site:
            port = tmp_path / "tty"
            site.add_section(f'[[serial]]\nname = "hand"\nport = "{port}"')
            config = site.config()
            async with daemon(site, config):
                await site.until_state("fault")
                assert site.status["led"] == "fault"
                assert f"no device works: hand: cannot open {port}" in site.status["fault"]
                beside = await doctor(config)
                assert row(beside, "daemon").verdict == "fail"
                await site.link.publish(
                    "edgecap/v1/lab/rig-01/cmd", json.dumps({"id": "1", "cmd": "start"}).encode(), qos=1
                )
                await site.until("refused", lambda: site.answers)
                assert "refused start: no device works" in site.answers[0]["message"]
                async with HostFirmware([motion_imu()], link=port) as hand:
                    await site.until("well", lambda: site.status["led"] == "idle")
                    assert (site.status["state"], site.status["problems"]) == ("idle", {})
                    await hand.press(80)
                    await site.until_state("recording")
                    await hand.press(80)
                    await site.until_state("idle")

    asyncio.run(run())


def test_a_device_that_comes_late_is_taken_into_the_running_session(tmp_path: Path) -> None:
    async def run() -> None:
        async with Site(tmp_path) as site:
            glove = await site.add_device("glove", [motion_imu()])
            port = tmp_path / "tty-late"
            site.add_section(f'[[serial]]\nname = "late"\nport = "{port}"')
            await site.start_ingest()
            async with daemon(site, site.config()):
                await site.until("told", lambda: "late" in site.status.get("problems", {}))
                await glove.press(80)
                await site.until_state("recording")
                assert site.status["led"] == "sensor-fault"
                session = str(site.status["session"])
                async with HostFirmware([motion_imu()], link=port, serial_number="late") as late:
                    site.devices["late"] = late
                    await site.until("taken in", lambda: not site.status["problems"])
                    await site.samples("late-imu", 300)
                    await glove.press(80)
                    await site.until_state("idle")
                    await site.until_complete(session)
                report = site.report(session)
                assert report is not None
                got = {s.name: s.samples for s in report.streams}
                assert got["glove-imu"] > got["late-imu"] >= 300

    asyncio.run(run())


def test_two_boards_with_one_serial_number(tmp_path: Path) -> None:
    async def run() -> None:
        with logged() as lines:
            async with Site(tmp_path) as site:
                for name in ("left", "right"):
                    await site.add_device(name, [motion_imu()])
                await site.devices["right"].stop()
                twin = HostFirmware([motion_imu()], link=tmp_path / "tty-right", serial_number="test-left")
                async with twin:
                    config = site.config()
                    async with daemon(site, config):
                        await site.until("told", lambda: site.status.get("problems"))
                        assert site.status["led"] == "sensor-fault"
                        assert any("serial number" in t for t in site.status["problems"].values())
                        beside = await doctor(config)
                    alone = await doctor(config)
                for findings in (beside, alone):
                    bad = [f for f in findings if f.verdict == "fail"]
                    assert bad
                    assert all("serial number" in f.text and "test-left" in f.text for f in bad)
                    assert all(f.fix for f in bad)
                assert any("serial number" in line for line in lines)

    asyncio.run(run())


def test_a_board_swapped_in_mid_session(tmp_path: Path) -> None:
    async def run() -> None:
        with logged() as lines:
            async with Site(tmp_path) as site:
                glove = await site.add_device("glove", [motion_imu()])
                left = await site.add_device("left", [motion_imu()])
                async with daemon(site, site.config()):
                    await site.until_state("idle")
                    await glove.press(80)
                    await site.until_state("recording")
                    await site.samples("left-imu", 100)
                    await left.stop()
                    other = HostFirmware(
                        [motion_imu()], link=tmp_path / "tty-left", serial_number="somebody-else"
                    )
                    async with other:
                        await site.until(
                            "told", lambda: "another device" in site.status["problems"].get("left", "")
                        )
                        assert "somebody-else" in site.status["problems"]["left"]
                        assert (site.status["state"], site.status["led"]) == ("recording", "sensor-fault")
                        found = row(await doctor(site.config()), "device left")
                        assert (found.verdict, "another device" in found.text) == ("fail", True)
                        assert found.fix
                        assert (await glove.command("led")).startswith(light("sensor-fault"))
                    await glove.press(80)
                    await site.until_state("idle")
                await left.start()
            assert any("another device" in line for line in lines)

    asyncio.run(run())


def test_a_board_on_a_uart_that_is_pulled_and_swapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No port vanishes there, and nothing is recorded: only that nobody answers, or somebody else, tells."""
    monkeypatch.setattr(recording, "FAULT_SHOWN_NS", 0)  # what is shown must last as long as it holds

    async def run() -> None:
        async with Site(tmp_path) as site, UartCable() as cable:
            mine = HostFirmware([motion_imu()], link=tmp_path / "mine", serial_number="mine")
            other = HostFirmware([motion_imu()], link=tmp_path / "other", serial_number="other")
            async with mine, other:
                site.add_section(f'[[serial]]\nname = "hand"\nport = "{cable.port}"')
                cable.plug(mine.port)
                async with daemon(site, site.config()):
                    await site.until_state("idle")
                    cable.plug(None)
                    await site.until_state("fault")
                    assert "no answer for 3 s" in site.status["problems"]["hand"]
                    cable.plug(mine.port)
                    await site.until_state("idle")
                    assert site.status["problems"] == {}
                    async with asyncio.timeout(
                        30
                    ):  # the light says so, too, though it was told while unplugged
                        while not (await mine.command("led")).startswith(light("idle")):
                            await asyncio.sleep(0.02)
                    cable.plug(other.port)
                    await site.until("told", lambda: "other" in site.status["problems"].get("hand", ""))
                    await site.until_state("fault")
                    assert "another device" in site.status["fault"]
                    assert site.status["led"] == "fault"
                    cable.plug(mine.port)
                    await site.until_state("idle")
                    await mine.press(80)
                    await site.until_state("recording")
                    await mine.press(80)
                    await site.until_state("idle")

    asyncio.run(run())


def test_a_state_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rig says so on status and lights instead of ending, and goes to work once it can."""
    monkeypatch.setattr(grounded, "RETRY_S", 0.2)
    pins = MockFactory(pin_class=MockPWMPin)
    monkeypatch.setattr(Device, "pin_factory", pins)

    async def run() -> None:
        with logged() as lines, file_permissions_hold():
            async with Site(tmp_path) as site:
                glove = await site.add_device("glove", [motion_imu()])
                site.add_section("[button]\nled_gpio = 5")
                config = site.config()
                state = tmp_path / "state"
                state.mkdir(mode=0o500)
                config.write_text(config.read_text().replace(f"{tmp_path}/spool", f"{state}/spool"))
                async with daemon(site, config):
                    await site.until_state("fault")
                    words = f"spool {state}/spool cannot be used: Permission denied"
                    assert words in site.status["fault"]
                    assert words in site.status["problems"]["spool"]
                    assert site.status["led"] == "fault"
                    async with asyncio.timeout(30):
                        while not (await glove.command("led")).startswith(light("fault")):
                            await asyncio.sleep(0.02)
                    pin = pins.pin(5)
                    await site.until("flashes", lambda: len(pin.states) > 8)
                    found = await doctor(config)
                    assert row(found, "daemon").verdict == "fail"
                    directory = row(found, "state directory")
                    assert (directory.verdict, "cannot be written" in directory.text) == ("fail", True)
                    assert directory.fix
                    state.chmod(0o700)
                    await site.until("well", lambda: site.status["led"] == "idle")
                    await glove.press(80)
                    await site.until_state("recording")
                assert site.status["state"] in ("idle", "offline")
                assert any(words in line for line in lines)

    asyncio.run(run())


def test_a_descriptor_from_the_firmware_itself() -> None:
    """The host firmware refuses to describe itself wrongly, so that the liar above has to be made by hand."""
    from edgecap.errors import SourceError

    async def run() -> None:
        bad = FirmwareStream("imu", "imu", 0.0, motion_imu().channels)
        with pytest.raises(SourceError):
            async with HostFirmware([bad]):
                pass

    asyncio.run(run())
