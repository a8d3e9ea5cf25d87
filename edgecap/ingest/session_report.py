"""What the store can prove about a session and its streams."""

from __future__ import annotations

import msgspec

from edgecap.ingest.consent import Erasure, Withdrawal
from edgecap.model import Gap, Mark


class StreamReport(msgspec.Struct, kw_only=True):
    """One stream of a session: what should be there, and what is."""

    name: str
    kind: str
    """Of the stream descriptor; of the chunks when the manifest does not name the stream."""
    chunks: int
    """Verified chunks in the store."""
    expected_chunks: int | None
    """As the close record states; None without one."""
    missing: list[tuple[int, int]]
    """First and last seq of each run of chunks that are not there."""
    samples: int
    """Samples or frames in the stored chunks."""
    device_sent: int | None
    """What the device itself says it produced; None when it cannot say."""
    unaccounted: int | None
    """Samples sent, and neither stored nor in a stated gap; None when that cannot be known."""
    gaps: list[Gap]
    lost: int
    """Samples in stated gaps, as far as they could be counted."""
    t0_ns: int
    t1_ns: int
    u_ns_max: int
    """Widest bound of the clock fits: true times lie within ± this."""
    bytes: int
    carries: str = ""
    """Its rate, channels and units, in words."""


class SessionReport(msgspec.Struct, kw_only=True):
    """What the store can prove about a session. Fields are only ever added."""

    complete: bool
    """Every chunk of every stream is there, the hash chain is unbroken, the manifest is closed."""
    outcome: str
    """`complete`, `discarded` or `interrupted`, as the close record says; `open` without one; `erased` when
    a tombstone has its place.
    """
    site: str
    rig: str
    session: str
    boot: str
    task: str
    operator: str
    consent: str
    utc_ns: int
    utc_trusted: bool
    t0_ns: int
    t1_ns: int
    chunks: int
    bytes: int
    streams: list[StreamReport]
    problems: list[str]
    """Why it is not complete, in words; empty when it is, and when it was erased."""
    notes: list[str]
    """What is worth knowing and does not make it incomplete."""
    calibration: list[str] = []
    """The records that the manifest carries, with version and date."""
    marks: list[Mark] = []
    """What the worker and the operator marked, in order of time."""
    continues: str = ""
    """The session that this one continues, after a hang of the rig's daemon."""
    shift: str = ""
    """The first of all sessions that continue one another."""
    withdrawn: Withdrawal | None = None
    """Why it must not be used."""
    erased: Erasure | None = None
    """Its tombstone."""
