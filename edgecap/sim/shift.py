"""A working day in fast time: sessions begin and end, Wi-Fi comes and goes, and the rig must not grow.

Board firmware, daemon (with its camera's process) and ingest are the real programs, in fast time; broker,
network namespace and kernel live in real time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgecap import topics
from edgecap.errors import EdgecapError
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.store import open_store
from edgecap.mqtt import Broker, Connection, keep_connected, parse_broker
from edgecap.sim.broker import HeldPort, LoopbackBroker
from edgecap.sim.fast_time import FastTime
from edgecap.sim.firmware import HostFirmware, recorded_stream
from edgecap.sim.firmware_build import build_firmware
from edgecap.sim.footprint import Footprint, disk_bytes
from edgecap.sim.forge import Forge
from edgecap.sim.partition import CUTS, Cable
from edgecap.sim.recordings import RECORDINGS
from edgecap.status import Command, RigStatus

SITE, RIG = "shift", "rig-01"
REPLAYS = {"tactile": "anyskin", "wrench": "smartwheel-forces", "gyro": "gopro-gyro"}
PATIENCE_S = 240.0
"""Real seconds after which what has not happened never will."""
PRESSES, PRESS_AGAIN_S = 5, 60.0
"""A session is closed at once; closing takes seconds at most."""
OLD_NEWS_S = 40.0
"""A rig that is connected tells its status every ten seconds."""
HOUR_S = 3600.0


class ShiftError(EdgecapError):
    """A program ended, or did not do what it was asked for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All times are the rig's."""

    seed: int = 1
    speed: int = 12
    hours: int = 8
    hour_s: float = HOUR_S
    """What counts as an hour; the day scales with it."""
    session_s: tuple[float, float] = (60.0, 420.0)
    pause_s: tuple[float, float] = (10.0, 90.0)
    away: tuple[tuple[float, float], ...] = ((2.1, 4.6),)
    """Hours without any Wi-Fi, besides those that come and go."""
    camera: bool = True
    settle_s: float = 400.0
    """Rest before the rig is measured: ingest lets go of sessions that were idle for 300 s."""


class Measure(msgspec.Struct, frozen=True):
    """One look at the programs; bytes, of files as the file system counts them."""

    hour: float
    sessions: int
    rested: bool
    """Nothing is recorded, everything is delivered: measures at rest can be compared."""
    spool_chunks: int
    """As the rig last said; while Wi-Fi is away that is old news."""
    disk_bytes: int
    rig_rss: int
    rig_fds: int
    rig_threads: int
    camera_rss: int
    ingest_rss: int
    ingest_fds: int
    ingest_threads: int


class Outcome(msgspec.Struct):
    """What a day came to."""

    seconds: float
    sessions: int
    cuts: dict[str, int]
    away_hours: float
    most_disk_bytes: int
    chunks: int
    samples: int
    measures: list[Measure]
    violations: list[str]


