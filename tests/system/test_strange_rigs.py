"""Rigs that are not what they should be: a clock in 1970, a name that two claim, chunks in disorder."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgecap import topics
from edgecap.cli.main import main
from edgecap.codec.chunk import Chunk
from edgecap.codec.receipt import Receipt, decode_receipt
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.local_store import LocalStore
from edgecap.ingest.store import SessionKey
from edgecap.mqtt import Broker, connect, parse_broker
from edgecap.sim.broker import LoopbackBroker
from edgecap.sim.firmware_build import find_compiler
from tests.chunks import SessionMaker
from tests.system.delivery import Rig, ingest, spool_with
from tests.system.site import RIG, SITE, Site
from tests.system.test_flow import cli, record, replaying_glove
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)

NEVER_SET = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/timex.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *out)
{
    int (*next)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    const int failed = next(clock, out);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        out->tv_sec -= BORN;
    return failed;
}
int adjtimex(struct timex *t) { t->modes = 0; t->status = STA_UNSYNC; return TIME_ERROR; }
"""
"""A kernel without a clock chip and without a network starts at the epoch."""


@contextmanager
def clock_never_set(tmp_path: Path) -> Iterator[None]:
    source, library = tmp_path / "never_set.c", tmp_path / "never_set.so"
    source.write_text(NEVER_SET)
    born = int(time.time()) - 5
    command = [find_compiler(), "-shared", "-fPIC", "-O1", f"-DBORN={born}", source, "-o", library, "-ldl"]
    subprocess.run(command, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        yield


def test_a_rig_whose_clock_is_in_1970(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stored, receipted and released like any other; whoever asks is told that the date is doubtful."""

    async def body(site: Site) -> None:
        await replaying_glove(site)
        await site.start_ingest()
        with clock_never_set(tmp_path):
            await site.start_daemon()
        session = await record(site, 100)
        assert session.startswith("19700101-000")
        report = await site.until_complete(session)
        await site.until("delivered", lambda: site.status["spool"]["chunks"] == 0)
        assert 0 < report.utc_ns < 600 * 10**9
        assert not report.utc_trusted
        sent = await site.devices["glove"].totals()
        assert {s.name: s.samples for s in report.streams if s.device_sent} == {
            f"glove-{name}": n for name, n in sent.items()
        }
        code, out = await cli("fleet", "--once", "--broker", site.broker.url)
        assert (code, "its wall clock was never set" in out) == (1, True), out
        code, out = await cli("ctl", RIG, "task", "stack cups", "--broker", site.broker.url)
        assert code == 0, "a command that expires in our time is not refused by a clock that is not trusted"

    async def run() -> None:
        async with Site(tmp_path) as site:
            await body(site)

    asyncio.run(run())
    store = str(tmp_path / "store")
    (session,) = (key.session for key in LocalStore.open(tmp_path / "store").sessions())
    assert main(["sessions", "show", store, session]) == 0
    assert "1970-01-01 00:0" in (out := capsys.readouterr().out)
    assert "the rig's clock was not synchronised" in out
    assert main(["sessions", "ledger", store, "--by", "day"]) == 0
    out = capsys.readouterr().out
    assert "1970-01-01 *" in out
    assert "its day is doubtful" in out
    assert main(["sessions", "verify", store]) == 0


class Claimant(Rig):
    """Kicked off by its double it comes back later and later, and so each has the broker for a while."""

    most_wait_s = 4.0


def names() -> dict[str, str]:
    return {"site": SITE, "rig": RIG}


def test_two_rigs_claim_one_name(tmp_path: Path) -> None:
    """The broker lets them on in turn; all of both arrives, and nothing counts for the other's session."""
    same = "20260101-000000-same"
    mine = [
        *SessionMaker("20260101-000000-mine", boot="m" * 36, **names()).whole(rounds=20),
        *SessionMaker(same, boot="m" * 36, seed=1, **names()).whole(rounds=20),
    ]
    other = [
        *SessionMaker("20260101-000000-othr", boot="o" * 36, seed=2, **names()).whole(rounds=20),
        *SessionMaker(same, boot="o" * 36, seed=3, **names()).whole(rounds=20),
    ]
    receipts: list[Receipt] = []

    async def body(broker: Broker) -> None:
        topic = topics.topic(SITE, RIG, topics.RECEIPT)
        with spool_with(tmp_path / "mine", mine) as one, spool_with(tmp_path / "other", other) as two:
            async with (
                ingest(broker, tmp_path / "store"),
                connect(broker, client_id="ear", subscribe=[topic]) as ear,
                Claimant(one, broker, resend_s=0.5) as a,
                Claimant(two, broker, resend_s=0.5) as b,
            ):
                await until(lambda: a.left() == 0 and b.left() == 0, 60)
                # mosquitto 2.0.11 only hangs up; later ones say why (tests/system/test_mqtt_refusals.py).
                assert any("was closed" in why or "same client id" in why for _, why in a.states + b.states)
                wanted = {c.id for c in [*mine, *other]}
                async with asyncio.timeout(60):  # a rig may have heard the last one before this ear has
                    while not wanted <= {i for r in receipts for i in r.ids()}:
                        receipts.append(decode_receipt((await ear.receive()).payload))

    before_ns = time.time_ns()
    with LoopbackBroker(tmp_path / "broker") as running:
        asyncio.run(body(parse_broker(running.url)))
    told = {i for r in receipts for i in r.ids()}
    assert told == {c.id for c in [*mine, *other]}, "each chunk by its own hash"
    assert all(before_ns <= r.t_utc_ns <= time.time_ns() for r in receipts)
    with LocalStore.open(tmp_path / "store") as store:
        reports = {key.session: verify_session(store, key) for key in store.sessions()}
    assert [r.complete for r in reports.values()] == [True, True, True], reports
    winner = reports[same].boot
    loser = "o" * 36 if winner == "m" * 36 else "m" * 36
    n = len(mine) // 2
    assert reports[same].notes == [
        f"the session id was used again: {n} chunks of kernel boot {loser} are kept and not counted"
    ]


def test_late_twice_and_in_disorder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the order, verify says what is missing until nothing is, and then says that."""
    maker = SessionMaker(**names())
    chunks = maker.whole(rounds=6)
    seed = 20261121
    print("seed", seed)
    rng = random.Random(seed)
    late = [c for c in chunks if (c.header.stream, c.header.seq) in {("left-imu", 2), ("session", 0)}]
    early = [c for c in chunks if c not in late] * 2
    rng.shuffle(early)
    store = str(tmp_path / "store")

    def verify() -> tuple[int, dict[str, object]]:
        capsys.readouterr()
        code = main(["sessions", "verify", store, "--json"])
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return code, found

    async def body(broker: Broker) -> None:
        async with ingest(broker, tmp_path / "store") as worker, connect(broker, client_id="rig") as rig:
            await worker.connected.wait()

            async def send(some: list[Chunk]) -> None:
                before = worker.metrics.receipted
                for chunk in some:
                    topic = topics.topic(SITE, RIG, topics.UP, chunk.header.stream)
                    await rig.publish(topic, chunk.packed, qos=1)
                await until(lambda: worker.metrics.receipted == before + len(some))

            await send(early)
            assert worker.metrics.duplicates == len(early) // 2
            code, found = await asyncio.to_thread(verify)
            assert (code, found["complete"]) == (1, False)
            assert found["problems"] == [
                "no manifest: the session's opening record has not arrived",
                "session: chunk 0 missing",
                "left-imu: chunk 2 missing",
            ]
            await send(late)
            code, found = await asyncio.to_thread(verify)
            assert (code, found["complete"], found["problems"]) == (0, True, [])

    with LoopbackBroker(tmp_path / "broker") as running:
        asyncio.run(body(parse_broker(running.url)))
    with LocalStore.open(tmp_path / "store") as opened:
        key = SessionKey(SITE, RIG, chunks[0].header.session)
        assert sorted(c.packed for c in opened.chunks(key)) == sorted(c.packed for c in chunks)
