"""Delivery to brokers that lie, and over links that crawl: nothing is let go, all arrives later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from edgecap import topics
from edgecap.codec.chunk import Chunk, ChunkId
from edgecap.codec.receipt import encode_receipts
from edgecap.mqtt import Broker, parse_broker
from edgecap.sim.broker import LoopbackBroker
from edgecap.uplink import uplink
from tests.system.delivery import RIG, SITE, Rig, ingest, make_chunks, spool_with, stored
from tests.waiting import until

CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 1, 3, 8, 12


def packet(kind: int, body: bytes) -> bytes:
    """An MQTT control packet (MQTT 5, section 2.1)."""
    head, left = bytearray([kind]), len(body)
    while True:
        left, digit = divmod(left, 128)
        head.append(digit | (0x80 if left else 0))
        if not left:
            return bytes(head) + body


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """Kind, flags and body of the next packet."""
    first, length, shift = (await reader.readexactly(1))[0], 0, 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return first >> 4, first & 0x0F, await reader.readexactly(length)


class Liar:
    """A broker that acknowledges everything, delivers nothing, and makes receipts up."""

    def __init__(self, receipts: list[bytes]) -> None:
        self.receipts = receipts
        self.acknowledged = 0
        self.told = asyncio.Event()
        """All receipts have been sent."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, flags, body = await read_packet(reader)
                if kind == CONNECT:
                    writer.write(packet(0x20, b"\x00\x00\x00"))
                elif kind == SUBSCRIBE:
                    writer.write(packet(0x90, body[:2] + b"\x00\x01"))
                    self._make_up(writer)
                elif kind == PUBLISH and flags & 0x06:
                    at = 2 + int.from_bytes(body[:2], "big")
                    writer.write(packet(0x40, body[at : at + 2]))
                    self.acknowledged += 1
                elif kind == PINGREQ:
                    writer.write(packet(0xD0, b""))
                await writer.drain()
        writer.close()

    def _make_up(self, writer: asyncio.StreamWriter) -> None:
        topic = topics.topic(SITE, RIG, topics.RECEIPT).encode()
        for receipt in self.receipts:
            writer.write(packet(0x30, len(topic).to_bytes(2, "big") + topic + b"\x00" + receipt))
        self.told.set()


def forged(chunks: list[Chunk]) -> list[bytes]:
    """Receipts that no ingest gave: nonsense, other hashes, chunks that were never sent, another boot's."""
    ids = [c.id for c in chunks]
    wrong = [
        [ChunkId(i.boot, i.session, i.stream, i.seq, bytes(32)) for i in ids],
        [ChunkId(i.boot, i.session, i.stream, i.seq + 1000, i.hash) for i in ids],
        [ChunkId("c" * 36, i.session, i.stream, i.seq, i.hash) for i in ids],
        [c.id for c in make_chunks(len(chunks), seed=77)],
    ]
    made_up = [part for some in wrong for part in encode_receipts(some, worker="liar", t_utc_ns=1)]
    return [b"", b"\xff" * 50, *made_up]


def test_a_broker_that_lies(tmp_path: Path) -> None:
    chunks = make_chunks(30)

    async def body(honest: Broker) -> None:
        liar = Liar(forged(chunks))
        server = await asyncio.start_server(liar.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with server, Rig(spool, parse_broker(f"mqtt://127.0.0.1:{port}"), resend_s=0.2) as rig:
                await until(lambda: rig.uplink.statistics().resent >= 2, 60)
                found = rig.uplink.statistics()
                assert liar.told.is_set()
                assert (found.bad_receipts, found.receipted, rig.left()) == (2, 0, len(chunks))
                assert found.held == "no receipts"
                assert liar.acknowledged < 2 * len(chunks), "probes, not the backlog again and again"
                assert [kind for kind, _ in rig.events] == ["no-receipts"]
            async with ingest(honest, tmp_path / "store"), Rig(spool, honest, resend_s=0.2) as rig:
                await until(lambda: rig.left() == 0, 60)

    with LoopbackBroker(tmp_path / "broker") as running:
        asyncio.run(body(parse_broker(running.url)))
    assert stored(tmp_path / "store") == {c.packed for c in chunks}


@contextlib.asynccontextmanager
async def crawling(broker: Broker, delay_s: Callable[[], float]) -> AsyncIterator[Broker]:
    """A link on which every answer of the broker takes `delay_s` longer."""

    async def join(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, out = await asyncio.open_connection(broker.host, broker.port)
        loop = asyncio.get_running_loop()

        async def send() -> None:
            while data := await near.read(65536):
                out.write(data)
                await out.drain()

        async def answer() -> None:
            while data := await far.read(65536):
                loop.call_later(delay_s(), back.write, data)

        tasks = [asyncio.create_task(send()), asyncio.create_task(answer())]
        with contextlib.suppress(ConnectionError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in (out, back):
            writer.close()

    server = await asyncio.start_server(join, "127.0.0.1", 0)
    async with server:
        yield parse_broker(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}")


def test_a_link_that_crawls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer are in flight while answers are slow, as many as configured when they are quick again."""
    monkeypatch.setattr(uplink, "SLOW_S", 0.2)
    monkeypatch.setattr(uplink, "QUICK_S", 0.15)
    chunks = make_chunks(120)
    delay_s = 0.3

    async def body(broker: Broker) -> None:
        nonlocal delay_s
        with spool_with(tmp_path / "spool", chunks) as spool:
            async with (
                ingest(broker, tmp_path / "store"),
                crawling(broker, lambda: delay_s) as slow,
                Rig(spool, slow, window=8) as rig,
            ):
                await until(lambda: rig.uplink.statistics().window == 1, 60)
                assert rig.uplink.statistics().in_flight <= 8
                before = rig.left()
                await until(lambda: rig.left() < before, 60)
                delay_s = 0.0
                await until(lambda: rig.left() == 0, 60)
                for chunk in make_chunks(300, session="20260102-000000-more"):
                    spool.append(chunk)
                spool.sync()
                await until(lambda: rig.uplink.statistics().window > 4, 60)
                await until(lambda: rig.left() == 0, 60)
                assert rig.uplink.statistics().quarantined == 0

    with LoopbackBroker(tmp_path / "broker") as running:
        asyncio.run(body(parse_broker(running.url)))
    assert {c.packed for c in chunks} <= stored(tmp_path / "store")
