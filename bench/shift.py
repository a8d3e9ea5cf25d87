"""A working day in fast time, with Wi-Fi that comes and goes: does the rig grow?

    python bench/shift.py                         eight hours at twelve times the speed: forty minutes
    python bench/shift.py --hours 2 --speed 10 --json

Firmware, daemon, its camera's process and ingest are the real programs; a library preloaded into them makes
their clocks run faster and their waits shorter (edgecap/sim/fast_time.c), so every timer of theirs fires as
often as in a real day. mosquitto and the network namespace, whose cable is cut in six ways for seconds,
minutes and hours, live in real time (needs root). Each hour RSS, file descriptors, threads and the disk
that the spool takes are measured, at rest where Wi-Fi allows. Exit 1 unless every session is whole in the
store and what is measured at the end equals what was measured after the first hour: descriptors and threads
exactly, RSS + 2 % + 1 MiB (by which Python's allocator takes memory; one object keeps the whole), disk + 1.25
MiB (a segment, here of 1 MiB, stays while it is being written, and SQLite keeps pages it has needed).
A machine too busy for the speed shows as overruns and silent sensors in the daemon's log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import msgspec

from edgecap.sim.partition import Cable
from edgecap.sim.shift import Measure, Outcome, Plan, Shift

MORE_RSS, ARENA_BYTES = 0.02, 1 << 20
MORE_DISK_BYTES = (1 << 20) + (256 << 10)

COLUMNS = {
    "hour": lambda m: f"{m.hour:.0f}",
    "at rest": lambda m: "yes" if m.rested else "no",
    "sessions": lambda m: f"{m.sessions}",
    "chunks": lambda m: f"{m.spool_chunks}",
    "disk MB": lambda m: f"{m.disk_bytes / 1e6:.2f}",
    "rig MB": lambda m: f"{m.rig_rss / 1e6:.1f}",
    "fds": lambda m: f"{m.rig_fds}",
    "threads": lambda m: f"{m.rig_threads}",
    "camera MB": lambda m: f"{m.camera_rss / 1e6:.1f}",
    "ingest MB": lambda m: f"{m.ingest_rss / 1e6:.1f}",
    "ingest fds": lambda m: f"{m.ingest_fds}",
    "ingest threads": lambda m: f"{m.ingest_threads}",
}


def line(m: Measure) -> str:
    return " | ".join(cell(m).rjust(len(name)) for name, cell in COLUMNS.items())


def show_line(m: Measure) -> None:
    print(line(m), file=sys.stderr, flush=True)


def differences(measures: list[Measure]) -> list[str]:
    """What is more at the end than after the first hour."""
    rested = [m for m in measures if m.rested]
    if len(rested) < 2 or rested[-1] is not measures[-1]:
        return ["the rig was not at rest twice"]
    first, last = rested[0], rested[-1]
    found = []
    for name in ("rig_fds", "rig_threads", "ingest_fds", "ingest_threads"):
        before, after = getattr(first, name), getattr(last, name)
        if after != before:
            found.append(f"{name}: {before} after the first hour, {after} at the end")
    for name in ("rig_rss", "camera_rss", "ingest_rss"):
        before, after = getattr(first, name), getattr(last, name)
        if after > before * (1 + MORE_RSS) + ARENA_BYTES:
            found.append(f"{name}: {before / 1e6:.1f} MB after the first hour, {after / 1e6:.1f} at the end")
    if last.disk_bytes > first.disk_bytes + MORE_DISK_BYTES:
        found.append(f"disk: {first.disk_bytes} bytes after the first hour, {last.disk_bytes} at the end")
    return found


def show(outcome: Outcome, found: list[str]) -> None:
    cuts = ", ".join(f"{n} {how}" for how, n in outcome.cuts.items())
    print(f"{outcome.sessions} sessions, {outcome.chunks} chunks, {outcome.samples} samples and frames")
    print(f"most in the spool {outcome.most_disk_bytes / 1e6:.1f} MB")
    print(f"Wi-Fi away for {outcome.away_hours} h in all: {cuts}")
    for text in outcome.violations + found:
        print(f"  VIOLATION {text}")
    print(
        f"{outcome.seconds} s: "
        + ("FAILED" if outcome.violations or found else "the end equals the first hour")
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=int, default=8)
    parser.add_argument("--speed", type=int, default=12, help="times real time; default 12")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-camera", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep spool, store and logs there")
    args = parser.parse_args()
    if not Cable.available():
        print("shift: needs root, iproute2 and network namespaces", file=sys.stderr)
        return 2
    plan = Plan(seed=args.seed, speed=args.speed, hours=args.hours, camera=not args.no_camera)
    out = args.keep or Path(tempfile.mkdtemp(prefix="edgecap-shift-"))
    out.mkdir(parents=True, exist_ok=True)
    print(f"shift: {plan}, in {out}\n{' | '.join(COLUMNS)}", file=sys.stderr, flush=True)
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # end in order: everything is ours to clear away
    try:
        outcome = asyncio.run(Shift(plan, out, show_line).run())
        found = differences(outcome.measures)
        if args.json:
            print(json.dumps({**msgspec.to_builtins(outcome), "differences": found}, indent=2))
        else:
            show(outcome, found)
    finally:
        if args.keep is None:
            shutil.rmtree(out, ignore_errors=True)
    return 1 if outcome.violations or found else 0


if __name__ == "__main__":
    sys.exit(main())
