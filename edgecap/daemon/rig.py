"""One rig at work: sources feed the running session; button, commands and faults move the state machine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecap import clock, memory
from edgecap.config import Config
from edgecap.daemon.buttons import Buttons
from edgecap.daemon.condition import Condition
from edgecap.daemon.devices import Devices
from edgecap.daemon.health import LoopLag
from edgecap.daemon.intent import Counters, Intent, Panel, RigEvent
from edgecap.daemon.latecomers import Latecomers
from edgecap.daemon.panels import Panels
from edgecap.daemon.pulse import Pulse
from edgecap.daemon.recording import SESSION_EVENTS, OpenSource, start_sources, stop_sources
from edgecap.daemon.room import RoomMeter, require_room
from edgecap.daemon.running_session import RunningSession
from edgecap.daemon.terms import Terms
from edgecap.errors import EdgecapError, SessionError
from edgecap.model import ClockPair, DeviceEvent, Gap, Item, Mark, StreamInfo, loss_in_words
from edgecap.session.machine import Action, Gesture, Led, Machine, State
from edgecap.session.manifest import Outcome, Provenance
from edgecap.session.recorder import Recorder
from edgecap.source.protocol import Source
from edgecap.spool.writer import SpoolWriter
from edgecap.status import CommandResult

log = logging.getLogger("edgecap.rig")

MAX_INTENTS = 64
DEVICES = "devices"
"""Whose intents follow from which devices work."""


class Rig:
    """Holds the devices and at most one session.

    Args:
        config: Names, provenance, chunking.
        sources: Sensors and cameras, in any order; streams of kind `video` make a source a camera.
        writer: The spool.
        panels: Lights to keep in step with the state.
        pulse: Sign of life for whoever comes after a crash.
    """

    def __init__(
        self,
        config: Config,
        *,
        sources: Sequence[Source],
        writer: SpoolWriter,
        panels: Sequence[Panel] = (),
        pulse: Pulse | None = None,
    ) -> None:
        self.config = config
        self.machine = Machine()
        self.counters = Counters()
        provenance = Provenance(**msgspec.structs.asdict(config.session))
        self.terms = Terms(provenance, Path(config.spool.dir))
        self.desired_version = ""
        self.desired_error = ""
        self.pair: ClockPair = clock.read_pair()
        self.events: asyncio.Queue[RigEvent] = asyncio.Queue(256)
        self.changed = asyncio.Event()
        self.writer = writer
        self.lag = LoopLag()
        self.room = RoomMeter()
        self.pulse = pulse or Pulse(Path(config.spool.dir))
        self.session = RunningSession(config, writer, self.pulse)
        self.devices = Devices(sources, self._take, self._devices_changed)
        self.condition = Condition(self.devices, self.session, writer.spool)
        self.panels = Panels(panels)
        self.buttons = Buttons()
        self._intents: asyncio.Queue[Intent] = asyncio.Queue(MAX_INTENTS)
        self._latecomers = Latecomers(self.records, lambda: self.devices.open)
        self._stopping = asyncio.Event()
        self._ready = asyncio.Event()
        self._deviceless = False
        """In FAULT because no device works; it ends when one does."""

    # ── from outside ────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Serve until `shut_down`; devices that are missing are tried again all the while."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.devices.run(), name="devices"),
                    group.create_task(self.buttons.run(self._gesture), name="gestures"),
                    group.create_task(self._every_second(), name="every second"),
                    group.create_task(self._latecomers.run(), name="latecomers"),
                    group.create_task(self.lag.run(), name="loop lag"),
                    group.create_task(self.pulse.run(), name="pulse"),
                    group.create_task(self._control(), name="control"),
                ]
                await self.devices.all_tried()
                self._ready.set()
                await self._stopping.wait()
                if self.machine.state in (State.RECORDING, State.DRAINING):
                    # Intents are obeyed one by one: this one is answered when a drain has ended, too.
                    await self.ask(
                        Intent("stop", "shutdown", clock.now_ns(), reason="the daemon was stopped")
                    )
                for task in tasks:
                    task.cancel()
        finally:
            self.session.shut_down()

    async def ready(self) -> None:
        """Wait until every device is open or known to be missing."""
        await self._ready.wait()

    def shut_down(self) -> None:
        """Ask for a clean end: a running session is closed first."""
        self._stopping.set()

    def provide(self, **parts: Any) -> None:
        """Set the provenance of the sessions to come; raises `SessionError`."""
        self.terms.provide(**parts)
        self._refresh()

    async def withdraw(self, names: Sequence[str]) -> None:
        """Record nothing for these consents and workers; raises `SessionError` if it cannot be kept."""
        try:
            if await self.terms.withdraw(names):
                self.say("withdrawn", clock.now_ns(), f"{len(names)} consents or workers are withdrawn")
        finally:
            self._refresh()

    async def ask(self, intent: Intent) -> CommandResult:
        """Hand over an intent and wait for what became of it."""
        intent.reply = asyncio.get_running_loop().create_future()
        await self._intents.put(intent)
        return await intent.reply

    def advancing(self, now_ns: int) -> bool:
        """Whether the watchdog may be fed: idle, or blocks came lately."""
        return self.machine.state is not State.RECORDING or self.devices.advancing(now_ns)

    @property
    def recorder(self) -> Recorder | None:
        """What takes in the running session, if there is one."""
        return self.session.recorder

    def records(self) -> bool:
        """Whether a session runs that takes in what comes."""
        return self.machine.state is State.RECORDING

    def note_part(self, name: str, problem: str) -> None:
        """Tell of a part of the rig that does not work, or (empty) that it does."""
        if self.condition.note_part(name, problem):
            log.error("%s", problem)
            self.say("fault", clock.now_ns(), problem, device=name)
        self._refresh()

    # ── sources ─────────────────────────────────────────────────────────────────────────────────────

    async def _take(self, source: OpenSource, item: Item) -> None:
        """Carry one item of a source into the running session."""
        if isinstance(item, DeviceEvent):
            await self._device_event(source, item)
            return
        source.saw(item)
        if self.recorder is None:
            return
        if isinstance(item, Gap):
            self.counters.gaps += 1
            text = f"{item.stream}: {loss_in_words(1, item.lost, item.cause)}"
            self.say("gap", item.t0_ns, text, lost=item.lost, t1_ns=item.t1_ns, cause=item.cause)
        try:
            await self.recorder.add(item)
        except EdgecapError as error:
            await self._fail(str(error))

    def _devices_changed(self) -> None:
        """A device came, went or told of a fault."""
        if not self.devices.working and self.machine.state is State.IDLE:
            reason = "no device works: " + "; ".join(self.devices.problems(clock.now_ns()).values())
            self._intend(Intent("failed", DEVICES, clock.now_ns(), reason=reason))
        elif self.devices.working and self._deviceless:
            self._intend(Intent("mended", DEVICES, clock.now_ns(), reason="a device works again"))
        self._refresh()

    def _intend(self, intent: Intent) -> None:
        """Hand over an intent of the daemon's own; one that finds no room is formed again within a second."""
        if not self._intents.full():
            self._intents.put_nowait(intent)

    async def _device_event(self, source: OpenSource, event: DeviceEvent) -> None:
        if event.kind in ("button-down", "button-up"):
            down = event.kind == "button-down"
            self.buttons.edge(down=down, t_ns=event.t_ns, by=source, told_ns=source.told_ns)
            return
        if event.kind in ("disconnected", "reset") and self.buttons.gone(source):
            cut = f"refused press: {event.device} was lost while its button was down; press again"
            self.say("refused", event.t_ns, cut, device=event.device)
            log.warning("%s", cut)
        if event.kind == "stopped":
            source.live.stopped.set()
            return
        if event.kind in SESSION_EVENTS and (event.text or event.kind != "connected"):
            self.counters.source_faults += event.kind in ("fault", "disconnected", "reset")
            self.say(
                event.kind, event.t_ns, f"{event.device}: {event.text or event.kind}", device=event.device
            )
        if self.recorder is not None:
            self.recorder.event(event)
            if event.kind in ("connected", "reset"):
                for info in source.feed.info:
                    self.recorder.add_stream(event.t_ns, info)
                if not source.started:
                    self._latecomers.add(source)
        bad = event.kind in ("fault", "disconnected")
        text = f": {event.text}" if event.text else ""
        log.log(logging.WARNING if bad else logging.INFO, "%s %s%s", event.device, event.kind, text)

    # ── control ─────────────────────────────────────────────────────────────────────────────────────

    async def _gesture(self, kind: Gesture, t_ns: int) -> None:
        event = self.machine.event_for(kind)
        self.say("button", t_ns, kind)
        log.info("button: %s", kind)
        if event is not None:
            mark = Mark(t_ns, "went-wrong") if event == "mark" else None
            await self._intents.put(Intent(event, "button", t_ns, mark))

    async def _control(self) -> None:
        """Obey intents one after the other; the only place where the state changes."""
        while True:
            intent = await self._intents.get()
            try:
                message = await self._obey(intent)
                result = CommandResult(intent.id, self.machine.state is not State.FAULT, message)
            except EdgecapError as error:
                result = CommandResult(intent.id, False, str(error))
                self.say("refused", intent.t_ns, str(error))
                log.warning("%s", error)
            except Exception as error:
                # The boundary of a session: whatever broke, show FAULT, keep what there is and stay alive.
                log.exception("session failed")
                await self._abandon(f"{type(error).__name__}: {error}")
                result = CommandResult(intent.id, False, self.machine.fault)
            if intent.reply is not None and not intent.reply.done():
                intent.reply.set_result(result)
            self._refresh()

    async def _obey(self, intent: Intent) -> str:
        if intent.by == DEVICES:
            # What the devices are may have changed while it waited.
            if self.devices.working == (intent.event == "failed") or self.machine.state is not (
                State.IDLE if intent.event == "failed" else State.FAULT
            ):
                return self.machine.state.value
            self._deviceless = intent.event == "failed"
            self.say("fault" if self._deviceless else "mended", intent.t_ns, intent.reason)
        if intent.event == "start":
            await self._check_start(intent)
            self._deviceless = False
        action = self.machine.handle(intent.event, intent.reason)
        self._refresh()
        if action is Action.OPEN:
            try:
                await self._open_session(intent)
            except EdgecapError as error:
                # No manifest, no session: the rig must not look as if it recorded.
                if self.machine.state is State.RECORDING:
                    await self._abandon(str(error))
                raise
            return f"recording {self.session.last}"
        if action in (Action.CLOSE, Action.CLOSE_DISCARDED):
            stopped: Outcome = "interrupted" if intent.event == "failed" else "complete"
            discarded = action is Action.CLOSE_DISCARDED
            return await self._close_session("discarded" if discarded else stopped, intent.reason)
        if action is Action.MARK and self.recorder is not None and intent.mark is not None:
            self.recorder.mark(intent.mark)
            self.say("mark", intent.mark.t_ns, intent.mark.kind, note=intent.mark.text, by=intent.by)
            return f"marked {intent.mark.kind}"
        return self.machine.state.value

    async def _check_start(self, intent: Intent) -> None:
        if intent.provenance is not None:
            self.provide(**msgspec.structs.asdict(intent.provenance))
        if intent.task:
            self.provide(task=intent.task)
        self.terms.require()
        if not self.devices.working:
            problems = "; ".join(self.devices.problems(clock.now_ns()).values())
            raise SessionError(f"refused start: no device works: {problems}")
        require_room(self.writer.spool.stats(), self.config.spool.dir)
        await self.session.close_earlier()
        self.terms.require()  # it may have been withdrawn meanwhile

    async def _open_session(self, intent: Intent) -> None:
        pair = self.pair = clock.read_pair()
        infos: list[StreamInfo] = [i for s in self.devices.open for i in s.feed.info]
        # The devices are started once the manifest is on the medium.
        recorder = await self.session.open(pair, self.terms.provenance, infos, intent.continued)
        for device in self.devices.open:  # one may have come while the manifest was written
            for info in device.feed.info:
                recorder.add_stream(pair.raw_ns, info)
        self.say("start", pair.raw_ns, self.session.last, task=self.terms.provenance.task, by=intent.by)
        log.info("recording %s: %s", self.session.last, self.terms.provenance.task)
        problems = await start_sources(self.devices.open)
        for problem in problems:
            self.counters.source_faults += 1
            self.say("fault", clock.now_ns(), str(problem))
            log.error("%s", problem)
        if self.devices.open and len(problems) == len(self.devices.open):
            await self._abandon("no source could be started: " + "; ".join(map(str, problems)))
            raise SessionError(self.machine.fault)
        for device in self.devices.open:
            self._latecomers.add_later(device)

    async def _close_session(self, outcome: Outcome, reason: str) -> str:
        session, why = self.session.last, reason
        self.session.ending()
        sent = await stop_sources(self.devices.open)
        self.pair = clock.read_pair()
        recorder, outcome = await self.session.close(self.pair, outcome, sent, reason)
        if recorder.failure is not None:
            why = str(recorder.failure)
            self.counters.sessions_failed += 1
            self.machine.handle("failed", why)
            self.say("fault", clock.now_ns(), why, session=session)
        elif self.machine.state is State.DRAINING:
            self.machine.handle("drained")
        told = {"outcome": outcome, "samples": recorder.samples()}
        self.say("stop", self.pair.raw_ns, session, session=session, **told)
        log.info("%s %s", outcome, session)
        await asyncio.to_thread(memory.give_back)
        what = f"{'saved' if outcome == 'complete' else outcome} {session}"
        return f"{what}: {why}" if why and self.machine.state is State.FAULT else what

    async def _fail(self, reason: str) -> None:
        """A running session cannot go on: close what there is and show it."""
        if self.machine.state is State.RECORDING:
            await self._intents.put(Intent("failed", "daemon", clock.now_ns(), reason=reason))

    async def _abandon(self, reason: str) -> None:
        """Give up a session that cannot be closed in order; its chunks stay in the spool."""
        self.counters.sessions_failed += 1
        self.machine.handle("failed", reason)
        session, recorder = self.session.running, self.session.let_go()
        sent = await stop_sources(self.devices.open)
        self.say("fault", clock.now_ns(), reason, session=session)
        await self.session.give_up(recorder, sent, reason)

    # ── every second ────────────────────────────────────────────────────────────────────────────────

    async def _every_second(self) -> None:
        while True:
            self.pair = clock.read_pair()
            try:
                await self.session.tick(self.pair)
            except EdgecapError as error:
                await self._fail(str(error))
            stats = self.writer.spool.stats()
            if self.recorder is not None and stats.free_bytes <= stats.reserve_bytes:
                await self._stop_for_space(stats.free_bytes)
            if self.records() and (why := self.terms.problem(self.session.provenance)):
                self._intend(Intent("stop", "desired", clock.now_ns(), reason=why))
            self.room.note(self.pair.raw_ns, stats, recording=self.machine.state is State.RECORDING)
            self._devices_changed()
            # Aim at whole seconds, so that a slow round does not shift the later ones.
            await asyncio.sleep(1 - time.monotonic() % 1)

    async def _stop_for_space(self, free_bytes: int) -> None:
        if self.machine.state is State.RECORDING:
            reason = f"{self.config.spool.dir} is down to its reserve ({free_bytes / 1e6:.0f} MB free)"
            self.say("low-disk", clock.now_ns(), reason)
            log.error("the session is closed: %s", reason)
            await self._intents.put(Intent("stop", "disk", clock.now_ns(), reason=reason))

    def _refresh(self) -> None:
        """Bring the lights in step, and wake whoever publishes the status."""
        self.panels.follow(self.machine.state, self.led(), self.devices.open)
        self.changed.set()

    def led(self) -> Led:
        """What the light shows now."""
        return self.condition.led(self.machine.state, consent=self.terms.allow)

    def say(self, kind: str, t_ns: int, text: str, **fields: Any) -> None:
        """Queue an event for the fleet; the oldest is dropped, and counted, when nobody takes them.

        It belongs to the session that runs, or to `session` where that is named among the fields.
        """
        if self.events.full():
            self.events.get_nowait()
            self.counters.events_dropped += 1
        session = str(fields.pop("session", self.session.running))
        self.events.put_nowait(RigEvent(kind, t_ns, text, session, fields))
