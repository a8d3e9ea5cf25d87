"""The async writer: order, syncs in time, a queue that waits, refusals that are told."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgecap.codec.chunk import Chunk
from edgecap.errors import SpoolError
from edgecap.spool import Spool
from edgecap.spool.files import OsFile, OsFiles
from edgecap.spool.writer import SpoolWriter
from tests.chunks import SessionMaker


def test_chunks_become_durable_by_themselves_and_in_order(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=40)
    told: list[int] = []

    async def story(spool: Spool) -> None:
        all_durable = asyncio.Event()

        def durable(n: int) -> None:
            told.append(n)
            if sum(told) == len(chunks):
                all_durable.set()

        async with SpoolWriter(spool, durable=durable, sync_ns=50_000_000) as writer:
            for chunk in chunks:
                await writer.put(chunk)
            await asyncio.wait_for(all_durable.wait(), 60)
            assert writer.stats().durable_total == len(chunks)

    with Spool.open(tmp_path, reserve_bytes=0) as spool:
        asyncio.run(story(spool))
        found = [e.id for e in spool.pending(1000)]
        assert set(found) == {c.id for c in chunks}


def test_flush_and_leaving_make_everything_durable(tmp_path: Path) -> None:
    first, second = SessionMaker().whole(rounds=1)[:2]

    async def story(spool: Spool) -> None:
        async with SpoolWriter(spool, sync_ns=3600 * 10**9) as writer:
            await writer.put(first)
            await writer.flush()
            assert [e.id for e in spool.pending(9)] == [first.id]
            await writer.put(second)
        assert len(spool.pending(9)) == 2
        with pytest.raises(SpoolError, match="not running"):
            await writer.put(second)

    with Spool.open(tmp_path, reserve_bytes=0) as spool:
        asyncio.run(story(spool))


class SlowSpool(Spool):
    """Appends only when allowed to."""

    gate: threading.Semaphore

    def append(self, chunk: Chunk, *, closing: bool = False) -> None:
        self.gate.acquire()
        super().append(chunk, closing=closing)


def test_a_full_queue_makes_the_caller_wait(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=5)

    async def story(spool: SlowSpool) -> None:
        async with SpoolWriter(spool, queue_chunks=2) as writer:
            putting = asyncio.create_task(put_all(writer))
            while writer.stats().waited_total == 0:
                await asyncio.sleep(0.001)
            assert writer.stats().queued <= 2
            assert not putting.done()
            for _ in chunks:
                spool.gate.release()
            await asyncio.wait_for(putting, 60)
            await writer.flush()
            assert writer.stats().durable_total == len(chunks)

    async def put_all(writer: SpoolWriter) -> None:
        for chunk in chunks:
            await writer.put(chunk)

    with SlowSpool.open(tmp_path, reserve_bytes=0) as spool:
        assert isinstance(spool, SlowSpool)
        spool.gate = threading.Semaphore(0)
        asyncio.run(story(spool))


def test_what_the_spool_refuses_is_told_and_closing_may_use_the_reserve(tmp_path: Path) -> None:
    chunks, others = SessionMaker().whole(rounds=1), SessionMaker("20260102-040506-efgh").whole(rounds=1)

    async def story(spool: Spool) -> None:
        async with SpoolWriter(spool) as writer:
            await writer.put(chunks[0])
            with pytest.raises(SpoolError, match="kept in reserve"):
                await writer.flush()
            await writer.put(chunks[1], closing=True)
            await writer.flush()
            assert spool.pending(9) == [], "nothing of a session follows what was refused of it"
            await writer.put(others[0], closing=True)
            await writer.flush()
            await writer.put(others[1], closing=True)
            await writer.flush()
            assert [e.id for e in spool.pending(9)] == [c.id for c in others[:2]]
            assert (writer.stats().refused_total, writer.stats().durable_total) == (2, 2)

    with Spool.open(tmp_path, reserve_bytes=1 << 60) as spool:
        asyncio.run(story(spool))


class Broken(OsFile):
    """Fails once in a way that nobody reckoned with, at what it is told to."""

    next = ""

    def _fail(self, at: str) -> None:
        if Broken.next == at:
            Broken.next = ""
            raise RuntimeError("out of the blue")

    def write_at(self, offset: int, parts: Sequence[bytes]) -> None:
        self._fail("append")
        super().write_at(offset, parts)

    def sync(self) -> None:
        self._fail("sync")
        super().sync()


class BrokenFiles(OsFiles):
    def create(self, path: Path) -> Broken:
        return Broken(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))


@pytest.mark.parametrize("where", ["append", "sync"])
def test_an_error_that_nobody_reckoned_with_ends_no_recording_but_its_own(tmp_path: Path, where: str) -> None:
    """Else everybody would wait for a thread that has ended."""
    one, other = SessionMaker().whole(rounds=1), SessionMaker("20260102-040506-efgh").whole(rounds=1)

    async def story(spool: Spool) -> None:
        async with SpoolWriter(spool, sync_ns=3600 * 10**9) as writer, asyncio.timeout(60):
            await writer.put(one[0])
            await writer.flush()
            Broken.next = where
            await writer.put(one[1])
            with pytest.raises(SpoolError, match="RuntimeError: out of the blue"):
                await writer.flush()
            for chunk in other:
                await writer.put(chunk)
            await writer.flush()
            kept = {one[0].id, *(c.id for c in other)} | ({one[1].id} if where == "sync" else set())
            assert {e.id for e in spool.pending(99)} == kept

    with Spool.open(tmp_path, reserve_bytes=0, files=BrokenFiles()) as spool:
        asyncio.run(story(spool))
