"""Erasing sessions that were withdrawn: first the tombstone, then the chunks: a crash hides nothing."""

from __future__ import annotations

import time

import msgspec

from edgecap.errors import SessionError
from edgecap.ingest.consent import Consents, Erasure, account, encode_note, erasure_note
from edgecap.ingest.ledger import session_time
from edgecap.ingest.store import SessionKey, Store
from edgecap.model import SESSION_STREAM


def erase_session(store: Store, key: SessionKey) -> Erasure:
    """Remove all of a session's chunks and leave a tombstone; repeat it as often as you like.

    After a crash, and where chunks came before every worker had heard of the erasure, repeating it removes
    what is left; another tombstone then tells how much that was.

    Returns:
        The tombstone of what this call removed; where there was nothing left, the first one.

    Raises:
        SessionError: the session was not withdrawn, or the store holds nothing of it.
        StoreError: the store cannot be read or written.
    """
    consents = Consents(store)
    withdrawal, before = consents.covering_stored(key), consents.erasure(key)
    if withdrawal is None and before is None:
        raise SessionError(
            f"session {key.session} was not withdrawn: only what was withdrawn is erased",
            fix=f"edgecap sessions withdraw {store.url} --session {'/'.join(key)} --why TEXT",
        )
    if before is None or key in store.sessions():
        made = _describe(store, key, withdrawal.note if withdrawal else "")
        store.add_note(made.note, encode_note(made))
        before = made
    store.erase(key)  # where nothing is left, that may still have to become durable
    return before


def _describe(store: Store, key: SessionKey, withdrawal: str) -> Erasure:
    time_ = session_time(store, key)
    with store.contents(key) as contents:
        first = contents.first_chunk(SESSION_STREAM)
        streams = {name: len(contents.seqs(name)) for name in contents.streams}
        made = Erasure(
            **key._asdict(),
            t_utc_ns=time.time_ns(),
            by=account(),
            withdrawal=withdrawal,
            manifest_sha256=first.hash.hex() if first is not None else "",
            chunks=sum(streams.values()),
            bytes=contents.size_bytes(),
            streams=streams,
            day=time_.day,
            utc_trusted=time_.utc_trusted,
            session_ns=time_.session_ns,
            captured_ns=sum(stream.captured_ns for stream in time_.streams),
        )
    return msgspec.structs.replace(made, note=erasure_note(made))
