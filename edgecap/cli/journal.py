"""Log lines as journald likes them: one line per message with its priority, where stderr is the journal."""

from __future__ import annotations

import logging
import os
import sys
from types import TracebackType
from typing import TextIO

PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}
"""sd-daemon(3); anything below INFO is 7, debug."""


def to_journal(stream: TextIO) -> bool:
    """Whether what is written to `stream` ends in the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        device, inode = map(int, os.environ.get("JOURNAL_STREAM", "").split(":"))
        stat = os.fstat(stream.fileno())
    except (ValueError, OSError):
        return False
    return (stat.st_dev, stat.st_ino) == (device, inode)


def journal_lines(text: str, level: int) -> str:
    """The first line with the priority of `level`; what follows, such as a traceback, only for debugging.

    `journalctl --priority=info` then shows one line per message, `journalctl` alone the whole of it.
    """
    first, *rest = text.rstrip().splitlines() or [""]
    priority = next((p for at, p in PRIORITIES.items() if level >= at), 7)
    return "\n".join([f"<{priority}>{first}", *(f"<7>{line}" for line in rest)])


class JournalFormatter(logging.Formatter):
    """`<3>edgecap.rig: session failed: …`; time and unit are the journal's own."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.name}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            # The cause belongs on the line that everybody sees, its traceback below.
            error = record.exc_info[1]
            reason = " ".join(str(error).split()) or "no message"
            text = f"{text.splitlines()[0]}: {type(error).__name__}: {reason}\n" + super().formatException(
                record.exc_info
            )
        return journal_lines(text, record.levelno)


def set_up_logging(*, debug: bool) -> None:
    """Log to stderr: in words for a person, with priorities for the journal."""
    handler = logging.StreamHandler(sys.stderr)
    if to_journal(sys.stderr):
        handler.setFormatter(JournalFormatter())
        sys.excepthook = _log_uncaught
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    for noisy in ("asyncio", "mqtt", "matplotlib", "PIL", "numba"):
        logging.getLogger(noisy).setLevel(logging.INFO if debug else logging.ERROR)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("edgecap").critical("ended", exc_info=(kind, error, trace))


def tell(line: str, level: int = logging.ERROR) -> None:
    """Print a line of the command's own to stderr."""
    print(journal_lines(line, level) if to_journal(sys.stderr) else line, file=sys.stderr)
