"""The roster as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from edgecap import clock
from edgecap.fleet.attention import ORDER, SAID, SIGN
from edgecap.fleet.roster import RigRow
from edgecap.status import SpoolStatus

_STYLE = {
    "recording": "green",
    "draining": "cyan",
    "fault": "bold red",
    "offline": "dim",
    "unreadable": "red",
}


COLUMNS = ("rig", "state", "needs attention", "session", "waiting", "free", "bound", "task")
_WIDTHS = {"session": 22, "waiting": 11, "free": 9, "bound": 9, "task": 14}
"""Approximate widths, padding included, of the columns that a narrow terminal can do without."""
_ATTENTION = 40
"""Least width of the column that says what is wrong."""


def columns_for(rows: Sequence[RigRow], width: int) -> list[str]:
    """The columns that fit into a terminal: which rig, and what is wrong with it, always."""
    names = max((len(f"{row.site}/{row.rig}") for row in rows), default=3) + 2
    room = width - names - 12 - _ATTENTION - 2
    shown = set(COLUMNS) - _WIDTHS.keys()
    for name in ("free", "waiting", "bound", "session", "task"):
        room -= _WIDTHS[name]
        if room < 0:
            break
        shown.add(name)
    return [name for name in COLUMNS if name in shown]


def roster_table(rows: Sequence[RigRow], width: int = 200) -> Table:
    """One line per rig: state, session, what is wrong, what waits, how good the clock is.

    Args:
        rows: The rigs, in the order to be shown.
        width: Characters of the terminal; a narrow one has fewer columns.
    """
    columns = columns_for(rows, width)
    table = Table(title=summary(rows), title_justify="left", box=box.SIMPLE)
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in ("waiting", "free", "bound") else "left"
        table.add_column(name, justify=justify, no_wrap=name != "needs attention")
    for row in rows:
        state = f"[{_STYLE.get(row.state, '')}]{row.state}[/]" if row.state in _STYLE else escape(row.state)
        status = row.status
        wrong = [
            f"{SIGN[reason.severity]} {reason.text}"
            for reason in row.reasons(row.heard_ns and clock.now_ns())
        ]
        said = f"[red]{escape('; '.join(wrong))}[/]" if wrong else "–"
        cells = {"rig": f"{row.site}/{row.rig}", "state": state, "needs attention": said}
        if status is not None:
            bound_us = max((v.u_ns for v in status.streams), default=0) / 1000
            cells |= {
                "session": escape(status.session) or "–",
                "waiting": f"{status.spool.bytes / 1e6:.1f} MB",
                "free": _free(status.spool),
                "bound": f"±{bound_us:.0f} µs" if bound_us else "–",
                "task": escape(status.task),
            }
        table.add_row(*(cells.get(name, "") for name in columns))
    return table


NAMED = 5
"""Rigs that the summary names; of more it gives the number."""


def summary(rows: Sequence[RigRow]) -> str:
    """`200 rigs; ● losing data: lab/rig-07`: what a table whose top has scrolled away must still say."""
    found = [f"{len(rows)} rig{'s' if len(rows) != 1 else ''}"]
    worst: dict[str, list[str]] = {severity: [] for severity in ORDER}
    for row in rows:
        if why := row.reasons(row.heard_ns and clock.now_ns()):
            worst[why[0].severity].append(f"{row.site}/{row.rig}")
    for severity, names in worst.items():
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            found.append(f"{SIGN[severity]} {SAID[severity]}: {', '.join(names[:NAMED])}{more}")
    return "; ".join(found)


def _free(spool: SpoolStatus) -> str:
    """How long the card lasts, where the rig knows that; else how much is free."""
    if spool.hours_left is None:
        return f"{spool.free_bytes / 1e9:.1f} GB"
    return f"{spool.hours_left:.0f} h" if spool.hours_left >= 10 else f"{spool.hours_left:.1f} h"
