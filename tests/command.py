"""Running `edgecap …` within a test."""

from __future__ import annotations

import argparse

import pytest

from edgecap.cli import sessions
from edgecap.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[str], str]:
    """Exit code, lines on stdout, and stderr."""
    code = main(list(argv))
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def run_sessions(*argv: str) -> int:
    """The exit code of `edgecap sessions …`; what goes wrong is raised, not told."""
    parser = argparse.ArgumentParser()
    sessions.add_parser(parser.add_subparsers())
    args = parser.parse_args(["sessions", *argv])
    return int(args.run(args))
