"""A fleet of rigs under load while everything around is killed, frozen and cut off, by a seeded schedule."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgecap import topics
from edgecap.ingest.store import open_store
from edgecap.mqtt import connect, parse_broker
from edgecap.sim.accounts import Account, RigAudit
from edgecap.sim.broker import HeldPort, LoopbackBroker
from edgecap.sim.firmware_build import build_firmware
from edgecap.sim.forge import Forge, ForgedProcess
from edgecap.sim.partition import CUTS, Cable
from edgecap.sim.soak_rig import PATIENCE_S, SITE, SoakRig, UpheavalError

MOMENTS = {"starting": 2, "idle": 1, "opening": 3, "recording": 11, "closing": 3}
"""When daemons are killed, with weights."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what; the totals are over all rigs."""

    seed: int = 1
    rigs: int = 2
    kills_daemon: int = 4
    kills_broker: int = 2
    kills_ingest: int = 2
    partitions: int = 0
    session_s: float = 4.0
    """Longest recording before the kill that ends it."""
    calm_s: float = 6.0
    """Longest wait between two faults of one part."""
    fresh_share: float = 0.1
    """Daemons executed anew rather than forked."""


class Outcome(msgspec.Struct):
    """What was done, and what became of it."""

    seed: int
    seconds: float
    faults: dict[str, int]
    account: Account
    violations: list[str]

    @property
    def holds(self) -> bool:
        return not self.violations


