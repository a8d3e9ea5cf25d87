"""One rig of a soak: its boards of real firmware, its daemon of the moment, and what befell it."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from edgecap import clock
from edgecap.daemon.pulse import BEAT_S, NAME
from edgecap.errors import EdgecapError
from edgecap.sim.accounts import DeviceTruth, Kill
from edgecap.sim.firmware import FirmwareStream, HostFirmware, grasp_force, motion_imu, recorded_stream
from edgecap.sim.forge import Forge, ForgedProcess
from edgecap.sim.partition import Cable
from edgecap.sim.recordings import RECORDINGS

SITE = "soak"
PATIENCE_S = 180.0
"""A machine that others use too may be slow; what never comes is a failure, what comes late is not."""
PRESS_APART_S = 0.7
"""Two presses within the button's double window would be a mark."""
DOUBLE = "button: double"
REPLAYS = {"tactile": "anyskin", "wrench": "smartwheel-forces", "gyro": "gopro-gyro"}


class UpheavalError(EdgecapError):
    """Something did not come back, or ended without being killed."""


class SoakRig:
    """A rig whose daemon is started and killed again and again.

    Args:
        name: Of the rig.
        out: Its directory, for spool, truth files and logs.
        seed: Of the whole run; each rig draws from it independently.
        cable: That ties it to the broker, where it can be cut.
        fault: Told (kind, what) of everything worth counting.
    """

    def __init__(
        self, name: str, out: Path, seed: int, cable: Cable | None, fault: Callable[[str, str], None]
    ) -> None:
        self.name, self.out, self.cable = name, out, cable
        self.random = random.Random(f"{seed}/{name}")
        self.kills: list[Kill] = []
        self._seed, self._fault = seed, fault
        self._boards: dict[str, HostFirmware] = {}
        self._config = out / "rig.toml"
        self._daemon: ForgedProcess | None = None
        self._starts = 0
        self._pressed_s = 0.0

    async def add_boards(self, stack: AsyncExitStack, number: int, binary: Path) -> None:
        """A glove that replays recordings, and a hand with the full load of an IMU and force at 1 kHz."""
        replays = [recorded_stream(RECORDINGS[rec], name=name) for name, rec in REPLAYS.items()]
        boards: dict[str, list[FirmwareStream]] = {"glove": replays, "hand": [motion_imu(), grasp_force()]}
        for position, (name, streams) in enumerate(boards.items()):
            self._boards[name] = await stack.enter_async_context(
                HostFirmware(
                    streams,
                    link=self.out / f"tty-{name}",
                    truth=self.out / f"truth-{name}.bin",
                    serial_number=f"{self.name}-{name}",
                    skew_ppm=self.random.uniform(-80, 80),
                    start_us=self.random.randrange(2**32),
                    seed=self._seed * 1000 + number * 10 + position,
                    binary=binary,
                )
            )

    def configure(self, broker_url: str) -> None:
        """Write the daemon's configuration."""
        self._config.write_text(
            f'site = "{SITE}"\nrig = "{self.name}"\n'
            '[session]\ntask = "fold a towel"\noperator = "op-1"\nconsent = "c-1"\n'
            f'[broker]\nurl = "{broker_url}"\n'
            f'[spool]\ndir = "{self.out}/spool"\nreserve_mb = 16\nsegment_mb = 1\n'
            "[uplink]\nresend_seconds = 2.0\n"
            + "".join(f'[[serial]]\nname = "{n}"\nport = "{b.port}"\n' for n, b in self._boards.items())
        )

    def truths(self) -> list[DeviceTruth]:
        """What each board really measured."""
        replays = {name: RECORDINGS[rec] for name, rec in REPLAYS.items()}
        return [
            DeviceTruth("glove", self.out / "truth-glove.bin", replays),
            DeviceTruth("hand", self.out / "truth-hand.bin", {"imu": None, "force": None}),
        ]

    # ── the daemon ──────────────────────────────────────────────────────────────────────────────────

    @property
    def daemon(self) -> ForgedProcess:
        """The daemon started last."""
        assert self._daemon is not None
        return self._daemon

    @property
    def what(self) -> str:
        """The daemon, for messages."""
        return f"daemon {self._starts} of {self.name}"

    def start_daemon(self, forge: Forge, fresh_share: float) -> None:
        """Start a daemon; in `fresh_share` of all cases it is executed anew rather than forked."""
        self._starts += 1
        log = self.out / f"daemon-{self._starts:04}.log"
        fresh = self.random.random() < fresh_share
        namespace = self.cable.path if self.cable is not None else None
        args = ["run", "--config", str(self._config)]
        self._daemon = forge.start(args, log, namespace=namespace, fresh=fresh)

    async def ready(self) -> None:
        """Wait until the daemon has said that it is."""
        await self._said_more_often("ready:", 0)

    async def press(self) -> None:
        """Press the glove's button once."""
        await asyncio.sleep(max(0.0, self._pressed_s + PRESS_APART_S - time.monotonic()))
        await self._boards["glove"].press(80)
        self._pressed_s = time.monotonic()

    async def start_session(self) -> None:
        """Press, and wait until the daemon records."""
        await self._press_until("recording ")

    async def record(self, seconds: float) -> None:
        """A session from beginning to end."""
        await self.start_session()
        await asyncio.sleep(seconds)
        await self._press_until("complete ")

    async def kill(self, moment: str) -> None:
        """Kill the daemon, and note the earliest time at which it may have stopped working."""
        daemon = self.daemon
        if not daemon.is_alive:
            raise UpheavalError(
                f"{self.what} ended by itself: {daemon.last_words()}", fix=f"see {daemon.log}"
            )
        before_ns = clock.now_ns()
        beat_ns = self._beat_ns() if moment == "recording" else None
        if beat_ns is not None:  # one that a busy machine held up was last at work before
            before_ns = min(before_ns, beat_ns + 2 * int(BEAT_S * 1e9))
        daemon.send(signal.SIGKILL)
        await daemon.wait()
        self.kills.append(Kill(before_ns, clock.now_ns()))
        self._fault(f"kill daemon {moment}", self.what)

    def _beat_ns(self) -> int | None:
        """The last sign of life of a daemon that records; None before it has given one in this session."""
        words = (self.out / "spool" / NAME).read_text().split()
        said = self._log().rpartition("recording ")[2]
        return int(words[2]) if len(words) == 3 and said.startswith(f"{words[1]}:") else None

    def _log(self) -> str:
        log = self.daemon.log
        return log.read_text(errors="replace") if log.exists() else ""

    async def _press_until(self, word: str) -> None:
        """Press, and wait until the daemon has said `word` once more than before."""
        before, doubles = self._log().count(word), self._log().count(DOUBLE)
        await self.press()
        await self._said_more_often(word, before, doubles)

    async def _said_more_often(self, word: str, before: int, doubles: int | None = None) -> None:
        """Wait for `word` in the log; press again when a press of ours was read as a double one."""
        deadline = time.monotonic() + PATIENCE_S
        while self._log().count(word) <= before:
            if not self.daemon.is_alive:
                raise UpheavalError(
                    f"{self.what} ended by itself: {self.daemon.last_words()}", fix=f"see {self.daemon.log}"
                )
            if time.monotonic() > deadline:
                raise UpheavalError(f"{self.what} never said {word!r}: {self.daemon.last_words()}")
            if doubles is not None and self._log().count(DOUBLE) > doubles:
                doubles = self._log().count(DOUBLE)
                self._fault("press read as double", self.what)
                await self.press()
            await asyncio.sleep(0.01)
