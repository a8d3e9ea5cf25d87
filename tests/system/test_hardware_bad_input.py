"""Hardware that is not as it should be: one clear line in the log, in `doctor`, in status, and on the light.

All broken devices are configured on one rig at once, beside a board that works: none may stop another.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gpiozero import Device

from edgecap.cli.run import sources_of
from edgecap.config import load_config
from edgecap.sim.firmware import FirmwareStream, HostFirmware, motion_imu
from edgecap.source import camera_feed
from edgecap.source.camera_pi import PiCamera
from edgecap.source.frames import Kind
from edgecap.source.protocol import Source
from tests.camera.virtual_camera import CHILD, PREFIX, PYTHON, use_virtual_libcamera
from tests.reference import framing as reference
from tests.strange_peer import answering, hello
from tests.system.onlooker import daemon, doctor, light, logged, row, shows
from tests.system.site import Site
from tests.unprivileged import file_permissions_hold

pytestmark = pytest.mark.timeout(240)


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


def add_broken(site: Site, old_port: str, liar_port: str) -> None:
    """What can be said in a configuration."""
    for name, port in (("old-board", old_port), ("liar", liar_port), ("absent", "/dev/not-there")):
        site.add_section(f'[[serial]]\nname = "{name}"\nport = "{port}"')
    site.add_section('[[iio]]\nname = "head-imu"\ndevice = "icm42688"')
    site.add_section('[[camera]]\nbackend = "file"\nname = "no-clip"\npath = "/no/clip.mp4"')


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
        patch.setattr(camera_feed, "OPEN_LIMIT_S", 60.0)  # what is wrong is asked here, not how soon it shows
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
            add_broken(site, old_port, liar_port)
            site.add_section("[button]\ngpio = 17\nled_gpio = 5")
            config = site.config()
            sources = sources_of(load_config(config)) + cameras()
            expected = {b.name for b in TABLE if not b.camera or len(cameras())}
            async with daemon(site, config, sources):
                await site.until("told", lambda: set(site.status.get("problems", {})) == expected)
                found.status = site.status
                await site.until("shown", lambda: site.status["led"] == "sensor-fault")
                await shows(glove, "sensor-fault")
                found.light = await glove.command("led")
                found.beside = await doctor(config, sources)
                # The board that works records all the same.
                await site.start_session(glove)
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
    stream = row(seen.alone, "stream glove-imu")
    # All the others are opened meanwhile: a busy machine may lose samples, and that is told.
    assert stream.verdict == "ok" or stream.text.startswith(("gaps: ", "rate: ")), stream
    assert row(seen.alone, "clock glove").verdict == "ok"


def test_the_programs_themselves_say_the_same(tmp_path: Path) -> None:
    """`edgecap run` and `edgecap doctor` as processes, with what of the table needs no special machine."""
    old = reference.wire(Kind.HELLO, hello(rate_mhz=1000), version=2)
    liar = reference.wire(Kind.HELLO, hello(rate_mhz=0))
    rows = [b for b in TABLE if b.name in ("old-board", "liar", "absent", "no-clip", "head-imu")]

    async def run() -> None:
        async with Site(tmp_path) as site, answering(old) as old_port, answering(liar) as liar_port:
            glove = await site.add_device("glove", [motion_imu()])
            add_broken(site, old_port, liar_port)
            await site.start_daemon()
            await site.until("told", lambda: set(site.status["problems"]) == {b.name for b in rows})
            await site.until("shown", lambda: site.status["led"] == "sensor-fault")
            await shows(glove, "sensor-fault")
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "edgecap", "doctor", "--config", str(tmp_path / "rig.toml")),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            said = (await process.communicate())[0].decode().splitlines()
            assert process.returncode == 1
            logged_lines = (tmp_path / "daemon.log").read_text().splitlines()
            for broken in rows:
                (line,) = [text for text in said if f"device {broken.name} " in text]
                assert line.startswith("✗")
                told = site.status["problems"][broken.name]
                assert [text for text in logged_lines if text.endswith(told)] == [
                    f"ERROR edgecap.devices: {told}"
                ]
                for text in (line, told):
                    assert broken.words in text
                    assert broken.fix in text

    asyncio.run(run())


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
                    await site.start_session(hand)
                    await hand.press(80)
                    await site.until_state("idle")

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