class Shift:
    """One day; `await Shift(plan, out).run()`.

    Args:
        plan: What happens.
        out: Empty directory for spool, store and logs.
        tell: Called with each measure as it is made.
    """

    def __init__(self, plan: Plan, out: Path, tell: Callable[[Measure], None] = lambda m: None) -> None:
        self.plan, self.out, self.tell = plan, out, tell
        self.violations: list[str] = []
        self.measures: list[Measure] = []
        self._random = random.Random(plan.seed)
        self._cuts: dict[str, int] = {}
        self._away_s = 0.0
        self._most_disk = 0
        self._sessions = 0
        self._status: RigStatus | None = None
        self._link: Connection | None = None
        self._recording, self._cutting = asyncio.Lock(), asyncio.Lock()
        """Held by a session, and by a cut; both are held off while the rig comes to rest."""
        self._log_at = 0
        self._log_tail = ""

    async def run(self) -> Outcome:
        """Set up, live through the day, measure, and look for every session in the store."""
        started = time.monotonic()
        async with AsyncExitStack() as stack:
            await self._set_up(stack)
            # Starting takes a processor as long as ever: time hurries once everything stands.
            self._fast.speed = self.plan.speed
            self._begin_s = self._now_s()
            async with asyncio.TaskGroup() as group:
                around = [
                    group.create_task(self._come_and_go(), name="wi-fi"),
                    group.create_task(self._watch_disk(), name="disk"),
                    group.create_task(self._ask(), name="commands"),
                    group.create_task(self._listen(), name="listen"),
                ]
                work = group.create_task(self._work(), name="work")
                for hour in range(1, self.plan.hours + 1):
                    await self._until(hour)
                    await self._measure(hour, self.plan.hours)
                work.cancel()
                for task in around:
                    task.cancel()
            self._fast.speed = 1
            for what, process in (("the daemon", self._daemon), ("ingest", self._ingest)):
                if not await process.stop(PATIENCE_S):
                    self.violations.append(f"{what} did not end when asked to: {process.last_words()}")
        chunks, samples = await asyncio.to_thread(self._verify)
        return Outcome(
            seconds=round(time.monotonic() - started, 1),
            sessions=self._sessions,
            cuts=dict(sorted(self._cuts.items())),
            away_hours=round(self._away_s / self.plan.hour_s, 2),
            most_disk_bytes=self._most_disk,
            chunks=chunks,
            samples=samples,
            measures=self.measures,
            violations=self.violations,
        )

    async def _set_up(self, stack: AsyncExitStack) -> None:
        binary = await asyncio.to_thread(build_firmware)
        self._fast = stack.enter_context(FastTime(self.out))
        forge = Forge(self._fast.environ())
        await asyncio.to_thread(stack.enter_context, forge)
        self._cable = stack.enter_context(Cable(0))
        port = HeldPort().number  # on the cable, where nobody else asks for ports
        self._broker = LoopbackBroker(
            self.out / "broker", program="mosquitto", options=f"listener {port} {self._cable.near}"
        )
        await asyncio.to_thread(self._broker.start)
        stack.callback(self._broker.stop)
        self._board = await stack.enter_async_context(
            HostFirmware(
                [recorded_stream(RECORDINGS[found], name=name) for name, found in REPLAYS.items()],
                link=self.out / "tty-glove",
                serial_number="glove",
                skew_ppm=20.0,
                seed=self.plan.seed,
                binary=self._fast.starter(binary, self.out / "firmware"),
            )
        )
        config = self.out / "rig.toml"
        config.write_text(
            f'site = "{SITE}"\nrig = "{RIG}"\n'
            '[session]\ntask = "fold a towel"\noperator = "op-1"\nconsent = "c-1"\n'
            f'[broker]\nurl = "mqtt://{self._cable.near}:{port}"\n'
            f'[spool]\ndir = "{self.out}/spool"\nreserve_mb = 16\nsegment_mb = 1\n'
            f'[[serial]]\nname = "glove"\nport = "{self._board.port}"\n'
            + (
                '[[camera]]\nname = "head"\nbackend = "synthetic"\nwidth = 128\nheight = 64\nfps = 5\n'
                "bitrate_kbps = 60\n"
                if self.plan.camera
                else ""
            )
        )
        self._ingest = forge.start(
            ["ingest", "--store", str(self.out / "store"), "--broker", self._broker.url, "--worker", "a"],
            self.out / "ingest.log",
            fresh=True,
        )
        self._daemon = forge.start(
            ["run", "--config", str(config)],
            self.out / "daemon.log",
            namespace=self._cable.path,
            fresh=True,
        )
        if not await self._said("ready:"):
            raise ShiftError(f"the daemon is not ready: {self._daemon.last_words()}")

    # ── what happens ────────────────────────────────────────────────────────────────────────────────

    def _now_s(self) -> float:
        return self._fast.now_ns() / 1e9

    @property
    def _hour(self) -> float:
        return (self._now_s() - self._begin_s) / self.plan.hour_s

    async def _sleep(self, fast_s: float) -> None:
        await asyncio.sleep(fast_s / self.plan.speed)

    async def _until(self, hour: float) -> None:
        await self._sleep(max(0.0, hour - self._hour) * self.plan.hour_s)

    async def _work(self) -> None:
        """Session after session, by the board's button."""
        while True:
            async with self._recording:
                await self._press("recording ")
                await self._sleep(self._random.uniform(*self.plan.session_s))
                await self._press("complete ")
                self._sessions += 1
            await self._sleep(self._random.uniform(*self.plan.pause_s))

    async def _press(self, until: str) -> None:
        """Press the button, and again where nothing comes of it, as a worker does."""
        for _ in range(PRESSES):
            await self._board.press(120)
            if await self._said(until, at_most_s=PRESS_AGAIN_S / self._fast.speed):
                return
        raise ShiftError(
            f"{PRESSES} presses did not make the daemon say {until!r}: {self._daemon.last_words()}"
        )

    async def _come_and_go(self) -> None:
        """Cuts of every kind for seconds to many minutes, and the long ones that the plan names."""
        rng, hour_s = random.Random(f"{self.plan.seed}/wi-fi"), self.plan.hour_s
        number = 0
        while True:
            seconds = rng.choice((rng.uniform(0.001, 0.01), rng.uniform(0.005, 0.05))) * hour_s
            await self._sleep(rng.uniform(0.005, 0.1) * hour_s)
            for begin, end in self.plan.away:
                if begin <= self._hour < end:
                    seconds = (end - self._hour) * hour_s
            how = CUTS[number % len(CUTS)]
            number += 1
            async with self._cutting:
                await asyncio.to_thread(self._cable.cut, how)
                self._cuts[how] = self._cuts.get(how, 0) + 1
                at_s = self._now_s()
                try:
                    await self._sleep(seconds)
                finally:
                    await asyncio.to_thread(self._cable.heal)
                self._away_s += self._now_s() - at_s

    async def _ask(self) -> None:
        """Be an operator who asks and marks now and then."""
        rng = random.Random(f"{self.plan.seed}/operator")
        number = 0
        while True:
            await self._sleep(rng.uniform(5, 60))
            if self._link is None:
                continue
            number += 1
            command = Command(f"c-{number}", rng.choice(("status", "mark")))
            await self._link.publish(topics.topic(SITE, RIG, topics.CMD), msgspec.json.encode(command), qos=1)

    async def _listen(self) -> None:
        """Follow the rig's status, as a fleet page does."""
        broker: Broker = parse_broker(self._broker.url)
        status = topics.topic(SITE, RIG, topics.STATUS)

        async def follow(connection: Connection) -> None:
            self._link = connection
            async for message in connection.messages():
                try:
                    self._status = msgspec.json.decode(message.payload, type=RigStatus)
                except msgspec.ValidationError:
                    self._status = None  # the will: offline

        await keep_connected(broker, follow, client_id="fleet", subscribe=[status])

    async def _watch_disk(self) -> None:
        while True:
            self._most_disk = max(self._most_disk, disk_bytes(self.out / "spool"))
            await asyncio.sleep(1)

    # ── looking ─────────────────────────────────────────────────────────────────────────────────────

    async def _said(self, word: str, at_most_s: float = PATIENCE_S) -> bool:
        """Wait until the daemon has logged `word` since the last time it was waited for; whether it did."""
        deadline = time.monotonic() + at_most_s
        log = self.out / "daemon.log"
        while True:
            if log.exists():
                with log.open(errors="replace") as file:
                    file.seek(self._log_at)
                    self._log_tail += file.read()
                    self._log_at = file.tell()
            found = self._log_tail.find(word)
            if found >= 0:
                self._log_tail = self._log_tail[found + len(word) :]
                return True
            self._check_alive()
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.005)

    def _check_alive(self) -> None:
        for what, process in (("the daemon", self._daemon), ("ingest", self._ingest)):
            if not process.is_alive:
                raise ShiftError(f"{what} ended by itself: {process.last_words()}", fix=f"see {process.log}")

    async def _measure(self, hour: int, last: int) -> None:
        """Look at the programs; after the first hour, at the end, and whenever that is possible, at rest."""
        self._check_alive()
        away = any(begin <= hour < end for begin, end in self.plan.away)
        if away:
            self._note(hour, rested=False)
            return
        async with self._recording, self._cutting:
            deadline = time.monotonic() + PATIENCE_S
            quiet_since = self._now_s()
            while self._now_s() - quiet_since < self.plan.settle_s:
                status = self._status
                if (
                    status is None
                    or status.state != "idle"
                    or status.spool.chunks > 0
                    or status.t_ns / 1e9 < self._now_s() - OLD_NEWS_S
                ):
                    quiet_since = self._now_s()
                if time.monotonic() > deadline:
                    self.violations.append(f"hour {hour}: the rig did not come to rest: {status}")
                    break
                await asyncio.sleep(0.02)
            self._note(hour, rested=True)

    def _note(self, hour: int, *, rested: bool) -> None:
        rig, ingest = Footprint(self._daemon.pid), Footprint(self._ingest.pid)
        children = [Footprint(pid).rss_bytes() for pid in rig.descendants()]
        measure = Measure(
            hour=hour,
            sessions=self._sessions,
            rested=rested,
            spool_chunks=self._status.spool.chunks if self._status is not None else -1,
            disk_bytes=disk_bytes(self.out / "spool"),
            rig_rss=rig.rss_bytes(),
            rig_fds=rig.fds(),
            rig_threads=rig.threads(),
            camera_rss=sum(children),
            ingest_rss=ingest.rss_bytes(),
            ingest_fds=ingest.fds(),
            ingest_threads=ingest.threads(),
        )
        self.measures.append(measure)
        self.tell(measure)

    def _verify(self) -> tuple[int, int]:
        """Every session must be whole; returns chunks and samples."""
        store = open_store(str(self.out / "store"))
        chunks = samples = 0
        try:
            keys = store.sessions()
            if len(keys) < self._sessions:
                self.violations.append(f"{self._sessions} sessions were recorded, {len(keys)} are stored")
            for key in keys:
                report = verify_session(store, key)
                if not report.complete:
                    self.violations.append(f"{key.session} is not whole: {'; '.join(report.problems)}")
                for stream in report.streams:
                    chunks += stream.chunks
                    samples += stream.samples
        finally:
            store.close()
        kept = sorted(p.name for p in (self.out / "spool" / "quarantine").glob("*"))
        if kept:
            self.violations.append(f"the rig has set aside {', '.join(kept[:5])}")
        return chunks, samples
