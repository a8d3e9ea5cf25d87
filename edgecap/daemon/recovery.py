"""After a crash: close what was cut off, so that it can be delivered and proved."""

from __future__ import annotations

from edgecap.codec.chunk import StreamChain
from edgecap.codec.records import CODEC, encode_records
from edgecap.model import SESSION_STREAM
from edgecap.session.manifest import close_record
from edgecap.spool import Spool


def close_interrupted(spool: Spool) -> list[str]:
    """Append a closing record, outcome `interrupted`, to every session that has none; returns their ids.

    What lay in the spool at the crash is all that can be delivered: the record's counts and last hashes are
    those of the chunks that survived. Its time is the last surviving sample's, in the session's own boot.
    """
    closed = []
    for session in spool.open_sessions():
        head = session.streams.get(SESSION_STREAM)
        if head is None:
            # Without its opening record nothing can be proved about it; ingest keeps and reports the rest.
            continue
        others = {name: h for name, h in session.streams.items() if name != SESSION_STREAM}
        t_ns = max(h.t1_ns for h in session.streams.values())
        totals = {
            name: {"chunks": h.seq + 1, "last_hash": h.hash, "samples": h.samples, "device_sent": None}
            for name, h in others.items()
        }
        record = close_record(t_ns, "interrupted", totals, "the daemon did not end the session itself")
        chain = StreamChain(
            site=session.site,
            rig=session.rig,
            boot=session.boot,
            session=session.session,
            stream=SESSION_STREAM,
            man=session.man,
            seq=head.seq + 1,
            prev=head.hash,
        )
        payload = encode_records([record])
        spool.append(
            chain.seal(
                kind="event",
                codec=CODEC,
                payload=payload,
                t0_ns=t_ns,
                t1_ns=t_ns,
                n=1,
                raw_bytes=len(payload),
            ),
            closing=True,
        )
        closed.append(session.session)
    if closed:
        spool.sync()
    return closed
