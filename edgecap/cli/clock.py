"""`edgecap clock`: judge the clock estimator on a recorded exchange."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecap.errors import UsageError

EPILOG = """\
example:
  edgecap sim clock --seed 1 --seconds 60 --scenario usb-1ms --log exchange.npz
  edgecap clock replay exchange.npz --out published.npz --json

The log is an npz of equal-length arrays, one entry per received frame in order of arrival:
  kind u1 (0 samples, 1 pong)     arrival_ns i8     seq u4 (numbers every frame of the device)
  t_us u4 (counter at the first sample, or when the pong was handed over)
  prev_tx_done_us u4, has_prev u1 (counter at transfer-complete of frame seq - 1)
  ping_sent_ns i8, t2_us u4 (pongs)     boot u4
Entries of equal arrival_ns are one read. OUT gets, for the sample frames in order, what was published at
that moment: t_ns i8, u_ns i8 (hard half-width), epoch i4, locked u1. If the log also has truth_ns i8 (the
rig time at which the counter showed t_us), errors are reported.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    clock = commands.add_parser(
        "clock",
        help="replay a recorded exchange through the clock estimator",
        description="Judge the clock estimator on exchanges that were recorded on real hardware.",
        epilog="example:\n  edgecap clock replay exchange.npz --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = clock.add_subparsers(dest="action", metavar="ACTION", required=True)
    replay = actions.add_parser(
        "replay",
        help="run the causal clock estimator over a recorded exchange",
        description="Run the causal clock estimator over a recorded exchange, as the daemon would have.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument("log", type=Path, metavar="LOG.npz")
    replay.add_argument("--out", type=Path, metavar="OUT.npz", help="write what was published")
    replay.add_argument("--json", action="store_true", help="print one JSON object instead of words")
    for leg in ("ping", "pong"):
        replay.add_argument(
            f"--{leg}-wire-us",
            type=float,
            default=0.0,
            metavar="US",
            help=f"time a {leg} spends on a UART's wire (default 0)",
        )
    replay.set_defaults(run=run_replay)


def run_replay(args: argparse.Namespace) -> int:
    """Replay, write, report."""
    import json

    from edgecap.timeline.device_clock import DeviceClock
    from edgecap.timeline.replay import read_log, replay, rows_from_arrays, save_replay, summarise

    for leg, us in (("ping", args.ping_wire_us), ("pong", args.pong_wire_us)):
        if not 0 <= us <= 1e6:
            raise UsageError(
                f"--{leg}-wire-us {us:g} is no time on a wire", fix="give microseconds, 0 to 1e6"
            )
    arrays = read_log(args.log)
    rows = rows_from_arrays(arrays, name=str(args.log))
    clock = DeviceClock(
        ping_least_ns=round(args.ping_wire_us * 1e3), reply_least_ns=round(args.pong_wire_us * 1e3)
    )
    result = replay(rows, clock)
    if args.out:
        save_replay(result, args.out)
    summary = summarise(rows, result, arrays.get("truth_ns"))
    if args.json:
        print(json.dumps(summary))
        return 0
    print(f"{summary['frames']} frames in {summary['reads']} reads over {summary['seconds']:.1f} s")
    print(
        f"bound ± {_of(summary['u_p50_us'])} µs median, {_of(summary['u_p99_us'])} µs p99; "
        f"locked {summary['locked_share']:.1%} of sample frames, first after {_of(summary['lock_s'], 2)} s"
    )
    print(
        f"epochs {summary['epochs']} (resets {summary['resets']}, crossed bands {summary['restarts']}), "
        f"skew {summary['skew_ppm']:+.3f} ppm"
    )
    print(
        f"pongs {summary['pongs']}, rejected {summary['rejects']}; frames suspect "
        f"{summary['suspect_frames']}, lost {summary['seq_lost']}, repeated {summary['repeated']}"
    )
    if "error_p99_us" in summary:
        print(
            f"against the truth after 10 s: p50 {_of(summary['error_p50_us'])} µs, "
            f"p99 {_of(summary['error_p99_us'])} µs; inside the bound {summary['inside_bound']:.4%}"
        )
    return 0


def _of(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
