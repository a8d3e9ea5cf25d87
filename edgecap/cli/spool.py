"""`edgecap spool`: a rig's spool on a card or in a dock, without its daemon and without a network."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.cli.progress import progress_bar
from edgecap.cli.tables import print_json, print_table, printable

if TYPE_CHECKING:
    from edgecap.ingest.handover import ImportReport
    from edgecap.spool.card import Card
    from edgecap.spool.survey import SpooledSession, SpoolSurvey

EXAMPLE = """\
examples:
  edgecap spool ls /media/card                                what is on the card, and what is unsent
  edgecap spool import /media/card --store /srv/edgecap       take it over; the card keeps everything
  sudo edgecap spool import /dev/sdb2 --store /srv/edgecap --receipts rig-07.receipts

The receipts file tells the rig what is stored: it lies in the spool's directory (or is put there under any
name that ends in .receipts), and the rig's next start releases exactly those chunks.
"""
SPOOL_HELP = "spool directory, the card's mount point, its block device, or an image of it"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `spool ls` and `spool import`."""
    parser = commands.add_parser(
        "spool",
        help="take over a rig's spool from its card",
        description="A rig's spool on a card or in a dock, without its daemon and without a network.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ls|import", required=True)
    for name, function, about, more in (
        (
            "ls",
            _ls,
            "tell what a spool holds, what of it is unsent, and its health",
            "The card is only read.",
        ),
        (
            "import",
            _import,
            "verify and store everything on a card, and write receipts for its rig",
            "The receipts file is all that is written to the card. Exit code 1 when part of it could not be "
            "taken over; repeating an import does no harm.",
        ),
    ):
        action = actions.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}. {more}",
            epilog=EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.add_argument("spool", metavar="DIR|DEVICE", type=Path, help=SPOOL_HELP)
        if name == "import":
            action.add_argument(
                "--store", metavar="URL", required=True, help="a directory, made if missing, or a URL"
            )
            action.add_argument(
                "--receipts",
                metavar="FILE",
                type=Path,
                help="default: handover.receipts in the spool; on a card that cannot be written, "
                "RIG-TIME.receipts in the current directory",
            )
        action.add_argument("--json", action="store_true", help="print one JSON object")
        action.set_defaults(run=function)


def _ls(args: argparse.Namespace) -> int:
    from edgecap.spool.card import Card, find_spool
    from edgecap.spool.device import mounted
    from edgecap.spool.survey import survey_spool

    with mounted(args.spool) as path, Card(find_spool(path)) as card:
        survey = survey_spool(card)
    if args.json:
        print_json(survey)
        return 0
    if survey.sessions:
        header = ("SESSION", "RIG", "STATE", "WRITTEN (UTC)", "STREAMS", "CHUNKS", "MB", "UNSENT", "MB")
        print_table(header, [_row(s) for s in survey.sessions], range(4, 9))
    for line in _survey_words(survey):
        print(line)
    return 0


def _row(s: SpooledSession) -> tuple[str, ...]:
    return (
        s.session,
        f"{s.site}/{s.rig}",
        "closed" if s.closed else "cut off",
        _utc(s.first_utc_ns),
        str(len(s.streams)),
        str(s.chunks),
        _mb(s.bytes),
        str(s.unsent_chunks) if s.unsent_chunks else "",
        _mb(s.unsent_bytes) if s.unsent_chunks else "",
    )


def _chunks(n: int) -> str:
    return "1 chunk" if n == 1 else f"{n} chunks"


