"""A full rig's load through the whole system, measured from outside and checked before it is believed.

Two gloves (each a 9-channel IMU and 10 force channels at 1 kHz, the real firmware on a pty), one camera that
hands over 1080p30 H.264 already encoded, the daemon, mosquitto, ingest and a local store, each a process:

    python bench/pipeline.py                 30 s
    python bench/pipeline.py --seconds 120 --json

Prints CPU per stage as a share of a core, event-loop lag, RSS, sample → durable and sample → receipt latency;
fails unless every sample that was sent is in the store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgecap import clock, topics
from edgecap.codec import wire
from edgecap.codec.receipt import decode_receipt
from edgecap.model import ClockFit, DeviceEvent, FramePacket, Item, StreamInfo

if TYPE_CHECKING:
    from edgecap.sim.firmware import HostFirmware

FPS = 30
CLIP_FRAMES = 90
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LATENCY = ("p50", "p99", "max")
SITE, RIG = "bench", "rig-01"


# ── the camera: packets that were encoded before ────────────────────────────────────────────────────


def encode_clip(path: Path) -> None:
    """Three seconds of 1080p30 at 8 Mbit/s, one GOP a second, stored packet by packet."""
    import av

    out: list[tuple[bool, bytes]] = []
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = 1920, 1080, "yuv420p"
    codec.time_base, codec.framerate = Fraction(1, FPS), Fraction(FPS)
    codec.bit_rate, codec.gop_size = 8_000_000, FPS
    codec.options = {"preset": "ultrafast", "tune": "zerolatency"}
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (1080, 2 * 1920), np.uint8)
    for k in range(CLIP_FRAMES):
        grey = noise[:, k * 16 : k * 16 + 1920] // 4 + 96
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grey), format="gray").reformat(
            format="yuv420p"
        )
        frame.pts = k
        out += [(p.is_keyframe, bytes(p)) for p in codec.encode(frame)]
    out += [(p.is_keyframe, bytes(p)) for p in codec.encode(None)]
    path.write_bytes(wire.pack([[key, data] for key, data in out]))


class EncodedCamera:
    """Hands over the packets of a clip at their times, in a loop; follows the Source protocol."""

    def __init__(self, name: str, clip: Path) -> None:
        self.name = name
        self._packets = wire.unpack(clip.read_bytes(), what="clip", max_bytes=1 << 30)
        self._queue: asyncio.Queue[Item] = asyncio.Queue(256)
        self._task: asyncio.Task[None] | None = None
        self._n = 0

    @property
    def info(self) -> tuple[StreamInfo, ...]:
        return (
            StreamInfo(
                self.name, "video", self.name, FPS, clock="raw", width=1920, height=1080, codec="h264-annexb"
            ),
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[EncodedCamera]:
        yield self
        if self._task is not None:
            self._task.cancel()

    async def start(self) -> None:
        self._n = 0
        self._task = asyncio.create_task(self._play(), name="encoded camera")

    async def stop(self) -> dict[str, int]:
        assert self._task is not None
        self._task.cancel()
        await self._queue.put(DeviceEvent(self.name, "stopped", clock.now_ns()))
        return {self.name: self._n}

    async def _play(self) -> None:
        start_ns = clock.now_ns()
        while True:
            tick = start_ns + self._n * 1_000_000_000 // FPS
            await asyncio.sleep(max(0, tick - clock.now_ns()) / 1e9)
            key, data = self._packets[self._n % len(self._packets)]
            fit = ClockFit(tick, tick, 0.0, 1, 100, 0.0, 0, True)
            await self._queue.put(FramePacket(self.name, self._n, data, key, tick, clock.now_ns(), 0, 0, fit))
            self._n += 1

    async def __aiter__(self) -> AsyncIterator[Item]:
        while True:
            yield await self._queue.get()


def run_rig(config_path: Path, clip: Path) -> None:
    """The daemon, composed as `edgecap run` does, with the camera above beside its serial boards."""
    from edgecap.cli.run import broker_of, serve, sources_of
    from edgecap.config import load_config

    config = load_config(config_path)
    sources = [*sources_of(config), EncodedCamera("head-cam", clip)]
    asyncio.run(serve(config, broker_of(config, None), sources))


# ── measuring from outside ──────────────────────────────────────────────────────────────────────────


def cpu_s(pid: int) -> float:
    """User and system time of a process and of the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


