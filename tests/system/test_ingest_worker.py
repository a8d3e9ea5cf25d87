"""The ingest worker: what it refuses, shares, commits and acknowledges, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgecap import topics
from edgecap.codec.receipt import decode_receipt
from edgecap.errors import BrokerError, StoreError
from edgecap.ingest.store import open_store
from edgecap.ingest.worker import IngestWorker
from edgecap.mqtt import Backoff, Broker, connect, parse_broker
from edgecap.sim.broker import HeldPort, LoopbackBroker
from tests.system.delivery import (
    RIG,
    SITE,
    Rig,
    ingest,
    make_chunks,
    spool_with,
    stored,
)
from tests.system.own_broker import on_broker
from tests.waiting import until


def test_what_is_not_valid_is_refused_with_its_reason_and_kept(tmp_path: Path) -> None:
    good = make_chunks(6)
    other = make_chunks(6, seed=9)  # the same numbers, other contents: a conflict
    up = f"edgecap/v1/{SITE}/{RIG}/up"
    invalid = [
        (f"{up}/hand-imu", b""),
        (f"{up}/hand-imu", good[2].packed[:-1]),
        (f"{up}/hand-imu", good[2].packed[:-40] + bytes(40)),
        (f"{up}/head-cam", good[2].packed),  # another stream's topic
        (f"edgecap/v1/{SITE}/rig-2/up/hand-imu", good[2].packed),  # another rig's
        (f"{up}/BAD", good[2].packed),
        (f"{up}/hand-imu", bytes(113 * 1024)),
    ]

    async def body(broker: Broker) -> None:
        receipts = topics.subscription(topics.RECEIPT)
        async with (
            ingest(broker, tmp_path / "store") as worker,
            connect(broker, client_id="rig", subscribe=[receipts]) as rig,
        ):
            await worker.connected.wait()
            for chunk in [*good, *good, *other]:
                await rig.publish(f"{up}/{chunk.header.stream}", chunk.packed, qos=1)
            for topic, payload in invalid:
                await rig.publish(topic, payload, qos=1)
            m = worker.metrics
            await until(lambda: m.received == 3 * len(good) + len(invalid))
            assert (m.stored, m.duplicates, m.conflicts, m.invalid) == (7, 7, 7, len(invalid))
            await until(lambda: m.receipted == 3 * len(good))
            told = [decode_receipt((await rig.receive()).payload) for _ in range(m.receipts)]
            # What conflicts is kept too, so its rig is told that it may let go.
            assert {i for r in told for i in r.ids()} == {c.id for c in [*good, *other]}
            assert {r.worker for r in told} == {"w"}
        kept = sorted((tmp_path / "store" / ".refused").glob("*.json"))
        assert len(kept) == len({payload for _, payload in invalid})
        reasons = " ".join(json.loads(k.read_text())["reason"] for k in kept)
        assert "limit" in reasons
        assert "came on the topic of" in reasons

    on_broker(tmp_path, body)
    assert {c.packed for c in good} <= stored(tmp_path / "store")


def test_two_sharing_workers_divide_the_work(tmp_path: Path) -> None:
    chunks = make_chunks(200, size=5000)

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with (
                ingest(broker, tmp_path / "store", "a", share=True) as a,
                ingest(broker, tmp_path / "store", "b", share=True) as b,
            ):
                await a.connected.wait()
                await b.connected.wait()
                async with Rig(spool, broker) as rig:
                    await until(lambda: rig.left() == 0)
                assert min(a.metrics.stored, b.metrics.stored) > 50
                assert a.metrics.stored + b.metrics.stored == len(chunks)

    on_broker(tmp_path, body)
    assert stored(tmp_path / "store") == {c.packed for c in chunks}


def test_a_renamed_rig_still_delivers_what_it_recorded_before(tmp_path: Path) -> None:
    chunks = make_chunks(10, rig="old-name")

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with ingest(broker, tmp_path / "store"), Rig(spool, broker) as rig:
                await until(lambda: rig.left() == 0)

    on_broker(tmp_path, body)
    assert stored(tmp_path / "store") == {c.packed for c in chunks}


def test_a_store_that_fails_ends_the_worker(tmp_path: Path) -> None:
    chunks = make_chunks(2)

    async def body(broker: Broker) -> None:
        store = open_store(str(tmp_path / "store"), create=True)
        worker = IngestWorker(broker, store, name="w")
        task = asyncio.create_task(worker.run())
        await worker.connected.wait()
        (tmp_path / "store" / SITE).write_text("in the way of the directory")
        async with connect(broker, client_id="rig") as rig:
            await rig.publish(f"edgecap/v1/{SITE}/{RIG}/up/session", chunks[0].packed, qos=1)
        with pytest.raises(StoreError):
            await asyncio.wait_for(task, 60)
        assert worker.metrics.receipted == 0

    on_broker(tmp_path, body)


def test_a_worker_stops_promptly_while_the_broker_is_away(tmp_path: Path) -> None:
    async def body() -> None:
        waits = asyncio.Event()

        async def wait(wait_s: float) -> None:
            waits.set()
            await asyncio.sleep(3600)

        store = open_store(str(tmp_path / "store"), create=True)
        held = HeldPort()
        broker = Broker("127.0.0.1", held.number)
        worker = IngestWorker(broker, store, name="w", backoff=Backoff(3600, 3600, seed=1, sleep=wait))
        async with asyncio.timeout(60):
            task = asyncio.create_task(worker.run())
            await waits.wait()
            worker.stop()
            await task

    asyncio.run(body())


def test_wrong_credentials_end_the_worker(tmp_path: Path) -> None:
    async def body(broker: Broker) -> None:
        store = open_store(str(tmp_path / "store"), create=True)
        with pytest.raises(BrokerError, match="did not authorise this client"):
            await IngestWorker(broker, store, name="w").run()

    on_broker(tmp_path, body, users={"rig": "secret"})


def test_the_command_commits_and_acknowledges_before_it_ends(tmp_path: Path) -> None:
    chunks = make_chunks(30)
    with LoopbackBroker(tmp_path / "broker") as running:
        command = [sys.executable, "-m", "edgecap", "ingest", "--store", str(tmp_path / "store")]
        with subprocess.Popen(
            [*command, "--broker", running.url, "--worker", "one"], stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            log = []
            for line in process.stderr:
                log.append(line)
                if "connected" in line:
                    break

            async def body(broker: Broker) -> None:
                with spool_with(tmp_path / "spool", chunks) as spool:
                    async with Rig(spool, broker) as rig:
                        await until(lambda: rig.uplink.statistics().sent == len(chunks))
                        process.send_signal(signal.SIGTERM)
                        await until(lambda: rig.left() == 0)

            asyncio.run(body(parse_broker(running.url)))
            log += process.stderr.readlines()
            assert process.wait(10) == 0, log
            assert f"stopped: {len(chunks)} stored" in log[-1]
    assert stored(tmp_path / "store") == {c.packed for c in chunks}
