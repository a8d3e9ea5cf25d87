"""Spool → uplink → broker → ingest → store, with real brokers and everything that goes wrong between."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgecap import topics
from edgecap.codec.chunk import NO_HASH, ChunkHeader, ChunkId, pack_chunk
from edgecap.codec.receipt import encode_receipts
from edgecap.mqtt import Broker, connect, parse_broker
from edgecap.sim.broker import LoopbackBroker
from edgecap.spool import Entry, Spool
from edgecap.spool.files import OsFile, OsFiles
from edgecap.uplink import Uplink
from edgecap.uplink.uplink import POLL_S
from tests.system.delivery import (
    BOOT,
    RIG,
    SESSION,
    SITE,
    Rig,
    ingest,
    make_chunks,
    spool_with,
    stored,
)
from tests.system.own_broker import on_broker
from tests.waiting import until


@pytest.mark.parametrize("program", ["mosquitto", "amqtt"])
def test_everything_arrives_and_is_released(tmp_path: Path, program: str) -> None:
    chunks = make_chunks(120, size=20_000)

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with ingest(broker, tmp_path / "store") as worker, Rig(spool, broker, resend_s=0.5) as rig:
                await until(lambda: rig.left() == 0)
                await until(lambda: rig.uplink.statistics().receipted == len(chunks))
                found = rig.uplink.statistics()
                assert found.sent == len(chunks) + found.resent
                assert found.receipt_p50_ms > 0
                assert (found.in_flight, found.awaiting, found.awaiting_bytes) == (0, 0, 0)
            assert worker.metrics.invalid == 0

    on_broker(tmp_path, body, program=program)
    assert stored(tmp_path / "store") == {c.packed for c in chunks}


def test_the_brokers_word_releases_nothing(tmp_path: Path) -> None:
    """A subscriber that is no ingest: every publish is acknowledged, no chunk may go."""
    chunks = make_chunks(20)

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with (
                connect(broker, client_id="thief", subscribe=[topics.subscription(topics.UP)]) as thief,
                Rig(spool, broker, resend_s=0.2) as rig,
            ):
                await until(lambda: rig.uplink.statistics().resent >= 2)
                assert rig.left() == len(chunks)
                assert rig.uplink.statistics().held == "no receipts"
                assert rig.events[0][0] == "no-receipts"
                sent = thief.waiting
                # Only probes from here on: far fewer than the backlog would allow.
                assert sent <= len(chunks) + 8
            async with ingest(broker, tmp_path / "store"), Rig(spool, broker, resend_s=0.2) as rig:
                await until(lambda: rig.left() == 0)

    on_broker(tmp_path, body)
    assert stored(tmp_path / "store") == {c.packed for c in chunks}


def test_an_absent_ingest_is_noticed_and_its_return_too(tmp_path: Path) -> None:
    chunks = make_chunks(40)

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with Rig(spool, broker) as rig:
                async with asyncio.timeout(60):
                    while rig.uplink.statistics().held != "nobody listens":
                        await asyncio.sleep(0)  # looks in every turn: what status shows was told as an event
                assert rig.uplink.statistics().sent == 0
                assert [kind for kind, _ in rig.events] == ["nobody-listens"]
                async with ingest(broker, tmp_path / "store"):
                    await until(lambda: rig.left() == 0)
                assert rig.uplink.statistics().held == ""

    on_broker(tmp_path, body)


def test_only_receipts_with_the_right_hash_release(tmp_path: Path) -> None:
    chunks = make_chunks(4)

    async def body() -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            uplink = Uplink(spool, SITE, RIG)
            forged = [chunks[0].id.__class__(BOOT, SESSION, "session", 0, bytes(32))]
            for payload in (
                b"", b"\xff", b"\x93\x01\x02", *encode_receipts(forged, worker="w", t_utc_ns=0),
                *encode_receipts([c.id for c in make_chunks(4, seed=1)], worker="w", t_utc_ns=0),
            ):  # fmt: skip
                await uplink.on_receipt(payload)
            assert spool.stats().chunks == len(chunks)
            assert uplink.statistics().bad_receipts == 3
            (real,) = encode_receipts([c.id for c in chunks[1:]], worker="w", t_utc_ns=0)
            await uplink.on_receipt(real)
            await uplink.on_receipt(real)
            assert spool.stats().chunks == 1
            assert uplink.statistics().receipted == len(chunks) - 1

    asyncio.run(body())


def test_order_of_delivery(tmp_path: Path) -> None:
    chunks = make_chunks(30)

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", list(reversed(chunks))) as spool:
            up = topics.subscription(topics.UP)
            async with connect(broker, client_id="ear", subscribe=[up]) as ear, Rig(spool, broker, window=1):
                got = [topics.parse((await ear.receive()).topic).stream for _ in chunks]
            assert got == ["session"] + ["hand-imu"] * 15 + ["head-cam"] * 15

    on_broker(tmp_path, body)


def test_the_spool_is_looked_into_where_it_has_news_and_now_and_then(tmp_path: Path) -> None:
    """Every answer of the broker and every receipt wakes the uplink; each look costs a thread's turn."""
    chunks = make_chunks(40)

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", chunks[:-1]) as spool:
            looks, pending = [0], spool.pending

            def counted(*args: Any, **options: Any) -> Any:
                looks[0] += 1
                return pending(*args, **options)

            spool.pending = counted  # type: ignore[method-assign]
            began_s = time.monotonic()
            async with ingest(broker, tmp_path / "store"), Rig(spool, broker) as rig:
                await until(lambda: rig.left() == 0)
                spool.append(chunks[-1])
                spool.sync()
                rig.uplink.notify()
                await until(lambda: rig.left() == 0)
            # One at the start, one for the news, one that may be under way; and one each POLL_S.
            assert looks[0] <= 3 + (time.monotonic() - began_s) / POLL_S

    on_broker(tmp_path, body)
    assert stored(tmp_path / "store") == {c.packed for c in chunks}


