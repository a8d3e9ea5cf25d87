"""One session of a rig composed as the daemon composes it, without a broker: sources → spool → store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from edgecap.clock import now_ns
from edgecap.codec.chunk import unpack_chunk
from edgecap.config import Config
from edgecap.daemon.intent import Intent
from edgecap.daemon.rig import Rig
from edgecap.dataset.session import RecordedSession, load_session
from edgecap.ingest.store import SessionKey, open_store
from edgecap.source.protocol import Source
from edgecap.spool import Spool
from edgecap.spool.writer import SpoolWriter

LIMIT_S = 90


def config_text(folder: Path, calibration: object, *, task: str) -> str:
    """A rig whose spool is in a folder, in the words of a configuration file."""
    return f"""
    site = "lab"
    rig = "rig-01"
    spool.dir = "{folder / "spool"}"
    calibration.file = "{calibration}"
    [session]
    task = "{task}"
    operator = "p-001"
    consent = "c-1"
    """


async def record(
    config: Config, sources: Sequence[Source], store: Path, during: Callable[[Rig], Awaitable[None]]
) -> RecordedSession:
    """Start a session, carry out `during` at once (the start may wait for samples), stop; read it back."""
    with Spool.open(Path(config.spool.dir), reserve_bytes=0) as spool:
        async with SpoolWriter(spool) as writer, asyncio.timeout(LIMIT_S):
            rig = Rig(config, sources=sources, writer=writer)
            running = asyncio.create_task(rig.run())
            await rig.ready()
            started = asyncio.create_task(rig.ask(Intent("start", "test", now_ns())))
            await during(rig)
            answer = await started
            assert answer.ok, answer.message
            answer = await rig.ask(Intent("stop", "test", now_ns()))
            assert answer.ok, answer.message
            session = rig.session.last
            rig.shut_down()
            await running
        chunks = [unpack_chunk(spool.read(e.id)) for e in spool.pending(100_000)]
        spool.release([e.id for e in spool.pending(100_000)])
    opened = open_store(str(store), create=True)
    opened.append(chunks)
    opened.commit()
    return load_session(opened, SessionKey(config.site, config.rig, session))
