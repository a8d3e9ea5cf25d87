"""`edgecap calibrate camera`: intrinsics from a ChArUco board; Kalibr's YAML in and out."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.cli.export import find_session
from edgecap.errors import CalibrationError, UsageError

if TYPE_CHECKING:
    from edgecap.calibration import CameraRecord

EXAMPLE = """\
examples:
  edgecap calibrate camera --board 11x8:15:11 --draw board.png
  edgecap calibrate camera ./store SESSION --stream head-cam --board 11x8:15:11 --out calibration.json
  edgecap calibrate camera --pictures ./shots --stream head-cam --board 11x8:15:11 --to-kalibr camchain.yaml
  edgecap calibrate camera --from-kalibr camchain.yaml --stream head-cam --out calibration.json

--board is COLUMNSxROWS:SQUARE:MARKER, the sides in mm as measured on the print. Show it still, some ten
times or more, in the middle and in every corner, tilted to all sides, filling a third of the picture.
Exit code 1 if the data do not allow an answer; the reason is printed. See docs/CALIBRATION.md.
"""


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "camera",
        help="intrinsics from a ChArUco board, or from and to Kalibr's YAML",
        description="Focal length, centre and distortion of a camera, with uncertainty, or a refusal.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", metavar="STORE", nargs="?", help="directory or URL that ingest writes to")
    parser.add_argument(
        "session", metavar="SESSION", nargs="?", help="session id, or RIG/SESSION, or SITE/RIG/SESSION"
    )
    parser.add_argument("--pictures", metavar="DIR", type=Path, help="a directory of pictures instead")
    parser.add_argument("--from-kalibr", metavar="FILE.yaml", type=Path, help="take over a camera chain")
    parser.add_argument(
        "--stream", metavar="NAME", action="append", default=[], help="the camera; repeat it for a chain"
    )
    parser.add_argument("--board", metavar="CxR:SQUARE:MARKER", help="the board, sides in mm")
    parser.add_argument(
        "--dictionary", metavar="NAME", default="5X5_100", help="of its markers (default %(default)s)"
    )
    parser.add_argument(
        "--model",
        choices=("radtan", "equidistant"),
        default="radtan",
        help="of the lens (default %(default)s)",
    )
    parser.add_argument("--draw", metavar="FILE.png", type=Path, help="draw the board for printing, and end")
    parser.add_argument("--temperature", metavar="C", type=float, help="to be noted")
    parser.add_argument("--by", metavar="NAME", default="", help="who measures")
    parser.add_argument("--to-kalibr", metavar="FILE.yaml", type=Path, help="write a camera chain")
    parser.add_argument("--json", action="store_true", help="print the record as one JSON object")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="put the record into a calibration map")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure or take over, print, keep."""
    from edgecap.cli.calibrate_out import keep

    if args.draw:
        return _draw(args)
    if sum(bool(given) for given in (args.store, args.pictures, args.from_kalibr)) != 1:
        raise UsageError(
            "which pictures?", fix="give STORE SESSION, or --pictures DIR, or --from-kalibr FILE"
        )
    if not args.stream:
        raise UsageError("which camera?", fix="give --stream NAME, as the daemon names it")
    notes: list[str] = []
    if args.from_kalibr:
        from edgecap.dataset.kalibr import read_camchain

        records = read_camchain(args.from_kalibr, args.stream)
    else:
        record, notes = _measure(args)
        records = [record]
    if args.to_kalibr:
        from edgecap.dataset.kalibr import write_camchain

        write_camchain(args.to_kalibr, records)
    for record in records:
        keep(args, record, in_words(record), notes)
    return 0