class Watch:
    """Follows chunks and receipts on the broker, and the rig's own word."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {}
        self.telemetry: dict[str, Any] = {}
        self.receipt_age_ms: list[float] = []
        self.upload_bytes = 0
        self._t0_ns: dict[bytes, int] = {}
        """First sample of each chunk on its way, by the chunk's hash."""

    def see(self, topic: str, payload: bytes) -> None:
        suffix = topics.parse(topic).suffix
        if suffix == "status":
            self.status = json.loads(payload)
        elif suffix == "telemetry":
            self.telemetry = json.loads(payload)
        elif suffix == "up":
            from edgecap.codec.chunk import unpack_chunk

            chunk = unpack_chunk(payload)
            self.upload_bytes += len(payload)
            self._t0_ns[chunk.hash] = chunk.header.t0_ns
        elif suffix == "receipt":
            now_ns = clock.now_ns()
            for found in decode_receipt(payload).ids():
                t0_ns = self._t0_ns.pop(found.hash, None)
                if t0_ns is not None:
                    self.receipt_age_ms.append((now_ns - t0_ns) / 1e6)


async def until(what: str, holds: Any, at_most_s: float) -> None:
    deadline = time.monotonic() + at_most_s
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"the system was not {what} within {at_most_s} s")
        await asyncio.sleep(0.02)


async def start_gloves(stack: AsyncExitStack, out: Path) -> dict[str, HostFirmware]:
    from edgecap.sim.firmware import HostFirmware, grasp_force, motion_imu
    from edgecap.sim.firmware_build import build_firmware

    binary = build_firmware()
    return {
        name: await stack.enter_async_context(
            HostFirmware(
                [motion_imu(), grasp_force()],
                link=out / f"tty-{name}",
                serial_number=name,
                skew_ppm=50.0 * (-1) ** seed,
                seed=seed,
                binary=binary,
            )
        )
        for seed, name in enumerate(("left-hand", "right-hand"), 1)
    }


def configure(out: Path, broker_url: str, gloves: Mapping[str, HostFirmware]) -> Path:
    config = out / "rig.toml"
    config.write_text(
        f'site = "{SITE}"\nrig = "{RIG}"\n[session]\ntask = "load"\noperator = "op"\nconsent = "c"\n'
        f'[broker]\nurl = "{broker_url}"\n[spool]\ndir = "{out}/spool"\nreserve_mb = 64\n'
        + "".join(f'[[serial]]\nname = "{n}"\nport = "{g.port}"\n' for n, g in gloves.items())
    )
    return config


@asynccontextmanager
async def watching(broker_url: str) -> AsyncIterator[Watch]:
    from edgecap.mqtt import connect, parse_broker

    watch = Watch()
    wanted = [topics.topic(SITE, RIG, c) for c in (topics.STATUS, topics.TELEMETRY, topics.RECEIPT)]
    wanted.append(topics.subscription(topics.UP, site=SITE, rig=RIG))
    async with connect(parse_broker(broker_url), client_id="bench", subscribe=wanted) as link:

        async def follow() -> None:
            async for message in link.messages():
                watch.see(message.topic, message.payload)

        following = asyncio.create_task(follow())
        try:
            yield watch
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


@asynccontextmanager
async def running_rig(config: Path, clip: Path, log: Path) -> AsyncIterator[int]:
    """The process id of `run_rig` in a process of its own."""
    command = [__file__, "--rig", str(config), "--clip", str(clip)]
    with log.open("wb") as words:
        rig = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=words, stderr=words)
        try:
            yield rig.pid
        finally:
            rig.send_signal(signal.SIGTERM)
            await rig.wait()


