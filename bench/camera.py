"""The daemon with real picamera2 on libcamera's virtual camera: CPU of both processes, and restarts.

    python bench/camera.py                          1280×720 at 30 fps as H.264, 30 s
    python bench/camera.py --codec mjpeg --bitrate 20000
    python bench/camera.py --kills 20               and how long a killed camera is away
    python bench/camera.py --kills 20 --cold        the same without a process on standby
    python bench/camera.py --silences 5             and one that falls silent, in each way
    python bench/camera.py --pauses 300             and how far apart frames come while nothing is wrong

Needs tests/camera/build_libcamera.sh (`make system-packages`). The daemon is whole (sources, recorder, spool
on disk) but for a broker. The camera process draws its picture in software (thread `VirtualCamera`), which a
sensor does for nothing, and encodes with libx264 in picamera2's thread. Silences: in a recording of their own
for each way, the camera's process is stopped, or each of them fails after 15 s.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from edgecap.clock import now_ns  # noqa: E402
from edgecap.config import parse_config  # noqa: E402
from edgecap.daemon.intent import Intent  # noqa: E402
from edgecap.daemon.rig import Rig  # noqa: E402
from edgecap.kernels.compile import warm_up  # noqa: E402
from edgecap.source import camera_standby  # noqa: E402
from edgecap.source.camera_pi import PiCamera  # noqa: E402
from edgecap.spool import Spool  # noqa: E402
from edgecap.spool.writer import SpoolWriter  # noqa: E402

SILENCES = {
    "process hangs (SIGSTOP)": (),
    "pipeline freezes": ("--freeze-at", "450"),
    "event thread dies": ("--die-at", "450"),
    "buffers do not come back": ("--starve-at", "1350"),  # given back up to three times a frame
}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CONFIG = """
site = "bench"
rig = "camera"
[session]
task = "measure"
operator = "p-000"
consent = "c-000"
[spool]
dir = "{dir}"
reserve_mb = 64
"""


def virtual_child() -> tuple[str, ...]:
    """The camera's process on libcamera's virtual pipeline; puts what it needs into our environment."""
    prefix = Path(os.environ.get("EDGECAP_TEST_LIBCAMERA", "/var/cache/edgecap-libcamera"))
    python = prefix / "venv/bin/python"
    if not python.exists():
        raise SystemExit(f"no libcamera in {prefix}: run tests/camera/build_libcamera.sh {prefix}")
    os.environ |= {
        "PYTHONPATH": f"{ROOT}:{next(prefix.glob('lib/python3*/site-packages'))}",
        "LD_LIBRARY_PATH": str(next(prefix.glob("lib/*/libcamera.so")).parent),
        "LIBCAMERA_PIPELINES_MATCH_LIST": "virtual",
        "LIBCAMERA_LOG_LEVELS": "*:FATAL",
    }
    return str(python), str(ROOT / "tests/camera/virtual_child.py")


def thread_seconds(pid: int) -> Counter[str]:
    """CPU seconds of a process by the names of its threads."""
    found: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
            found[name] += sum(map(int, rest.split()[11:13])) / TICKS_PER_S
    return found


def rss_mb(pid: int | str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 1)


@contextlib.asynccontextmanager
async def recording(args: argparse.Namespace, directory: Path, *faults: str) -> AsyncIterator[tuple]:
    """The daemon while it records; its rig, and the camera's feed."""
    camera = PiCamera(
        "head", "Front", args.width, args.height, args.fps,
        bitrate_kbps=args.bitrate, codec=args.codec, preview_s=10.0, child=(*virtual_child(), *faults),
    )  # fmt: skip
    config = parse_config(CONFIG.format(dir=directory))
    with Spool.open(directory, segment_bytes=16 << 20, reserve_bytes=64 << 20) as spool:
        async with SpoolWriter(spool, durable=lambda _: None) as writer:
            rig = Rig(config, sources=[camera], writer=writer)
            running = asyncio.create_task(rig.run())
            await rig.ready()
            await ask(rig, "start")
            yield rig, rig.devices.open[0].feed
            rig.shut_down()
            await running


