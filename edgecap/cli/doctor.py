"""`edgecap doctor`: is this rig fit to record, and what is to be done if not?"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING

from edgecap.cli.broker import add_rig_options
from edgecap.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from edgecap.checkup import Exam, Finding
    from edgecap.config import Config

EXAMPLE = """\
examples:
  edgecap doctor                            with ./edgecap.toml or /etc/edgecap/edgecap.toml
  sudo edgecap doctor --config rig.toml     as root it may ask a daemon that runs as another user
  edgecap doctor --json | jq '.findings[] | select(.verdict == "fail")'

docs/DOCTOR.md explains every row.
"""
MARKS = {"ok": "✓", "fail": "✗", "none": "–"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check hardware, permissions, clock, disk and broker",
        description="Check everything that a recording needs; each failure names its fix. "
        "Exit 1 if any fails. While the daemon runs it holds the devices: then it is asked.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rig_options(parser)
    parser.add_argument(
        "--seconds", type=float, default=3.0, metavar="N", help="record for this long (default 3)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from edgecap.config import load_config
    from edgecap.errors import UsageError

    if not 1 <= args.seconds <= 60:
        raise UsageError(f"--seconds {args.seconds:g} is not possible", fix="give 1 to 60")
    config = load_config(args.config)
    exam = exam_of(config, args.broker, args.seconds)
    findings = asyncio.run(look(exam))
    failures = sum(f.verdict == "fail" for f in findings)
    if args.json:
        body = {"ok": not failures, "site": config.site, "rig": config.rig, "findings": findings}
        print_json(body)
    else:
        print_findings(findings)
        print(f"{failures} of {len(findings)} checks failed" if failures else "fit to record")
    return 1 if failures else 0


def exam_of(config: Config, broker_option: str | None, seconds: float) -> Exam:
    """The real rig, to be examined."""
    from edgecap.checkup import Exam
    from edgecap.cli.run import broker_of, panel_of, sources_of
    from edgecap.errors import ConfigError

    broker: object
    try:
        broker = broker_of(config, broker_option)
    except ConfigError as error:
        broker = error
    return Exam(
        config,
        sources_of(config),
        broker=broker,
        panel=panel_of(config, lambda **_: None),
        seconds=seconds,
        tell=_progress if sys.stderr.isatty() else lambda _: None,
    )


async def look(exam: Exam) -> list[Finding]:
    """Carry out all checks."""
    from edgecap.checkup import examine

    findings = [finding async for finding in examine(exam)]
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return findings


def print_findings(findings: list[Finding]) -> None:
    """One row each, failures with their fix."""
    rows = [[MARKS[f.verdict], f.check, f.text + (f" → {f.fix}" if f.fix else "")] for f in findings]
    print_table(["", "check", "what was found → what to do"], rows, ())


def _progress(text: str) -> None:
    print(f"\r\x1b[K… {text}", end="", file=sys.stderr, flush=True)
