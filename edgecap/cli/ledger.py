"""`edgecap sessions ledger`: recorded time, and what became of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edgecap.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from edgecap.ingest.ledger import LedgerRow

_NOTE = """\
LENGTH counts each session once; the columns behind it are stream time (ten streams of one hour: ten hours).
CAPTURED = DELIVERED + GAPPED + MISSING + WITHDRAWN; INTERRUPTED, DISCARDED and OPEN are parts of CAPTURED."""


def ledger(args: argparse.Namespace) -> int:
    from edgecap.ingest.consent import Consents
    from edgecap.ingest.ledger import draw_up, session_time
    from edgecap.ingest.store import open_store

    store = open_store(args.store)
    consents = Consents(store)
    found = draw_up((session_time(store, key, consents) for key in consents.sessions()), args.by)
    if args.json:
        print_json(found)
        return 0
    if not found.rows:
        print(f"store {args.store} holds no session")
        return 0
    header = (
        *(args.by.upper(), "SESSIONS", "NOT WHOLE", "LENGTH", "CAPTURED", "DELIVERED", "GAPPED", "MISSING"),
        *("WITHDRAWN", "INTERRUPTED", "DISCARDED", "OPEN"),
    )
    shown = [*found.rows, found.total] if len(found.rows) > 1 else found.rows
    print_table(header, [_row(row) for row in shown], set(range(1, len(header))))
    print(_NOTE)
    if found.total.untrusted:
        n = found.total.untrusted
        of = "1 session comes from a rig" if n == 1 else f"{n} sessions come from rigs"
        print(f"* {of} whose clock was not synchronised: {'its' if n == 1 else 'their'} day is doubtful")
    return 0


def _row(row: LedgerRow) -> tuple[str, ...]:
    return (
        f"{row.key} *" if row.untrusted else row.key,
        str(row.sessions),
        str(row.not_whole) if row.not_whole else "",
        _time(row.session_ns),
        _time(row.captured_ns),
        _time(row.delivered_ns),
        *(_time(t_ns) if t_ns else "" for t_ns in (row.gapped_ns, row.missing_ns, row.withdrawn_ns)),
        *(_time(t_ns) if t_ns else "" for t_ns in (row.interrupted_ns, row.discarded_ns, row.open_ns)),
    )


def _time(t_ns: int) -> str:
    seconds = t_ns / 1e9
    if seconds < 60:
        return f"{seconds:.3f}s" if seconds < 1 else f"{seconds:.1f}s"
    minutes = round(seconds) // 60
    return (
        f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{round(seconds) % 60:02d}s"
    )
