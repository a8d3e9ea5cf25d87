"""`edgecap calibrate`: measure what descriptors cannot know, from recordings."""

from __future__ import annotations

import argparse
import importlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.cli.calibrate_out import keep
from edgecap.cli.export import find_session
from edgecap.errors import UsageError

if TYPE_CHECKING:
    from edgecap.dataset.sync import Limits
    from edgecap.dataset.sync_record import SyncRecord

EXAMPLE = """\
examples:
  edgecap calibrate sync ./store 20261121-101500-k3fz --streams head-cam,head-gyro --method flow
  edgecap calibrate sync ./store SESSION --streams left-force,left-imu --method tap --out calibration.json
  edgecap calibrate sync --npz motion.npz --method gyro --any-lag --json

methods, A,B as given to --streams:
  flow  a camera and a gyroscope that turn together: look around irregularly for a minute
  gyro  two gyroscopes on one body
  tap   a force sensor and an accelerometer: knock ten times, sharply, at irregular intervals
  led   a camera and the device (or stream with a channel `led`) whose LED it sees blink

A positive lag says that A's time stamps are late: subtract it from them to put A on B's time. Exit code 1
if the data do not allow an answer; the reason is printed. See docs/CALIBRATION.md.

FILE.npz holds t_a, a, t_b, b; times are int64 ns, or float64 s. Of a: (n, 3) rates, or (n, 4) camera
orientations w x y z (gyro); grey pictures (n, h, w) (flow); rows' brightness (n, h), with line_ns and
exposure_ns (led). Of b: (m, 3) rates, or the LED's state after each switching (led).
"""
EXAMPLES = """\
examples:
  edgecap calibrate sync ./store SESSION --streams head-cam,head-gyro --method flow
  edgecap calibrate force ./store SESSION --stream left-force --reference 'scale' --out calibration.json
  edgecap calibrate imu ./store SESSION --stream head-imu --method six --out calibration.json
  edgecap calibrate camera --board 11x8:15:11 --draw board.png

Each action has --help with more. See docs/CALIBRATION.md.
"""
METHODS = ("flow", "gyro", "tap", "led")


ACTIONS = ("force", "imu", "camera")
"""Modules `calibrate_…` of this package beside `sync`."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    calibrate = commands.add_parser(
        "calibrate",
        help="measure lags, forces, inertial sensors and cameras",
        description="Measure from recordings what descriptors cannot know.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = calibrate.add_subparsers(dest="action", metavar="ACTION", required=True)
    sync = actions.add_parser(
        "sync",
        help="constant lag between two streams that saw the same motion, taps or light",
        description="Constant lag between two streams, with its uncertainty, or a refusal with the reason.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sync.add_argument("store", metavar="STORE", nargs="?", help="directory or URL that ingest writes to")
    sync.add_argument(
        "session", metavar="SESSION", nargs="?", help="session id, or RIG/SESSION, or SITE/RIG/SESSION"
    )
    sync.add_argument("--npz", metavar="FILE", type=Path, help="arrays instead of a session")
    sync.add_argument("--streams", metavar="A,B", help="the two streams (with --npz: what to call them)")
    sync.add_argument("--method", choices=METHODS, required=True)
    sync.add_argument(
        "--max-lag-s", metavar="S", type=float, default=0.5, help="search this far (default %(default)s)"
    )
    sync.add_argument(
        "--any-lag", action="store_true", help="the two clocks have nothing to do with each other"
    )
    sync.add_argument(
        "--window-s", metavar="S", type=float, default=10.0, help="length of a window (default %(default)s)"
    )
    sync.add_argument(
        "--min-r2", metavar="R2", type=float, default=0.5, help="refuse windows below (default %(default)s)"
    )
    sync.add_argument(
        "--min-motion",
        metavar="RAD_S",
        type=float,
        default=0.01,
        help="refuse windows that turn less (default %(default)s rad/s)",
    )
    sync.add_argument("--json", action="store_true", help="print the record as one JSON object")
    sync.add_argument("--out", metavar="FILE.json", type=Path, help="add the record to a calibration map")
    sync.set_defaults(run=run_sync)
    for action in ACTIONS:
        importlib.import_module(f"edgecap.cli.calibrate_{action}").add_parser(actions)


def run_sync(args: argparse.Namespace) -> int:
    """Measure, print, keep."""
    from edgecap.dataset.sync import Limits

    for name in ("max_lag_s", "window_s", "min_r2", "min_motion"):
        value = getattr(args, name)
        if not math.isfinite(value) or value < 0 or (value == 0 and name in {"max_lag_s", "window_s"}):
            raise UsageError(f"--{name.replace('_', '-')} {value} is not a positive number")
    limits = Limits(None if args.any_lag else args.max_lag_s, args.window_s, args.min_r2, args.min_motion)
    record = _from_arrays(args, limits) if args.npz else _from_session(args, limits)
    return keep(args, record, in_words(record))


def _from_arrays(args: argparse.Namespace, limits: Limits) -> SyncRecord:
    from edgecap.dataset.sync_record import sync_arrays
    from edgecap.dataset.sync_sources import read_arrays

    if args.store:
        raise UsageError("--npz and a store do not go together", fix="leave one out")
    a, b = _pair(args.streams or "a,b")
    return sync_arrays(read_arrays(args.npz), a, b, args.method, limits)


def _from_session(args: argparse.Namespace, limits: Limits) -> SyncRecord:
    from edgecap.dataset.session import load_session
    from edgecap.dataset.sync_record import sync_session
    from edgecap.ingest.store import open_store

    if not args.session or not args.streams:
        raise UsageError(
            "which streams of which session?", fix="give STORE SESSION --streams A,B, or --npz FILE"
        )
    a, b = _pair(args.streams)
    store = open_store(args.store)
    return sync_session(load_session(store, find_session(store, args.session)), a, b, args.method, limits)


def _pair(streams: str) -> tuple[str, str]:
    names = [name.strip() for name in streams.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise UsageError(
            f"--streams {streams!r} does not name two streams", fix="for example: head-cam,head-gyro"
        )
    return names[0], names[1]


def in_words(record: SyncRecord) -> str:
    """What a person wants to know, in a few lines."""
    when = "late" if record.lag_ns >= 0 else "early"
    lag_ms, u_ms = abs(record.lag_ns) * 1e-6, record.u_ns * 1e-6
    what = "windows" if record.r2 is not None else "events"
    lines = [
        f"{record.a} is stamped {lag_ms:.3f} ms {when} against {record.b}, ± {u_ms:.3f} ms (95 %)",
        f"  {record.n} {what} used, {record.n_rejected} not; one deviates by {record.sd_ns * 1e-6:.3f} ms",
    ]
    if record.r2 is not None:
        lines.append(f"  R² {record.r2:.4f}, residual {record.residual:.4g} {record.residual_unit}")
    known = {name: lag for name, lag in record.known_lag_ns.items() if lag}
    if known:
        told = ", ".join(f"{name} {lag * 1e-6:.3f} ms" for name, lag in known.items())
        lines.append(f"  known lags of the descriptors, part of this one: {told}")
    if record.clock_u_ns:
        told = ", ".join(f"{name} ± {u * 1e-3:.0f} µs" for name, u in record.clock_u_ns.items())
        lines.append(f"  bounds of the streams' clocks, beside this one: {told}")
    if record.drifts:
        lines.append(f"  NOT CONSTANT: it changes by {record.drift_ppm:.1f} ± {record.u_drift_ppm:.1f} ppm")
    return "\n".join(lines)
