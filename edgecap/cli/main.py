"""`edgecap`: one command, one family of subcommands per file."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from edgecap import __version__
from edgecap.cli.journal import set_up_logging, tell
from edgecap.cli.terminal import OutputLost, drop_output, settle_streams
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
        settle_streams()
        args = build_parser().parse_args(argv)
        set_up_logging(debug=args.debug)
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("edgecap: interrupted", file=sys.stderr)
        return 130
    except OutputLost as error:
        return _without_output(error)
    except (EdgecapError, ExceptionGroup) as error:
        found = list(_leaves(error))
        if lost := next((e for e in found if isinstance(e, OutputLost)), None):
            return _without_output(lost)
        if args.debug or not all(isinstance(e, EdgecapError) for e in found):
            tell(f"edgecap: {type(error).__name__}: {error}\n{traceback.format_exc()}")
        known = [e for e in found if isinstance(e, EdgecapError)]
        for line in dict.fromkeys(str(e) for e in known):
            tell(f"edgecap: {line}")
        if known and "NOTIFY_SOCKET" in os.environ:
            from edgecap.service import notify_systemd

            notify_systemd(f"STATUS={known[0]}")
        return max((e.exit_code for e in known), default=1)


def _without_output(error: OutputLost) -> int:
    """A reader that went away (`| head`) wants no more, which is no failure; a full disk is one."""
    drop_output()
    if error.errno == errno.EPIPE:
        return 0
    tell(f"edgecap: cannot write to standard output: {error.strerror}; send it elsewhere")
    return 1


if __name__ == "__main__":
    sys.exit(main())