async def load_of(pids: Mapping[str, Sequence[int]], seconds: float) -> dict[str, Any]:
    """What processes take of the machine for so long."""
    before = {k: sum(map(cpu_s, v)) for k, v in pids.items()}
    t0 = time.monotonic()
    await asyncio.sleep(seconds)
    span_s = time.monotonic() - t0
    after = {k: sum(map(cpu_s, v)) for k, v in pids.items()}
    return {
        "seconds": round(span_s, 1),
        "cpu_percent_of_a_core": {k: round(100 * (after[k] - before[k]) / span_s, 1) for k in pids},
        "rss_mb": {k: round(sum(map(rss_mb, v)), 1) for k, v in pids.items()},
    }


async def measure(seconds: float, out: Path) -> dict[str, Any]:
    from edgecap.ingest.completeness import verify_session
    from edgecap.ingest.store import SessionKey, open_store
    from edgecap.sim.broker import LoopbackBroker
    from edgecap.sim.demo import run_part

    clip, store = out / "clip.msgpack", out / "store"
    encode_clip(clip)
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(LoopbackBroker(out))
        gloves = await start_gloves(stack, out)
        config = configure(out, broker.url, gloves)
        ingest = await stack.enter_async_context(
            run_part("ingest", ["ingest", "--store", str(store), "--broker", broker.url], out / "ingest.log")
        )
        watch = await stack.enter_async_context(watching(broker.url))
        started_ns = clock.now_ns()
        async with running_rig(config, clip, out / "rig.log") as rig_pid:
            await until("ready", lambda: watch.status.get("state") == "idle", 90)
            ready_s = (clock.now_ns() - started_ns) / 1e9
            await asyncio.sleep(3)  # let the clocks settle as they would on a worker's wrist
            await gloves["left-hand"].press(100)
            await until("recording", lambda: watch.status.get("state") == "recording", 20)
            session = watch.status["session"]
            await asyncio.sleep(2)
            pids = {
                "firmware (2)": [g.pid for g in gloves.values()],
                "daemon": [rig_pid],
                "mosquitto": [broker.pid],
                "ingest": [ingest.process.pid],
            }
            load = await load_of(pids, seconds)
            verdicts = {v["stream"]: v["state"] for v in watch.status["streams"]}
            telemetry = dict(watch.telemetry)
            await gloves["left-hand"].press(100)
            await until("idle", lambda: watch.status.get("state") == "idle", 30)
            await until("delivered", lambda: watch.telemetry.get("spool_chunks") == 0, 60)
            totals = {f"{n}-{s}": k for n, g in gloves.items() for s, k in (await g.totals()).items()}
        report = verify_session(open_store(str(store)), SessionKey(SITE, RIG, session))
        stored = {s.name: s.samples for s in report.streams}
        ages_ms = np.array(watch.receipt_age_ms)
        quantiles_ms = {
            "p50": np.percentile(ages_ms, 50),
            "p99": np.percentile(ages_ms, 99),
            "max": ages_ms.max(),
        }
        return {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "seconds": load["seconds"],
            "complete": report.complete,
            "problems": list(report.problems),
            "sent": totals,
            "stored": {k: stored[k] for k in totals},
            "frames": stored.get("head-cam", 0),
            "verdicts": verdicts,
            **load,
            "loop_lag_ms": {k: telemetry.get(f"loop_lag_{k}_ms") for k in LATENCY},
            "sample_to_durable_p99_ms": telemetry.get("durable_age_p99_ms"),
            "sample_to_receipt_ms": {k: round(float(v), 1) for k, v in quantiles_ms.items()},
            "start_to_ready_s": round(ready_s, 2),
            "sensor_raw_mb_s": sum(9 * 2 + 10 * 2 + 16 for _ in gloves) * 1000 / 1e6,
            "uploaded_mb_s": round(watch.upload_bytes / 1e6 / (load["seconds"] + 3), 2),
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rig", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rig:
        run_rig(args.rig, args.clip)
        return 0
    with tempfile.TemporaryDirectory() as out:
        result = asyncio.run(measure(args.seconds, Path(out)))
    ok = result["complete"] and result["sent"] == result["stored"]
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(
                f"{name:26} {value if not isinstance(value, dict) else msgspec.json.encode(value).decode()}"
            )
    print("sent = stored: " + ("yes" if ok else "NO"), file=sys.stderr)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
