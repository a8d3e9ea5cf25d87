"""What commands print: tables, JSON lines, and text from rigs made harmless."""

from __future__ import annotations

import sys
from collections.abc import Container, Sequence


def printable(text: str) -> str:
    """Text from a rig must not move the cursor."""
    return "".join(c if c.isprintable() else "·" for c in text)


def print_json(value: object) -> None:
    import msgspec

    print(msgspec.json.encode(value).decode(), flush=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Container[int]) -> None:
    """Print a table: by rich on a terminal, else as plain text; `right` are the columns set flush right."""
    rows = [[printable(text) for text in row] for row in rows]
    if sys.stdout.isatty():
        try:
            from rich import box
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            pass
        else:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for number, name in enumerate(header):
                table.add_column(name, justify="right" if number in right else "left", overflow="fold")
            for row in rows:
                table.add_row(*map(Text, row))
            Console().print(table)
            return
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