class Upheaval:
    """One run of a plan; `await Upheaval(plan, out).run()`.

    Args:
        plan: What to do.
        out: Empty directory for store, spools, truth files and logs.
        tell: Called with a line about every fault.
    """

    def __init__(self, plan: Plan, out: Path, tell: Callable[[str], None] = lambda line: None) -> None:
        self.plan, self.out, self.tell = plan, out, tell
        self.faults: Counter[str] = Counter()
        self.violations: list[str] = []
        self.store = out / "store"
        self._stack = AsyncExitStack()
        self._forge = Forge()
        self._rigs: list[SoakRig] = []
        self._workers: dict[str, ForgedProcess] = {}
        self._started = time.monotonic()

    async def run(self) -> Outcome:
        """Set up, let the faults happen, let everything come to rest, and account for every sample."""
        async with self._stack:
            await self._set_up()
            async with asyncio.TaskGroup() as group:
                around = [group.create_task(self._kill_broker(), name="broker faults")]
                around += [group.create_task(self._kill_ingest(n), name=f"ingest faults {n}") for n in "ab"]
                for number, rig in enumerate(self._rigs):
                    if rig.cable is not None:
                        cuts = _share(self.plan.partitions, self.plan.rigs, number)
                        around.append(group.create_task(self._cut(rig, rig.cable, cuts), name="cuts"))
                for number, rig in enumerate(self._rigs):
                    kills = _share(self.plan.kills_daemon, self.plan.rigs, number)
                    group.create_task(self._live(rig, kills, around), name=rig.name)
            await self._come_to_rest()
            self.tell(f"{time.monotonic() - self._started:8.2f} s  everything has ended")
        account = await asyncio.to_thread(self.audit)
        return Outcome(
            seed=self.plan.seed,
            seconds=round(time.monotonic() - self._started, 1),
            faults=dict(sorted(self.faults.items())),
            account=account,
            violations=[*self.violations, *account.violations],
        )

    def _fault(self, kind: str, what: str) -> None:
        self.faults[kind] += 1
        self.tell(f"{time.monotonic() - self._started:8.2f} s  {kind}: {what}")

    # ── the site ────────────────────────────────────────────────────────────────────────────────────

    async def _set_up(self) -> None:
        plan = self.plan
        binary = await asyncio.to_thread(build_firmware)
        await asyncio.to_thread(self._stack.enter_context, self._forge)
        cables = [self._stack.enter_context(Cable(k)) if plan.partitions else None for k in range(plan.rigs)]
        port = HeldPort().number  # on the cables, where nobody else asks for ports
        # Listeners on the rigs' cables beside the one on loopback.
        listeners = "\n".join(f"listener {port} {cable.near}" for cable in cables if cable is not None)
        self.broker = LoopbackBroker(self.out / "broker", program="mosquitto", options=listeners)
        await asyncio.to_thread(self.broker.start)
        self._stack.callback(self.broker.stop)
        for number, cable in enumerate(cables):
            name = f"rig-{number + 1:02}"
            out = self.out / name
            out.mkdir()
            rig = SoakRig(name, out, plan.seed, cable, self._fault)
            await rig.add_boards(self._stack, number, binary)
            rig.configure(f"mqtt://{cable.near}:{port}" if cable is not None else self.broker.url)
            self._rigs.append(rig)
        for name in ("a", "b"):
            self._start_ingest(name)

    def _start_ingest(self, name: str) -> None:
        args = ["ingest", "--store", str(self.store), "--broker", self.broker.url]
        args += ["--worker", name, "--share"]
        self._workers[name] = self._forge.start(args, self.out / f"ingest-{name}.log")

    # ── faults ──────────────────────────────────────────────────────────────────────────────────────

    async def _live(self, rig: SoakRig, kills: int, around: Sequence[asyncio.Task[None]]) -> None:
        """Life after life until all kills are spent; then sessions, while there are faults around."""
        for _ in range(kills):
            moment = rig.random.choices(list(MOMENTS), list(MOMENTS.values()))[0]
            rig.start_daemon(self._forge, self.plan.fresh_share)
            await self._live_until(rig, moment)
            await rig.kill(moment)
        while not all(task.done() for task in around):
            rig.start_daemon(self._forge, self.plan.fresh_share)
            await rig.ready()
            await self._record(rig, rig.random.uniform(1, 2 * self.plan.session_s))
            if not await rig.daemon.stop():
                words = rig.daemon.last_words()
                self.violations.append(f"{rig.what} does not end when asked to: {words}")

    async def _live_until(self, rig: SoakRig, moment: str) -> None:
        """The life of a daemon up to its death, with perhaps a session in peace, or a freeze, on the way."""
        draw = rig.random
        if moment == "starting":
            await asyncio.sleep(draw.uniform(0, 0.5))
            return
        await rig.ready()
        if draw.random() < 0.2:
            await self._record(rig, draw.uniform(0.5, 2.5))
        if moment == "idle":
            await asyncio.sleep(draw.uniform(0, 1.0))
        elif moment == "opening":
            await rig.press()
            await asyncio.sleep(draw.uniform(0, 1.2))
        else:
            await rig.start_session()
            if draw.random() < 0.1:
                await asyncio.sleep(draw.uniform(0, 1.0))
                await self._freeze(rig.daemon, draw.uniform(0.3, 3.0), "freeze daemon", rig.what)
                # Only what reached the daemon can be held to the bound: let it read what waited.
                await asyncio.sleep(2.5)
            await asyncio.sleep(draw.uniform(0.0, self.plan.session_s))
        if moment == "closing":
            await rig.press()
            await asyncio.sleep(draw.uniform(0, 1.0))

    async def _record(self, rig: SoakRig, seconds: float) -> None:
        await rig.record(seconds)
        self.faults["sessions in peace"] += 1

    async def _freeze(self, process: ForgedProcess, seconds: float, kind: str, what: str) -> None:
        process.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            process.send(signal.SIGCONT)
        self._fault(kind, f"{what} for {seconds:.1f} s")

    async def _kill_broker(self) -> None:
        rng = random.Random(f"{self.plan.seed}/broker")
        for _ in range(self.plan.kills_broker):
            await asyncio.sleep(rng.uniform(0.5, self.plan.calm_s))
            if rng.random() < 0.2:
                seconds = rng.uniform(0.5, 6)
                self.broker.freeze()
                try:
                    await asyncio.sleep(seconds)
                finally:
                    self.broker.thaw()
                self._fault("freeze broker", f"for {seconds:.1f} s")
            await asyncio.to_thread(self.broker.kill)
            self._fault("kill broker", "")
            await asyncio.sleep(rng.uniform(0, 2.5))
            await asyncio.to_thread(self.broker.start)

    async def _kill_ingest(self, name: str) -> None:
        rng = random.Random(f"{self.plan.seed}/ingest-{name}")
        for _ in range(_share(self.plan.kills_ingest, len(self._workers), name == "b")):
            await asyncio.sleep(rng.uniform(0.2, self.plan.calm_s))
            worker = self._workers[name]
            if rng.random() < 0.2:
                await self._freeze(worker, rng.uniform(0.3, 4), "freeze ingest", f"worker {name}")
            if not worker.is_alive:
                raise UpheavalError(f"ingest worker {name} ended by itself: {worker.last_words()}")
            worker.send(signal.SIGKILL)
            await worker.wait()
            self._fault("kill ingest", f"worker {name}")
            await asyncio.sleep(rng.uniform(0, 2.0))
            self._start_ingest(name)

    async def _cut(self, rig: SoakRig, cable: Cable, cuts: int) -> None:
        rng = random.Random(f"{self.plan.seed}/cable-{rig.name}")
        for number in range(cuts):
            await asyncio.sleep(rng.uniform(1, self.plan.calm_s))
            how = CUTS[number % len(CUTS)] if number < len(CUTS) else rng.choice(CUTS)
            # Now and then longer than any timeout of the link.
            seconds = rng.uniform(16, 24) if rng.random() < 0.1 else rng.uniform(0.5, 7)
            await asyncio.to_thread(cable.cut, how)
            try:
                await asyncio.sleep(seconds)
            finally:
                await asyncio.to_thread(cable.heal)
            self._fault(f"partition {how}", f"{rig.name} for {seconds:.1f} s")

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────

    async def _come_to_rest(self) -> None:
        """Everything works again: one more session each must arrive, and nothing may be left on the rigs."""
        for rig in self._rigs:
            rig.start_daemon(self._forge, self.plan.fresh_share)
        for rig in self._rigs:
            await rig.ready()
            await self._record(rig, 0.5)
        async with self._statuses() as spools:
            deadline = time.monotonic() + PATIENCE_S
            left = {rig.name for rig in self._rigs}
            while left and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                left = {name for name in left if spools.get(name) != 0}
            self.tell(f"{time.monotonic() - self._started:8.2f} s  all spools are empty")
        for rig in self._rigs:
            if spools.get(rig.name) != 0:
                self.violations.append(f"{rig.name} still holds {spools.get(rig.name)} chunks")
            if not await rig.daemon.stop():
                self.violations.append(f"the last {rig.what} does not end: {rig.daemon.last_words()}")
            kept = sorted(p.name for p in (rig.out / "spool" / "quarantine").glob("*"))
            if kept:
                self.violations.append(f"{rig.name} has set aside {', '.join(kept[:5])}")
        for name, worker in self._workers.items():
            if not worker.is_alive:
                self.violations.append(f"ingest worker {name} ended by itself: {worker.last_words()}")
            await worker.stop()
        refused = sorted(p.name for p in (self.store / ".refused").glob("*"))
        if refused:
            self.violations.append(f"ingest refused {len(refused)} payloads: {', '.join(refused[:5])}")

    @asynccontextmanager
    async def _statuses(self) -> AsyncIterator[dict[str, int]]:
        """Chunks in the spool of each rig, followed on the broker."""
        spools: dict[str, int] = {}
        wanted = [topics.topic(SITE, rig.name, topics.STATUS) for rig in self._rigs]
        async with connect(parse_broker(self.broker.url), client_id="soak", subscribe=wanted) as link:

            async def follow() -> None:
                async for message in link.messages():
                    body = json.loads(message.payload)
                    if body.get("state") == "idle":
                        spools[topics.parse(message.topic).rig] = int(body["spool"]["chunks"])

            task = asyncio.create_task(follow(), name="statuses")
            try:
                yield spools
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def audit(self) -> Account:
        """Account for every sample of every rig; once all is over."""
        total = Account()
        store = open_store(str(self.store))
        for rig in self._rigs:
            total.join(RigAudit(store, SITE, rig.name, rig.truths(), rig.kills).run())
        return total


def _share(total: int, among: int, number: int) -> int:
    """The part of `total` that falls to one of several."""
    return total // among + (number < total % among)
