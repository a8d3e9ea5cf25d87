"""The store in a bucket, against a real S3 protocol server, a wire that breaks, and a server that dies."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecap import topics
from edgecap.cli.main import main
from edgecap.codec.chunk import Chunk
from edgecap.errors import SessionError, StoreError
from edgecap.ingest import object_store
from edgecap.ingest.bucket import Bucket
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.object_store import ObjectStore
from edgecap.ingest.store import CommitGroup, SessionKey, Store, open_store
from edgecap.ingest.worker import IngestWorker
from edgecap.mqtt import Broker, connect, parse_broker
from edgecap.sim.broker import LoopbackBroker
from tests.chunks import SessionMaker
from tests.system.object_server import BUCKET, KEYS, ObjectServer, Wire, use
from tests.system.synthetic import make_session

KEY = SessionKey("site-a", "rig-01", "20260102-030405-abcd")
FOLDER = "/".join(KEY)
numbers = itertools.count()


@pytest.fixture
def url(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of its own for every test."""
    use(monkeypatch, server.environ())
    return f"s3://{BUCKET}/test-{next(numbers)}/store"


@pytest.fixture
def wire(server: ObjectServer, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    with Wire(server.port) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        yield wire


def objects(server: ObjectServer, url: str) -> list[str]:
    prefix = url.removeprefix(f"s3://{BUCKET}/") + f"/{FOLDER}/"
    return [name.removeprefix(prefix) for name in server.names(prefix)]


def fill(store: Store, chunks: list[Chunk], n: int = 10) -> None:
    for start in range(0, len(chunks), n):
        store.append(chunks[start : start + n])
        store.commit()


def packed(store: Store, key: SessionKey = KEY) -> list[bytes]:
    return [chunk.packed for chunk in store.chunks(key)]


def in_order(chunks: list[Chunk]) -> list[bytes]:
    place = lambda c: (c.header.stream != "session", c.header.stream, c.header.seq)  # noqa: E731
    return [chunk.packed for chunk in sorted(chunks, key=place)]


def test_what_goes_in_comes_out(server: ObjectServer, url: str) -> None:
    chunks = SessionMaker().whole(rounds=20)
    other = SessionMaker(rig="rig-02", session="20260102-040000-wxyz", seed=1).whole(rounds=2)
    with open_store(url, create=True, worker="w1") as store:  # type: ignore[attr-defined]
        assert store.append(chunks[:9]) == ["stored"] * 9
        assert objects(server, url) == []
        store.commit()
        assert len(objects(server, url)) == 1
        assert store.append(chunks[:12]) == ["duplicate"] * 9 + ["stored"] * 3
        store.commit()
        store.commit()
        assert len(objects(server, url)) == 2
        fill(store, chunks + other)
    reader = open_store(url)
    assert reader.sessions() == [KEY, SessionKey("site-a", "rig-02", "20260102-040000-wxyz")]
    assert packed(reader) == in_order(chunks)
    assert [c.packed for c in reader.chunks(KEY, "head-cam")] == [
        c.packed for c in chunks if c.header.stream == "head-cam"
    ]
    assert all(verify_session(reader, key).complete for key in reader.sessions())
    with pytest.raises(SessionError, match="holds no session"):
        reader.contents(KEY._replace(session="20260102-030405-none"))


def test_the_same_chunks_are_the_same_object(server: ObjectServer, url: str) -> None:
    """A worker that dies between put and receipt gets its chunks again; so may any other worker."""
    chunks = SessionMaker().whole(rounds=5)
    for _ in range(3):
        with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
            assert set(store.append(chunks)) == {"stored"}
            store.commit()
    assert len(objects(server, url)) == 1
    with open_store(url, worker="w2") as store:  # type: ignore[attr-defined]
        fill(store, chunks, 3)
    assert len(objects(server, url)) > 3
    assert packed(open_store(url)) == in_order(chunks)
    report = verify_session(open_store(url), KEY)
    assert (report.complete, report.chunks, report.notes) == (True, len(chunks), [])


def test_objects_are_bounded(server: ObjectServer, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "MOST_UNSTORED_BYTES", 60_000)
    chunks = SessionMaker().whole(rounds=100)
    store = ObjectStore(Bucket(url), worker="w1", object_bytes=20_000)
    store.append(chunks)
    assert objects(server, url)  # before a commit asks for it: memory is bounded
    store.close()
    prefix = url.removeprefix(f"s3://{BUCKET}/") + f"/{FOLDER}"
    sizes = [len(server.read(f"{prefix}/{name}")) for name in objects(server, url)]
    assert len(sizes) >= 10
    # The index comes on top: 80 bytes per chunk.
    assert max(sizes) < 20_000 + 30 * 80 + 1000
    assert packed(open_store(url)) == in_order(chunks)


def test_no_chunk_waits_longer_than_the_group_s_time(server: ObjectServer, url: str, tmp_path: Path) -> None:
    """Chunks that never cease to come make an object all the same; each is receipted once it is put."""
    chunks = iter(SessionMaker().whole(rounds=2000, n_bytes=50))

    async def body(broker: Broker) -> None:
        group = CommitGroup(seconds=0.5, n_bytes=64 << 20, n_chunks=16_384, quiet_s=30.0)
        store = open_store(url, worker="w1")
        worker = IngestWorker(broker, store, name="w1", receipt_after_s=0.05, commit_group=group)
        serving = asyncio.create_task(worker.run())
        async with asyncio.timeout(60), connect(broker, client_id="rig") as rig:
            await worker.connected.wait()
            while worker.metrics.commits < 3:  # the stream never pauses for as long as `quiet_s`
                chunk = next(chunks)
                h = chunk.header
                topic = topics.topic(h.site, h.rig, topics.UP, h.stream)
                await rig.publish(topic, chunk.packed, qos=1)
                assert worker.metrics.receipted <= worker.metrics.stored
                await asyncio.sleep(0.02)
        assert len(objects(server, url)) >= 3
        worker.stop()
        await asyncio.wait([serving])
        serving.result()
        assert worker.metrics.receipted == worker.metrics.stored == len(packed(open_store(url)))
        store.close()

    with LoopbackBroker(tmp_path / "broker") as running:
        asyncio.run(body(parse_broker(running.url)))


def test_puts_that_break(server: ObjectServer, url: str, wire: Wire) -> None:
    chunks = SessionMaker().whole(rounds=30, n_bytes=3000)
    with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
        for round_, start in enumerate(range(0, len(chunks), 10)):
            wire.cut, wire.lose = (round_ % 3 == 0) * 2, (round_ % 3 == 1) * 2
            store.append(chunks[start : start + 10])
            store.commit()
            assert (wire.cut, wire.lose) == (0, 0)
    assert wire.puts > len(objects(server, url))
    assert packed(open_store(url)) == in_order(chunks)


def test_a_server_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is back commits fail, and nothing that was appended is forgotten."""
    chunks = SessionMaker().whole(rounds=5)
    with ObjectServer(tmp_path) as server:
        use(monkeypatch, server.environ())
        monkeypatch.setattr(object_store, "WRITE_PATIENCE_S", 0.5)
        store = ObjectStore(Bucket(f"s3://{BUCKET}", patience_s=0.5), worker="w1", object_bytes=3000)
        assert store.worker == "w1"
        store.append(chunks[:9])
        server.kill()
        for _ in range(2):
            with pytest.raises(StoreError, match=r"refuses the connection; check AWS_ENDPOINT_URL"):
                store.commit()
        server.start()
        assert store.append(chunks) == ["duplicate"] * 9 + ["stored"] * (len(chunks) - 9)
        store.commit()
        store.close()
        assert packed(open_store(f"s3://{BUCKET}")) == in_order(chunks)


def test_a_server_that_comes_back_in_time(url: str, wire: Wire) -> None:
    chunks = SessionMaker().whole(rounds=5)
    with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
        store.append(chunks)
        assert store.worker == "w1"
        wire.down = True
        later = threading.Timer(0.5, setattr, (wire, "down", False))
        later.start()
        store.commit()
        later.join()
        assert packed(open_store(url)) == in_order(chunks)


def test_another_object_has_the_name(
    server: ObjectServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    chunks = SessionMaker().whole(rounds=3)
    with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
        store.append(chunks)
        store.commit()
    (name,) = objects(server, url)
    path = url.removeprefix(f"s3://{BUCKET}/") + f"/{FOLDER}/{name}"
    whole = server.read(path)
    for wrong in (whole[:-1], whole + b"x", whole[:500] + b"\0" + whole[501:], b""):
        server.write(path, wrong)
        with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
            store.append(chunks)
            store.commit()
        assert "holds something else" in caplog.text
        assert server.read(path) == wrong
        assert packed(open_store(url)) == in_order(chunks)
    assert len(objects(server, url)) == 2


def test_damage_is_named(server: ObjectServer, url: str) -> None:
    chunks = SessionMaker().whole(rounds=10)
    with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
        fill(store, chunks, 16)
    names = sorted(objects(server, url))
    path = url.removeprefix(f"s3://{BUCKET}/") + f"/{FOLDER}/{names[1]}"
    whole = server.read(path)
    server.write(path, whole[:2000] + b"\xff" * 4 + whole[2004:])
    report = verify_session(open_store(url), KEY)
    assert not report.complete
    assert any(f"damaged in {names[1]}" in problem for problem in report.problems)
    server.write(path, whole[:3000])  # without its index it is read record by record
    report = verify_session(open_store(url), KEY)
    assert not report.complete
    assert any("missing" in problem for problem in report.problems)


def test_two_chunks_for_one_place(url: str) -> None:
    chunks = SessionMaker().whole(rounds=4)
    forged = SessionMaker(seed=7).whole(rounds=4)
    wrong = [c for c in forged if (c.header.stream, c.header.seq) == ("left-imu", 2)]
    with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
        store.append(chunks)
        assert store.append(wrong) == store.append(wrong) == ["conflict"]
    with open_store(url, worker="w2") as store:  # type: ignore[attr-defined]
        assert store.append(wrong) == ["stored"]  # this worker cannot know
    reader = open_store(url)
    assert packed(reader) == in_order(chunks)
    report = verify_session(reader, KEY)
    assert report.complete
    assert report.notes == [
        "left-imu: different chunks came as chunk 2; the one that fits the hash chain counts"
    ]


def test_what_is_remembered_is_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "MOST_KNOWN", 50)
    sessions = [SessionMaker(session=f"20260102-03040{k}-abcd", seed=k).whole(rounds=5) for k in range(4)]
    with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
        for chunks in sessions:
            store.append(chunks)
            store.commit()
        assert set(store.append(sessions[0])) == {"stored"}  # forgotten; the same object again
        assert set(store.append(sessions[3])) == {"duplicate"}
    reader = open_store(url)
    assert [packed(reader, key) for key in reader.sessions()] == [in_order(chunks) for chunks in sessions]


def test_reading_is_bounded_in_memory(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "CACHE_BYTES", 1 << 20)
    chunks = SessionMaker(streams={"head-cam": "video"}).whole(rounds=160, n_bytes=100_000)
    with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
        fill(store, chunks, 40)
    n, n_bytes = len(chunks), sum(len(c.packed) for c in chunks)
    del chunks
    reader = open_store(url)
    tracemalloc.start()
    try:
        assert sum(1 for _ in reader.chunks(KEY)) == n
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_bytes > 16e6
    assert peak < 4e6


def test_other_things_in_the_bucket(server: ObjectServer, url: str) -> None:
    chunks = SessionMaker().whole(rounds=2)
    prefix = url.removeprefix(f"s3://{BUCKET}/")
    with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
        fill(store, chunks)
    for name in ("readme.txt", "a/b/c/d.txt", "A/b/c.seg", f"{FOLDER}/notes.txt", f"{FOLDER}/more/x.seg"):
        server.write(f"{prefix}/{name}", b"something else")
    server.write(f"{prefix}-2/{FOLDER}/x", b"a longer prefix is another store")
    reader = open_store(url)
    assert reader.sessions() == [KEY]
    assert packed(reader) == in_order(chunks)


def test_commands(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_session(seconds=2)
    with open_store(url, worker="w1") as store:  # type: ignore[attr-defined]
        fill(store, made.chunks, 5)
    assert main(["sessions", "ls", url]) == 0
    assert made.session in capsys.readouterr().out
    assert main(["sessions", "show", url, made.session, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True
    assert main(["sessions", "verify", url]) == 0
    capsys.readouterr()
    out = tmp_path / "out"
    assert main(["export", url, made.session, "--to", "mcap", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True
    assert [path.suffix for path in out.iterdir()] == [".mcap"]


def refused(capsys: pytest.CaptureFixture[str], url: str, *says: str, code: int = 1) -> None:
    assert main(["sessions", "ls", url]) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgecap: ")]
    for words in says:
        assert words in line, line
    assert len(line) < 400
    assert "secret" not in line


def test_clear_errors(
    url: str, server: ObjectServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "s3://no-such-bucket/x", "no bucket 'no-such-bucket'", "create the bucket")
    refused(capsys, "s3://Not_A_Bucket", "no bucket name", code=2)
    refused(capsys, "s3://", "no bucket name", code=2)
    refused(capsys, "s3://key:geheim@bucket/x", "AWS_SECRET_ACCESS_KEY", code=2)
    refused(capsys, f"s3://{BUCKET}/../x", "no prefix", code=2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.7:9000")
    refused(capsys, url, "unencrypted", "AWS_ALLOW_HTTP", code=2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    refused(capsys, url, "AWS_ENDPOINT_URL", "https://host[:port]", code=2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.port}")
    refused(capsys, url, "no TLS connection", "AWS_CA_BUNDLE")
    use(monkeypatch, {"AWS_ENDPOINT_URL": server.url})
    refused(capsys, url, "no credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", code=2)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    refused(capsys, url, "AWS_SECRET_ACCESS_KEY is not set", code=2)
    use(monkeypatch, {**server.environ(), "AWS_CA_BUNDLE": "/no/such/file"})
    refused(capsys, url, "AWS_CA_BUNDLE=/no/such/file cannot be read", code=2)


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        use(monkeypatch, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **KEYS})
        store = ObjectStore(Bucket(f"s3://{BUCKET}", patience_s=0.1, request_s=0.2))
        with pytest.raises(StoreError, match="does not answer in time; check the network"):
            store.sessions()
    with pytest.raises(StoreError, match="refuses the connection"):
        ObjectStore(Bucket(f"s3://{BUCKET}", patience_s=0.1)).sessions()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://no-such-host.invalid")
    with pytest.raises(StoreError, match="cannot be resolved; check AWS_ENDPOINT_URL and the DNS"):
        ObjectStore(Bucket(f"s3://{BUCKET}", patience_s=0.1)).sessions()


def test_ingest_says_so_before_any_rig_sends(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["ingest", "--broker", "mqtt://127.0.0.1:1", "--store", "s3://no-such-bucket/x"]
    assert main(args) == 1
    assert "no bucket 'no-such-bucket'" in capsys.readouterr().err