def _draw(args: argparse.Namespace) -> int:
    from edgecap.dataset.charuco import Board, require_opencv

    if not args.board:
        raise UsageError("which board?", fix="give --board, for example 11x8:15:11")
    drawing = Board(args.board, args.dictionary).drawing(200)
    done, data = require_opencv().imencode(".png", drawing)
    assert done
    try:
        args.draw.write_bytes(data.tobytes())
    except OSError as error:
        raise UsageError(
            f"cannot write {args.draw}: {error.strerror}", fix="choose another --draw"
        ) from error
    print(f"{args.draw}: print it without scaling, glue it to something flat, and measure its squares")
    return 0


def _measure(args: argparse.Namespace) -> tuple[CameraRecord, list[str]]:
    from edgecap import __version__
    from edgecap.calibration import CameraRecord
    from edgecap.dataset.calibrate_camera import calibrate_camera
    from edgecap.dataset.charuco import Board, folder_pictures, session_pictures, views_of

    if len(args.stream) != 1 or not args.board:
        raise UsageError("which camera, which board?", fix="give one --stream, and --board, e.g. 11x8:15:11")
    stream = args.stream[0]
    board = Board(args.board, args.dictionary)
    if args.pictures:
        found = views_of(board, folder_pictures(args.pictures), is_film=False)
        session_id, source = "", args.pictures.name
    else:
        from edgecap.dataset.session import load_session
        from edgecap.ingest.store import open_store

        if not args.session:
            raise UsageError("which session?", fix="give STORE SESSION")
        store = open_store(args.store)
        session = load_session(store, find_session(store, args.session))
        if session.info(stream).kind != "video":
            raise CalibrationError(f"stream {stream!r} is not a camera's", fix="name a camera")
        found = views_of(board, session_pictures(session, stream), is_film=True)
        session_id, source = session.key.session, session.info(stream).serial_number
    views, size, pictures = found
    result = calibrate_camera(views, size, args.model)
    notes = [f"left out {name}: it leaves more than three times the typical view" for name in result.dropped]
    fu, fv, pu, pv = (float(v) for v in result.matrix)
    d1, d2, d3, d4 = (float(v) for v in result.coefficients)
    u1, u2, u3, u4 = (float(v) for v in result.u_matrix)
    c1, c2, c3, c4 = (float(v) for v in result.u_coefficients)
    record = CameraRecord(
        stream=stream,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        edgecap=__version__,
        by=args.by,
        session=session_id,
        source=source,
        temperature_c=args.temperature,
        intrinsics=(fu, fv, pu, pv),
        distortion_model=args.model,
        distortion_coeffs=(d1, d2, d3, d4),
        resolution=size,
        u_intrinsics=(u1, u2, u3, u4),
        u_distortion=(c1, c2, c3, c4),
        residual_px=result.residual_px,
        view_residuals_px=tuple(round(float(v), 4) for v in result.view_px),
        coverage=round(result.coverage, 3),
        board=f"{board.text} {board.dictionary}",
    )
    return record, [*notes, f"{len(views)} views of {pictures} pictures"]


def in_words(record: CameraRecord) -> str:
    """What a person wants to know, in a few lines."""
    fu, fv, pu, pv = record.intrinsics
    lines = [
        f"{record.stream}: {record.resolution[0]} × {record.resolution[1]}, {record.camera_model}, "
        f"{record.distortion_model} {', '.join(f'{c:+.5f}' for c in record.distortion_coeffs)}"
    ]
    if record.u_intrinsics is None:
        return f"{lines[0]}\n  f {fu:.2f}, {fv:.2f} px, centre {pu:.2f}, {pv:.2f} px"
    a, b, c, d = record.u_intrinsics
    centre = f"{pu:.2f} ± {c:.2f}, {pv:.2f} ± {d:.2f} px (95 %)"
    lines.append(f"  f {fu:.2f} ± {a:.2f}, {fv:.2f} ± {b:.2f} px, centre {centre}")
    worst = max(record.view_residuals_px, default=0.0)
    views = f"{len(record.view_residuals_px)} views (worst {worst:.3f})"
    lines.append(f"  residual {record.residual_px:.3f} px over {views}, {record.coverage:.0%} covered")
    return "\n".join(lines)
