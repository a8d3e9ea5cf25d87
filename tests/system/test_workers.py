"""Several ingest workers share one broker's load and are killed at any moment; the store ends complete."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgecap.ingest.store import open_store
from edgecap.mqtt import parse_broker
from edgecap.sim.broker import LoopbackBroker
from tests.system.delivery import Rig, make_chunks, spool_with
from tests.system.object_server import BUCKET, ObjectServer, use
from tests.waiting import until

WORKERS = 3
KILLS = 4
CHUNKS = 400
SESSIONS = ("20260101-000000-aaaa", "20260101-000000-bbbb")


class Workers:
    """`edgecap ingest --share` processes."""

    def __init__(self, store: str, broker: str, directory: Path) -> None:
        self.store, self.broker, self.directory = store, broker, directory
        self.processes: list[subprocess.Popen[bytes]] = []
        self.kills = 0

    def start(self, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "edgecap", "ingest", "--share", "--worker", f"w{number}"]
        command += ["--store", self.store, "--broker", self.broker, "--gather", "0.2"]
        with (self.directory / f"w{number}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self) -> Workers:
        self.processes = [self.start(number) for number in range(WORKERS)]
        return self

    def kill(self, number: int) -> None:
        """End one in the middle of whatever it does, and start it again under its name."""
        process = self.processes[number]
        assert process.poll() is None, (self.directory / f"w{number}.log").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.kills += 1
        self.processes[number] = self.start(number)

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.directory.glob("w*.log")))

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)


@pytest.fixture(params=["directory", "bucket"])
def store_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    if request.param == "directory":
        yield str(tmp_path / "store")
        return
    with ObjectServer(tmp_path) as server:
        use(monkeypatch, server.environ())
        yield f"s3://{BUCKET}/store"


def test_kill_any_worker_at_any_time(tmp_path: Path, store_url: str) -> None:
    seed = int(os.environ.get("EDGECAP_SEED", "0")) or random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    sent = {name: make_chunks(CHUNKS, size=6000, session=name, seed=k) for k, name in enumerate(SESSIONS)}
    total = sum(map(len, sent.values()))
    moments = sorted(rng.sample(range(50, total - 50), KILLS))

    async def body(workers: Workers) -> None:
        broker = parse_broker(workers.broker)
        with spool_with(tmp_path / "spool", [c for chunks in sent.values() for c in chunks]) as spool:
            await until(lambda: workers.log().count("connected to") >= WORKERS)
            async with Rig(spool, broker, resend_s=0.7, budget_bytes=400_000) as rig:
                for moment in moments:
                    # The budget keeps chunks under way, so some are with the worker that dies.
                    await until(lambda moment=moment: total - rig.left() >= moment, 40)
                    await asyncio.sleep(rng.uniform(0, 0.2))
                    workers.kill(rng.randrange(WORKERS))
                await until(lambda: rig.left() == 0, 60)
                print(f"sent again {rig.uplink.statistics().resent}")

    with ExitStack() as stack:
        running = stack.enter_context(LoopbackBroker(tmp_path / "broker", program="mosquitto"))
        workers = stack.enter_context(Workers(store_url, running.url, tmp_path))
        asyncio.run(body(workers))
    store = open_store(store_url)
    found = {key.session: {c.packed for c in store.chunks(key)} for key in store.sessions()}
    lost = {name: len({c.packed for c in chunks} - found[name]) for name, chunks in sent.items()}
    print(f"{workers.kills} kills, {total} chunks, lost {lost}")
    assert lost == dict.fromkeys(SESSIONS, 0)
    assert {name: len(found[name]) for name in found} == {name: len(sent[name]) for name in SESSIONS}
    assert workers.kills == KILLS
    busy = set(re.findall(r"connected to \S+ as (w\d)", workers.log()))
    assert len(busy) == WORKERS
    assert "Traceback" not in workers.log()
    for key in store.sessions():
        with store.contents(key) as contents:
            assert contents.faults == []
            assert contents.conflicts == []
