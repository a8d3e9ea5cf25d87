"""What commands print: tables, JSON lines, and text from rigs made harmless."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Sequence
from typing import Literal

LEAST_FOLDED = 16
"""Characters below which a column is not worth folding into."""


def printable(text: str) -> str:
    """Text from a rig must not move the cursor."""
    return "".join(c if c.isprintable() else "·" for c in text)


def print_json(value: object) -> None:
    """Print one line of JSON; where the output has no Unicode, everything beyond ASCII is escaped."""
    import msgspec

    from edgecap.cli.terminal import speaks_unicode

    text = msgspec.json.encode(value).decode()
    print(text if speaks_unicode(sys.stdout) else json.dumps(json.loads(text)), flush=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Container[int]) -> None:
    """Print a table: by rich on a terminal that is wide enough, else as plain text.

    Only the last column is ever folded: half an id can be neither read nor copied. On a terminal, columns in
    which nothing stands are left out.

    Args:
        header: Names of the columns.
        rows: The cells.
        right: The columns set flush right.
    """
    rows = [[printable(text) for text in row] for row in rows]
    shown = list(range(len(header)))
    if sys.stdout.isatty():
        shown = [i for i in shown if not rows or any(row[i] for row in rows)]
    lines = [[row[i] for i in shown] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in lines) for i in range(len(shown))]
    flush = {at for at, i in enumerate(shown) if i in right}
    if sys.stdout.isatty() and _print_rich(lines, widths, flush):
        return
    for row in lines:
        cells = [
            text.rjust(width) if i in flush else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _print_rich(lines: Sequence[Sequence[str]], widths: Sequence[int], flush: Container[int]) -> bool:
    """Print with a ruled head; false where rich is missing or the terminal too narrow."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    console = Console()
    room = console.width - sum(widths[:-1]) - 3 * len(widths)
    if room < min(widths[-1], LEAST_FOLDED):
        return False
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    last = len(widths) - 1
    for number, name in enumerate(lines[0]):
        side: Literal["left", "right"] = "right" if number in flush else "left"
        table.add_column(name, justify=side, overflow="fold", no_wrap=number != last)
    for row in lines[1:]:
        table.add_row(*map(Text, row))
    console.print(table)
    return True
