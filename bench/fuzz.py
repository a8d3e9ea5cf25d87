"""Spoiled inputs for whatever takes bytes in: chunks, receipts, commands, serial lines, segments, payloads.

    python bench/fuzz.py                          50,000 inputs
    python bench/fuzz.py --inputs 2000000 --processes 2 --json
    python bench/fuzz.py --only columns --checked      kernels with bounds checks

An input is made from seed, target and number alone. A worker that crashes or hangs is named with the input it
was at. Wrong are: any exception but edgecap's own, more than 1 s of CPU, more memory than the bound, and
accepting what is not valid (what is accepted must equal what was sent, or encode to the same again). Exit 1
if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any

import msgspec

from edgecap.kernels.compile import warm_up
from edgecap.sim.fuzz import MEMORY_LIMIT_BYTES, TARGETS, Tally, run_inputs
from edgecap.sim.fuzz_target import FuzzError

BATCH = 250
HANG_S = 60.0
RSS_LIMIT_BYTES = 2 * MEMORY_LIMIT_BYTES


def rss_bytes() -> int:
    """Most that this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(seed: int, part: int, parts: int, counts: dict[str, int], page: mmap.mmap, out: Any) -> None:
    """Run this worker's part of every target, in turns; tell of each batch in `page` before it begins."""
    targets = {name: TARGETS[name][0]() for name in counts}
    done = dict.fromkeys(counts, 0)
    tallies = {name: Tally() for name in counts}
    first_rss = 0
    faults = []
    turn = 0
    while any(done[n] < counts[n] for n in counts) and not faults:
        for number, name in enumerate(counts):
            count = min(BATCH, counts[name] - done[name])
            if count <= 0:
                continue
            first = (done[name] * parts) + part * BATCH  # batches of the workers alternate
            turn += 1
            page[:24] = struct.pack("<QQQ", number, first, turn)
            try:
                tallies[name].join(run_inputs(targets[name], seed, first, count))
            except FuzzError as error:
                faults.append(str(error))
                break
            done[name] += count
        first_rss = first_rss or rss_bytes()
    for target in targets.values():
        target.close()
    grown = rss_bytes() - first_rss
    if grown > RSS_LIMIT_BYTES:
        faults.append(f"memory grew by {grown / 1e6:.0f} MB")
    out.put((part, {n: msgspec.to_builtins(t) for n, t in tallies.items()}, rss_bytes(), grown, faults))


def run(seed: int, inputs: int, processes: int, names: list[str]) -> dict[str, Any]:
    shares = {n: TARGETS[n][1] for n in names}
    counts = {n: max(1, inputs * s // sum(shares.values()) // processes) for n, s in shares.items()}
    context = multiprocessing.get_context("fork")
    out: Any = context.Queue()
    pages = [mmap.mmap(-1, 4096) for _ in range(processes)]
    list(warm_up())  # compiling is not what is measured
    started = time.monotonic()
    workers = [
        context.Process(target=work, args=(seed, k, processes, counts, pages[k], out))
        for k in range(processes)
    ]
    for worker in workers:
        worker.start()
    faults: list[str] = []
    results: dict[int, Any] = {}
    last = [(0, time.monotonic())] * processes
    while len(results) < processes and not faults:
        while not out.empty():
            part, *found = out.get()
            results[part] = found
        for k, worker in enumerate(workers):
            number, first, turn = struct.unpack("<QQQ", pages[k][:24])
            where = f"{names[number]}, seed {seed}, inputs {first} to {first + BATCH - 1}"
            if turn != last[k][0]:
                last[k] = (turn, time.monotonic())
            elif k not in results and time.monotonic() - last[k][1] > HANG_S:
                faults.append(f"hangs: {where}")
            if k not in results and worker.exitcode not in (None, 0):
                faults.append(f"ended with {worker.exitcode}: {where}")
        time.sleep(0.2)
    for worker in workers:
        if faults:
            worker.kill()
        worker.join()
    seconds = time.monotonic() - started
    total: dict[str, Tally] = {n: Tally() for n in names}
    for tallies, _, _, told in results.values():
        faults += told
        for n, tally in tallies.items():
            total[n].join(Tally(**tally))
    n_inputs = sum(t.inputs for t in total.values())
    return {
        "seed": seed,
        "inputs": n_inputs,
        "seconds": round(seconds, 1),
        "inputs_per_s": round(n_inputs / seconds),
        "processes": processes,
        "bounds_checked": os.environ.get("NUMBA_BOUNDSCHECK") == "1",
        "rss_mb_max": round(max((r[1] for r in results.values()), default=0) / 1e6, 1),
        "rss_growth_mb_max": round(max((r[2] for r in results.values()), default=0) / 1e6, 1),
        "targets": {
            n: {
                "inputs": t.inputs,
                "accepted": t.accepted,
                "refused": t.refused,
                "inputs_per_cpu_s": round(t.inputs / t.cpu_s) if t.cpu_s else None,
                "slowest_ms": round(t.slowest_ms, 1),
                "peak_mb": round(t.peak_bytes / 1e6, 2),
            }
            for n, t in total.items()
        },
        "faults": faults,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=50_000, metavar="N", help="over all targets together")
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=TARGETS, action="append", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument(
        "--checked", action="store_true", help="compile kernels with bounds checks, for this run"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.checked and os.environ.get("NUMBA_BOUNDSCHECK") != "1":
        with tempfile.TemporaryDirectory() as cache:
            env = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": cache}
            return subprocess.run([sys.executable, *sys.argv], env=env, check=False).returncode
    result = run(args.seed, args.inputs, args.processes, args.only or list(TARGETS))
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            if name == "targets":
                for target, row in value.items():
                    print(f"  {target:14} " + "  ".join(f"{k} {v}" for k, v in row.items()))
            else:
                print(f"{name:18} {value}")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
