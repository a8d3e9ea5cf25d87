"""The demo's site: broker, devices, ingest, daemon, fleet page: a process each, on this machine only."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from edgecap.errors import EdgecapError
from edgecap.mqtt import BROKER_VARIABLE
from edgecap.sim.broker import LoopbackBroker
from edgecap.sim.firmware import HostFirmware, recorded_stream
from edgecap.sim.recordings import RECORDINGS, VIDEO

SITE, RIG = "demo", "rig-01"
CAMERA = "head-cam"
DEVICES: dict[str, dict[str, str]] = {
    "head": {"accel": "gopro-accl", "gyro": "gopro-gyro"},
    "left-hand": {"tactile": "anyskin"},
    "right-hand": {"force": "smartwheel", "wrench": "smartwheel-forces"},
}
"""Serial device → its streams → the recording that each replays."""
SKEW_PPM = {"head": 38.0, "left-hand": -61.0, "right-hand": 17.0}
"""How wrong each device's oscillator is."""
STOP_S = 60.0
_PR_SET_PDEATHSIG = 1
FLEET_SAYS = "the fleet is at "


class DemoError(EdgecapError):
    """A part of the demo that ended before its time."""


def stream_recordings() -> dict[str, str]:
    """Every sample stream of the demo and the recording that it replays."""
    return {f"{device}-{name}": rec for device, streams in DEVICES.items() for name, rec in streams.items()}


@dataclass(slots=True)
class Part:
    """A program of the demo, with its log."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def check(self) -> None:
        """Raise `DemoError` with its last words when it has ended."""
        if self.process.returncode is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise DemoError(
                f"the demo's {self.name} ended with code {self.process.returncode}: {lines[-1]}",
                fix=f"see {self.log}",
            )

    async def stop(self) -> None:
        """Ask it to end; after `STOP_S` make it end."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


OF_OTHERS = (BROKER_VARIABLE, "CREDENTIALS_DIRECTORY")
"""Environment variables that may name a real site's broker: nothing of the demo may go there."""


@contextlib.asynccontextmanager
async def run_part(name: str, args: Sequence[str], log: Path) -> AsyncIterator[Part]:
    """Run `edgecap ARGS`, its words going to `log`; ended on exit.

    It gets a process group of its own, so that Ctrl-C reaches the demo alone, which ends its parts in order.
    Should the demo be killed, the part is told to end.
    """
    libc = ctypes.CDLL(None)  # loaded here: after a fork nothing may be
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edgecap",
            *args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
            env={k: v for k, v in os.environ.items() if k not in OF_OTHERS} | {"PYTHONUNBUFFERED": "1"},
        )
    part = Part(name, process, log)
    try:
        yield part
    finally:
        await part.stop()


CONFIG = """\
# Written by `edgecap demo`; `edgecap run --config` takes it as it is.
site = "{site}"
rig = "{rig}"

[session]
task = "sort the parts on the bench"
operator = "op-demo"
consent = "consent-demo"

[broker]
url = "{broker}"

[spool]
dir = "{out}/spool"
reserve_mb = 64

[uplink]
resend_seconds = 5.0    # the demo's broker may forget what nobody has subscribed to yet

[[camera]]
backend = "file"
name = "{camera}"
path = "{video}"
"""


class DemoSite:
    """Everything that the demo needs, running; use as an async context manager.

    Args:
        out: Directory for store, spool, logs and configuration.
        firmware: The host firmware's binary.
        port: Of the broker; 0 takes a free one.
    """

    def __init__(self, out: Path, firmware: Path, port: int = 0) -> None:
        self.out = out.absolute()
        self.store = self.out / "store"
        self.firmware = firmware
        self.devices: dict[str, HostFirmware] = {}
        self.parts: list[Part] = []
        self._port = port
        self._stack = AsyncExitStack()
        self.broker_url = ""
        self.broker_program = ""

    async def __aenter__(self) -> DemoSite:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        logs = self.out / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        broker_dir = self.out / "broker"
        broker_dir.mkdir(exist_ok=True)
        broker = LoopbackBroker(broker_dir, port=self._port)
        await asyncio.to_thread(broker.start)
        self._stack.callback(broker.stop)
        self.broker_url, self.broker_program = broker.url, broker.program
        for seed, (device, streams) in enumerate(DEVICES.items(), 1):
            self.devices[device] = await self._stack.enter_async_context(
                HostFirmware(
                    [recorded_stream(RECORDINGS[rec], name=name) for name, rec in streams.items()],
                    link=self.out / f"tty-{device}",
                    serial_number=f"demo-{device}",
                    skew_ppm=SKEW_PPM[device],
                    truth=self.out / f"truth-{device}.bin",
                    seed=seed,
                    binary=self.firmware,
                )
            )
        config = self.out / "rig.toml"
        config.write_text(self._config())
        ingest = ["ingest", "--store", str(self.store), "--broker", broker.url]
        await self._run("ingest", ingest, logs)
        await self._run("daemon", ["run", "--config", str(config)], logs)
        await self._run("fleet", ["fleet", "--listen", "127.0.0.1:0", "--broker", broker.url], logs)

    async def _run(self, name: str, args: list[str], logs: Path) -> None:
        part = await self._stack.enter_async_context(run_part(name, args, logs / f"{name}.log"))
        self.parts.append(part)

    def _config(self) -> str:
        ports = "".join(
            f'\n[[serial]]\nname = "{name}"\nport = "{device.port}"\n'
            for name, device in self.devices.items()
        )
        text = CONFIG.format(
            site=SITE, rig=RIG, broker=self.broker_url, out=self.out, camera=CAMERA, video=VIDEO
        )
        return text + ports

    def check(self) -> None:
        """Raise `DemoError` when a part has ended."""
        for part in self.parts:
            part.check()

    def fleet_url(self) -> str:
        """Where the fleet's page is; empty until it is served."""
        (said,) = (part.log.read_text(errors="replace") for part in self.parts if part.name == "fleet")
        return said.partition(FLEET_SAYS)[2].partition("\n")[0]

    def words_logged(self) -> int:
        """Bytes that its parts have logged: while they start, nothing else moves."""
        return sum(part.log.stat().st_size for part in self.parts)

    async def totals(self) -> dict[str, int]:
        """Samples that the devices have produced, by the rig's stream names; completes their truth files."""
        found: dict[str, int] = {}
        for name, device in self.devices.items():
            found |= {f"{name}-{stream}": n for stream, n in (await device.totals()).items()}
        return found
