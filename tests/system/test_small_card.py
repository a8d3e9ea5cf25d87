"""A card that fills up: told in hours, the session closed in time, the next refused, all delivered later."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import do_without
from tests.system.site import Site
from tests.system.test_flow import CAMERA, GLOVE, cli, ctl, replaying_glove

pytestmark = pytest.mark.timeout(240)
RESERVE = 16 << 20
ROOM = 2_500_000
"""Some ten seconds of a glove and a camera."""


@contextlib.contextmanager
def card(path: Path) -> Iterator[Path]:
    """A file system of 48 MB of which `ROOM` is left above the reserve, the rest taken by `ballast`."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", path], check=True)
    try:
        found = os.statvfs(path)
        (path / "ballast").write_bytes(bytes(found.f_bavail * found.f_frsize - RESERVE - ROOM))
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_a_card_that_fills_up(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        do_without("a small card", "root, to mount one")
        return

    async def body(site: Site, spool: Path) -> None:
        await replaying_glove(site)
        site.add_section(CAMERA)
        await site.start_daemon()
        assert site.status["spool"]["hours_left"] is None
        code, out = await ctl(site, "start")
        assert code == 0, out
        session = out.split()[-1]
        hours: list[float] = []

        def full() -> bool:
            if (found := site.status.get("spool", {}).get("hours_left")) is not None:
                hours.append(found)
            return any(e["kind"] == "low-disk" for e in site.events) and site.status.get("state") == "idle"

        await site.until("full", full, at_most_s=120)
        (low,) = (e["text"] for e in site.events if e["kind"] == "low-disk")
        assert f"{spool} is down to its reserve" in low
        assert f"the session is closed: {low}" in (site.out / "daemon.log").read_text()
        found = os.statvfs(spool)
        assert found.f_bavail * found.f_frsize > RESERVE - (4 << 20), "the reserve is for closing"
        code, out = await ctl(site, "start")
        assert (code, "kept in reserve" in out, "let the uplink drain" in out) == (1, True, True), out
        code, out = await ctl(site, "status")
        assert (code, "room: none, " in out) == (0, True), out
        code, out = await cli("fleet", "--once", "--broker", site.broker.url)
        assert (code, "card" in out) == (1, True), out

        (spool / "ballast").unlink()
        await site.start_ingest()
        report = await site.until_complete(session)
        assert report.outcome == "complete"
        sent = await site.devices["glove"].totals()
        assert {s.name: s.samples for s in report.streams if s.name.startswith("glove")} == {
            f"glove-{name}": n for name, n in sent.items()
        }
        code, out = await ctl(site, "start")
        assert code == 0, out
        await site.until("hours", lambda: hours.append(site.status["spool"]["hours_left"]) or hours[-1])
        assert 0 < hours[-1] < 0.2, "32 MB at the rate of the session before"
        assert (await ctl(site, "stop"))[0] == 0

    on_a_card(tmp_path, body)


def on_a_card(out: Path, body: Callable[[Site, Path], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with Site(out) as site:
            with card(out / "spool") as spool:
                try:
                    await body(site, spool)
                finally:
                    if site.daemon is not None:
                        await site.stop_daemon()

    asyncio.run(run())


def test_a_card_that_is_full_at_once(tmp_path: Path) -> None:
    """Something else takes the reserve as well: an error that names the place; what was kept is delivered."""
    if os.geteuid() != 0:
        do_without("a small card", "root, to mount one")
        return

    async def body(site: Site, spool: Path) -> None:
        await replaying_glove(site)
        await site.start_daemon()
        code, out = await ctl(site, "start")
        assert code == 0, out
        session = out.split()[-1]
        await site.samples("glove-tactile", 300)
        with contextlib.suppress(OSError), (spool / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(65536)):
                pass
        await site.until("fault", lambda: site.status.get("state") == "fault")
        assert f"spool {spool} cannot be" in site.status["fault"], site.status["fault"]
        assert "No space left on device (0 MB free)" in site.status["fault"]
        (spool / "filler").unlink()
        (spool / "ballast").unlink()
        code, out = await ctl(site, "start")
        assert code == 0, out
        second = out.split()[-1]
        await site.samples("glove-tactile", 100)
        assert (await ctl(site, "stop"))[0] == 0
        await site.start_ingest()
        assert (await site.until_complete(second)).outcome == "complete"
        report = await site.until_complete(session)
        assert report.outcome == "interrupted"
        assert min(s.samples for s in report.streams if s.name.startswith("glove")) > 100
        cut = {s.name: g for s in report.streams for g in s.gaps if g.cause == "disk"}
        sent = {f"glove-{name}" for name in GLOVE}
        assert cut.keys() == sent, report.notes
        assert all(s.t1_ns == cut[s.name].t0_ns for s in report.streams if s.name in sent)

    on_a_card(tmp_path, body)
