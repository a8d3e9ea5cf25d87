"""The column codec beside other lossless codecs: ratio and speed on recordings, chunk by chunk, in one run.

python bench/codec.py [FOLDER…]        recordings (.npy) of the repository and of these folders
python bench/codec.py --plot docs/     also draws codec-ratio.png and codec-speed.png
python bench/codec.py --quick          one chunk length

Peers that are installed take part: pip install -r bench/requirements.txt

Every chunk of every codec is decoded and compared before its time counts. Rates are read from a table below,
else taken as 200 Hz; the ratios depend on them only through the length of chunks.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from pathlib import Path

import numpy as np

import edgecap.sim
from edgecap.cli.codec import load, measure, measure_peers, rows_per_chunk
from edgecap.codec.columns import LEVELS, ColumnDecoder, ColumnEncoder
from edgecap.kernels import columns

RATES_HZ = {
    "imu_broad_tapping": 285.714,
    "imu_nilspod_calib": 102.4,
    "imu_nilspod_calib.t": 102.4,
    "force_smartwheel": 240.0,
    "force_smartwheel_f32": 240.0,
    "tactile_anyskin2": 100.0,
    "imu_gopro_karma_accl": 198.4,
    "imu_gopro_karma_gyro": 368.5,
    "ts_ros_200hz.t": 200.0,
}
TARGETS = {"max": (1.0, 1.08), "stream": (1.02, 1.15)}


def recordings(folders):
    own = Path(edgecap.sim.__file__).parent / "recordings"
    paths = {p.stem: p for folder in [own, *folders] for p in sorted(Path(folder).glob("**/*.npy"))}
    found = {}
    for name, path in paths.items():
        array = load(path)
        if isinstance(array, str):
            print(f"left out: {array}")
        else:
            found[name] = array
    return found


def synthetic():
    """Seeded recordings of shapes that the folders lack."""
    rng = np.random.default_rng(20)
    t = np.arange(20000) / 1000
    motion = np.stack([np.sin(2 * np.pi * f * t + f) * 3000 / f for f in (0.7, 1.3, 2.9)], axis=1)
    smooth = np.cumsum(rng.normal(0, 1, (20000, 3)), axis=0) * 30
    return {
        "synthetic imu 16 bit": np.rint(motion + rng.normal(0, 8, motion.shape)).astype("<i2"),
        "synthetic force 24 bit": np.rint(motion * 500 + rng.normal(0, 300, motion.shape)).astype("<i4"),
        "synthetic walk uint16": np.rint(smooth + 30000).clip(0, 65535).astype("<u2"),
        "synthetic true float32": (motion / 700 + rng.normal(0, 0.01, motion.shape)).astype("<f4"),
        "synthetic stuck": np.tile(np.array([[5, -3000, 32767, 0]], "<i2"), (20000, 1)),
        "synthetic noise": rng.integers(-32768, 32768, (20000, 3)).astype("<i2"),
        "synthetic ticks 1 kHz": np.cumsum(rng.integers(999, 1002, 20000)).astype("<i8"),
    }


def moving(rows, channels):
    """A seeded IMU's counts (rows, channels) at 1 kHz: every channel has a motion and a noise of its own."""
    t = np.arange(rows)[:, None] / 1000
    rates_hz = np.array([0.7, 1.3, 2.9])[np.arange(channels) % 3] * 1.17 ** (np.arange(channels) // 3)
    noise = np.random.default_rng(20).normal(0, 8, (rows, channels))
    return np.rint(np.sin(2 * np.pi * rates_hz * t + rates_hz) * 3000 / rates_hz + noise).astype("<i2")


def geomean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def ratios(arrays, lengths_s):
    """Rows of (name, seconds, {codec: result})."""
    rows = []
    for name, array in arrays.items():
        rate_hz = RATES_HZ.get(name, 1000.0 if name.startswith("synthetic") else 200.0)
        for seconds in lengths_s:
            found = {level: measure(Path(name), array, rate_hz, seconds, level) for level in LEVELS}
            found |= dict(measure_peers(array, rows_per_chunk(array, rate_hz, seconds)))
            assert all(r["lossless"] for r in found.values()), (name, found)
            rows.append((name, seconds, array.dtype, found))
    return rows


def print_ratios(rows):
    names = list(dict.fromkeys(codec for *_, found in rows for codec in found))
    short = [n.split(",")[0].split(" ")[0] for n in names]
    print(f"\n{'ratio':26} {'s':>5} " + " ".join(f"{n:>8}" for n in short) + "   max/best stream/best")
    scores = {"max": [], "stream": []}
    for name, seconds, dtype, found in rows:
        peers = [r["ratio"] for codec, r in found.items() if codec not in LEVELS]
        cells = " ".join(f"{found[n]['ratio']:8.3f}" if n in found else " " * 8 for n in names)
        relative = {level: found[level]["ratio"] / max(peers) if peers else float("nan") for level in scores}
        print(f"{name:26} {seconds:5.2f} {cells}   {relative['max']:8.3f} {relative['stream']:11.3f}")
        if dtype == np.int16 and peers and not name.startswith("synthetic"):
            for level, values in scores.items():
                values.append(relative[level])
    print("\n16-bit recordings against the best peer of each line:")
    for level, values in scores.items():
        if values:
            least, mean = TARGETS[level]
            verdict = "met" if min(values) >= least and geomean(values) >= mean else "MISSED"
            print(
                f"  {level:7} least {min(values):.3f} (target {least}), "
                f"geometric mean {geomean(values):.3f} (target {mean}): {verdict}"
            )
    pairs = [
        found["stream"]["ratio"] / found["pcodec, level 12"]["ratio"]
        for name, _, dtype, found in rows
        if dtype == np.int16 and "pcodec, level 12" in found and not name.startswith("synthetic")
    ]
    if pairs:
        verdict = "met" if geomean(pairs) >= 1.25 else "MISSED"
        print(f"  stream against pcodec: geometric mean {geomean(pairs):.3f} (target 1.25): {verdict}")


def print_speeds(rows):
    print("\nspeed, MB/s, median over the lines above (encode / decode):")
    for codec in dict.fromkeys(codec for *_, found in rows for codec in found):
        encode = [found[codec]["encode_mb_s"] for *_, found in rows if codec in found]
        decode = [found[codec]["decode_mb_s"] for *_, found in rows if codec in found]
        print(f"  {codec:28} {np.median(encode):8.1f} / {np.median(decode):8.1f}")


def print_blocks():
    """Blocks of one size, from one channel to twelve."""
    print("\nblocks of 500 rows of int16, least process time of 60 passes over 8 blocks: encode / decode")
    for channels in (1, 3, 6, 12):
        whole = moving(4000, channels)
        blocks = [np.ascontiguousarray(part) for part in np.split(whole, 8)]
        for level in LEVELS:
            least = [float("inf")] * 2
            for _ in range(60):
                encoder, decoder = ColumnEncoder(level), ColumnDecoder()
                t0 = time.thread_time()
                payloads = [encoder.encode({"values": block}) for block in blocks]
                t1 = time.thread_time()
                for payload in payloads:
                    decoder.decode(payload)
                least = [min(least[0], t1 - t0), min(least[1], time.thread_time() - t1)]
            speeds = [whole.nbytes / seconds / 1e6 for seconds in least]
            each = [seconds / len(blocks) * 1e6 for seconds in least]
            print(
                f"  {channels:2} channels {level:7} {speeds[0]:6.1f} / {speeds[1]:6.1f} MB/s, "
                f"{each[0]:6.1f} / {each[1]:6.1f} µs a block"
            )
    print("\none block of 500 × 6 int16, µs (p50, p99): encode, decode")
    block = moving(500, 6)
    for level in LEVELS:
        encoder, decoder = ColumnEncoder(level), ColumnDecoder()
        times = []
        for _ in range(500):
            t0 = time.perf_counter()
            payload = encoder.encode({"values": block})
            t1 = time.perf_counter()
            table = decoder.decode(payload)
            times.append((t1 - t0, time.perf_counter() - t1))
            assert table["values"].tobytes() == block.tobytes()
        (e50, d50), (e99, d99) = np.quantile(times, 0.5, axis=0) * 1e6, np.quantile(times, 0.99, axis=0) * 1e6
        print(f"  {level:7} encode {e50:6.1f} {e99:6.1f}   decode {d50:6.1f} {d99:6.1f}")


def print_small_tables():
    """At level max; where a column is looked at for steps, its table takes longer."""
    print("\n200 small tables of int16, max, µs of thread time, least of 5 passes: median, mean, greatest")
    counts = moving(200 * 32, 12)
    recordings = {"as counted": counts, "rescaled by 9.175": np.floor(np.rint(counts / 12) * 9.175 + 0.5)}
    for name, recording in recordings.items():
        for rows, channels in ((4, 1), (4, 6), (8, 6), (16, 6), (32, 6), (32, 12)):
            whole = recording.astype("<i2")[: 200 * rows, :channels]
            tables = [np.ascontiguousarray(part) for part in np.split(whole, 200)]
            least = np.full(200, np.inf)
            for _ in range(5):
                encoder = ColumnEncoder("max")
                for i, table in enumerate(tables):
                    t0 = time.thread_time()
                    encoder.encode({"values": table})
                    least[i] = min(least[i], time.thread_time() - t0)
            median, mean, most = np.median(least) * 1e6, least.mean() * 1e6, least.max() * 1e6
            print(f"  {name:18} {rows:2} × {channels:2}   {median:6.1f} {mean:6.1f} {most:8.1f}")


def plot(rows, folder):
    folder.mkdir(parents=True, exist_ok=True)
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    chosen = [r for r in rows if r[1] == 1.0 and not r[0].startswith("synthetic")]
    codecs = list(dict.fromkeys(codec for *_, found in chosen for codec in found))
    figure, axes = plt.subplots(figsize=(11, 4.5))
    for i, codec in enumerate(codecs):
        at = [j + (i - len(codecs) / 2) * 0.1 for j, r in enumerate(chosen) if codec in r[3]]
        axes.bar(at, [r[3][codec]["ratio"] for r in chosen if codec in r[3]], 0.1, label=codec)
    axes.set_xticks(range(len(chosen)), [r[0] for r in chosen], rotation=20, ha="right", fontsize=8)
    axes.set(ylabel="compression ratio", title="Chunks of 1 s", yscale="log")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / "codec-ratio.png", dpi=130)
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for codec in codecs:
        found = [r[3][codec] for r in chosen if codec in r[3] and r[2] == np.int16]
        if found:
            x, y = np.median([f["encode_mb_s"] for f in found]), geomean([f["ratio"] for f in found])
            axes.scatter(x, y)
            axes.annotate(codec, (x, y), fontsize=8, xytext=(4, 4), textcoords="offset points")
    axes.set(
        xscale="log", xlabel="encode MB/s, one thread", ylabel="ratio, geometric mean", title="int16, 1 s"
    )
    figure.tight_layout()
    figure.savefig(folder / "codec-speed.png", dpi=130)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    t0 = time.perf_counter()
    columns.warm_up()
    print(f"kernels ready in {time.perf_counter() - t0:.2f} s")
    print_blocks()
    rows = ratios(recordings(args.folders), (1.0,) if args.quick else (0.25, 0.5, 1.0, 2.0))
    rows += ratios(synthetic(), (1.0,))
    print_ratios(rows)
    print_speeds(rows)
    print_small_tables()
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
