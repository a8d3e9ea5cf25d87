"""`edgecap sessions withdraw|withdrawn|erase`: what may no longer be used, where it still is, and its end."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.cli.export import find_session, require_modules
from edgecap.cli.tables import print_json, print_table, printable
from edgecap.errors import SessionError

if TYPE_CHECKING:
    from edgecap.ingest.consent import Kind, Withdrawal
    from edgecap.ingest.store import Store

NEAREST = 3


def add_withdraw(parser: argparse.ArgumentParser) -> None:
    """The options of `sessions withdraw`."""
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument(
        "--session",
        metavar="SESSION",
        nargs="+",
        help="session id, or RIG/SESSION; SITE/RIG/SESSION if nothing of it has arrived yet",
    )
    whose.add_argument("--consent", metavar="ID", help="every session recorded under this consent")
    whose.add_argument("--worker", metavar="PSEUDONYM", help="every session recorded by this worker")
    parser.add_argument("--why", metavar="TEXT", required=True, help="reason, kept with the withdrawal")
    parser.add_argument("--json", action="store_true", help="one JSON object per withdrawal and line")


def withdraw(args: argparse.Namespace) -> int:
    from edgecap.ingest import consent
    from edgecap.ingest.store import open_store

    store = open_store(args.store)
    wanted: list[tuple[Kind, str]]
    if args.session:
        wanted = [("session", _session_name(store, name)) for name in args.session]
    else:
        wanted = [("consent", args.consent) if args.consent is not None else ("worker", args.worker)]
    for kind, subject in wanted:
        withdrawal, is_new = consent.withdraw(store, kind, subject, args.why)
        covered, others = _sessions_of(store, withdrawal)
        if args.json:
            print_json({**_told(withdrawal), "is_new": is_new, "sessions": covered})
            continue
        word = "" if is_new else "already "
        print(f"{printable(withdrawal.subject)}: {word}{withdrawal.in_words()}")
        print(f"covers {len(covered)} stored session{'s'[: len(covered) != 1]}, and whatever comes later")
        for name in covered:
            print(f"  {name}")
        near = difflib.get_close_matches(withdrawal.subject, sorted(others), NEAREST, 0.3)
        if not covered and near:
            print(f"check the spelling: the store has {printable(', '.join(near))}")
    return 0


def add_withdrawn(parser: argparse.ArgumentParser) -> None:
    """The options of `sessions withdrawn`."""
    parser.add_argument(
        "--dataset",
        metavar="DIR",
        nargs="+",
        type=Path,
        default=[],
        help="search these directories for exports that hold withdrawn sessions; exit code 1 if any does",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def withdrawn(args: argparse.Namespace) -> int:
    from edgecap.ingest.consent import Consents, utc_words
    from edgecap.ingest.store import open_store

    store = open_store(args.store)
    consents = Consents(store)
    found = consents.withdrawals()
    covered: dict[str, list[str]] = {w.note: [] for w in found}
    stored = {key: all_ for key in consents.sessions() if (all_ := consents.all_covering_stored(key))}
    for key, all_ in stored.items():
        for withdrawal in all_:
            covered.setdefault(withdrawal.note, []).append("/".join(key))
    search = None
    if args.dataset:
        require_modules("mcap.reader", "pyarrow.parquet")
        from edgecap.dataset.withdrawn import search_exports

        search = search_exports(args.dataset, consents, {key: all_[0] for key, all_ in stored.items()})
    still = search is not None and bool(search.held or search.unreadable)
    if args.json:
        told = [{**_told(w), "sessions": covered[w.note]} for w in found]
        print_json({"withdrawals": told, "strange_notes": consents.strange, "search": search})
        return int(still)
    rows = [
        (w.kind, w.subject, utc_words(w.t_utc_ns), w.by, str(len(covered[w.note])), w.damage or w.why)
        for w in found
    ]
    if rows:
        print_table(("WHAT", "WHOSE", "SINCE", "BY", "SESSIONS", "WHY"), rows, {4})
    else:
        print(f"in store {args.store} nothing was withdrawn")
    for name in consents.strange:
        print(f"{printable(name)} among the notes is none: it withdraws nothing")
    if search is None:
        return 0
    for held in search.held:
        episodes = f" (episode {', '.join(map(str, held.episodes))})" if held.episodes else ""
        print(
            f"{printable(held.path)} holds {printable(held.session)}{episodes}: {held.withdrawal.in_words()}"
        )
    for line in search.unreadable:
        print(f"cannot tell: {printable(line)}")
    sure = f"{len(search.held)} still hold withdrawn sessions, {len(search.unreadable)} cannot be told"
    print(f"{search.files} files searched: {sure if still else 'none holds a withdrawn session'}")
    return int(still)


def erase(args: argparse.Namespace) -> int:
    from edgecap.ingest.consent import Consents
    from edgecap.ingest.erase import erase_session
    from edgecap.ingest.store import open_store

    store = open_store(args.store)
    keys = [find_session(store, name) for name in args.session]
    consents = Consents(store)
    kept = [k for k in keys if consents.covering_stored(k) is None and consents.erasure(k) is None]
    if kept:
        raise SessionError(
            f"nothing was erased: {', '.join(k.session for k in kept)} {_were(kept)} not withdrawn",
            fix="withdraw first: edgecap sessions withdraw STORE --session ID --why TEXT",
        )
    for key in keys:
        erasure = erase_session(store, key)
        if args.json:
            print_json(erasure)
        else:
            print(f"{'/'.join(key)}: {printable(erasure.in_words())}")
    return 0


def _were(kept: Sequence[object]) -> str:
    return "was" if len(kept) == 1 else "were"


def _told(withdrawal: Withdrawal) -> dict[str, object]:
    import msgspec

    told: dict[str, object] = msgspec.to_builtins(withdrawal)
    return told


def _session_name(store: Store, wanted: str) -> str:
    """SITE/RIG/SESSION, of a session that may not have arrived."""
    from edgecap.topics import check_name

    parts = wanted.split("/")
    if len(parts) == 3:
        return "/".join(check_name("session", part) for part in parts)
    try:
        return "/".join(find_session(store, wanted))
    except SessionError as error:
        fix = f"{error.fix}; one that has not arrived is named in full: SITE/RIG/SESSION"
        raise SessionError(error.what, fix=fix) from error


def _sessions_of(store: Store, withdrawal: Withdrawal) -> tuple[list[str], set[str]]:
    """Stored sessions that a withdrawal covers, and every other subject of its kind in the store."""
    from edgecap.ingest.consent import opening_record

    covered, others = [], set()
    for key in store.sessions():
        opening = opening_record(store, key) if withdrawal.kind != "session" else {}
        subject = {
            "session": "/".join(key),
            "consent": str(opening.get("consent") or "").strip(),
            "worker": str(opening.get("operator") or "").strip(),
        }[withdrawal.kind]
        if subject == withdrawal.subject:
            covered.append("/".join(key))
        else:
            others.add(subject)
    return covered, others
