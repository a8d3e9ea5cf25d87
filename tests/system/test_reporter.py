"""What the rig's side of the broker does with messages that nobody should have sent, and with too many."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from edgecap import host, topics
from edgecap.cli import run
from edgecap.clock import now_ns
from edgecap.codec.chunk import unpack_chunk
from edgecap.codec.records import decode_records
from edgecap.config import parse_config
from edgecap.daemon import reporting
from edgecap.daemon.intent import Intent
from edgecap.daemon.reporting import Reporter
from edgecap.daemon.rig import Rig
from edgecap.model import SESSION_STREAM, DeviceEvent, Item, Mark, StreamInfo
from edgecap.mqtt import parse_broker
from edgecap.session.machine import State
from edgecap.source.item_queue import ItemQueue
from edgecap.spool import Spool
from edgecap.spool.writer import SpoolWriter
from edgecap.status import Command, CommandInbox, CommandResult
from edgecap.uplink import Uplink
from tests.system.test_bad_brokers import CONNECT, PINGREQ, PUBLISH, SUBSCRIBE, packet, read_packet
from tests.waiting import until

SITE, RIG = "lab", "rig-01"


class Idler:
    """A device without streams: it can be started and stopped, and that is all."""

    name = "idler"
    info: tuple[StreamInfo, ...] = ()

    def __init__(self) -> None:
        self.queue = ItemQueue()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Idler]:
        yield self

    async def start(self) -> None: ...

    async def stop(self) -> dict[str, int]:
        self.queue.put(DeviceEvent(self.name, "stopped", now_ns()))
        return {}

    def __aiter__(self) -> AsyncIterator[Item]:
        return self.queue.__aiter__()


@contextlib.asynccontextmanager
async def a_rig(folder: Path) -> AsyncIterator[Rig]:
    config = parse_config(
        f'site = "{SITE}"\nrig = "{RIG}"\n[session]\ntask = "t"\noperator = "o"\nconsent = "c"\n'
        f'[spool]\ndir = "{folder}/spool"\n'
    )
    with Spool.open(folder / "spool", reserve_bytes=0) as spool:
        async with SpoolWriter(spool) as writer:
            rig = Rig(config, sources=[Idler()], writer=writer)
            running = asyncio.create_task(rig.run())
            await rig.ready()
            try:
                yield rig
            finally:
                rig.shut_down()
                await running


class Sender:
    """A broker that sends what the test says, whatever was subscribed to, and keeps the answers."""

    def __init__(self, *messages: tuple[bytes, bytes]) -> None:
        self.messages = messages
        self.answers: list[CommandResult] = []
        self.events: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        subscribed = 0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, flags, body = await read_packet(reader)
                if kind == CONNECT:
                    writer.write(packet(0x20, b"\x00\x00\x00"))
                elif kind == SUBSCRIBE:
                    subscribed += 1
                    writer.write(packet(0x90, body[:2] + b"\x00\x01"))
                    if subscribed == 3:
                        for topic, payload in self.messages:
                            writer.write(
                                packet(0x30, len(topic).to_bytes(2, "big") + topic + b"\x00" + payload)
                            )
                elif kind == PUBLISH and flags & 0x06:
                    at = 2 + int.from_bytes(body[:2], "big")
                    writer.write(packet(0x40, body[at : at + 2]))
                    said = body[at + 3 + body[at + 2] :]  # behind the properties, which are short
                    if body[2:at].endswith(b"cmd/res"):
                        self.answers.append(msgspec.json.decode(said, type=CommandResult))
                    elif body[2:at].endswith(b"event"):
                        self.events.append(msgspec.json.decode(said)["text"])
                elif kind == PINGREQ:
                    writer.write(packet(0xD0, b""))
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def reporting_to(sender: Sender, rig: Rig) -> AsyncIterator[Reporter]:
    server = await asyncio.start_server(sender.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reporter = Reporter(rig, Uplink(rig.writer.spool, SITE, RIG))
    async with server:
        task = asyncio.create_task(reporter.run(parse_broker(f"mqtt://127.0.0.1:{port}")))
        try:
            yield reporter
        finally:
            task.cancel()
            await asyncio.wait([task])
    assert task.cancelled(), task.exception()


def command(number: int, cmd: str = "status", **args: str) -> tuple[bytes, bytes]:
    topic = topics.topic(SITE, RIG, topics.CMD).encode()
    return topic, msgspec.json.encode(Command(f"c-{number}", cmd, args))  # type: ignore[arg-type]


def test_topics_that_nobody_asked_for_do_not_end_recording(tmp_path: Path) -> None:
    strange = [(b"\xff\xfe", b"x"), (b"other/topic", b"x"), (b"edgecap/v1/lab/rig-01/receipt/x", b"")]
    sender = Sender(*strange, command(1))

    async def body() -> None:
        async with a_rig(tmp_path) as rig, reporting_to(sender, rig) as reporter:
            await until(lambda: len(sender.answers) == 1, 60)
            assert sender.answers[0].ok
            assert reporter.status().counters["messages_strange"] == len(strange)

    asyncio.run(body())


def test_more_commands_than_a_rig_obeys_at_a_time_are_refused_and_may_come_again(tmp_path: Path) -> None:
    most = reporting.MAX_COMMANDS
    sender = Sender(*(command(k) for k in range(3 * most)))

    async def body() -> None:
        async with a_rig(tmp_path) as rig, reporting_to(sender, rig) as reporter:
            hold = asyncio.Event()
            obey = reporter._obey

            async def slowly(wanted: Command) -> CommandResult:
                await hold.wait()
                return await obey(wanted)

            reporter._obey = slowly  # type: ignore[method-assign]
            await until(lambda: len(sender.answers) == 2 * most, 60)
            assert {a.id for a in sender.answers} == {f"c-{k}" for k in range(most, 3 * most)}
            assert all("too many others" in a.message and not a.ok for a in sender.answers)
            hold.set()
            await until(lambda: len(sender.answers) == 3 * most, 60)
            assert reporter.status().counters["commands_refused"] == 2 * most

    asyncio.run(body())
    inbox, payload = CommandInbox(), command(1)[1]
    for busy in (True, False):
        with contextlib.suppress(reporting.CommandRefused):
            assert inbox.accept(payload, utc_s=None, busy=busy).id == "c-1"
    assert inbox.refused == 1


def test_events_name_the_session_in_which_they_happened(tmp_path: Path) -> None:
    """However late they are told: a broker that is away hears of one session while another runs."""

    async def body() -> None:
        async with a_rig(tmp_path) as rig:
            sessions = []
            for _ in range(2):
                assert (await rig.ask(Intent("start", "test", now_ns()))).ok
                sessions.append(rig.session.last)
                mark = Mark(now_ns(), "note", "here", "test")
                assert (await rig.ask(Intent("mark", "test", mark.t_ns, mark))).ok
                assert (await rig.ask(Intent("stop", "test", now_ns()))).ok
                assert not (await rig.ask(Intent("stop", "test", now_ns()))).ok
            told = []
            while not rig.events.empty():
                event = rig.events.get_nowait()
                told.append((event.kind, event.session))
            one, other = sessions
            assert [t for t in told if t[0] in ("start", "mark", "stop", "refused")] == [
                *[(kind, one) for kind in ("start", "mark", "stop")],
                ("refused", ""),
                *[(kind, other) for kind in ("start", "mark", "stop")],
                ("refused", ""),
            ]

    asyncio.run(body())


def test_what_every_queue_did_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        async with a_rig(tmp_path) as rig:
            reporter = Reporter(rig, Uplink(rig.writer.spool, SITE, RIG))
            for _ in range(2):
                assert (await rig.ask(Intent("start", "test", now_ns()))).ok
                assert rig.recorder is not None
                rig.recorder.hurried = 3  # as a card that stalls makes it
                assert reporter.status().counters["chunks_hurried"] % 3 == 0
                assert (await rig.ask(Intent("stop", "test", now_ns()))).ok
            counters = reporter.status().counters
            assert counters["chunks_hurried"] == 6, "of all sessions"
            assert counters.keys() >= {
                *("events_dropped", "spool_waits", "spool_chunks_refused", "spool_rescues"),
                "spool_quarantined",
            }

    asyncio.run(body())


def test_a_worker_sees_that_the_battery_is_low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = tmp_path / "power_supply" / "pack"
    pack.mkdir(parents=True)
    monkeypatch.setattr(host, "SUPPLIES", pack.parent)

    async def body() -> None:
        async with a_rig(tmp_path) as rig:
            seen = []
            for cmd in ("start", "stop"):
                for percent, doing in (("40", "Discharging"), ("9", "Discharging"), ("9", "Charging")):
                    (pack / "capacity").write_text(percent)
                    (pack / "status").write_text(doing)
                    seen.append(rig.led().name)
                assert (await rig.ask(Intent(cmd, "test", now_ns()))).ok  # type: ignore[arg-type]
            assert seen == ["idle", "low-battery", "idle", "recording", "low-battery", "recording"]

    asyncio.run(body())


def test_a_fault_of_delivery_does_not_end_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [RuntimeError("a sensor of this computer reads nonsense")]
    monkeypatch.setattr(run, "DELIVERY_AGAIN_S", 0.05)
    sender = Sender(command(1))

    def temperature() -> None:
        if faults:
            raise faults.pop()

    monkeypatch.setattr(reporting, "temperature_c", temperature)

    async def body() -> None:
        server = await asyncio.start_server(sender.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, a_rig(tmp_path) as rig:
            reporter = Reporter(rig, Uplink(rig.writer.spool, SITE, RIG))
            task = asyncio.create_task(run._report(rig, reporter, parse_broker(f"mqtt://127.0.0.1:{port}")))
            try:
                await until(lambda: any("nonsense; it begins again" in e for e in sender.events), 60)
                await until(lambda: not rig.condition.broken, 60)
            finally:
                task.cancel()
                await asyncio.wait([task])

    asyncio.run(body())


def test_a_withdrawal_ends_the_session_under_it_and_allows_no_other(tmp_path: Path) -> None:
    """It is in the retained `desired`, so that a rig that was away hears it, and is kept on the rig."""
    topic = topics.topic(SITE, RIG, topics.DESIRED).encode()
    first = {"version": "1", "withdrawn": ["c-0"], "consent_scope": ["training"]}
    sender = Sender((topic, msgspec.json.encode(first)))

    async def ask(rig: Rig, event: str) -> CommandResult:
        return await rig.ask(Intent(event, "test", now_ns()))  # type: ignore[arg-type]

    async def run() -> None:
        async with a_rig(tmp_path) as rig:
            async with reporting_to(sender, rig) as reporter:
                await until(lambda: rig.desired_version == "1")
                assert (await ask(rig, "start")).ok
                sender.messages = (
                    (topic, msgspec.json.encode(first | {"version": "2", "withdrawn": ["c"]})),
                )
            async with reporting_to(sender, rig) as reporter:
                await until(lambda: rig.machine.state is State.IDLE)
                answer = await ask(rig, "start")
                assert (answer.ok, "consent 'c' was withdrawn; set another" in answer.message) == (
                    False,
                    True,
                )
                status = reporter.status()
                assert status.led == "no-consent"
                assert "consent 'c' was withdrawn" in status.problems["consent"]
                await until(lambda: any("consents or workers" in text for text in sender.events))
        async with a_rig(tmp_path) as rig:  # started anew, without a broker
            assert not (await ask(rig, "start")).ok
            rig.provide(consent="c-2")
            assert (await ask(rig, "start")).ok

    asyncio.run(run())
    with Spool.open(tmp_path / "spool", reserve_bytes=0) as spool:
        chunks = [unpack_chunk(spool.read(e.id)) for e in spool.pending(1000)]
    own = [r for c in chunks if c.header.stream == SESSION_STREAM for r in decode_records(c.payload)]
    opened = [(r["consent"], r["consent_scope"]) for r in own if r["type"] == "open"]
    assert opened == [("c", ["training"]), ("c-2", [])]
    closed = [(r["outcome"], r["reason"]) for r in own if r["type"] == "close"]
    assert closed[0][0] == "complete"
    assert "consent 'c' was withdrawn" in closed[0][1]
