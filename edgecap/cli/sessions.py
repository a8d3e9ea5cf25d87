"""`edgecap sessions`: what a store holds, and whether it is whole."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgecap.cli import consent
from edgecap.cli.export import find_session
from edgecap.cli.ledger import ledger
from edgecap.cli.tables import print_json, print_table, printable

if TYPE_CHECKING:
    from edgecap.ingest.session_report import SessionReport, StreamReport

EXAMPLE = """\
examples:
  edgecap sessions ls ./store
  edgecap sessions show ./store 20261121-101500-k3fz
  edgecap sessions verify ./store                      every session; exit code 1 if one is not whole
  edgecap sessions verify ./store 20261121-101500-k3fz --json | jq .problems
  edgecap sessions ledger ./store --by day             what was recorded, and what became of it
  edgecap sessions withdraw ./store --consent c-17 --why "asked by letter"
  edgecap sessions withdrawn ./store --dataset ./datasets     which exports still hold withdrawn sessions
  edgecap sessions erase ./store 20261121-101500-k3fz         of a withdrawn session, all chunks
"""
STORE_HELP = "directory or URL that ingest writes to"
SESSION_HELP = "session id, or RIG/SESSION, or SITE/RIG/SESSION"
MOST_LINES = 50
"""Of marks, and of gaps, that `show` prints."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sessions ls` and its siblings."""
    parser = commands.add_parser(
        "sessions",
        help="list stored sessions, and prove that they are whole",
        description="What a store holds, whether it is whole, and what may no longer be used. Works while "
        "ingest is writing.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    metavar = "ls|show|verify|ledger|withdraw|withdrawn|erase"
    actions = parser.add_subparsers(dest="action", metavar=metavar, required=True)
    for name, function, about in (
        ("ls", _ls, "list every session at a glance"),
        ("show", _show, "tell everything about one session"),
        ("verify", _verify, "check every chunk, hash and count; exit code 1 when a session is not whole"),
        ("ledger", ledger, "add up captured, delivered, gapped and missing time"),
        ("withdraw", consent.withdraw, "note that sessions must no longer be used, also those yet to come"),
        ("withdrawn", consent.withdrawn, "list withdrawals, and exports that still hold what they cover"),
        ("erase", consent.erase, "remove all chunks of withdrawn sessions, and leave a tombstone"),
    ):
        action = actions.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.add_argument("store", metavar="STORE", help=STORE_HELP)
        if name == "show":
            action.add_argument("session", metavar="SESSION", help=SESSION_HELP)
        if name == "erase":
            action.add_argument("session", metavar="SESSION", nargs="+", help=SESSION_HELP)
        if name == "verify":
            action.add_argument("session", metavar="SESSION", nargs="*", help=f"{SESSION_HELP}; default: all")
        if name == "ledger":
            action.add_argument(
                "--by",
                choices=("rig", "day", "operator"),
                default="rig",
                help="what to add up by; default: rig",
            )
        action.set_defaults(run=function)
        if name in ("withdraw", "withdrawn"):
            (consent.add_withdraw if name == "withdraw" else consent.add_withdrawn)(action)
            continue
        each = "one JSON object" if name == "ledger" else "one JSON object per session and line"
        action.add_argument("--json", action="store_true", help=each)


def _ls(args: argparse.Namespace) -> int:
    from edgecap.ingest.consent import Consents
    from edgecap.ingest.store import open_store
    from edgecap.ingest.survey import glance

    store = open_store(args.store)
    consents = Consents(store)
    found = [glance(store, key, consents) for key in consents.sessions()]
    if args.json:
        for line in found:
            print_json(line)
        return 0
    rows = [
        (
            line.session,
            f"{line.site}/{line.rig}",
            line.state,
            _duration(line.seconds),
            str(line.streams),
            str(line.chunks),
            str(line.missing_chunks) if line.missing_chunks else "",
            f"{line.bytes / 1e6:.1f}",
            line.task,
        )
        for line in found
    ]
    if not rows:
        print(f"store {args.store} holds no session")
        return 0
    print_table(
        ("SESSION", "RIG", "STATE", "LENGTH", "STREAMS", "CHUNKS", "MISSING", "MB", "TASK"), rows, range(3, 8)
    )
    for line in found:
        for why in (line.withdrawn, line.erased):
            if why is not None:
                print(f"{line.session}: {why.in_words()}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from edgecap.ingest.completeness import verify_session
    from edgecap.ingest.store import open_store

    store = open_store(args.store)
    report = verify_session(store, find_session(store, args.session))
    if args.json:
        print_json(report)
        return 0
    facts = [
        ("session", report.session),
        ("rig", f"{report.site}/{report.rig}"),
        ("state", _state(report)),
        *(("", why.in_words()) for why in (report.withdrawn, report.erased) if why is not None),
        ("recorded", _recorded(report)),
        ("length", _duration((report.t1_ns - report.t0_ns) / 1e9)),
        ("task", report.task),
        ("operator", report.operator),
        ("consent", report.consent),
        ("calibrated", ", ".join(report.calibration)),
        *(
            [("continues", f"{report.continues}, after a hang; shift {report.shift}")]
            if report.continues
            else []
        ),
        ("stored", f"{report.chunks} chunks, {report.bytes / 1e6:.2f} MB"),
    ]
    for name, value in facts:
        print(f"{name:<11}{printable(value) or '–'}")
    print()
    header = ("STREAM", "KIND", "CHUNKS", "OF", "SAMPLES", "SENT", "GAPS", "LOST", "MB", "BOUND µs")
    print_table(header, [_stream_row(s) for s in report.streams], range(2, 10))
    for what, lines in (
        ("channels", [f"{s.name}: {s.carries}" for s in report.streams if s.carries]),
        ("marks", _marks(report)),
        ("gaps", _gaps(report)),
        ("problems", report.problems),
        ("notes", report.notes),
    ):
        if lines:
            print(f"\n{what}:")
            for line in lines:
                print(f"  {printable(line)}")
    return 0


def _marks(report: SessionReport) -> list[str]:
    """When in the session, what, and by whom."""
    return _first(
        f"{_at(report, m.t_ns)}  {m.kind}{f': {m.text}' if m.text else ''} (by {m.by})" for m in report.marks
    )


def _gaps(report: SessionReport) -> list[str]:
    """Stated losses in order of time."""
    gaps = sorted((g for s in report.streams for g in s.gaps), key=lambda g: (g.t0_ns, g.stream))
    return _first(
        f"{_at(report, g.t0_ns)}  {g.stream}: {(g.t1_ns - g.t0_ns) / 1e9:.3f} s, {g.cause}, "
        f"{'uncounted' if g.lost < 0 else g.lost} lost"
        for g in gaps
    )


def _at(report: SessionReport, t_ns: int) -> str:
    return f"{(t_ns - report.t0_ns) / 1e9:9.3f} s"


def _first(lines: Iterable[str]) -> list[str]:
    shown = list(lines)
    more = len(shown) - MOST_LINES
    return shown if more <= 0 else [*shown[:MOST_LINES], f"and {more} more: --json lists them all"]


def _stream_row(s: StreamReport) -> tuple[str, ...]:
    return (
        s.name,
        s.kind,
        str(s.chunks),
        "?" if s.expected_chunks is None else str(s.expected_chunks),
        str(s.samples),
        "" if s.device_sent is None else str(s.device_sent),
        str(len(s.gaps)) if s.gaps else "",
        str(s.lost) if s.lost else "",
        f"{s.bytes / 1e6:.2f}",
        f"{s.u_ns_max / 1e3:.0f}" if s.u_ns_max else "",
    )


def _verify(args: argparse.Namespace) -> int:
    from edgecap.ingest.completeness import verify_session
    from edgecap.ingest.consent import Consents
    from edgecap.ingest.store import open_store

    store = open_store(args.store)
    consents = Consents(store)
    keys = [find_session(store, name) for name in args.session] if args.session else consents.sessions()
    not_whole = erased = 0
    for key in keys:
        report = verify_session(store, key, consents)
        is_erased = report.erased is not None and not report.problems
        erased += is_erased
        not_whole += not report.complete and not is_erased
        if args.json:
            print_json(report)
            continue
        print(f"{report.site}/{report.rig}/{report.session}  {_state(report)}, {report.chunks} chunks")
        for why in (report.withdrawn, report.erased):
            if why is not None:
                print(f"  {why.in_words()}")
        for line in report.problems:
            print(f"  {line}")
        for line in report.notes:
            print(f"  note: {line}")
        sys.stdout.flush()
    if not args.json and not keys:
        print(f"store {args.store} holds no session")
    elif not args.json and len(keys) > 1:
        gone = f", {erased} erased" if erased else ""
        print(f"{len(keys)} sessions: {f'{not_whole} not whole' if not_whole else 'all whole'}{gone}")
    return 1 if not_whole else 0


def _state(report: SessionReport) -> str:
    if report.erased is not None:
        return "ERASED IN PART" if report.problems else "erased"
    return f"withdrawn, {_proof(report)}" if report.withdrawn is not None else _proof(report)


def _proof(report: SessionReport) -> str:
    if not report.complete:
        return "INCOMPLETE" if report.outcome == "complete" else f"INCOMPLETE ({report.outcome})"
    return "complete" if report.outcome == "complete" else f"complete ({report.outcome})"


def _recorded(report: SessionReport) -> str:
    if not report.utc_ns:
        return ""
    try:
        when = datetime.fromtimestamp(report.utc_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{report.utc_ns} ns, which is no date"
    return when if report.utc_trusted else f"{when} (the rig's clock was not synchronised)"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes
