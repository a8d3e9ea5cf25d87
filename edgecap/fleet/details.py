"""One rig in detail for the terminal: what is wrong, its streams, the clocks of its boards."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from edgecap.fleet.attention import SIGN
from edgecap.fleet.board_clock import BoardClock, board_clocks
from edgecap.fleet.roster import RigRow
from edgecap.model import Verdict


def rig_details(row: RigRow) -> Group:
    """Everything that a status tells of one rig and that helps to find out why."""
    status = row.status
    lines = [f"[bold]{row.site}/{row.rig}[/]  {escape(row.state)}"]
    lines += [f"{SIGN[reason.severity]} {escape(reason.text)}" for reason in row.reasons()]
    if status is None:
        return Group(*lines)
    if status.task:
        lines.append(f"task: {escape(status.task)}")
    tables = [_streams(status.streams)] if status.streams else []
    if clocks := board_clocks(status):
        tables.append(_clocks(clocks))
    return Group(*lines, *tables)


def _table(first: str, columns: Iterable[str]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(escape(name), justify="right")  # a unit in brackets is no markup
    return table


def _streams(verdicts: Iterable[Verdict]) -> Table:
    table = _table("stream", ("verdict", "rate [Hz]", "lost", "bound [µs]"))
    for v in verdicts:
        table.add_row(escape(v.stream), escape(v.state), f"{v.rate_hz:g}", f"{v.lost}", f"{v.u_ns / 1e3:.0f}")
    return table


def _clocks(clocks: dict[str, BoardClock]) -> Table:
    """Times in µs; round trip and excess delay as median and 99th percentile."""
    named = ("bound [µs]", "sigma [µs]", "skew [ppm]", "slew [µs]", "round trip [µs]", "excess delay [µs]",
             "rejects", "restarts", "resets", "lost frames")  # fmt: skip
    table = _table("board's clock", named)
    for name, c in clocks.items():
        table.add_row(
            escape(name),
            f"{c.u_ns / 1e3:.0f}" if c.locked else "not locked",
            f"{c.sigma_ns / 1e3:.1f}",
            f"{c.skew_ppm:+.2f}",
            f"{c.slew_ns / 1e3:+.1f}",
            f"{c.rtt_p50_ns / 1e3:.0f}, {c.rtt_p99_ns / 1e3:.0f}",
            f"{c.delay_p50_ns / 1e3:.0f}, {c.delay_p99_ns / 1e3:.0f}",
            *(str(n) for n in (c.rejected, c.restarts, c.resets, c.seq_lost)),
        )
    return table
