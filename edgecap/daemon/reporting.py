"""The rig's side of the broker: status, telemetry and events go out; receipts and commands come in."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Annotated

import msgspec

from edgecap import clock, topics
from edgecap.config import Reference
from edgecap.daemon.blinking import blink, find_board, read_request
from edgecap.daemon.intent import Intent
from edgecap.daemon.rig import Rig
from edgecap.errors import NameRefused, SessionError
from edgecap.host import battery_percent, temperature_c
from edgecap.model import MARK_KINDS, Mark
from edgecap.mqtt import Broker, Connection, PublishRefusedError, Will, keep_connected
from edgecap.session.machine import State
from edgecap.session.manifest import versions
from edgecap.spool import SpoolStats
from edgecap.spool.writer import WriterStats
from edgecap.status import (
    NOT_JSON,
    OFFLINE,
    ClockStatus,
    Command,
    CommandInbox,
    CommandRefused,
    CommandResult,
    RigStatus,
    SpoolStatus,
    UplinkStatus,
    telemetry,
    trusted_utc_s,
)
from edgecap.uplink import Uplink

log = logging.getLogger("edgecap.report")

STATUS_EVERY_S = 10.0
"""Retained status is repeated at least this often, and at every change."""
MAX_COMMANDS = 16
"""Commands obeyed side by side; one that comes while so many are under way is refused."""
BYTES_S_PER_KBIT_S = 125
MOST_KBIT_S = 10_000_000
MOST_WITHDRAWN = 1000
PROVIDED = ("task", "operator", "consent", "consent_scope")


class Desired(msgspec.Struct, frozen=True):
    """What the operator wants of this rig from its next session on (retained on `desired`)."""

    version: Annotated[str, msgspec.Meta(max_length=200)]
    task: str | None = None
    operator: str | None = None
    consent: str | None = None
    consent_scope: tuple[str, ...] | None = None
    """The uses that the consent allows; without it, none are known of a `consent` that is new."""
    withdrawn: Annotated[tuple[Reference, ...], msgspec.Meta(max_length=MOST_WITHDRAWN)] | None = None
    """All consents and workers for whom nothing may be recorded any more; kept by the rig, also offline."""
    paused: bool | None = None
    max_kbit_s: Annotated[int, msgspec.Meta(ge=0, le=MOST_KBIT_S)] | None = None
    """Bandwidth cap, 0 for none."""


class Reporter:
    """Speaks for a rig over one connection.

    Args:
        rig: Whose state is told and who obeys.
        uplink: Delivers the spool over the same connection.
    """

    def __init__(self, rig: Rig, uplink: Uplink) -> None:
        self.rig, self.uplink = rig, uplink
        self.connected = False
        self._inbox = CommandInbox()
        self._seq = 0
        self._versions = versions()
        self._leaving = False
        self._left = asyncio.Event()
        self._refused = self._strange = 0
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, broker: Broker) -> None:
        """Stay connected for ever; every attempt uses a fresh client."""
        site, name = self.rig.config.site, self.rig.config.rig
        status = topics.topic(site, name, topics.STATUS)
        await keep_connected(
            broker,
            self._online,
            client_id=f"edgecap-{site}-{name}",
            will=Will(status, OFFLINE, topics.STATUS.qos, topics.STATUS.retain),
            subscribe=[topics.topic(site, name, c) for c in (topics.RECEIPT, topics.CMD, topics.DESIRED)],
            on_state=self._on_state,
        )

    def _on_state(self, connected: bool, reason: str) -> None:
        self.connected = connected
        if connected:
            log.info("connected to the broker")
        elif reason:
            log.warning("%s", reason)

    async def _online(self, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.uplink.run(connection), name="uplink")
            group.create_task(self._publish_status(connection), name="publish status")
            group.create_task(self._publish_telemetry(connection), name="publish telemetry")
            group.create_task(self._publish_events(connection), name="publish events")
            group.create_task(self._read(connection), name="read")

    async def leave(self, at_most_s: float) -> None:
        """Tell the fleet that this rig goes away on purpose; the will covers every other way."""
        self._leaving = True
        self.rig.changed.set()
        if self.connected:
            try:
                async with asyncio.timeout(at_most_s):
                    await self._left.wait()
            except TimeoutError:
                log.warning("the broker did not take the last status within %s s", at_most_s)

    # ── out ─────────────────────────────────────────────────────────────────────────────────────────

    async def _publish(self, connection: Connection, channel: topics.Channel, payload: bytes) -> None:
        name = topics.topic(self.rig.config.site, self.rig.config.rig, channel)
        try:
            await connection.publish(
                name, payload, qos=channel.qos, retain=channel.retain, content_type=channel.content_type
            )
        except PublishRefusedError as error:
            # One topic that the broker forbids must not stop the others.
            self._refused += 1
            if self._refused == 1:
                log.error("%s", error)

    async def _publish_status(self, connection: Connection) -> None:
        """At once when something that matters changed, else every `STATUS_EVERY_S`."""
        told: tuple[object, ...] = ()
        told_at = 0.0
        while True:
            if self._leaving:
                await self._publish(connection, topics.STATUS, OFFLINE)
                self._left.set()
                return
            status = self.status()
            # What a person would want to know at once; counters alone can wait.
            matter = (status.state, status.led, status.fault, status.session, status.task,
                      status.desired_version, status.desired_error, status.problems,
                      tuple((v.stream, v.state) for v in status.streams))  # fmt: skip
            if matter != told or time.monotonic() - told_at >= STATUS_EVERY_S:
                self._seq += 1
                payload = msgspec.json.encode(msgspec.structs.replace(status, seq=self._seq))
                await self._publish(connection, topics.STATUS, payload)
                told, told_at = matter, time.monotonic()
            await self._change(STATUS_EVERY_S)

    async def _change(self, at_most_s: float) -> None:
        try:
            async with asyncio.timeout(at_most_s):
                await self.rig.changed.wait()
        except TimeoutError:
            pass
        self.rig.changed.clear()

    async def _publish_telemetry(self, connection: Connection) -> None:
        while True:
            await self._publish(connection, topics.TELEMETRY, telemetry(self.status()))
            await asyncio.sleep(1)

    async def _publish_events(self, connection: Connection) -> None:
        while True:
            event = await self.rig.events.get()
            body = {"kind": event.kind, "t_ns": event.t_ns, "boot": clock.boot_id(),
                    "session": event.session, "text": event.text, **event.fields}  # fmt: skip
            try:
                await self._publish(connection, topics.EVENT, msgspec.json.encode(body))
            except BaseException:
                # The connection broke under it: the next one tells it.
                if self.rig.events.full():
                    self.rig.counters.events_dropped += 1
                else:
                    self.rig.events.put_nowait(event)
                raise

    def status(self) -> RigStatus:
        """The rig as it is now."""
        rig, recorder = self.rig, self.rig.recorder
        pair = rig.pair
        spool, writer = rig.writer.spool.stats(), rig.writer.stats()
        now_ns = clock.now_ns()
        return RigStatus(
            state=rig.machine.state.value,
            led=rig.led().name,
            fault=rig.machine.fault,
            session=rig.session.running,
            session_s=round((now_ns - recorder.opened_ns) / 1e9, 1) if recorder is not None else 0.0,
            task=rig.terms.provenance.task,
            operator=rig.terms.provenance.operator,
            boot=clock.boot_id(),
            seq=self._seq,
            t_ns=now_ns,
            utc_ns=pair.realtime_ns + (now_ns - pair.raw_ns),
            streams=rig.session.verdicts,
            devices={s.name: s.statistics() for s in rig.devices.open},
            spool=self._spool_status(spool, writer),
            uplink=self._uplink_status(),
            clock=ClockStatus(pair.ntp_synced, pair.ntp_max_error_us),
            battery_percent=battery_percent(),
            temperature_c=temperature_c(),
            versions=self._versions,
            counters=self._counters(spool, writer),
            desired_version=rig.desired_version,
            desired_error=rig.desired_error,
            problems=rig.condition.problems() | rig.terms.problems(),
            loop=rig.lag.quantiles_ms(),
        )

    def _counters(self, spool: SpoolStats, writer: WriterStats) -> dict[str, int]:
        rig = self.rig
        return {
            **{name: getattr(rig.counters, name) for name in rig.counters.__slots__},
            "chunks_hurried": rig.session.hurried,
            "commands_refused": self._inbox.refused,
            "messages_strange": self._strange,
            "publishes_refused": self._refused,
            "spool_chunks_refused": writer.refused_total,
            "spool_quarantined": spool.quarantined_total,
            "spool_rescues": spool.rescues_total,
            "spool_waits": writer.waited_total,
        }

    def _spool_status(self, spool: SpoolStats, writer: WriterStats) -> SpoolStatus:
        hours, age_ms = self.rig.room.hours_left(spool), round(writer.age_ms_p99, 1)
        return SpoolStatus(spool.chunks, spool.bytes, spool.free_bytes, spool.reserve_bytes, hours, age_ms)

    def _uplink_status(self) -> UplinkStatus:
        s = self.uplink.statistics()
        return UplinkStatus(
            connected=self.connected,
            paused=self.uplink.paused,
            sent=s.sent,
            receipted=s.receipted,
            resent=s.resent,
            refused=s.refused,
            quarantined=s.quarantined,
            held=s.held,
            receipt_p50_ms=s.receipt_p50_ms,
            receipt_p99_ms=s.receipt_p99_ms,
            max_kbit_s=round((self.uplink.max_bytes_s or 0) / BYTES_S_PER_KBIT_S),
        )

    # ── in ──────────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            async for message in connection.messages():
                try:
                    suffix = topics.parse(message.topic).suffix
                except NameRefused as error:
                    # A broker that sends what nobody asked for must not end recording.
                    self._strange += 1
                    if self._strange == 1:
                        log.warning("ignored a message: %s", error)
                    continue
                if suffix == topics.RECEIPT.suffix:
                    await self.uplink.on_receipt(message.payload)
                elif suffix == topics.CMD.suffix:
                    if len(self._under_way) >= MAX_COMMANDS:
                        await self._command(connection, message.payload, busy=True)
                        continue
                    # A command may take seconds (a session drains): receipts must not wait behind it.
                    task = group.create_task(self._command(connection, message.payload), name="command")
                    self._under_way.add(task)
                    task.add_done_callback(self._under_way.discard)
                elif suffix == topics.DESIRED.suffix:
                    await self._desired(message.payload)

    async def _command(self, connection: Connection, payload: bytes, *, busy: bool = False) -> None:
        try:
            utc_s = trusted_utc_s(self.status().clock)
            command = self._inbox.accept(payload, utc_s=utc_s, busy=busy)
            result = await self._obey(command)
        except CommandRefused as error:
            log.warning("%s", error)
            result = CommandResult(str(error.evidence.get("id", "")), False, str(error))
        await self._publish(connection, topics.CMD_RESULT, msgspec.json.encode(result))

    async def _obey(self, command: Command) -> CommandResult:
        rig, args = self.rig, command.args
        now_ns = clock.now_ns()
        match command.cmd:
            case "start" | "stop" | "discard":
                intent = Intent(command.cmd, "ctl", now_ns, task=args.get("task", ""), id=command.id)
                return await rig.ask(intent)
            case "mark":
                kind = args.get("kind", "note")
                if kind not in MARK_KINDS:
                    reason = f"refused mark: its kind {kind[:40]!r} is none of {', '.join(MARK_KINDS)}"
                    return CommandResult(command.id, False, reason)
                mark = Mark(now_ns, kind, args.get("text", ""), "ctl")
                return await rig.ask(Intent("mark", "ctl", now_ns, mark, id=command.id))
            case "task":
                task = args.get("text", "").strip()
                if not task:
                    return CommandResult(command.id, False, "refused task: it is empty")
                try:
                    rig.provide(task=task)
                except SessionError as error:
                    return CommandResult(command.id, False, str(error))
                return CommandResult(command.id, True, f"the next session's task is {task!r}")
            case "pause" | "resume":
                self.uplink.paused = command.cmd == "pause"
                return CommandResult(command.id, True, f"uplink {command.cmd}d")
            case "limit":
                text = args.get("kbit_s", "")
                if not text.isdecimal() or len(text) > 9 or int(text) > MOST_KBIT_S:
                    reason = f"refused limit: kbit_s is {text[:20]!r}, not a number up to {MOST_KBIT_S}"
                    return CommandResult(command.id, False, reason)
                self._limit(int(text))
                told = f"is limited to {int(text)} kbit/s" if int(text) else "is not limited"
                return CommandResult(command.id, True, f"uplink {told}")
            case "blink":
                return await self._blink(command)
            case "status":
                return CommandResult(command.id, True, rig.machine.state.value, self.status())

    async def _blink(self, command: Command) -> CommandResult:
        rig, name = self.rig, command.args.get("board", "")

        def recording() -> bool:
            return rig.machine.state is State.RECORDING

        try:
            seed, seconds = read_request(command.args)
            board = find_board(rig.devices.open, name)
            if not recording():
                raise SessionError("refused blink: nothing is being recorded", fix="start a session first")
            n = await blink(board, seed, seconds, recording)
        except SessionError as error:
            return CommandResult(command.id, False, str(error))
        return CommandResult(command.id, True, f"{name} blinked {n} times, seed {seed}")

    def _limit(self, kbit_s: int) -> None:
        self.uplink.max_bytes_s = kbit_s * BYTES_S_PER_KBIT_S or None
        self.rig.changed.set()

    async def _desired(self, payload: bytes) -> None:
        if not payload:
            self._refuse_desired("")
            return
        try:
            desired = msgspec.json.decode(payload, type=Desired)
        except NOT_JSON as error:
            self._refuse_desired(f"malformed desired state: {error}")
            return
        wanted = {k: v for k in PROVIDED if (v := getattr(desired, k)) is not None}
        try:
            self.rig.provide(**wanted)
            if desired.withdrawn is not None:
                await self.rig.withdraw(desired.withdrawn)
        except SessionError as error:
            self._refuse_desired(f"desired state {desired.version[:64]!r}: {error}")
            return
        self._refuse_desired("")
        if desired.paused is not None:
            self.uplink.paused = desired.paused
        if desired.max_kbit_s is not None:
            self._limit(desired.max_kbit_s)
        self.rig.desired_version = desired.version

    def _refuse_desired(self, why: str) -> None:
        """Leave things as they are and say why; an empty text says that there is nothing to say any more."""
        if why:
            self._inbox.refused += 1
            self.rig.say("refused", clock.now_ns(), why)
            log.warning("%s", why)
        self.rig.desired_error = why
        self.rig.changed.set()
