"""`edgecap sim`: seeded simulations."""

from __future__ import annotations

import argparse
from pathlib import Path

_INSIDE = 0.999
STAMP_CLOCKS = ("raw", "monotonic", "realtime")

EPILOG = """\
examples:
  edgecap sim clock --list
  edgecap sim clock --seed 1 --seconds 120 --scenario usb-1ms
  edgecap sim clock --seed 7 --seconds 60 --scenario everything --log exchange.npz --json
  edgecap sim clock --seed 1 --seconds 600 --stamp-with realtime     what the rig clock saves one from
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sim = commands.add_parser(
        "sim",
        help="seeded simulations: a device's clock over a bad link",
        description="Seeded simulations that drive the program's own code.",
        epilog="example:\n  edgecap sim clock --seed 1 --seconds 60 --scenario usb-1ms",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = sim.add_subparsers(dest="action", metavar="ACTION", required=True)
    clock = actions.add_parser(
        "clock",
        help="simulate a device link and judge the clock estimator on it",
        description="Simulate the frames of a device over a link with drift, tails, stalls, losses and\n"
        "resets, run the daemon's clock estimator over them, and compare with the truth. Exit code 1 if the\n"
        "truth left the published bound more than once in a thousand samples.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    clock.add_argument("--seed", type=int, default=1)
    clock.add_argument("--seconds", type=float, default=60.0)
    clock.add_argument("--scenario", default="usb-1ms", metavar="NAME", help="see --list (default usb-1ms)")
    clock.add_argument("--list", action="store_true", help="list the scenarios")
    clock.add_argument("--log", type=Path, metavar="OUT.npz", help="write the exchange for `clock replay`")
    clock.add_argument(
        "--bytes", action="store_true", help="send the frames as bytes through the deframer and the ping book"
    )
    clock.add_argument(
        "--stamp-with",
        choices=STAMP_CLOCKS,
        default="raw",
        help="host clock of the stamps: MONOTONIC_RAW (default); or MONOTONIC, which NTP slews by 500 ppm "
        "for 10 s a minute; or REALTIME, which is also stepped by up to 1 s every two minutes",
    )
    clock.add_argument("--json", action="store_true", help="print one JSON object instead of words")
    clock.set_defaults(run=run_clock)


def run_clock(args: argparse.Namespace) -> int:
    """Simulate, estimate, report; fails if the truth left the bound more than once in a thousand."""
    import difflib
    import json

    import numpy as np

    from edgecap.errors import UsageError
    from edgecap.sim.clock import simulate
    from edgecap.sim.clock_bytes import replay_bytes
    from edgecap.sim.links import SCENARIOS
    from edgecap.timeline.replay import replay, rows_from_arrays, summarise

    if args.list:
        for name, link in SCENARIOS.items():
            print(f"{name:20s} {link.about}")
        return 0
    if args.scenario not in SCENARIOS:
        near = difflib.get_close_matches(args.scenario, SCENARIOS, n=1) or ["usb-1ms"]
        raise UsageError(f"no scenario {args.scenario!r}", fix=f"did you mean {near[0]!r}? --list shows all")
    if not 1.0 <= args.seconds <= 86_400.0:
        raise UsageError(f"--seconds {args.seconds:g} is not possible", fix="give 1 to 86400")
    if args.seed < 0:
        raise UsageError(f"--seed {args.seed} is not possible", fix="give 0 or more")
    link = SCENARIOS[args.scenario]
    log = simulate(link, seed=args.seed, seconds=args.seconds)
    if args.stamp_with != "raw":
        rng = np.random.default_rng(args.seed)
        log = log.on_slewed_clock(rng, steps=args.stamp_with == "realtime")
    if args.log:
        log.save(args.log)
    rows = rows_from_arrays(log.arrays())
    result = replay_bytes(log, link.clock()) if args.bytes else replay(rows, link.clock())
    summary = summarise(rows, result, log.truth_ns)
    summary = {"scenario": args.scenario, "seed": args.seed, **summary}
    if args.json:
        print(json.dumps(summary))
    else:
        width = max(map(len, summary))
        for name, value in summary.items():
            print(f"{name:{width}s} {value:.6g}" if isinstance(value, float) else f"{name:{width}s} {value}")
    return 0 if float(summary["inside_bound"] or 0.0) >= _INSIDE else 1
