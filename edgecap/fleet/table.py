"""The roster as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from edgecap import clock
from edgecap.fleet.roster import RigRow
from edgecap.status import SpoolStatus

_STYLE = {
    "recording": "green",
    "draining": "cyan",
    "fault": "bold red",
    "offline": "dim",
    "unreadable": "red",
}


def roster_table(rows: Sequence[RigRow]) -> Table:
    """One line per rig: state, session, what is wrong, what waits, how good the clock is."""
    table = Table(
        title=f"{len(rows)} rig{'s' if len(rows) != 1 else ''}", title_justify="left", box=box.SIMPLE
    )
    for name in ("rig", "state", "needs attention", "session", "waiting", "free", "bound", "task"):
        justify: Literal["left", "right"] = "right" if name in ("waiting", "free", "bound") else "left"
        table.add_column(name, justify=justify, no_wrap=name != "needs attention")
    for row in rows:
        state = f"[{_STYLE.get(row.state, '')}]{row.state}[/]" if row.state in _STYLE else row.state
        status = row.status
        wrong = [reason.text for reason in row.reasons(row.heard_ns and clock.now_ns())]
        said = f"[red]{escape('; '.join(wrong))}[/]" if wrong else "–"
        if status is None:
            table.add_row(f"{row.site}/{row.rig}", state, said, *[""] * 5)
            continue
        bound_us = max((v.u_ns for v in status.streams), default=0) / 1000
        table.add_row(
            f"{row.site}/{row.rig}",
            state,
            said,
            status.session or "–",
            f"{status.spool.bytes / 1e6:.1f} MB",
            _free(status.spool),
            f"±{bound_us:.0f} µs" if bound_us else "–",
            escape(status.task),
        )
    return table


def _free(spool: SpoolStatus) -> str:
    """For how long the card lasts, where the rig knows; else what is free."""
    if spool.hours_left is None:
        return f"{spool.free_bytes / 1e9:.1f} GB"
    return f"{spool.hours_left:.0f} h" if spool.hours_left >= 10 else f"{spool.hours_left:.1f} h"
