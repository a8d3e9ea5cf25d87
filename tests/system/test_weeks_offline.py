"""Three weeks without a network, a restart each morning; then the network is back."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from edgecap import clock
from edgecap.codec.chunk import Chunk
from edgecap.daemon.pulse import Pulse
from edgecap.daemon.recovery import close_interrupted
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.local_store import LocalStore
from edgecap.mqtt import Broker, parse_broker
from edgecap.sim.broker import HeldPort, LoopbackBroker
from edgecap.spool import Spool
from tests.chunks import SessionMaker
from tests.system.delivery import RIG, SITE, Rig, ingest
from tests.waiting import until

DAYS = 21
DAY_S = 86_400
STREAMS = {"left-imu": "samples", "head-cam": "video"}


def test_weeks_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept whole over boots whose clocks begin anew, delivered without a burst beyond the cap."""
    raw_ns, utc_ns, days_ns = clock.now_ns, time.time_ns, 0
    monkeypatch.setattr(clock, "now_ns", lambda: raw_ns() + days_ns)
    monkeypatch.setattr(time, "time_ns", lambda: utc_ns() + days_ns)
    recorded: list[Chunk] = []
    for day in range(DAYS):
        days_ns = day * DAY_S * 10**9
        boot = f"{day:08d}-0000-4000-8000-000000000000"
        monkeypatch.setattr(clock, "boot_id", lambda boot=boot: boot)
        maker = SessionMaker(
            f"20260{day // 28 + 1}{day % 28 + 1:02d}-080000-abcd", site=SITE, rig=RIG, boot=boot
        )
        chunks = maker.whole(rounds=4)
        if day % 7 == 3:
            chunks = chunks[:-1]  # the battery ran out
        with Spool.open(tmp_path / "spool", reserve_bytes=0, segment_bytes=8_000) as spool:
            close_interrupted(spool, Pulse(spool.path))
            for chunk in chunks:
                spool.append(chunk)
        recorded += chunks

    async def body(running: LoopbackBroker, broker: Broker, nobody: Broker) -> None:
        nonlocal days_ns
        with Spool.open(tmp_path / "spool", reserve_bytes=0, segment_bytes=8_000) as spool:
            close_interrupted(spool, Pulse(spool.path))
            waiting = spool.stats()
            assert waiting.chunks == len(recorded) + DAYS // 7, "the closes of what was cut off"
            assert 19 < (clock.now_ns() - waiting.oldest_t_ns) / 1e9 / DAY_S <= DAYS, "its age, across boots"
            async with Rig(spool, nobody) as rig:
                await until(lambda: len(rig.states) > 3)
                days_ns += 14 * DAY_S * 10**9  # and two weeks more with the daemon running
                await until(lambda: len(rig.states) > 6)
                assert rig.left() == waiting.chunks
            async with ingest(broker, tmp_path / "store"), Rig(spool, broker, max_bytes_s=60_000) as rig:
                started = time.monotonic()
                await until(lambda: rig.left() == 0, 60)
                # A second's worth at once, not five weeks' worth.
                assert time.monotonic() - started > waiting.bytes / 60_000 - 1.5
                assert rig.uplink.statistics().resent == 0

    with LoopbackBroker(tmp_path / "broker") as running:
        held = HeldPort()
        nobody = parse_broker(f"mqtt://127.0.0.1:{held.number}")
        asyncio.run(body(running, parse_broker(running.url), nobody))
    assert not list((tmp_path / "spool").glob("*.seg"))
    with sqlite3.connect(tmp_path / "spool/receipts.sqlite") as database:
        tables = ("receipted", "gone", "session", "head")
        left = {t: database.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables}
    database.close()
    assert left == dict.fromkeys(tables, 0), "nothing is remembered of what is over"
    with LocalStore.open(tmp_path / "store") as store:
        reports = [verify_session(store, key) for key in store.sessions()]
    assert [r.complete for r in reports] == [True] * DAYS
    assert [r.outcome for r in reports].count("interrupted") == DAYS // 7
