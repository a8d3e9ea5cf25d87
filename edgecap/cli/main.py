"""`edgecap`: one command, one family of subcommands per file."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from edgecap import __version__
from edgecap.cli.journal import set_up_logging, tell
from edgecap.errors import EdgecapError

FAMILIES = (
    "run",
    "demo",
    "ingest",
    "fleet",
    "ctl",
    "sessions",
    "spool",
    "export",
    "codec",
    "clock",
    "calibrate",
    "sim",
    "doctor",
    "config",
)
"""Modules of this package in the order of `--help`; each has `add_parser`."""

EPILOG = """\
examples:
  edgecap demo --seconds 20                 the whole system on this machine, no hardware
  edgecap run --config rig.toml             the daemon
  edgecap sessions ls ./store               what has arrived
  edgecap export ./store SESSION --to mcap --out ./datasets
  edgecap export ./store SESSION --to frames --out ./datasets
  edgecap export ./store SESSION --to lerobot --out ./dataset
"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="edgecap",
        description="Capture video, motion and force on one clock, and deliver them with proof.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgecap {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and debug messages")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for family in FAMILIES:
        importlib.import_module(f"edgecap.cli.{family}").add_parser(commands)
    return parser


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 ok, 1 it failed, 2 usage or configuration."""
    args = argparse.Namespace(debug=False)
    try:
        args = build_parser().parse_args(argv)
        set_up_logging(debug=args.debug)
        return int(args.run(args))
    except KeyboardInterrupt:
        print("edgecap: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not a failure, and nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (EdgecapError, ExceptionGroup) as error:
        found = list(_leaves(error))
        if args.debug or not all(isinstance(e, EdgecapError) for e in found):
            tell(f"edgecap: {type(error).__name__}: {error}\n{traceback.format_exc()}")
        known = [e for e in found if isinstance(e, EdgecapError)]
        for line in dict.fromkeys(str(e) for e in known):
            tell(f"edgecap: {line}")
        if known and "NOTIFY_SOCKET" in os.environ:
            from edgecap.status import notify_systemd

            notify_systemd(f"STATUS={known[0]}")
        return max((e.exit_code for e in known), default=1)


if __name__ == "__main__":
    sys.exit(main())
