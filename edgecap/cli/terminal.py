"""Standard output and error as a command finds them: closed, full, or in a character set without µ."""

from __future__ import annotations

import codecs
import io
import os
import sys

LOOKALIKES = {
    "–": "-", "−": "-", "…": "...", "·": ".", "•": "*", "→": "->", "▸": ">", "±": "+-", "×": "x", "µ": "u",
    "°": "deg", "²": "2", "√": "sqrt", "≤": "<=", "≥": ">=", "≈": "~", "“": '"', "”": '"', "‘": "'",
    "’": "'", "✓": "ok", "✗": "!!", "●": "!!", "▲": "!", "◆": "?", "◉": "(o)", "§": "section", "₀": "0",
    "─": "-", "│": "|",
}  # fmt: skip
"""What commands print beyond ASCII, for terminals that cannot show it."""
LOOKALIKE_ERRORS = "edgecap-lookalike"


def _lookalike(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    return LOOKALIKES.get(character, "?"), error.start + 1


class OutputLost(OSError):
    """Standard output takes no more: its reader is gone, its disk is full."""


class _Output(io.TextIOWrapper):
    """Standard output whose failures are told from those of any other file."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputLost(error.errno, error.strerror) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputLost(error.errno, error.strerror) from error


def settle_streams() -> None:
    """Have every text printable: the streams that were closed lead nowhere, no character is an error."""
    codecs.register_error(LOOKALIKE_ERRORS, _lookalike)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper) and not speaks_unicode(stream):
            stream.reconfigure(errors=LOOKALIKE_ERRORS)
    found = sys.stdout
    if type(found) is io.TextIOWrapper:
        kept = {"encoding": found.encoding, "errors": found.errors}
        buffering = {"line_buffering": found.line_buffering, "write_through": found.write_through}
        sys.stdout = sys.__stdout__ = _Output(found.detach(), **kept, **buffering)  # type: ignore[misc, arg-type]


def speaks_unicode(stream: object) -> bool:
    """Whether every character can be written to it as it is."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return codecs.lookup(str(encoding)).name.startswith("utf")


def drop_output() -> None:
    """Let whatever is still to be printed lead nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
