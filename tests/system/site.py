"""A whole site for tests: real broker, real firmware on ptys, daemon and ingest as processes of their own."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from edgecap import topics
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.session_report import SessionReport
from edgecap.ingest.store import SessionKey, open_store
from edgecap.mqtt import Message, connect, parse_broker
from edgecap.sim.broker import LoopbackBroker
from edgecap.sim.demo import Part, run_part
from edgecap.sim.firmware import FirmwareStream, HostFirmware

SITE, RIG = "lab", "rig-01"
PATIENCE_S = 30.0


class Site:
    """`async with Site(tmp_path) as site`; parts are started by the test as it needs them."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.store = out / "store"
        self.broker = LoopbackBroker(out, program="mosquitto")
        self.devices: dict[str, HostFirmware] = {}
        self.status: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self._stack = AsyncExitStack()
        self._sections = ""
        self._watch: asyncio.Task[None] | None = None
        self.daemon: Part | None = None

    async def __aenter__(self) -> Site:
        await asyncio.to_thread(self.broker.start)
        self._stack.callback(self.broker.stop)
        link = await self._stack.enter_async_context(
            connect(
                parse_broker(self.broker.url),
                client_id="test",
                subscribe=[
                    topics.topic(SITE, RIG, c) for c in (topics.STATUS, topics.EVENT, topics.CMD_RESULT)
                ],
            )
        )
        self.link = link

        async def watch() -> None:
            async for message in link.messages():
                self._see(message)

        self._watch = asyncio.create_task(watch(), name="watch")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watch is not None
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._stack.aclose()

    def _see(self, message: Message) -> None:
        suffix = topics.parse(message.topic).suffix
        body = json.loads(message.payload)
        if suffix == "status":
            self.status = body
        elif suffix == "event":
            self.events.append(body)
        else:
            self.answers.append(body)

    async def add_device(self, name: str, streams: Sequence[FirmwareStream], **options: Any) -> HostFirmware:
        """A board on a pty, configured as `[[serial]]`."""
        device = HostFirmware(
            streams,
            link=self.out / f"tty-{name}",
            truth=self.out / f"truth-{name}.bin",
            serial_number=f"test-{name}",
            **options,
        )
        self.devices[name] = await self._stack.enter_async_context(device)
        self._sections += f'[[serial]]\nname = "{name}"\nport = "{device.port}"\n'
        return device

    def add_section(self, text: str) -> None:
        """Further configuration."""
        self._sections += text + "\n"

    def config(self) -> Path:
        path = self.out / "rig.toml"
        path.write_text(
            f'site = "{SITE}"\nrig = "{RIG}"\n'
            '[session]\ntask = "fold a towel"\noperator = "op-1"\nconsent = "c-1"\n'
            f'[broker]\nurl = "{self.broker.url}"\n'
            f'[spool]\ndir = "{self.out}/spool"\nreserve_mb = 16\n'
            "[uplink]\nresend_seconds = 3.0\n" + self._sections
        )
        return path

    async def start_ingest(self) -> Part:
        args = ["ingest", "--store", str(self.store), "--broker", self.broker.url]
        return await self._stack.enter_async_context(run_part("ingest", args, self.out / "ingest.log"))

    async def start_daemon(self, state: str = "idle") -> Part:
        """Start it and wait until it is connected and (by default) idle."""
        if self.daemon is not None:  # what it told at last may not have come yet
            await self.until("offline", lambda: self.status.get("state") == "offline")
        self.status = {}
        args = ["run", "--config", str(self.config())]
        part = await self._stack.enter_async_context(run_part("daemon", args, self.out / "daemon.log"))
        self.daemon = part
        await self.until(state, lambda: self.status.get("state") == state)
        return part

    async def stop_daemon(self, number: int = signal.SIGTERM) -> int:
        assert self.daemon is not None
        self.daemon.process.send_signal(number)
        return await self.daemon.process.wait()

    async def until(self, what: str, holds: Callable[[], object], at_most_s: float = PATIENCE_S) -> None:
        """Wait until something holds; fails with the daemon's last words."""
        deadline = time.monotonic() + at_most_s
        while not holds():
            log = self.out / "daemon.log"
            words = log.read_text()[-3000:] if log.exists() else ""
            if time.monotonic() > deadline:
                kinds = [e["kind"] for e in self.events]
                raise AssertionError(f"never {what}; status {self.status}; told {kinds}; daemon::\n{words}")
            if self.daemon is not None and self.daemon.process.returncode not in (None, 0, -9):
                raise AssertionError(f"the daemon ended: {words}")
            await asyncio.sleep(0.02)

    async def until_state(self, state: str) -> None:
        await self.until(state, lambda: self.status.get("state") == state)

    async def start_session(self, board: HostFirmware) -> str:
        """Press a board's button; returns the id of the session once it is recorded."""
        await board.press(80)
        await self.until_state("recording")
        return str(self.status["session"])

    async def samples(self, stream: str, at_least: int) -> None:
        """Wait until the firmware has produced so many samples of a stream."""
        device, _, name = stream.rpartition("-")
        deadline = time.monotonic() + PATIENCE_S
        while (await self.devices[device].totals()).get(name, 0) < at_least:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    def key(self, session: str) -> SessionKey:
        return SessionKey(SITE, RIG, session)

    def report(self, session: str) -> SessionReport | None:
        try:
            return verify_session(open_store(str(self.store)), self.key(session))
        except Exception:  # noqa: BLE001 - not there yet, or half there: the caller asks again
            return None

    async def until_complete(self, session: str) -> SessionReport:
        found: list[SessionReport] = []

        def whole() -> bool:
            report = self.report(session)
            if report is not None and report.complete:
                found.append(report)
            return bool(found)

        await self.until(f"complete: {self.report(session)}", whole)
        return found[0]