def test_a_poison_chunk_is_set_aside_and_holds_nothing_up(tmp_path: Path) -> None:
    chunks = [*make_chunks(10), *make_chunks(3, size=60_000, session="20260101-000000-wxyz")]

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with ingest(broker, tmp_path / "store"), Rig(spool, broker) as rig:
                await until(lambda: rig.left() == 0)
                assert rig.uplink.statistics().quarantined == 3
                assert {kind for kind, _ in rig.events} == {"poison"}
                assert "packet too large" in rig.events[0][1]

    on_broker(tmp_path, body, options="max_packet_size 30000")
    assert len(stored(tmp_path / "store")) == len(chunks) - 3


class _SoreFile(OsFile):
    """A place of the card that cannot be read the first `failures` times."""

    bad, failures = range(0), 0

    def read_at(self, offset: int, n: int) -> bytes:
        if offset + n > 64 and offset in self.bad and _SoreFile.failures:
            _SoreFile.failures -= 1
            raise OSError(errno.EIO, "Input/output error")
        return super().read_at(offset, n)


class _SoreCard(OsFiles):
    def create(self, path: Path) -> OsFile:
        return _SoreFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))


def test_a_place_that_cannot_be_read_for_a_while_holds_nothing_up(tmp_path: Path) -> None:
    chunks = make_chunks(20)

    async def body(broker: Broker) -> None:
        with Spool.open(tmp_path / "spool", reserve_bytes=0, files=_SoreCard()) as spool:
            for chunk in chunks:
                spool.append(chunk)
            spool.sync()
            _SoreFile.bad, _SoreFile.failures = range(100, 15_000), 12
            async with ingest(broker, tmp_path / "store"), Rig(spool, broker, resend_s=0.2) as rig:
                await until(lambda: rig.left() == 0)
                assert rig.uplink.statistics().quarantined == 0
                told = [text for kind, text in rig.events if kind == "unreadable"]
                assert all("Input/output error; it stays there" in text for text in told)
                assert told
                assert "poison" not in {kind for kind, _ in rig.events}

    on_broker(tmp_path, body)
    assert stored(tmp_path / "store") == {c.packed for c in chunks}


