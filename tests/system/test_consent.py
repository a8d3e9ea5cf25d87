"""Consent withdrawn by command, in a directory and in a bucket: recordings, exports, ingest, erasure."""

from __future__ import annotations

import asyncio
import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecap import topics
from edgecap.cli.run import sources_of
from edgecap.config import parse_config
from edgecap.daemon.rig import Rig
from edgecap.dataset.session import load_session
from edgecap.errors import SessionError, StoreError
from edgecap.ingest.bucket import Bucket
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.consent import Consents, withdraw
from edgecap.ingest.erase import erase_session
from edgecap.ingest.object_store import ObjectStore
from edgecap.ingest.store import SessionKey, open_store
from edgecap.ingest.worker import IngestWorker
from edgecap.mqtt import Broker, connect
from edgecap.session.machine import State
from edgecap.source.iio import IioSource
from tests.chunks import SessionMaker
from tests.command import run
from tests.iio_tree import SCAN, IioTree, host_ns, iio_tree
from tests.rig_session import config_text, record
from tests.system.object_server import BUCKET, ObjectServer, Wire, use
from tests.system.own_broker import on_broker
from tests.waiting import until

KEY = SessionKey("site-a", "rig-01", "20260102-030405-abcd")
OTHER = KEY._replace(session="20260102-040506-efgh")
numbers = itertools.count()


@pytest.fixture(params=["directory", "bucket"])
def url(
    request: pytest.FixtureRequest, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    if request.param == "directory":
        return str(tmp_path / "store")
    use(monkeypatch, server.environ())
    return f"s3://{BUCKET}/test-{next(numbers)}/store"


def fill(url: str, *makers: SessionMaker) -> None:
    store = open_store(url, create=True)
    for maker in makers:
        store.append(maker.whole())
    store.close()


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(capsys, *argv, "--json")[1]]


