"""A session at a glance: what a list of sessions shows, from indexes and the session's own ends only."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edgecap.codec.chunk import Chunk
from edgecap.codec.records import decode_records
from edgecap.errors import ChunkError, SessionError
from edgecap.ingest.consent import Consents, Erasure, Withdrawal
from edgecap.ingest.store import SessionKey, Store
from edgecap.model import SESSION_STREAM

State = Literal["complete", "discarded", "interrupted", "open", "incomplete", "withdrawn", "erased"]


class SessionGlance(msgspec.Struct, kw_only=True):
    """One line of a list. Hashes are not checked here: `verify_session` does."""

    site: str
    rig: str
    session: str
    state: State
    """The session's outcome if every chunk is there, else `incomplete`; `withdrawn` and `erased` come before
    both.
    """
    streams: int
    chunks: int
    missing_chunks: int
    bytes: int
    seconds: float
    utc_ns: int
    task: str
    operator: str
    consent: str = ""
    withdrawn: Withdrawal | None = None
    erased: Erasure | None = None


def glance(store: Store, key: SessionKey, consents: Consents | None = None) -> SessionGlance:
    """Look at a session; raises `SessionError` when the store holds nothing of it, not even a tombstone."""
    consents = Consents(store) if consents is None else consents
    erasure = consents.erasure(key)
    try:
        found = _glance(store, key)
    except SessionError:
        if erasure is None:
            raise
        found = SessionGlance(
            **key._asdict(), state="erased", streams=0, chunks=0, missing_chunks=0, bytes=0, seconds=0.0,
            utc_ns=0, task="", operator="",
        )  # fmt: skip
    found.withdrawn = consents.covering(key, consent=found.consent, worker=found.operator)
    if erasure is not None:
        found.erased = erasure
        found.withdrawn = found.withdrawn or consents.covering_stored(key)
    if found.withdrawn is not None or erasure is not None:
        found.state = "erased" if erasure is not None else "withdrawn"
    return found


def _glance(store: Store, key: SessionKey) -> SessionGlance:
    with store.contents(key) as contents:
        opening = _record(contents.first_chunk(SESSION_STREAM), "open") or {}
        closing = _record(contents.last_chunk(SESSION_STREAM), "close")
        stored = {name: contents.seqs(name) for name in contents.streams}
        expected = {name: int(seqs[-1]) + 1 for name, seqs in stored.items()}
        totals = closing.get("streams") if closing else None
        for name, total in totals.items() if isinstance(totals, dict) else ():
            if isinstance(total, dict) and isinstance(total.get("chunks"), int):
                expected[name] = max(expected.get(name, 0), total["chunks"])
        chunks = sum(len(seqs) for seqs in stored.values())
        missing = sum(expected.values()) - chunks
        state: State = "open"
        if closing is not None:
            outcome = closing.get("outcome")
            known: dict[object, State] = {s: s for s in ("complete", "discarded", "interrupted")}
            whole = not missing and opening and not contents.faults
            state = known.get(outcome, "incomplete") if whole else "incomplete"
        t0_ns, t1_ns = contents.span_ns()
        utc_ns = opening.get("utc_ns")
        return SessionGlance(
            **key._asdict(),
            state=state,
            streams=len(set(expected) - {SESSION_STREAM}),
            chunks=chunks,
            missing_chunks=missing,
            bytes=contents.size_bytes(),
            seconds=(t1_ns - t0_ns) / 1e9,
            utc_ns=utc_ns if isinstance(utc_ns, int) else 0,
            task=str(opening.get("task", "")),
            operator=str(opening.get("operator", "")),
            consent=str(opening.get("consent", "")),
        )


def _record(chunk: Chunk | None, kind: str) -> dict[str, Any] | None:
    """The last record of a kind in a chunk."""
    try:
        records = decode_records(chunk.payload) if chunk is not None else []
    except ChunkError:
        return None
    return next((r for r in reversed(records) if r["type"] == kind), None)
