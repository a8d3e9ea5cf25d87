"""Deframing and unpacking speed; checks the output before timing. `python bench/framing.py`"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecap.kernels import framing
from tests.reference import framing as reference

RIG = {"force 10×int16 ×10": (10, 2, 10), "imu 9×int16 ×10": (9, 2, 10), "tactile 80×int16 ×5": (80, 2, 5)}
BUFFERS = {"one 10 ms read": 1, "64 KiB": 1 << 16, "1 MiB": 1 << 20}


def make(channels: int, width: int, batch: int, size: int) -> tuple[bytes, int]:
    rng = np.random.default_rng(1)
    wire, frames = b"", 0
    while frames == 0 or len(wire) < size:
        rows = rng.normal(0, 300, (batch, channels)).astype(int).tolist()
        wire += reference.wire(2, reference.samples_payload(0, frames * batch, frames, 1000, rows, width))
        frames += 1
    return wire, frames


def median_ns(function: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        begin = time.perf_counter_ns()
        function()
        times.append(time.perf_counter_ns() - begin)
    return float(np.median(times))


def measure(title: str, label: str) -> dict[str, object]:
    channels, width, batch = RIG[title]
    wire, m = make(channels, width, batch, BUFFERS[label])
    data = np.frombuffer(wire, np.uint8)
    sample_bytes = np.zeros(256, np.int64)
    sample_bytes[0] = channels * width
    out = np.empty(data.size, np.uint8)
    frames = np.zeros(data.size // framing.MIN_WIRE + 1, framing.FRAME)
    counts = np.zeros(framing.COUNTS, np.int64)
    ticks = np.empty(m * batch, np.int64)
    values = np.empty((m * batch, channels), np.int16)
    rows = np.arange(m)

    def read() -> tuple[int, int, bool]:
        return framing.deframe(data, False, sample_bytes, out, frames, counts)

    def unpack() -> None:
        framing.unpack_samples(out, frames, rows, rows, width, ticks, values)

    assert read() == (m, data.size, False)
    assert counts[framing.N_OK] == m
    assert not frames["bad"][:m].any()
    unpack()
    deframe_ns, unpack_ns = median_ns(read, 200), median_ns(unpack, 200)
    return {
        "case": title,
        "read": label,
        "bytes": data.size,
        "deframe_us": round(deframe_ns / 1e3, 2),
        "deframe_mb_s": round(data.size * 1e3 / deframe_ns, 1),
        "unpack_us": round(unpack_ns / 1e3, 2),
        "unpack_mb_s": round(values.nbytes * 1e3 / unpack_ns, 1),
    }


def main() -> None:
    framing.warm_up()
    for title in RIG:
        for label in BUFFERS:
            print(json.dumps(measure(title, label), ensure_ascii=False))


if __name__ == "__main__":
    main()
