"""Kills, freezes and partitions under load by a seeded schedule; then every sample is looked for.

    python bench/soak.py                                         a minute
    python bench/soak.py --kills-daemon 300 --kills-broker 100 --kills-ingest 100 --partitions 50 --json

Real firmware on ptys (recordings in a loop, an IMU and force sensors at 1 kHz), the daemon, mosquitto and two
sharing ingest workers, each a process. Daemons are killed while they start, wait, open, record and close.
Every sample that the boards' truth files name must be in the store or lie in a gap that its session states.
The gap that states a kill must be 2.6 s long at most, and what lies in it 1.6 s old at the kill at most;
replayed values must be those of the recording; every session must be whole. Partitions need root: rigs then
live in network namespaces of their own. Exit 1 on any violation.
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
from edgecap.sim.upheaval import Outcome, Plan, Upheaval


def show(outcome: Outcome) -> None:
    account = msgspec.to_builtins(outcome.account)
    print(f"seed {outcome.seed}, {outcome.seconds} s")
    for table in (outcome.faults, account):
        for name, value in table.items():
            if name != "violations":
                print(f"  {name:28} {value}")
    for line in outcome.violations:
        print(f"  VIOLATION {line}")
    print("nothing was lost beyond the stated bound" if outcome.holds else "FAILED")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills-daemon", type=int, default=24, metavar="N")
    parser.add_argument("--kills-broker", type=int, default=8, metavar="N")
    parser.add_argument("--kills-ingest", type=int, default=8, metavar="N")
    parser.add_argument("--partitions", type=int, default=0, metavar="N")
    parser.add_argument("--rigs", type=int, default=3, metavar="N", help="that share the kills; default 3")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep store, truth and logs there")
    args = parser.parse_args()
    if args.partitions and not Cable.available():
        print("soak: partitions need root, iproute2 and network namespaces", file=sys.stderr)
        return 2
    plan = Plan(
        seed=args.seed,
        rigs=args.rigs,
        kills_daemon=args.kills_daemon,
        kills_broker=args.kills_broker,
        kills_ingest=args.kills_ingest,
        partitions=args.partitions,
    )
    out = args.keep or Path(tempfile.mkdtemp(prefix="edgecap-soak-"))
    out.mkdir(parents=True, exist_ok=True)
    print(f"soak: seed {plan.seed}, {plan}, in {out}", file=sys.stderr)
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # end in order: everything is ours to clear away
    try:
        outcome = asyncio.run(Upheaval(plan, out, lambda line: print(line, file=sys.stderr)).run())
        ok = outcome.holds
        if args.json:
            print(json.dumps({"plan": msgspec.to_builtins(plan), **msgspec.to_builtins(outcome)}, indent=2))
        else:
            show(outcome)
    finally:
        if args.keep is None:
            shutil.rmtree(out, ignore_errors=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
