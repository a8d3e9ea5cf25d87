"""One row per camera frame: what it costs, and what is wrong in a row. `python bench/frames.py`

A hand's motion of known course is recorded at three rates with losses, exported, and compared at every frame
with its true value; beside it what is mostly done instead, on the same samples.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecap.dataset.frames_export import export_frames
from edgecap.model import ChannelInfo, Gap, StreamInfo
from tests.frames_session import Part, fit_at, jpeg_camera, jpegs, store_session, unit
from tests.system.synthetic import RAW0

SECOND = 10**9
RATES_HZ = (1000, 100, 20)
FPS = 30
EXPOSURE_NS = 8_000_000
LOST = 0.05
EXPORT = """
import sys
from pathlib import Path
from edgecap.cli.main import main
store, session, out, form = sys.argv[1:]
assert main(["export", store, session, "--to", form, "--out", out, "--json"]) == 0
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def motion(t_ns: np.ndarray) -> np.ndarray:
    """Turn rate of a busy wrist, rad/s, up to 6 Hz; rms 1."""
    t = (t_ns - RAW0) * 1e-9
    parts = [(0.7, 0.9, 0.0), (0.9, 2.3, 1.0), (0.6, 4.1, 2.0), (0.4, 6.0, 3.0)]
    total = sum(a * np.sin(2 * np.pi * f * t + p) for a, f, p in parts)
    return total / math.sqrt(sum(a * a for a, *_ in parts) / 2)


