"""`edgecap calibrate imu`: bias at rest, gravity in six or more poses, Allan deviation."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecap.cli.export import find_session
from edgecap.errors import UsageError

if TYPE_CHECKING:
    from edgecap.calibration import Record
    from edgecap.dataset.inertial import Inertial

METHODS = ("rest", "six", "poses", "allan")
EXAMPLE = """\
examples:
  edgecap calibrate imu ./store SESSION --stream head-imu --method rest --out calibration.json
  edgecap calibrate imu ./store SESSION --stream head-imu --method six --gravity 9.8101 --out calibration.json
  edgecap calibrate imu ./store SESSION --stream head-imu --method allan --plot allan.png

methods, and what to record for them:
  rest   gyroscope bias: lie still for a minute
  six    accelerometer scale, misalignment, bias: on each of its six sides on a level table, 3 s each
  poses  the same without knowing directions: a dozen, turned all ways, held still for 3 s each
  allan  noise: an hour at rest (a minute gives the white noise alone)

FILE.npz holds t (int64 ns, or float64 s) and accel (n, 3) in m/s² and/or gyro (n, 3) in rad/s. Exit code 1
if the data do not allow an answer; the reason is printed. See docs/CALIBRATION.md.
"""


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "imu",
        help="bias at rest, scale and misalignment against gravity, noise",
        description="Bias, scale, misalignment and noise of an inertial sensor, or a refusal.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", metavar="STORE", nargs="?", help="directory or URL that ingest writes to")
    parser.add_argument(
        "session", metavar="SESSION", nargs="?", help="session id, or RIG/SESSION, or SITE/RIG/SESSION"
    )
    parser.add_argument("--npz", metavar="FILE", type=Path, help="arrays instead of a session")
    parser.add_argument("--stream", metavar="NAME", required=True, help="as the daemon names it")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument(
        "--gravity", metavar="M_S2", type=float, default=9.80665, help="at the place (default %(default)s)"
    )
    parser.add_argument("--temperature", metavar="C", type=float, help="of the sensor, to be noted")
    parser.add_argument("--by", metavar="NAME", default="", help="who measures")
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="allan: draw the curve")
    parser.add_argument("--json", action="store_true", help="print the record as one JSON object")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="put the record into a calibration map")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print, keep."""
    from edgecap.calibration import NoiseRecord
    from edgecap.cli.calibrate_out import keep
    from edgecap.dataset.imu_records import imu_record

    if not 9.7 < args.gravity < 9.9:
        raise UsageError(
            f"--gravity {args.gravity} is nowhere on Earth", fix="it is between 9.76 and 9.84 m/s²"
        )
    if args.plot and args.method != "allan":
        raise UsageError("--plot draws an Allan deviation", fix="give --method allan")
    signal, origin = _signal(args)
    record = imu_record(signal, args.method, args.gravity, by=args.by, **origin)
    if args.plot:
        from edgecap.dataset.allan_plot import plot_noise

        assert isinstance(record, NoiseRecord)
        plot_noise(record, args.plot)
    return keep(args, record, in_words(record))


def _signal(args: argparse.Namespace) -> tuple[Inertial, dict[str, Any]]:
    if args.npz:
        from edgecap.dataset.imu_records import read_inertial

        if args.store:
            raise UsageError("--npz and a store do not go together", fix="leave one out")
        return read_inertial(args.npz, args.stream), {
            "source": args.npz.name,
            "temperature_c": args.temperature,
        }
    if not args.store or not args.session:
        raise UsageError("which session?", fix="give STORE SESSION, or --npz FILE")
    from edgecap.dataset.force_session import temperature_of
    from edgecap.dataset.inertial import inertial
    from edgecap.dataset.session import load_session
    from edgecap.ingest.store import open_store

    store = open_store(args.store)
    session = load_session(store, find_session(store, args.session))
    signal = inertial(session, args.stream)
    info = session.info(args.stream)
    celsius = args.temperature if args.temperature is not None else temperature_of(session, info.device)
    origin = {"session": session.key.session, "source": info.serial_number, "temperature_c": celsius}
    return signal, origin


def in_words(record: Record) -> str:
    """What a person wants to know, in a few lines."""
    from edgecap.calibration import AccelRecord, GyroRecord, NoiseRecord

    at = "" if record.temperature_c is None else f", {record.temperature_c:.1f} °C"
    if isinstance(record, GyroRecord):
        bias = ", ".join(f"{b:+.5f}" for b in record.bias_rad_s)
        u = f"{record.u_bias_rad_s:.5f} ({math.degrees(record.u_bias_rad_s):.4f} °/s, 95 %)"
        return (
            f"{record.stream}: gyroscope bias {bias} rad/s ± {u}\n"
            f"  {record.seconds:.1f} s at rest{at}; a sample deviates by {record.noise_rad_s:.5f} rad/s"
        )
    if isinstance(record, AccelRecord):
        bias = ", ".join(f"{b:+.4f}" for b in record.bias_m_s2)
        rows = "\n".join("    " + "  ".join(f"{v:+.5f}" for v in row) for row in record.matrix)
        return (
            f"{record.stream}: accelerometer bias {bias} m/s² ± {record.u_bias_m_s2:.4f} (95 %)\n"
            f"  true = M · (measured − bias), elements of M ± {record.u_matrix:.5f}:\n{rows}\n"
            f"  {record.n} poses{at}; |a| departs from g by {record.residual_m_s2:.4f} m/s²"
        )
    assert isinstance(record, NoiseRecord)
    lines = [f"{record.stream}: {record.seconds:.0f} s at {record.rate_hz:.1f} Hz{at}"]
    for a in record.axes:
        walk = f"{math.degrees(a.white) * 60:.3f} °/√h" if a.unit == "rad/s" else f"{a.white * 60:.4f} m/s/√h"
        least = f"{a.instability:.3g} {a.unit} at {a.instability_at_s:.1f} s"
        bound = "" if a.reached else " or less (the curve has not turned)"
        white = f"{a.white:.4g} ± {a.u_white:.2g} {a.unit}/√Hz ({walk})"
        lines.append(f"  {a.name}: white {white}; instability {least}{bound}")
    return "\n".join(lines)
