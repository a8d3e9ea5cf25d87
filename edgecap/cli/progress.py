"""How far a long command is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(name: str, *, of_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where that is a terminal and rich is installed.

    Yields what is to be told how much is done, and of how much. A bar `of_bytes` shows size and speed, too.
    """
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ImportError:
        yield lambda _done, _total: None
        return
    amounts = (
        [DownloadColumn(), TransferSpeedColumn()] if of_bytes else [TextColumn("{task.percentage:3.0f} %")]
    )
    columns = (TextColumn("{task.description}"), BarColumn(), *amounts, TimeRemainingColumn())
    with Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