def test_a_chunk_that_makes_the_broker_hang_up_is_found(tmp_path: Path) -> None:
    """This limit is answered with a PUBACK that is no valid MQTT 5: the connection breaks every time."""
    chunks = [*make_chunks(10), make_chunks(1, size=60_000, session="20260101-000000-wxyz")[1]]

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with ingest(broker, tmp_path / "store"), Rig(spool, broker, resend_s=0.5) as rig:
                await until(lambda: rig.left() == 1)
                trickle = 0
                # Other chunks go through in between, which is what proves the cause.
                while not rig.uplink.statistics().quarantined:
                    trickle += 1
                    for chunk in make_chunks(1, session=f"20260101-00{trickle:04d}-aaaa")[1:]:
                        spool.append(chunk)
                    spool.sync()
                    await until(lambda: rig.left() <= 1)
                    await asyncio.sleep(0.1)
                await until(lambda: rig.left() == 0)
                assert rig.uplink.statistics().quarantined == 1
                # Receipts that come later than half a second, as of a slow disk, are told of as well.
                (poison,) = [text for kind, text in rig.events if kind == "poison"]
                assert "hung up whenever only this chunk was sent" in poison

    on_broker(tmp_path, body, options="message_size_limit 30000")


def test_a_missing_right_defers_and_loses_nothing(tmp_path: Path) -> None:
    chunks = make_chunks(12)

    async def body(broker: Broker, allowed: Broker) -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with Rig(spool, broker) as rig:
                await until(lambda: rig.uplink.statistics().refused >= 1)
                assert rig.uplink.statistics().held == "refused"
                assert rig.events[0][0] == "refused"
                assert "not authorised" in rig.events[0][1]
            assert spool.stats().chunks == len(chunks)
            async with ingest(allowed, tmp_path / "store"), Rig(spool, allowed) as rig:
                await until(lambda: rig.left() == 0)

    with (
        LoopbackBroker(tmp_path / "strict", acl="topic read #\n") as strict,
        LoopbackBroker(tmp_path / "open") as free,
    ):
        asyncio.run(body(parse_broker(strict.url), parse_broker(free.url)))


