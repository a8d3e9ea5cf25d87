"""`edgecap codec`: compress any recording chunk by chunk, verify it, and show size and speed beside peers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

DEFAULT_RATE_HZ = 1000.0
KEY_PERIOD_S = 30
MAX_KEY_INTERVAL = 30
DTYPES = ("int16", "uint16", "int32", "uint32", "int64", "uint64", "float32")

EPILOG = """\
example:
  edgecap codec gyro.npy --rate 200 --seconds 1
  edgecap codec *.npy --rate 1000 --level stream --json

A recording is an array [T] or [T, C] of int16, uint16, int32, uint32, int64, uint64 or float32. It is cut
into chunks of --seconds, as the daemon would; level stream has a self-contained chunk at least every 30
chunks and every 30 s. Every chunk is decoded and compared before it counts.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "codec",
        help="compress recordings, verify, print ratio and speed",
        description="Compress .npy recordings chunk by chunk, verify every chunk, print ratio and speed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.npy")
    parser.add_argument("--rate", type=float, metavar="HZ", help="samples per second (default 1000)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="S", help="length of a chunk (default 1)"
    )
    parser.add_argument("--level", choices=("fast", "max", "stream"), help="only this level (default all)")
    parser.add_argument("--json", action="store_true", help="one JSON line per file and level; no peers")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure every file; 1 when one cannot be read or does not come back."""
    from edgecap.errors import UsageError
    from edgecap.kernels import columns

    if not 0 < args.seconds <= 3600:
        raise UsageError(f"--seconds {args.seconds} is not a length", fix="give a number of seconds, e.g. 1")
    if args.rate is not None and not 0 < args.rate <= 1e7:
        raise UsageError(f"--rate {args.rate} is not a rate", fix="give samples per second, e.g. 200")
    if args.rate is None:
        print(f"edgecap: no --rate given, taking {DEFAULT_RATE_HZ:.0f} Hz", file=sys.stderr)
    columns.warm_up()
    levels = (args.level,) if args.level else ("fast", "max", "stream")
    failed = False
    for path in args.files:
        array = load(path)
        if isinstance(array, str):
            print(f"edgecap: {array}", file=sys.stderr)
            failed = True
            continue
        results = [
            measure(path, array, args.rate or DEFAULT_RATE_HZ, args.seconds, level) for level in levels
        ]
        failed = failed or not all(result["lossless"] for result in results)
        if args.json:
            for result in results:
                print(json.dumps(result), flush=True)
        else:
            show(path, array, results, args.rate or DEFAULT_RATE_HZ, args.seconds)
    return 1 if failed else 0


def load(path: Path) -> Any:
    """The array of a .npy file, or a sentence that says why it cannot be used."""
    import numpy as np

    from edgecap.npz import DAMAGE, why_not, words_of

    try:
        with path.open("rb") as file:
            reason = why_not(file.read(8))
        array = None if reason else np.load(path, allow_pickle=False, mmap_mode="r")
    except FileNotFoundError:
        return f"{path} does not exist"
    except DAMAGE as error:
        reason = words_of(error)
    if reason or array is None:
        return f"{path} cannot be read as a .npy array: {reason}; save one array with numpy.save"
    if array.dtype.newbyteorder("=").name not in DTYPES:
        return f"{path} holds {array.dtype} samples; convert them to one of {', '.join(DTYPES)}"
    if array.ndim not in (1, 2) or array.shape[0] == 0 or array.size == 0:
        return f"{path} has shape {array.shape}; it must be [T] or [T, C] with samples in it"
    if array.ndim == 2 and array.shape[1] > 4096:
        return f"{path} has {array.shape[1]} channels, the limit is 4096; is it transposed?"
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def rows_per_chunk(array: Any, rate_hz: float, seconds: float) -> int:
    """Rows of a chunk: what the time allows, but never more than fit a chunk uncompressed."""
    from edgecap.codec.chunk import MAX_CHUNK_BYTES

    row_bytes = array.itemsize * (array.shape[1] if array.ndim == 2 else 1)
    rows: int = min(round(rate_hz * seconds), (MAX_CHUNK_BYTES - 1024) // row_bytes)
    return max(1, rows)


def measure(path: Path, array: Any, rate_hz: float, seconds: float, level: str) -> dict[str, Any]:
    """Compress chunk by chunk and decompress; the fastest of up to three passes counts for the speeds."""
    from edgecap.codec.columns import ColumnDecoder, ColumnEncoder

    rows = rows_per_chunk(array, rate_hz, seconds)
    interval = max(1, min(MAX_KEY_INTERVAL, int(KEY_PERIOD_S * rate_hz / rows)))
    name = "tick" if array.ndim == 1 and array.dtype.kind in "iu" and array.itemsize == 8 else "values"
    chunks = [{name: array[i : i + rows]} for i in range(0, array.shape[0], rows)]
    encode_s = decode_s = float("inf")
    size = 0
    lossless = True
    started_s = time.perf_counter()
    for _ in range(3):
        encoder, decoder = ColumnEncoder(level, interval), ColumnDecoder()
        t0 = time.perf_counter()
        payloads = [encoder.encode(chunk) for chunk in chunks]
        t1 = time.perf_counter()
        tables = [decoder.decode(payload) for payload in payloads]
        t2 = time.perf_counter()
        lossless = lossless and all(
            table[name].dtype == chunk[name].dtype
            and table[name].shape == chunk[name].shape
            and table[name].tobytes() == chunk[name].tobytes()
            for table, chunk in zip(tables, chunks, strict=True)
        )
        size = sum(len(payload) for payload in payloads)
        encode_s, decode_s = min(encode_s, t1 - t0), min(decode_s, t2 - t1)
        if t2 - started_s > 2:
            break
    return {
        "file": str(path),
        "level": level,
        "seconds": round(rows / rate_hz, 6),
        "raw_bytes": array.nbytes,
        "bytes": size,
        "ratio": round(array.nbytes / size, 4),
        "encode_mb_s": round(array.nbytes / encode_s / 1e6, 2),
        "decode_mb_s": round(array.nbytes / decode_s / 1e6, 2),
        "lossless": lossless,
    }


def show(path: Path, array: Any, results: list[dict[str, Any]], rate_hz: float, seconds: float) -> None:
    """Print a table with the installed peers below our own levels."""
    rows = rows_per_chunk(array, rate_hz, seconds)
    shape = " × ".join(str(n) for n in array.shape)
    print(f"{path}: {shape} {array.dtype}, {array.nbytes} bytes in chunks of {rows} rows")
    print(f"  {'codec':26} {'bytes':>10} {'ratio':>7} {'encode MB/s':>12} {'decode MB/s':>12}  lossless")
    for result in results:
        _line(f"edgecap {result['level']}", result)
    for name, result in measure_peers(array, rows):
        _line(name, result)


def _line(name: str, r: dict[str, Any]) -> None:
    speeds = f"{r['encode_mb_s']:>12.1f} {r['decode_mb_s']:>12.1f}"
    print(f"  {name:26} {r['bytes']:>10} {r['ratio']:>7.3f} {speeds}  {'yes' if r['lossless'] else 'NO'}")


def measure_peers(array: Any, rows: int) -> list[tuple[str, dict[str, Any]]]:
    """The same chunks, each compressed by itself, through whichever peers are installed."""
    from edgecap.cli.codec_peers import installed_peers

    chunks = [array[i : i + rows] for i in range(0, array.shape[0], rows)]
    chunks = [chunk if chunk.ndim == 2 else chunk.reshape(-1, 1) for chunk in chunks]
    found = []
    for peer in installed_peers(array.dtype):
        t0 = time.perf_counter()
        packed = [peer.encode(chunk) for chunk in chunks]
        t1 = time.perf_counter()
        back = [peer.decode(data, chunk.shape) for (data, _), chunk in zip(packed, chunks, strict=True)]
        t2 = time.perf_counter()
        size = sum(count for _, count in packed)
        lossless = all(b.tobytes() == c.tobytes() for b, c in zip(back, chunks, strict=True))
        found.append(
            (
                peer.name,
                {
                    "bytes": size,
                    "ratio": array.nbytes / size,
                    "encode_mb_s": array.nbytes / (t1 - t0) / 1e6,
                    "decode_mb_s": array.nbytes / (t2 - t1) / 1e6,
                    "lossless": lossless,
                },
            )
        )
    return found
