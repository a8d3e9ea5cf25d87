"""Commands on terminals that know no Unicode, into files on a full disk, and into nothing at all."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgecap
from edgecap.cli.tables import print_json
from edgecap.cli.terminal import LOOKALIKE_ERRORS, LOOKALIKES, settle_streams

PACKAGE = Path(edgecap.__file__).parent
COMMAND = f"{sys.executable} -m edgecap.cli.main config schema"


def _printed() -> set[str]:
    """Characters beyond ASCII in the texts of the packages that print, docstrings left out."""
    found: set[str] = set()
    for folder in ("cli", "checkup", "fleet"):
        for path in (PACKAGE / folder).glob("*.py"):
            tree = ast.parse(path.read_text())
            docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                    found |= {c for c in node.value if not c.isascii()}
    return found


def test_everything_that_is_printed_has_a_likeness_in_ascii() -> None:
    settle_streams()
    missing = _printed() - set(LOOKALIKES)
    assert not missing, f"add to LOOKALIKES: {sorted(missing)}"
    assert "± 82 µs → 日".encode("ascii", LOOKALIKE_ERRORS) == b"+- 82 us -> ?"
    assert "± 82 µs → ok".encode("latin-1", LOOKALIKE_ERRORS).decode("latin-1") == "± 82 µs -> ok"


def test_json_stays_exact_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    settle_streams()
    value = {"task": "Tücher → Stapel 日", "n": 2**63 - 1}
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=LOOKALIKE_ERRORS)
    monkeypatch.setattr(sys, "stdout", out)
    print_json(value)
    assert json.loads(out.buffer.getvalue()) == value  # type: ignore[attr-defined]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        (">/dev/full", 1, "edgecap: cannot write to standard output: No space left on device"),
        (">&-", 0, ""),
        ("| :", 0, ""),
    ],
)
def test_an_output_that_takes_nothing(to: str, code: int, said: str, unbuffered: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} {to}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": unbuffered},
    )
    assert (done.returncode, done.stderr.partition(";")[0].rstrip()) == (code, said)