@pytest.mark.parametrize(("program", "rounds"), [("mosquitto", 4), ("amqtt", 2)])
def test_kills_of_broker_and_ingest_lose_nothing(tmp_path: Path, program: str, rounds: int) -> None:
    chunks = make_chunks(400, size=30_000)

    async def body(broker: Broker, running: LoopbackBroker) -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with Rig(spool, broker, resend_s=0.5) as rig:
                for k in range(rounds):
                    async with ingest(broker, tmp_path / "store") as worker:
                        goal = max(0, len(chunks) * (rounds - 1 - k) // rounds)
                        await until(lambda goal=goal: rig.left() <= goal, 30)  # type: ignore[misc]
                        if k % 2 == 0:
                            running.kill()
                            await until(lambda: not worker.connected.is_set())
                            await asyncio.to_thread(running.start)
                assert rig.left() == 0

    with LoopbackBroker(tmp_path / "broker", program=program) as running:  # type: ignore[arg-type]
        asyncio.run(body(parse_broker(running.url), running))
    assert stored(tmp_path / "store") == {c.packed for c in chunks}


def test_pause_and_bandwidth_cap(tmp_path: Path) -> None:
    chunks = make_chunks(40, size=10_000)

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with ingest(broker, tmp_path / "store") as worker:
                await worker.connected.wait()
                async with Rig(spool, broker, max_bytes_s=200_000) as rig:
                    rig.uplink.paused = True
                    await until(lambda: bool(rig.states))
                    assert rig.uplink.statistics().held == "paused"
                    assert rig.uplink.statistics().sent == 0
                    started = time.monotonic()
                    rig.uplink.paused = False
                    await until(lambda: rig.left() == 0)
                    # 400 kB at 200 kB/s, of which the first second is a burst
                    assert time.monotonic() - started > 0.8

    on_broker(tmp_path, body)


@pytest.mark.parametrize("kind", ["depth", "sound"])
def test_kinds_that_this_version_does_not_decode_travel_all_the_same(tmp_path: Path, kind: str) -> None:
    """Reserved, or never heard of: it passes spool, a restart, uplink, ingest and store unchanged."""
    payload = b"of a later version"
    header = ChunkHeader(
        site=SITE, rig=RIG, boot=BOOT, session=SESSION, stream=kind, seq=0, kind=kind, t0_ns=0, t1_ns=1,
        n=1, codec="new-9", raw_bytes=1, sha256=hashlib.sha256(payload).digest(), man=NO_HASH, prev=NO_HASH,
    )  # fmt: skip
    chunk = pack_chunk(header, payload, signature=bytes(64))

    async def body(broker: Broker) -> None:
        with spool_with(tmp_path / "spool", [chunk]):
            pass
        for index in (tmp_path / "spool").glob("*.seg"):  # the next start reads records, not the index
            index.write_bytes(index.read_bytes()[:-1])
        with Spool.open(tmp_path / "spool", reserve_bytes=0) as spool:
            async with ingest(broker, tmp_path / "store"), Rig(spool, broker) as rig:
                await until(lambda: rig.left() == 0)

    on_broker(tmp_path, body)
    assert stored(tmp_path / "store") == {chunk.packed}


@pytest.mark.parametrize("release", ["during the look", "begun before the look, ended after it"])
def test_a_look_into_the_spool_that_a_receipt_overtakes_sends_nothing_and_blames_nobody(
    tmp_path: Path, release: str
) -> None:
    """A scan names chunks that a receipt releases before they are chosen: neither sent nor poison."""
    chunks = make_chunks(40)
    events: list[tuple[str, str]] = []
    looks: list[int] = []
    looked = threading.Event()

    async def body(broker: Broker) -> None:
        loop = asyncio.get_running_loop()
        receipts = list(encode_receipts([c.id for c in chunks], worker="w", t_utc_ns=1))
        with spool_with(tmp_path / "spool", chunks) as spool:
            uplink = Uplink(spool, SITE, RIG, on_event=lambda kind, text: events.append((kind, text)))
            look, let_go = spool.pending, spool.release

            def overtaken_look(limit: int, **options: object) -> list[Entry]:
                found = look(limit, **options)  # type: ignore[arg-type]
                looks.append(len(found))
                if release == "during the look" and len(looks) == 1:
                    for receipt in receipts:
                        asyncio.run_coroutine_threadsafe(uplink.on_receipt(receipt), loop).result(60)
                looked.set()
                return found

            def late_release(ids: Sequence[ChunkId]) -> int:
                assert looked.wait(60)
                return let_go(ids)

            spool.pending = overtaken_look  # type: ignore[method-assign]
            async with asyncio.TaskGroup() as group:
                if release != "during the look":
                    spool.release = late_release  # type: ignore[method-assign,assignment]
                    for receipt in receipts:
                        group.create_task(uplink.on_receipt(receipt))
                    await asyncio.sleep(0)
                async with connect(broker, client_id="rig") as connection:
                    running = asyncio.create_task(uplink.run(connection))
                    await until(lambda: len(looks) > 2)
                    running.cancel()
                    await asyncio.wait([running])
            s = uplink.statistics()
            assert looks[0] == len(chunks)
            assert (s.sent, s.quarantined, s.receipted) == (0, 0, len(chunks))
            assert not [e for e in events if e[0] == "poison"]

    on_broker(tmp_path, body)
