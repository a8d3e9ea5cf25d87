"""A spool that cannot be written: told everywhere, and waited for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPWMPin

from edgecap.daemon import grounded
from edgecap.sim.firmware import motion_imu
from tests.system.onlooker import daemon, doctor, logged, row, shows
from tests.system.site import Site
from tests.unprivileged import file_permissions_hold

pytestmark = pytest.mark.timeout(240)


class ServiceManager:
    """Hears what a service tells systemd."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextlib.contextmanager
    def listening(self, path: Path) -> Iterator[None]:
        """Services of this process speak to it; those that were started before do not."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, pytest.MonkeyPatch.context() as patch:
            sock.bind(str(path))
            patch.setenv("NOTIFY_SOCKET", str(path))
            patch.setenv("WATCHDOG_USEC", "1000000")
            loop.add_reader(sock, lambda: self.told.append(sock.recv(4096).decode()))
            try:
                yield
            finally:
                loop.remove_reader(sock)

    def stages(self) -> list[str]:
        """What it was fed with, without repetitions: the status that came with it."""
        fed = [text.partition("STATUS=")[2] for text in self.told if text.startswith("WATCHDOG=1")]
        return [text for k, text in enumerate(fed) if k == 0 or text != fed[k - 1]]


def test_a_state_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rig says so on status and lights instead of ending, and goes to work once it can."""
    monkeypatch.setattr(grounded, "RETRY_S", 0.2)
    manager = ServiceManager()
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
                with manager.listening(tmp_path / "notify"):
                    async with daemon(site, config):
                        await site.until_state("fault")
                        words = f"spool {state}/spool cannot be used: Permission denied"
                        assert words in site.status["fault"]
                        assert words in site.status["problems"]["spool"]
                        assert site.status["led"] == "fault"
                        await shows(glove, "fault")
                        pin = pins.pin(5)
                        await site.until("flashes", lambda: len(pin.states) > 8)
                        found = await doctor(config)
                        assert row(found, "daemon").verdict == "fail"
                        directory = row(found, "state directory")
                        assert (directory.verdict, "cannot be written" in directory.text) == ("fail", True)
                        assert directory.fix
                        state.chmod(0o700)
                        await site.until("well", lambda: site.status["led"] == "idle")
                        await site.start_session(glove)
                assert site.status["state"] in ("idle", "offline")
                assert any(words in line for line in lines)

    asyncio.run(run())
    # systemd takes it for started all the while, so its watchdog is fed until there is a rig that feeds it.
    assert manager.told[0] == "READY=1"
    assert manager.told.count("READY=1") == 2
    stages = manager.stages()
    assert [text.split()[0] for text in stages[:3]] == ["fault:", "starting", "idle"]
    assert "cannot be used" in stages[0]
