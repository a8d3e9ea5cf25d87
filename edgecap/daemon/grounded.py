"""A rig with nowhere to record to: it says why, in status and on every light, and tries again."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import msgspec

from edgecap import clock, topics
from edgecap.config import Config
from edgecap.daemon.devices import Devices
from edgecap.daemon.intent import Panel
from edgecap.daemon.neighbour import tell_neighbours
from edgecap.daemon.panels import Panels
from edgecap.daemon.recording import OpenSource
from edgecap.errors import SpoolError
from edgecap.host import battery_percent, temperature_c
from edgecap.model import Item
from edgecap.mqtt import Broker, Connection, Will, keep_connected
from edgecap.service import notify_systemd, watchdog_period_s
from edgecap.session.machine import LEDS, State
from edgecap.session.manifest import versions
from edgecap.source.protocol import Source
from edgecap.spool.files import nearest_existing
from edgecap.status import OFFLINE, ClockStatus, RigStatus, SpoolStatus, UplinkStatus

log = logging.getLogger("edgecap.grounded")

T = TypeVar("T")
RETRY_S = 5.0
STATUS_EVERY_S = 10.0
LEAVE_S = 2.0


class Grounded:
    """Stands in for a rig until its spool can be opened.

    Args:
        config: Names of the rig.
        sources: Its devices, which have lights.
        why: What keeps it from recording.
    """

    def __init__(self, config: Config, sources: Sequence[Source], why: SpoolError) -> None:
        self.config, self.why = config, why
        self.devices = Devices(sources, self._take, self._show)
        self.panels = Panels()
        self._seq = 0
        self._connected = self._leaving = False
        self._changed = asyncio.Event()

    async def wait(
        self,
        try_again: Callable[[], T],
        *,
        broker: Broker | None,
        panel: Callable[[], AbstractContextManager[Panel]] | None,
        stop: asyncio.Event,
    ) -> T | None:
        """Show the fault until `try_again` succeeds, whose result is returned; None when told to stop.

        Args:
            try_again: Opens the spool; raises `SpoolError` while that is not possible.
            broker: Where the status is published; None for nowhere.
            panel: Opens the rig's own light; None where it has none.
            stop: Ends the waiting.
        """
        notify_systemd("READY=1")
        async with tell_neighbours(self.config.spool.dir, self.status), asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.devices.run(), name="devices")]
            if panel is not None:
                tasks.append(group.create_task(self.panels.keep(panel, self._panel_trouble), name="panel"))
            if broker is not None:
                tasks.append(group.create_task(self._report(broker), name="report"))
            group.create_task(self._feed_watchdog(tasks), name="watchdog")
            self._show()
            found = await self._retry(try_again, stop)
            if found is None and self._connected:
                self._leaving = True
                self._changed.set()
                await asyncio.wait(tasks[-1:], timeout=LEAVE_S)
            for task in tasks:
                task.cancel()
        return found

    async def _retry(self, try_again: Callable[[], T], stop: asyncio.Event) -> T | None:
        while not stop.is_set():
            try:
                async with asyncio.timeout(RETRY_S):
                    await stop.wait()
            except TimeoutError:
                pass
            else:
                return None
            try:
                return await asyncio.to_thread(try_again)  # recovering a large spool takes a while
            except SpoolError as error:
                if str(error) != str(self.why):
                    log.error("%s", error)
                    self.why = error
                    self._changed.set()
        return None

    async def _feed_watchdog(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        while not tasks[0].done():
            notify_systemd(f"WATCHDOG=1\nSTATUS=fault: {self.why.what}")
            await asyncio.wait(tasks[:1], timeout=watchdog_period_s())

    async def _take(self, source: OpenSource, item: Item) -> None:
        """Nothing can be done with samples or buttons: there is nowhere to write."""

    def _panel_trouble(self, problem: str) -> None:
        if problem:
            log.error("%s", problem)
        self._show()

    def _show(self) -> None:
        self.panels.follow(State.FAULT, LEDS["fault"], self.devices.open)
        self._changed.set()

    async def _report(self, broker: Broker) -> None:
        site, rig = self.config.site, self.config.rig
        name = topics.topic(site, rig, topics.STATUS)

        async def publish(connection: Connection) -> None:
            while True:
                self._changed.clear()
                payload = OFFLINE if self._leaving else msgspec.json.encode(self.status())
                await connection.publish(name, payload, qos=topics.STATUS.qos, retain=topics.STATUS.retain)
                if self._leaving:
                    return
                self._seq += 1
                try:
                    async with asyncio.timeout(STATUS_EVERY_S):
                        await self._changed.wait()
                except TimeoutError:
                    pass

        will = Will(name, OFFLINE, topics.STATUS.qos, topics.STATUS.retain)
        await keep_connected(
            broker,
            publish,
            client_id=f"edgecap-{site}-{rig}",
            will=will,
            on_state=self._on_state,
        )

    def _on_state(self, connected: bool, reason: str) -> None:
        self._connected = connected
        if reason:
            log.warning("%s", reason)

    def status(self) -> RigStatus:
        """The rig as it is now: in fault, with nothing to count."""
        pair = clock.read_pair()
        session = self.config.session
        return RigStatus(
            state=State.FAULT.value,
            led=LEDS["fault"].name,
            fault=str(self.why),
            session="",
            session_s=0.0,
            task=session.task,
            operator=session.operator,
            boot=clock.boot_id(),
            seq=self._seq,
            t_ns=pair.raw_ns,
            utc_ns=pair.realtime_ns,
            streams=[],
            devices={s.name: s.statistics() for s in self.devices.open},
            spool=SpoolStatus(0, 0, self._free_bytes(), 0, None, 0.0),
            uplink=UplinkStatus(self._connected, True, 0, 0, 0, 0, 0, self.why.what, 0.0, 0.0),
            clock=ClockStatus(pair.ntp_synced, pair.ntp_max_error_us),
            battery_percent=battery_percent(),
            temperature_c=temperature_c(),
            versions=versions(),
            counters={},
            problems={"spool": str(self.why), **self.devices.problems(pair.raw_ns)},
        )

    def _free_bytes(self) -> int:
        """Free space where the spool would be."""
        try:
            return shutil.disk_usage(nearest_existing(Path(self.config.spool.dir))).free
        except OSError:
            return 0
