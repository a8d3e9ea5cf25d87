"""A sign of life beside the spool: after a kill it tells when the daemon was last at work."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from edgecap import clock

BEAT_S = 0.1
NAME = "pulse"
_LINE_BYTES = 160


class Pulse:
    """One line in a file that is never synced: it outlives the daemon, not the kernel, and costs no wear.

    Args:
        spool_dir: Where it lies unless systemd gives the service a directory in memory (RUNTIME_DIRECTORY).
    """

    def __init__(self, spool_dir: Path) -> None:
        runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        self.path = Path(runtime or spool_dir) / NAME
        self.session = ""
        """The session being recorded; empty while there is none."""

    async def run(self) -> None:
        """Beat while a session is recorded, until cancelled."""
        fd = -1
        try:
            with contextlib.suppress(OSError):  # without it the time of a kill is known less exactly
                fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            while fd >= 0:
                if self.session:
                    line = f"{clock.boot_id()} {self.session} {clock.now_ns()}"
                    with contextlib.suppress(OSError):
                        os.pwrite(fd, f"{line:<{_LINE_BYTES - 1}}\n".encode(), 0)
                await asyncio.sleep(BEAT_S)
        finally:
            if fd >= 0:
                os.close(fd)

    def last_ns(self, boot: str, session: str) -> int | None:
        """When the daemon that recorded this session in this boot was last seen alive; None if unknown."""
        try:
            with self.path.open("rb") as file:
                words = file.read(_LINE_BYTES).decode("ascii").split()
            if words[:2] == [boot, session] and boot == clock.boot_id():
                return min(int(words[2]), clock.now_ns())
        except (OSError, ValueError, IndexError):
            pass
        return None