def test_by_command(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(url, SessionMaker(), SessionMaker(OTHER.session, operator="p-18", consent="c-4"))
    why = ("--why", "asked\nby letter")
    code, out, _ = run(capsys, "sessions", "withdraw", url, "--consent", "c-33", *why)
    assert code == 0
    assert out[1] == "covers 0 stored sessions, and whatever comes later"
    assert out[2].startswith("check the spelling: the store has c-3")
    code, out, _ = run(capsys, "sessions", "withdraw", url, "--consent", "c-3", *why)
    assert (code, len(out)) == (0, 3)
    assert out[0].endswith("(consent c-3): asked by letter")
    assert out[1:] == ["covers 1 stored session, and whatever comes later", f"  {'/'.join(KEY)}"]
    (again,) = told(capsys, "sessions", "withdraw", url, "--consent", "c-3", "--why", "other")
    assert (again["is_new"], again["why"], again["sessions"]) == (False, "asked\nby letter", ["/".join(KEY)])

    states = {line["session"]: line["state"] for line in told(capsys, "sessions", "ls", url)}
    assert states == {KEY.session: "withdrawn", OTHER.session: "complete"}
    for command in (["ls", url], ["show", url, KEY.session], ["verify", url, KEY.session]):
        code, out, _ = run(capsys, "sessions", *command)
        assert code == 0
        assert any("withdrawn 20" in line and "asked by letter" in line for line in out)
    (ledger,) = told(capsys, "sessions", "ledger", url, "--by", "operator")
    assert [(r["key"], r["withdrawn_ns"] > 0, r["delivered_ns"] > 0) for r in ledger["rows"]] == [
        ("p-17", True, False), ("p-18", False, True),
    ]  # fmt: skip

    # A session of which nothing has arrived is named in full; one that is not known is not guessed.
    code, _, err = run(capsys, "sessions", "withdraw", url, "--session", "20260102-050607-ijkl", *why)
    assert (code, err.count("\n")) == (1, 1)
    assert "named in full: SITE/RIG/SESSION" in err
    late = KEY._replace(session="20260102-050607-ijkl")
    names = ["/".join(late), OTHER.session]
    assert [r["sessions"] for r in told(capsys, "sessions", "withdraw", url, "--session", *names, *why)] == [
        [], ["/".join(OTHER)],
    ]  # fmt: skip
    fill(url, SessionMaker(late.session, consent="c-5", operator="p-5"))
    (report,) = told(capsys, "sessions", "verify", url, late.session)
    assert (report["complete"], report["withdrawn"]["kind"]) == (True, "session")

    (listed,) = told(capsys, "sessions", "withdrawn", url)
    assert [(w["subject"], w["sessions"]) for w in listed["withdrawals"]] == [
        ("c-33", []), ("c-3", ["/".join(KEY)]), ("/".join(late), ["/".join(late)]),
        ("/".join(OTHER), ["/".join(OTHER)]),
    ]  # fmt: skip

    (erased,) = told(capsys, "sessions", "erase", url, KEY.session)
    assert erased["chunks"] == len(SessionMaker().whole())
    code, out, _ = run(capsys, "sessions", "verify", url)
    assert (code, out[-1]) == (0, "3 sessions: all whole, 1 erased")
    states = {line["session"]: line["state"] for line in told(capsys, "sessions", "ls", url)}
    assert states == {KEY.session: "erased", OTHER.session: "withdrawn", late.session: "withdrawn"}
    store = open_store(url)
    assert store.append(SessionMaker().whole()) == ["erased"] * erased["chunks"]
    with pytest.raises(SessionError, match="holds no session"):
        store.contents(KEY)
    code, _, err = run(capsys, "export", url, KEY.session, "--to", "mcap", "--out", "never")
    assert (code, "was withdrawn" in err, "erased" in err, err.count("\n")) == (1, True, True, 1)


def test_notes_never_change(url: str) -> None:
    fill(url)
    for data in (b"first", b"second"):
        open_store(url).add_note("session.note.json", data)
    assert (open_store(url).note_names(), open_store(url).note("session.note.json")) == (
        ["session.note.json"], b"first",
    )  # fmt: skip


def test_a_worker_receipts_what_it_does_not_store(url: str, tmp_path: Path) -> None:
    """The rig lets go of a withdrawn session as of any other, erased or not."""
    kept, gone = SessionMaker(OTHER.session, seed=1).whole(), SessionMaker().whole()
    fill(url, SessionMaker())
    store = open_store(url)
    withdraw(store, "worker", "p-17", "left")
    erase_session(store, KEY)

    async def body(broker: Broker) -> None:
        store = open_store(url, worker="w1")
        worker = IngestWorker(broker, store, name="w1", receipt_after_s=0.05)
        serving = asyncio.create_task(worker.run())
        async with asyncio.timeout(60), connect(broker, client_id="rig") as rig:
            await worker.connected.wait()
            for chunk in [*gone, *kept]:
                h = chunk.header
                await rig.publish(topics.topic(h.site, h.rig, topics.UP, h.stream), chunk.packed, qos=1)
            await until(lambda: worker.metrics.receipted == len(gone) + len(kept))
        worker.stop()
        await asyncio.wait([serving])
        serving.result()
        assert (worker.metrics.erased, worker.metrics.stored) == (len(gone), len(kept))
        store.close()

    on_broker(tmp_path, body)
    store = open_store(url)
    assert store.sessions() == [OTHER]
    consents = Consents(store)
    assert consents.covering_stored(OTHER) == consents.of("worker", "p-17")


async def lie_still(tree: IioTree, rig: Rig) -> None:
    """Samples from when the rig has opened the sensor until it records."""
    while tree.read("buffer/enable") != "1":
        await asyncio.sleep(0.01)
    fed_ns = host_ns()
    while rig.machine.state is not State.RECORDING:
        scans = np.zeros((host_ns() - fed_ns) // 5_000_000, SCAN)
        scans["t_ns"] = fed_ns + 5_000_000 * np.arange(1, len(scans) + 1)
        fed_ns += 5_000_000 * len(scans)
        tree.feed(scans.tobytes())
        await asyncio.sleep(0.02)


def test_a_rig_s_recording_ends_with_the_consent_that_it_was_configured_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the configuration's reference to the export: recorded, exported, withdrawn, found, erased."""
    text = config_text(tmp_path, "", task="lie still")
    text += """
    [[iio]]
    name = "head-imu"
    device = "icm42688"
    rate_hz = 200
    channels = ["accel_x", "accel_y", "accel_z", "gyro_x", "gyro_y", "gyro_z", "temperature"]
    """
    config = parse_config(text)
    (source,) = sources_of(config)
    assert isinstance(source, IioSource)
    store, out = tmp_path / "store", tmp_path / "out"
    with iio_tree(tmp_path) as tree:
        source.sys_root, source.dev_root = tree.sys_root, tree.dev_root
        session = asyncio.run(record(config, [source], store, partial(lie_still, tree))).key.session
    export = ("export", str(store), session, "--to", "mcap", "--out", str(out), "--allow-incomplete")
    search = ("sessions", "withdrawn", str(store), "--dataset", str(out))
    assert run(capsys, *export)[0] == 0
    assert run(capsys, *search)[0] == 0
    assert run(capsys, "sessions", "withdraw", str(store), "--consent", "c-1", "--why", "asked")[0] == 0
    assert run(capsys, *export)[0] == 1
    code, lines, _ = run(capsys, *search)
    assert (code, lines[-2].startswith(f"{out / session}.mcap holds {session}")) == (1, True)
    (out / f"{session}.mcap").unlink()
    assert run(capsys, *search)[0] == 0
    assert run(capsys, "sessions", "erase", str(store), session)[0] == 0
    code, lines, _ = run(capsys, "sessions", "verify", str(store))
    assert (code, lines[0]) == (0, f"lab/rig-01/{session}  erased, 0 chunks")
    assert list(store.rglob("*.seg")) == []


def test_puts_and_deletes_that_break(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note whose answer is lost is there once; a server that is gone lets nothing out."""
    use(monkeypatch, server.environ())
    url = f"s3://{BUCKET}/test-{next(numbers)}"
    for part in (slice(9), slice(9, None)):
        store = open_store(url)
        store.append(SessionMaker().whole()[part])
        store.close()
    with Wire(server.port) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        store = ObjectStore(Bucket(url, patience_s=20.0))
        wire.cut, wire.lose = 1, 0
        made, is_new = withdraw(store, "consent", "c-3", "asked")
        assert (is_new, wire.cut) == (True, 0)
        wire.lose = 1
        assert withdraw(store, "consent", "c-3", "asked") == (made, False)
        assert len(store.note_names()) == 1
        impatient = ObjectStore(Bucket(url, patience_s=0.2, request_s=2.0))
        wire.down = True
        for refused in (
            lambda: load_session(impatient, KEY),
            lambda: erase_session(impatient, KEY),
            lambda: withdraw(impatient, "consent", "c-4", "asked"),
        ):
            with pytest.raises(StoreError):
                refused()
        wire.down = False
        assert store.sessions() == [KEY]
        folder = url.removeprefix(f"s3://{BUCKET}/") + "/site-a/"
        objects = {name: server.read(name) for name in server.names(folder)}
        wire.lose = 1  # the tombstone's answer
        first = erase_session(store, KEY)
        assert (len(store.note_names()), server.names(folder), len(objects) > 1) == (2, [], True)
    # As after a crash between the tombstone and the last deletion: it says so, and is finished.
    use(monkeypatch, server.environ())
    for name, data in list(objects.items())[1:]:
        server.write(name, data)
    report = verify_session(open_store(url), KEY)
    assert (report.complete, report.erased) == (False, first)
    assert "erase it once more" in report.problems[0]
    erase_session(open_store(url), KEY)
    assert server.names(folder) == []
    report = verify_session(open_store(url), KEY)
    assert (report.outcome, report.erased, report.problems) == ("erased", first, [])