def _survey_words(s: SpoolSurvey) -> Iterator[str]:
    sessions = "no session" if not s.sessions else f"{len(s.sessions)} session{'s'[: len(s.sessions) > 1]}"
    yield f"{s.path}: {sessions}, {_chunks(s.chunks)}, {_mb(s.bytes)} MB, {_mb(s.free_bytes)} MB free"
    if s.unsent_chunks:
        since = f", the oldest of {_utc(s.oldest_unsent_utc_ns)} UTC" if s.oldest_unsent_utc_ns else ""
        yield f"unsent: {_chunks(s.unsent_chunks)}, {_mb(s.unsent_bytes)} MB{since}"
    else:
        yield "unsent: nothing"
    if s.receipts_waiting:
        yield "a receipts file waits for the rig's next start"
    if s.in_use_by is not None:
        yield f"in use by process {printable(s.in_use_by) or 'unknown'}: its newest chunks may not be counted"
    if s.torn_bytes:
        yield f"unfinished records: {s.torn_bytes} bytes, as a cut of power leaves them"
    if s.healthy:
        yield "health: nothing amiss"
    for problem in s.problems:
        yield f"problem: {printable(problem)}"


def _import(args: argparse.Namespace) -> int:
    from edgecap.ingest.handover import import_spool
    from edgecap.ingest.refused import RefusedBin
    from edgecap.ingest.store import open_store
    from edgecap.spool.card import Card, find_spool
    from edgecap.spool.device import mounted

    with mounted(args.spool) as mount:
        card = Card(find_spool(mount))
        store = open_store(args.store, create=True)
        try:
            refused = RefusedBin(None if "://" in store.url else Path(store.url) / ".refused")
            with progress_bar(str(args.spool), of_bytes=True) as progress:
                report = import_spool(
                    card,
                    store,
                    receipts=[args.receipts] if args.receipts else _places(card),
                    refused=refused,
                    progress=progress,
                )
        finally:
            store.close()
    if args.json:
        print_json(report)
    else:
        _tell(report)
    return 1 if report.problems else 0


def _places(card: Card) -> list[Path]:
    from edgecap.spool.handover import RECEIPTS_NAME, SUFFIX
    from edgecap.spool.survey import survey_spool

    beside = card.path / RECEIPTS_NAME
    if os.access(card.path, os.W_OK, effective_ids=True):
        return [beside]
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    rig = next((s.rig for s in survey_spool(card).sessions), "spool")
    return [beside, Path.cwd() / f"{rig}-{now}{SUFFIX}"]


def _tell(report: ImportReport) -> None:
    if report.sessions:
        rows = [
            (
                s.session,
                f"{s.site}/{s.rig}",
                s.state,
                str(s.chunks),
                str(s.stored) if s.stored else "",
                str(s.duplicates) if s.duplicates else "",
                str(s.missing_chunks) if s.missing_chunks else "",
            )
            for s in report.sessions
        ]
        print_table(("SESSION", "RIG", "STATE", "ON CARD", "STORED", "KNOWN", "MISSING"), rows, range(3, 7))
    erased = f", {report.erased} of erased sessions not stored" if report.erased else ""
    print(
        f"{report.spool}: {_chunks(report.chunks)}, {_mb(report.bytes)} MB verified; {report.stored} stored, "
        f"{report.duplicates} known already{erased}"
    )
    cut_off = sum(s.state == "open" for s in report.sessions)
    if cut_off:
        print(
            f"{cut_off} session{'s were' if cut_off > 1 else ' was'} cut off (open): stored as far as "
            "recorded; the rig closes such a session on its next start, the next handover completes it"
        )
    if report.torn_bytes:
        print(f"unfinished records: {report.torn_bytes} bytes, as a cut of power leaves them")
    for problem in report.problems:
        print(f"problem: {printable(problem)}")
    if report.kept:
        print(f"copies of what could not be stored: {Path(report.kept[0]).parent}")
    if not report.chunks:
        print("there is nothing to take over")
        return
    if report.receipts is None:
        print("no receipts were written: the rig keeps everything")
        return
    print(f"receipts for {_chunks(report.receipted)}: {report.receipts}")
    if Path(report.receipts).parent != Path(report.spool):
        print("put this file into the spool's directory on the card; its rig then releases these chunks")


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f}"


def _utc(utc_ns: int) -> str:
    try:
        return datetime.fromtimestamp(utc_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return "?"
