"""A session that failed is called nowhere complete: not in the answer to `stop`, its event, or its record."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecap.clock import now_ns
from edgecap.codec.chunk import unpack_chunk
from edgecap.codec.records import decode_records
from edgecap.config import parse_config
from edgecap.daemon.intent import Intent, RigEvent
from edgecap.daemon.rig import Rig
from edgecap.model import SESSION_STREAM
from edgecap.session.machine import State
from edgecap.spool import Spool
from edgecap.spool.writer import SpoolWriter
from edgecap.status import CommandResult
from tests.system.test_reporter import Idler
from tests.unit.test_recorder import IMU, block
from tests.waiting import until

WHY = "hand-imu: 250 samples could not be sealed"


class Strange(Idler):
    """Gives what no codec takes."""

    name = "hand"
    info = (IMU,)
    started = False

    async def start(self) -> None:
        self.started = True

    def give(self, index: int, n: int = 250) -> None:
        self.queue.put(block(index, n))

    def give_strange(self, index: int) -> None:
        given = block(index, 250)
        self.queue.put(replace(given, frame_n=given.frame_n.astype(np.complex64)))


@pytest.mark.parametrize(("how", "outcome"), [("stop", "interrupted"), ("discard", "discarded")])
def test_a_failure_in_the_last_chunk(tmp_path: Path, how: Any, outcome: str) -> None:
    async def body(rig: Rig, board: Strange) -> CommandResult:
        board.give_strange(0)
        return await rig.ask(Intent(how, "test", now_ns()))

    answer, told, close = record(tmp_path, body)
    assert not answer.ok
    assert answer.message.startswith(outcome)
    assert WHY in answer.message
    assert [e.fields["outcome"] for e in told if e.kind == "stop"] == [outcome]
    assert close["outcome"] == outcome
    assert WHY in close["reason"]


def test_a_failure_while_recording_ends_the_session(tmp_path: Path) -> None:
    async def body(rig: Rig, board: Strange) -> CommandResult:
        board.give_strange(0)
        board.give(1250)  # a second later, so that the first is sealed
        board.give(2500)
        await until(lambda: rig.machine.state is State.FAULT)
        answer = await rig.ask(Intent("stop", "test", now_ns()))
        assert "no session is recording" in answer.message
        assert WHY in rig.machine.fault
        return answer

    answer, told, close = record(tmp_path, body)
    assert not answer.ok
    assert [e.fields["outcome"] for e in told if e.kind == "stop"] == ["interrupted"]
    assert close["outcome"] == "interrupted"
    assert WHY in close["reason"]


def record(folder: Path, body: Any) -> tuple[CommandResult, list[RigEvent], dict[str, Any]]:
    """What the body returns, the events, and the session's last record."""
    config = parse_config(
        'site = "lab"\nrig = "rig-01"\n[session]\ntask = "t"\noperator = "o"\nconsent = "c"\n'
        f'[spool]\ndir = "{folder}/spool"\n'
    )
    told: list[RigEvent] = []

    async def run(spool: Spool) -> CommandResult:
        async with SpoolWriter(spool) as writer:
            board = Strange()
            rig = Rig(config, sources=[board], writer=writer)
            running = asyncio.create_task(rig.run())
            await rig.ready()
            starting = asyncio.create_task(rig.ask(Intent("start", "test", now_ns())))
            await until(lambda: board.started)
            answer: CommandResult = await body(rig, board)
            await starting
            while not rig.events.empty():
                told.append(rig.events.get_nowait())
            rig.shut_down()
            await running
        return answer

    with Spool.open(folder / "spool", reserve_bytes=0) as spool:
        answer = asyncio.run(run(spool))
        chunks = [unpack_chunk(spool.read(e.id)) for e in spool.pending(1000)]
    own = [c for c in chunks if c.header.stream == SESSION_STREAM]
    return answer, told, decode_records(own[-1].payload)[-1]