async def measure(args: argparse.Namespace, directory: Path) -> dict:
    async with recording(args, directory / "whole") as (rig, feed):
        await asyncio.sleep(2)
        t0, cpu0, child0 = time.monotonic(), time.process_time(), thread_seconds(feed.pid)
        frames0 = feed.statistics().frames
        await asyncio.sleep(args.seconds)
        span_s = time.monotonic() - t0
        threads = thread_seconds(feed.pid)
        threads.subtract(child0)
        result = {
            "picture": f"{args.width}x{args.height}@{args.fps:g} {args.codec} {args.bitrate} kbit/s",
            "seconds": round(span_s, 1),
            "frames_per_s": round((feed.statistics().frames - frames0) / span_s, 2),
            "daemon_cpu_percent": round(100 * (time.process_time() - cpu0) / span_s, 2),
            "camera_process_cpu_percent": round(100 * threads.total() / span_s, 1),
            "camera_threads_percent": {
                n: round(100 * s / span_s, 1) for n, s in threads.most_common() if s / span_s > 0.005
            },
            "daemon_rss_mb": rss_mb("self"),
            "camera_rss_mb": rss_mb(feed.pid),
            "standby_rss_mb": rss_mb(feed.standby_pid) if feed.standby_pid else 0.0,
            "loop_lag_ms": rig.lag.quantiles_ms(),
            "restarts_unasked": feed.statistics().restarts,
        }
        if args.pauses:
            result["pauses_s"] = quantiles(await pauses(feed, args.pauses), 50, 99, 99.9, 100)
        if args.kills:
            away = [await replaced(feed, signal.SIGKILL, cold=args.cold) for _ in range(args.kills)]
            result["away_s"] = quantiles(away)
        await ask(rig, "stop")
        result |= {"lost": feed.statistics().lost, "restarts": feed.statistics().restarts}
    if args.silences:
        result["silent_s"] = {
            name: quantiles(await silences(args, directory / name, *faults))
            for name, faults in SILENCES.items()
        }
    return result


async def silences(args: argparse.Namespace, directory: Path, *faults: str) -> list[float]:
    """Seconds from the last frame of a camera that falls silent to the first of its successor."""
    async with recording(args, directory, *faults) as (_, feed):
        number = None if faults else signal.SIGSTOP
        found = [await replaced(feed, number, cold=args.cold) for _ in range(args.silences)]
        print(directory.name, np.round(found, 2), file=sys.stderr)
        return found


async def pauses(feed, span_s: float) -> list[float]:
    """Seconds between frames of a camera that nothing is wrong with."""
    found, frames = [], feed.statistics().frames
    begin = last = time.monotonic()
    while last < begin + span_s:
        await asyncio.sleep(0.002)
        if feed.statistics().frames != frames:
            now = time.monotonic()
            found.append(now - last)
            frames, last = feed.statistics().frames, now
    return found


def quantiles(seconds: list[float], *wanted: float) -> dict[str, float]:
    return {f"p{q:g}": round(float(np.percentile(seconds, q)), 3) for q in wanted or (50, 90, 100)}


async def ask(rig: Rig, event: str) -> None:
    answer = await rig.ask(Intent(event, "bench", now_ns()))
    if not answer.ok:
        raise SystemExit(answer.message)


async def replaced(feed, number: signal.Signals | None, *, cold: bool) -> float:
    """Seconds without a frame while the camera's process, sent a signal or failing by itself, is replaced."""
    spent_s = -1.0
    while not cold:
        with contextlib.suppress(FileNotFoundError):  # none yet, or it was taken
            before_s, spent_s = spent_s, thread_seconds(feed.standby_pid).total()
            if 0 < before_s == spent_s:
                break  # it has loaded everything
        await asyncio.sleep(1.5)
    restarts = feed.statistics().restarts
    if number is not None:
        os.kill(feed.pid, number)
    frames, last = feed.statistics().frames, time.monotonic()
    while feed.statistics().restarts == restarts:
        if feed.statistics().frames != frames:
            frames, last = feed.statistics().frames, time.monotonic()
        await asyncio.sleep(0.002)
    while feed.statistics().frames == frames:
        await asyncio.sleep(0.002)
    return time.monotonic() - last


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--codec", choices=("h264", "mjpeg"), default="h264")
    parser.add_argument("--bitrate", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--silences", type=int, default=0)
    parser.add_argument("--pauses", type=float, default=0, help="for so many seconds, time between frames")
    parser.add_argument("--cold", action="store_true", help="without a process on standby")
    args = parser.parse_args()
    if args.cold:
        camera_standby.AFTER_S = 1e6
    list(warm_up())
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(asyncio.run(measure(args, Path(directory))), indent=2))


if __name__ == "__main__":
    main()
