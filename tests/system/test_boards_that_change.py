"""Boards that come late, are swapped, pulled or mistaken for one another, beside one that goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from edgecap.daemon import recording
from edgecap.sim.firmware import HostFirmware, motion_imu
from edgecap.source import conversation, serial_feed
from tests.system.onlooker import daemon, doctor, logged, row, shows
from tests.system.site import Site
from tests.system.uart_cable import UartCable

pytestmark = pytest.mark.timeout(240)


async def ended(site: Site, glove: HostFirmware, session: str) -> dict[str, int]:
    """End a session by its button and wait until it is stored whole; how many samples each stream has."""
    await glove.press(80)
    await site.until_state("idle")
    await site.until_complete(session)
    report = site.report(session)
    assert report is not None
    return {s.name: s.samples for s in report.streams}


def test_a_device_that_comes_late_is_taken_into_the_running_session(tmp_path: Path) -> None:
    async def run() -> None:
        async with Site(tmp_path) as site:
            glove = await site.add_device("glove", [motion_imu()])
            port = tmp_path / "tty-late"
            site.add_section(f'[[serial]]\nname = "late"\nport = "{port}"')
            await site.start_ingest()
            async with daemon(site, site.config()):
                await site.until("told", lambda: "late" in site.status.get("problems", {}))
                session = await site.start_session(glove)
                assert site.status["led"] == "sensor-fault"
                async with HostFirmware([motion_imu()], link=port, serial_number="late") as late:
                    site.devices["late"] = late
                    await site.until("taken in", lambda: not site.status["problems"])
                    await site.samples("late-imu", 300)
                    got = await ended(site, glove, session)
                assert got["glove-imu"] > got["late-imu"] >= 300

    asyncio.run(run())


def test_a_board_that_misses_its_start_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_feed, "MUTE_NS", 10**12)  # not to be taken for gone before it goes on

    async def run() -> None:
        async with Site(tmp_path) as site:
            glove = await site.add_device("glove", [motion_imu()])
            wrist = await site.add_device("wrist", [motion_imu()])
            await site.start_ingest()
            async with daemon(site, site.config()):
                await site.until_state("idle")
                os.kill(wrist.pid, signal.SIGSTOP)
                try:
                    session = await site.start_session(glove)
                    await site.until(
                        "told", lambda: any("not answer start" in e["text"] for e in site.events)
                    )
                finally:
                    os.kill(wrist.pid, signal.SIGCONT)
                await site.until("there", lambda: verdict_count(site, "wrist-imu") >= 300)
                got = await ended(site, glove, session)
                assert got["glove-imu"] > got["wrist-imu"] >= 300

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
                        await shows(site.devices["left"], "sensor-fault")
                        await shows(twin, "sensor-fault")
                        assert any("serial number" in t for t in site.status["problems"].values())
                        beside = await doctor(config)
                    alone = await doctor(config)
                for findings in (beside, alone):
                    # What one second of samples is like is judged as well: not the subject here.
                    bad = [f for f in findings if f.verdict == "fail" and not f.check.startswith("stream ")]
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
                    await site.start_session(glove)
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
                        await shows(glove, "sensor-fault")
                    await glove.press(80)
                    await site.until_state("idle")
                await left.start()
            assert any("another device" in line for line in lines)

    asyncio.run(run())


def test_a_board_that_is_pulled_while_its_button_is_down_discards_nothing(tmp_path: Path) -> None:
    """Nobody tells of the release: three seconds later it was taken for held."""

    async def run() -> None:
        async with Site(tmp_path) as site:
            glove = await site.add_device("glove", [motion_imu()])
            left = await site.add_device("left", [motion_imu()])
            await site.start_ingest()
            async with daemon(site, site.config()):
                await site.until_state("idle")
                session = await site.start_session(glove)
                await left.command("down")
                sent = (await left.totals())["imu"] + 20  # by then the edge has been told, too
                await site.until("heard", lambda: verdict_count(site, "left-imu") > sent)
                await left.command("unplug 60000")
                await site.until("told", lambda: any("left was lost" in e["text"] for e in site.events))
                assert site.status["state"] == "recording"
                await ended(site, glove, session)
                report = site.report(session)
                assert report is not None
                assert report.outcome == "complete"

    asyncio.run(run())


def test_a_board_on_a_uart_that_is_pulled_and_swapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No port vanishes there, and nothing is recorded: only that nobody answers, or somebody else, tells."""
    monkeypatch.setattr(recording, "FAULT_SHOWN_NS", 0)  # what is shown must last as long as it holds
    monkeypatch.setattr(conversation, "ACK_TRIES", 30)  # here a board is a process that waits for its turn

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
                    await shows(mine, "idle")  # though it was told while unplugged
                    cable.plug(other.port)
                    await site.until("told", lambda: "other" in site.status["problems"].get("hand", ""))
                    await site.until_state("fault")
                    assert "another device" in site.status["fault"]
                    assert site.status["led"] == "fault"
                    cable.plug(mine.port)
                    await site.until_state("idle")
                    await site.start_session(mine)
                    await mine.press(80)
                    await site.until_state("idle")

    asyncio.run(run())


def test_a_board_that_freezes_mid_session(tmp_path: Path) -> None:
    """Its port stays, nothing comes: told at once, stated as a loss, and it goes on where it thaws."""

    async def run() -> None:
        with logged() as lines:
            async with Site(tmp_path) as site:
                glove = await site.add_device("glove", [motion_imu()])
                left = await site.add_device("left", [motion_imu()])
                await site.start_ingest()
                async with daemon(site, site.config()):
                    await site.until_state("idle")
                    session = await site.start_session(glove)
                    await site.samples("left-imu", 100)
                    os.kill(left.pid, signal.SIGSTOP)
                    try:
                        await site.until("silent", lambda: "silent" in verdict(site, "left-imu"))
                        await site.until("shown", lambda: site.status["led"] == "sensor-fault")
                        await shows(glove, "sensor-fault")
                        await site.until("told", lambda: "no answer for 3 s" in problem(site, "left"))
                        assert site.status["state"] == "recording"
                        found = row(await doctor(site.config()), "device left")
                        assert (found.verdict, "no answer for 3 s" in found.text) == ("fail", True)
                        assert found.fix
                    finally:
                        os.kill(left.pid, signal.SIGCONT)
                    n = verdict_count(site, "left-imu")
                    await site.until("thawed", lambda: verdict_count(site, "left-imu") > n + 500)
                    await site.until("well", lambda: not site.status["problems"])
                    await site.until("shown", lambda: site.status["led"] == "recording")
                    await glove.press(80)
                    await site.until_state("idle")
                    report = await site.until_complete(session)
                streams = {s.name: s for s in report.streams}
                # What the board's own buffer could not hold is a gap; the rest came late, at its true times.
                assert streams["left-imu"].gaps
                assert streams["glove-imu"].samples > streams["left-imu"].samples
            assert any("left-imu is silent" in line for line in lines)

    asyncio.run(run())


def problem(site: Site, device: str) -> str:
    return str(site.status.get("problems", {}).get(device, ""))


def verdict(site: Site, stream: str) -> str:
    return next((v["state"] for v in site.status["streams"] if v["stream"] == stream), "")


def verdict_count(site: Site, stream: str) -> int:
    return next((int(v["n"]) for v in site.status["streams"] if v["stream"] == stream), 0)
