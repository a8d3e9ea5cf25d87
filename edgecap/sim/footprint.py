"""What a program takes of the machine: memory, descriptors, threads, room on the disk."""

from __future__ import annotations

import os
from pathlib import Path


class Footprint:
    """What /proc says about a program.

    Args:
        pid: Of its process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def rss_bytes(self) -> int:
        """Resident bytes; 0 once it is gone."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        except OSError:
            return 0

    def fds(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def threads(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/task").iterdir())

    def descendants(self) -> list[int]:
        """Processes that it has started, and those that these have started."""
        found: list[int] = []
        todo = [self.pid]
        while todo:
            pid = todo.pop()
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    new = [int(n) for n in task.read_text().split()]
                except OSError:
                    continue
                found += new
                todo += new
        return found


def disk_bytes(directory: Path) -> int:
    """What the file system has given to the files below."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(root) / name).stat().st_blocks * 512
            except OSError:  # it has just been delivered
                continue
    return total
