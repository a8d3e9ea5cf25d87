"""Where commands write their results."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgecap.errors import UsageError


def require_writable(out: Path) -> None:
    """Make the directory; raise `UsageError` naming it when nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise UsageError(
            f"cannot write into {out}: {reason}",
            fix="choose another directory with --out",
            errno=error.errno,
        ) from error
