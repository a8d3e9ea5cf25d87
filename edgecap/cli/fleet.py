"""`edgecap fleet`: which rig needs attention now."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.cli.broker import add_broker_options, broker_from, client_id
from edgecap.cli.rig_name import split_rig, unknown_rig
from edgecap.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from edgecap.fleet.roster import RigRow
    from edgecap.mqtt import Broker

EXAMPLE = """\
examples:
  edgecap fleet --broker mqtt://localhost          a table that stays up to date
  edgecap fleet --listen 127.0.0.1:8080            a page for the browser, and /metrics for Prometheus
  edgecap fleet --once --broker mqtt://localhost   the table, once
  edgecap fleet rig-01                             one rig, once, with its streams and its boards' clocks
  edgecap fleet --once --json | jq '.[] | select(.reasons != [])'
"""
LONG = 20
"""Rows. The top of a longer table may have scrolled away: its summary is printed again below."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "fleet",
        help="which rig needs attention now",
        description="Show every rig that has spoken to the broker, those that need attention first.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rig", nargs="?", metavar="RIG", help="this rig, or SITE/RIG, in detail, once")
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=address,
        help="serve a live page, /rigs.json, /metrics and /healthz; whoever reaches it may read it",
    )
    parser.add_argument("--once", action="store_true", help="print the table once and end")
    parser.add_argument("--json", action="store_true", help="once, machine-readable")
    parser.add_argument("--site", default="+", help="only this site")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with [broker], as for ingest")
    add_broker_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Carry out `fleet`; with --once the exit code is 1 when a rig needs attention."""
    from edgecap.topics import check_name

    broker = broker_from(args)
    if args.site != "+":
        check_name("site", args.site)
    if args.rig is not None:
        site, args.rig = split_rig(args.rig)
        if site != "+" and args.site not in ("+", site):
            raise UsageError(
                f"--site {args.site} and {site}/{args.rig} contradict each other", fix="give one"
            )
        args.site = site if site != "+" else args.site
    if args.once or args.json or args.rig is not None:
        return _once(broker, args.site, args.rig, as_json=args.json)
    if args.listen:
        asyncio.run(_serve(broker, args.site, *args.listen))
        return 0
    asyncio.run(_live(broker, args.site))
    return 0


def address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT` or `PORT` (this machine only); port 0 takes a free one."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, e.g. 127.0.0.1:8080")
    return host.strip("[]") or "127.0.0.1", int(port)


async def _serve(broker: Broker, site: str, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    from edgecap.fleet.server import FleetServer
    from edgecap.service import notify_systemd

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with FleetServer(broker, client_id=client_id("fleet"), site=site).serve(host, port) as url:
        print(f"the fleet is at {url}", flush=True)
        notify_systemd("READY=1")
        await stop.wait()


def _once(broker: Broker, site: str, rig: str | None, *, as_json: bool) -> int:
    import msgspec

    from edgecap.fleet.attention import as_told
    from edgecap.fleet.roster import look_once

    rows = asyncio.run(look_once(broker, client_id=client_id("fleet"), site=site, rig=rig or "+"))
    if rig is not None and not rows:
        named = rig if site == "+" else f"{site}/{rig}"
        raise unknown_rig(named, asyncio.run(look_once(broker, client_id=client_id("fleet"))))
    if as_json:
        told = [{**msgspec.to_builtins(row), "reasons": as_told(row.reasons())} for row in rows]
        print(json.dumps(told, indent=2))
    elif rows:
        from rich.console import Console

        from edgecap.fleet.details import rig_details
        from edgecap.fleet.table import roster_table, summary

        console = Console()
        # Into a file or pipe nothing needs to be cut.
        console = console if console.is_terminal else Console(width=200)
        for shown in [roster_table(rows, console.width)] if rig is None else map(rig_details, rows):
            console.print(shown)
        if rig is None and len(rows) > LONG:
            console.print(summary(rows), highlight=False, markup=False)
    else:
        print(f"no rig {'' if site == '+' else f'of site {site} '}has spoken to this broker yet")
    return 1 if any(r.needs_attention for r in rows) else 0


async def _live(broker: Broker, site: str, console: Console | None = None) -> None:
    """Until cancelled; a broker that goes away is waited for, one that was never there is an error."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from edgecap import topics
    from edgecap.fleet.roster import Roster, follow, redraw
    from edgecap.fleet.table import roster_table
    from edgecap.mqtt import keep_connected

    roster, trouble, heard = Roster(), "", False
    with Live(roster_table([]), console=console, refresh_per_second=4) as live:

        def show(rows: Sequence[RigRow]) -> None:
            table = roster_table(rows, live.console.width)
            old = Text(f"The broker is not heard: {trouble}. What stands below is old.", style="bold red")
            live.update(Group(old, table) if trouble else table)

        def on_state(connected: bool, reason: str) -> None:
            nonlocal trouble, heard
            trouble, heard = reason, heard or connected

        drawing = asyncio.create_task(redraw(roster, show), name="redraw")
        try:
            await keep_connected(
                broker,
                lambda connection: follow(connection, roster),
                client_id=client_id("fleet"),
                subscribe=[topics.subscription(topics.STATUS, site=site)],
                on_state=on_state,
                give_up=lambda _: not heard,
            )
        finally:
            drawing.cancel()
            await asyncio.wait([drawing])