def stream(rate_hz: int, seconds: int, rng: np.random.Generator) -> tuple[StreamInfo, list[Part]]:
    """Bursts of 50 to 400 ms are lost, `LOST` of all."""
    info = StreamInfo(f"imu-{rate_hz}", "imu", "hand", rate_hz, "float32", (ChannelInfo("w", "rad/s", 1.0),))
    ticks = np.arange(seconds * rate_hz, dtype=np.int64) * (SECOND // rate_hz)
    kept = np.ones(len(ticks), bool)
    while kept.mean() > 1 - LOST:
        start = rng.integers(len(ticks))
        kept[start : start + max(1, int(rng.uniform(0.05, 0.4) * rate_hz))] = False
    edges = [0, *(np.flatnonzero(np.diff(kept.astype(int))) + 1).tolist(), len(ticks)]
    parts, gaps = [], []
    for a, b in pairwise(edges):
        if not kept[a]:
            gaps = [
                Gap(
                    info.name,
                    RAW0 + int(ticks[max(a - 1, 0)]),
                    RAW0 + int(ticks[min(b, len(ticks) - 1)]),
                    b - a,
                    "line",
                )
            ]
            continue
        for k in range(a, b, rate_hz):
            part = ticks[k : min(k + rate_hz, b)]
            values = motion(RAW0 + part).astype(np.float32)[:, None]
            parts.append(Part(k, part, values, fit_at(), gaps))
            gaps = []
    return info, parts


def errors(seconds: int) -> list[dict[str, object]]:
    """Per rate and way: the error of the rows that it fills, and how many those are."""
    rng = np.random.default_rng(0)
    streams = [stream(rate, seconds, rng) for rate in RATES_HZ]
    films = jpegs(1)
    mid = RAW0 + SECOND // 2 + np.arange((seconds - 1) * FPS, dtype=np.int64) * SECOND // FPS
    film = [unit(k, int(t), EXPOSURE_NS, films[0]) for k, t in enumerate(mid)]
    truth, found = motion(mid), []
    with tempfile.TemporaryDirectory() as folder:
        session = store_session(
            Path(folder) / "store", streams, cameras={"head": film}, infos=[jpeg_camera("head", FPS)],
            end_ns=RAW0 + seconds * SECOND,
        )  # fmt: skip
        (camera,) = export_frames(session, Path(folder)).cameras
        table = pq.read_table(camera.table)
        for info, parts in streams:
            t_ns = RAW0 + np.concatenate([p.ticks for p in parts])
            values = np.concatenate([p.values[:, 0] for p in parts]).astype(np.float64)
            samples = pd.DataFrame({"t": t_ns, "w": values})
            nearest = pd.merge_asof(pd.DataFrame({"t": mid}), samples, on="t", direction="nearest")
            before = pd.merge_asof(pd.DataFrame({"t": mid}), samples, on="t")
            ways = {
                "latest sample (pandas merge_asof)": before["w"].to_numpy(),
                "nearest sample (pandas merge_asof)": nearest["w"].to_numpy(),
                "numpy.interp": np.interp(mid, t_ns, values),
                "edgecap": table[f"{info.name}.w_rad_s"].to_pandas().to_numpy(),
            }
            whole = np.isfinite(ways["edgecap"])
            for way, row in ways.items():
                off = np.abs(row - truth)
                found.append(
                    {
                        "rate_hz": info.rate_hz_nominal,
                        "way": way,
                        "rows": int(np.isfinite(off).sum()),
                        "of": len(mid),
                        "rms_beside_no_loss": float(np.sqrt(np.mean(off[whole] ** 2))),
                        "worst": float(np.nanmax(off)),
                    }
                )
    return found


def cost(minutes: int, form: str) -> dict[str, object]:
    """Export of a session with two hands at 1 kHz, 15 channels each, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        rng, tick = np.random.default_rng(0), np.arange(1000, dtype=np.int64) * 1_000_000
        streams = []
        for name, dtype, count in (("imu", "int16", 10), ("force", "int24", 5)):
            for hand in ("left", "right"):
                channels = tuple(ChannelInfo(f"c{k}", "count", 1.0) for k in range(count))
                info = StreamInfo(f"{hand}-{name}", "scalar", hand, 1000.0, dtype, channels)
                values = rng.integers(-900, 900, (1000, count)).astype("i2" if count == 10 else "i4")
                parts = [Part(k * 1000, tick + k * SECOND, values, fit_at()) for k in range(minutes * 60)]
                streams.append((info, parts))
        films = jpegs(60)
        film = [
            unit(k, RAW0 + 10_000_000 + k * SECOND // FPS, EXPOSURE_NS, films[k % 60])
            for k in range(minutes * 60 * FPS - 2)
        ]
        session = store_session(
            Path(folder) / "store", streams, cameras={"head": film}, infos=[jpeg_camera("head", FPS)],
            end_ns=RAW0 + minutes * 60 * SECOND,
        )  # fmt: skip
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [
            sys.executable,
            "-c",
            EXPORT,
            f"{folder}/store",
            session.key.session,
            f"{folder}/out",
            form,
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        result, *_, peak = done.stdout.splitlines()
        told = json.loads(result)
        (told,) = told["cameras"] if form == "frames" else (told,)
        assert told["rows"] == len(film)
        assert not any(told["rows_not_valid"].values())
        tables = [p for p in Path(folder, "out").rglob("*.parquet") if "native" not in p.parts]
        return {
            "format": form,
            "minutes": minutes,
            "wall_s": round(wall_s, 1),
            "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
            "peak_mb": round(int(peak.split()[1]) / 1024),
            "table_mb": round(sum(p.stat().st_size for p in tables) / 1e6, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="of motion")
    parser.add_argument("--minutes", type=int, nargs="*", default=[2, 20], help="of session, for the cost")
    parser.add_argument("--formats", nargs="*", choices=("frames", "lerobot"), default=["frames", "lerobot"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    wrong = errors(args.seconds)
    costs = [cost(minutes, form) for form in args.formats for minutes in args.minutes]
    if args.json:
        print(json.dumps({"errors": wrong, "costs": costs}, indent=1))
        return
    print("| rate, Hz | way | rows filled | rms error beside no loss | worst |\n|---|---|---|---|---|")
    for r in wrong:
        rows, error = f"{r['rows']} of {r['of']}", f"{r['rms_beside_no_loss']:.2g} | {r['worst']:.2g}"
        print(f"| {r['rate_hz']:g} | {r['way']} | {rows} | {error} |")
    print("\n| format | session, min | wall, s | CPU, s | peak memory, MB | table, MB |")
    print("|---|---|---|---|---|---|")
    for c in costs:
        print("| " + " | ".join(str(v) for v in c.values()) + " |")


if __name__ == "__main__":
    main()
