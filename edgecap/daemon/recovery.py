"""After a crash: close what was cut off, and state what that may have cost."""

from __future__ import annotations

import contextlib

from edgecap import clock
from edgecap.codec.chunk import StreamChain, unpack_chunk
from edgecap.codec.records import decode_records, seal_records
from edgecap.daemon.pulse import Pulse
from edgecap.errors import ChunkError, NameRefused, SpoolError
from edgecap.model import PREVIEW_SUFFIX, SESSION_STREAM, Gap
from edgecap.session.manifest import close_record, gap_record
from edgecap.spool import OpenSession, Spool

LOSS_NS = 1_600_000_000
"""What a crash costs at most: half a second until the sync, one open chunk of a second, a moment to act."""
BEAT_LATE_NS = 1_000_000_000
"""A daemon that still read its devices had given a sign of life at most this long before; it gives ten a
second."""
NEWEST = 16
"""Session chunks, one a second, that are searched for streams which joined late."""


def close_interrupted(spool: Spool, pulse: Pulse, *, stopped_ns: int | None = None) -> list[str]:
    """Append a closing record, outcome `interrupted`, to every session that has none; returns their ids.

    What lay in the spool at the crash is all that can be delivered: the record's counts and last hashes are
    those of the chunks that survived. In the same chunk each stream has a gap of cause `crash`, from its last
    surviving sample (without one: from the opening record) to the latest time at which the daemon can still
    have recorded, which is also the time of the closing record, in the session's own boot.

    Args:
        spool: While no session is being recorded into it.
        pulse: The sign of life that its last daemon left.
        stopped_ns: When this daemon itself stopped recording a session that the spool could not take whole:
            the gaps then end there, and their cause is `disk`.
    """
    cause, reason = (
        ("crash", "the daemon did not end the session itself")
        if stopped_ns is None
        else ("disk", "the spool could not take the session to its end")
    )
    closed = []
    for session in spool.open_sessions():
        head = session.streams.get(SESSION_STREAM)
        if head is None:
            # Without its opening record nothing can be proved about it; ingest keeps and reports the rest.
            continue
        others = {name: h for name, h in session.streams.items() if name != SESSION_STREAM}
        end_ns = _end_ns(spool, pulse, session) if stopped_ns is None else stopped_ns
        starts_ns = _declared(spool, session) | {name: h.t1_ns for name, h in others.items()}
        gaps = [
            Gap(name, t_ns, end_ns, -1, cause)
            for name, t_ns in sorted(starts_ns.items())
            if t_ns < end_ns and not name.endswith(PREVIEW_SUFFIX)
        ]
        totals = {
            name: {"chunks": h.seq + 1, "last_hash": h.hash, "samples": h.samples, "device_sent": None}
            for name, h in others.items()
        }
        close = close_record(end_ns, "interrupted", totals, reason)
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
        spool.append(seal_records(chain, [*map(gap_record, gaps), close]), closing=True)
        closed.append(session.session)
    if closed:
        spool.sync()
    return closed


def _end_ns(spool: Spool, pulse: Pulse, session: OpenSession) -> int:
    """When at the latest the daemon can have recorded anything of the session."""
    t1_ns = max(h.t1_ns for h in session.streams.values())
    seen_ns = max(t1_ns, spool.newest_append_ns(session.boot, session.session))
    beat_ns = pulse.last_ns(session.boot, session.session)
    end_ns = seen_ns + LOSS_NS if beat_ns is None else max(seen_ns, beat_ns) + BEAT_LATE_NS
    if session.boot == clock.boot_id():
        end_ns = min(end_ns, clock.now_ns())
    return max(end_ns, t1_ns)


def _declared(spool: Spool, session: OpenSession) -> dict[str, int]:
    """The streams that the session's records name, each with the time of the record."""
    found: dict[str, int] = {}
    for id_ in spool.own_chunks(session.boot, session.session, NEWEST):
        with contextlib.suppress(SpoolError, ChunkError, NameRefused):
            for record in decode_records(unpack_chunk(spool.read(id_)).payload):
                infos = record.get("streams") if record["type"] == "open" else [record.get("stream")]
                for info in infos if isinstance(infos, list) else ():
                    if isinstance(info, dict) and isinstance(info.get("name"), str):
                        found.setdefault(info["name"], int(record["t_ns"]))
    return found
