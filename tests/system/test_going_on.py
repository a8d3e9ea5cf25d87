"""A daemon that hung while it recorded goes on once it was ended: nobody would press the button again."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from edgecap import clock
from edgecap.daemon.pulse import Pulse
from edgecap.daemon.shift import ENDED, HUNG, LATEST_NS, NAME, Shift
from edgecap.dataset.session import load_session
from edgecap.ingest.store import open_store
from edgecap.session.manifest import Continued, Provenance
from edgecap.sim.firmware import motion_imu
from tests.system.site import Site
from tests.system.test_flow import cli, ctl

WHO = Provenance("stack cups", "op-1", "c-1")


def test_what_a_hung_daemon_recorded_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(run))

    async def recording(site: Site, other_than: str = "") -> str:
        await site.until(
            "recording", lambda: site.status["session"] != other_than and site.status["session_s"] >= 1
        )
        session: str = site.status["session"]
        return session

    async def hang(site: Site, result: str) -> None:
        """As systemd ends it and says why."""
        await site.stop_daemon(signal.SIGKILL)
        (run / ENDED).write_text(f"{result}\n")

    async def body() -> None:
        async with Site(tmp_path) as site:
            await site.add_device("hand", [motion_imu()])
            await site.start_daemon()
            code, out = await ctl(site, "start", "--task", "stack cups")
            assert code == 0, out
            first = await recording(site)
            await hang(site, HUNG)
            await site.start_daemon("recording")
            second = await recording(site, first)
            assert f"which goes on as {second}" in (tmp_path / "daemon.log").read_text()
            await hang(site, "signal")  # killed for another reason
            await site.start_daemon()
            await site.start_ingest()
            outcomes = [(await site.until_complete(s)).outcome for s in (first, second)]
            assert outcomes == ["interrupted", "interrupted"]
            store = open_store(str(site.store))
            manifests = [load_session(store, site.key(s)).manifest for s in (first, second)]
            assert [m["task"] for m in manifests] == ["stack cups"] * 2
            told = [(m.get("continues"), m.get("shift")) for m in manifests]
            assert told == [(None, None), (first, first)]
            code, said = await cli("sessions", "show", str(site.store), second)
            assert f"continues  {first}" in said
            assert "hand-imu: 1000 Hz: accel_x" in said
            assert await site.stop_daemon() == 0

    asyncio.run(body())


def test_what_is_old_damaged_or_of_another_boot_does_not_go_on(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    shift = Shift(pulse)

    def left(ended: str = HUNG, seen_ns: int | None = 0, note: bytes | None = None) -> object:
        """What is found of `s-2`, whose daemon was last seen alive at `seen_ns`."""
        shift.begin("s-2", WHO, Continued("s-1", "s-0"))
        if note is not None:
            (tmp_path / NAME).write_bytes(note)
        (tmp_path / ENDED).write_text(ended)
        beat = "" if seen_ns is None else f"{clock.boot_id()} s-2 {seen_ns}"
        (tmp_path / "pulse").write_text(beat)
        return shift.cut_off()

    now_ns = clock.now_ns()
    assert left(seen_ns=now_ns) == (WHO, Continued("s-2", "s-0"))
    assert shift.cut_off() is None, "once"
    assert left(seen_ns=now_ns - LATEST_NS) is None
    assert left(seen_ns=None) is None, "another boot, or no sign of life"
    for result in ("success", "signal", "oom-kill", ""):
        assert left(result, now_ns) is None
    for note in (b"", b"\xff", b"{}", b'{"boot": 1}'):
        assert left(note=note, seen_ns=now_ns) is None
    shift.begin("s-3", WHO, None)
    shift.end()
    (tmp_path / ENDED).write_text(HUNG)
    assert shift.cut_off() is None
