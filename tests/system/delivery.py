"""Spool, uplink and ingest of one rig as tests compose them, on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from edgecap import topics
from edgecap.codec.chunk import Chunk, StreamChain
from edgecap.codec.records import encode_records
from edgecap.ingest.store import open_store
from edgecap.ingest.worker import IngestWorker
from edgecap.mqtt import Backoff, Broker, Connection, keep_connected
from edgecap.spool import Spool
from edgecap.uplink import Uplink

SITE, RIG, SESSION, BOOT = "lab", "rig-1", "20260101-000000-abcd", "b" * 36


def make_chunks(
    n: int, *, size: int = 2000, session: str = SESSION, rig: str = RIG, seed: int = 0
) -> list[Chunk]:
    """A session's opening record, then `n` chunks alternating between a sensor and a camera."""
    opening = StreamChain(site=SITE, rig=rig, boot=BOOT, session=session, stream="session")
    record = {"type": "open", "t_ns": seed}
    first = opening.seal(
        kind="event", codec="msgpack", payload=encode_records([record]), t0_ns=0, t1_ns=0, n=1, raw_bytes=0
    )
    chains = {
        stream: StreamChain(site=SITE, rig=rig, boot=BOOT, session=session, stream=stream, man=opening.man)
        for stream in ("hand-imu", "head-cam")
    }
    chunks = [first]
    for k in range(n):
        stream = "hand-imu" if k % 2 else "head-cam"
        payload = hashlib.shake_128(f"{seed} {k}".encode()).digest(size)
        chunks.append(
            chains[stream].seal(
                kind="samples" if k % 2 else "video",
                codec="raw",
                payload=payload,
                t0_ns=k,
                t1_ns=k + 1,
                n=1,
                raw_bytes=size,
            )
        )
    return chunks


@contextlib.contextmanager
def spool_with(path: Path, chunks: list[Chunk]) -> Iterator[Spool]:
    spool = Spool.open(path, reserve_bytes=0)
    try:
        for chunk in chunks:
            spool.append(chunk)
        spool.sync()
        yield spool
    finally:
        spool.close()


class Rig:
    """The rig's side of the wire as the daemon composes it: one connection for everything."""

    most_wait_s = 0.1
    """Ceiling of the waits between attempts to connect."""

    def __init__(self, spool: Spool, broker: Broker, **options: object) -> None:
        self.events: list[tuple[str, str]] = []
        self.states: list[tuple[bool, str]] = []
        self.uplink = Uplink(
            spool,
            SITE,
            RIG,
            on_event=lambda kind, text: self.events.append((kind, text)),
            **options,  # type: ignore[arg-type]
        )
        self.spool, self.broker = spool, broker

    async def _body(self, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.uplink.run(connection))
            async for message in connection.messages():
                await self.uplink.on_receipt(message.payload)

    async def __aenter__(self) -> Rig:
        self._task = asyncio.create_task(
            keep_connected(
                self.broker,
                self._body,
                client_id=f"edgecap-{SITE}-{RIG}",
                subscribe=[topics.topic(SITE, RIG, topics.RECEIPT)],
                backoff=Backoff(0.02, self.most_wait_s),
                on_state=lambda connected, reason: self.states.append((connected, reason)),
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    def left(self) -> int:
        return self.spool.stats().chunks


@contextlib.asynccontextmanager
async def ingest(
    broker: Broker, store_dir: Path, name: str = "w", **options: object
) -> AsyncIterator[IngestWorker]:
    store = open_store(str(store_dir), create=True)
    worker = IngestWorker(
        broker, store, name=name, refused_dir=store_dir / ".refused", receipt_after_s=0.05,
        backoff=Backoff(0.02, 0.1, seed=2), **options,  # type: ignore[arg-type]
    )  # fmt: skip
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait([task])
        store.close()
        task.result()


def stored(store_dir: Path) -> set[bytes]:
    store = open_store(str(store_dir))
    try:
        return {chunk.packed for key in store.sessions() for chunk in store.chunks(key)}
    finally:
        store.close()
