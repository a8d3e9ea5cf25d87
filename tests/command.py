"""Running `edgecap …` within a test."""

from __future__ import annotations

import pytest

from edgecap.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, list[str], str]:
    """Exit code, lines on stdout, and stderr."""
    code = main(list(argv))
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err
