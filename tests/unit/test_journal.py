"""What the journal gets: one line per message at its priority, the rest for debugging only."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.cli.journal import journal_lines
from edgecap.cli.main import main

LOGS = """
import logging
from edgecap.cli.journal import set_up_logging, tell
set_up_logging(debug=False)
log = logging.getLogger("edgecap.rig")
log.info("ready: %s", "left-hand-imu")
log.warning("two\\nlines")
try:
    raise ValueError("of two\\nlines")
except ValueError:
    log.exception("session failed")
tell("edgecap: the spool cannot be used; check its permissions")
raise RuntimeError("nobody caught this")
"""


def run(stderr: Path, journal: str | None) -> str:
    with stderr.open("wb") as file:
        stat = os.fstat(file.fileno())
        stream = journal or f"{stat.st_dev}:{stat.st_ino}"
        subprocess.run(
            [sys.executable, "-c", LOGS],
            check=False,
            stderr=file,
            env={**os.environ, "JOURNAL_STREAM": stream},
        )
    return stderr.read_text()


def test_one_line_per_message_for_whoever_reads_warnings(tmp_path: Path) -> None:
    lines = run(tmp_path / "stderr", None).splitlines()
    assert all(re.match(r"<[2-7]>", line) for line in lines), lines
    assert [line for line in lines if not line.startswith("<7>")] == [
        "<6>edgecap.rig: ready: left-hand-imu",
        "<4>edgecap.rig: two",
        "<3>edgecap.rig: session failed: ValueError: of two lines",
        "<3>edgecap: the spool cannot be used; check its permissions",
        "<2>edgecap: ended: RuntimeError: nobody caught this",
    ]
    assert sum("Traceback" in line for line in lines) == 2


@pytest.mark.parametrize("journal", ["", "8:1", "not a stream", "1:2:3"])
def test_a_person_gets_no_priorities(tmp_path: Path, journal: str) -> None:
    said = run(tmp_path / "stderr", journal or " ")
    assert "INFO edgecap.rig: ready: left-hand-imu" in said
    assert not re.search(r"^<\d>", said, re.MULTILINE)


@given(st.text(), st.integers(0, 60))
def test_every_line_has_one_priority_and_only_the_first_is_urgent(text: str, level: int) -> None:
    first, *rest = journal_lines(text, level).split("\n")
    assert re.match(r"<[2-7]>", first)
    assert all(line.startswith("<7>") for line in rest)


def test_an_interrupt_while_the_commands_are_loaded_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupt)
    assert main(["sessions", "ls", "store"]) == 130
    assert capsys.readouterr().err == "edgecap: interrupted\n"
