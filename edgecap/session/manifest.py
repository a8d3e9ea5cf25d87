"""The session's own records: what opens it, what closes it, and what happened between."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

import msgspec

from edgecap.clock import boot_id
from edgecap.config import MAX_REFERENCE_CHARS, MAX_TASK_CHARS, MAX_USES
from edgecap.errors import SessionError
from edgecap.model import ClockPair, Gap, Mark, StreamInfo, Verdict

MANIFEST_VERSION = 1
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
Outcome = Literal["complete", "discarded", "interrupted"]
Record = dict[str, Any]


class Provenance(msgspec.Struct, frozen=True):
    """Who records what, under which consent; nothing leaves the rig without it."""

    task: str
    operator: str
    consent: str
    consent_scope: tuple[str, ...] = ()
    """The uses that the consent allows, as far as they are told."""

    def check_lengths(self) -> None:
        """Raise `SessionError` naming the first part that is too long for a manifest."""
        if len(self.consent_scope) > MAX_USES or any(
            not 0 < len(use) <= MAX_REFERENCE_CHARS for use in self.consent_scope
        ):
            raise SessionError(
                "refused consent_scope: it has too many uses, or one that is empty or too long",
                fix=f"at most {MAX_USES}, each of 1 to {MAX_REFERENCE_CHARS} characters",
            )
        limits = {"task": MAX_TASK_CHARS, "operator": MAX_REFERENCE_CHARS, "consent": MAX_REFERENCE_CHARS}
        for what, limit in limits.items():
            length = len(getattr(self, what))
            if length > limit:
                raise SessionError(
                    f"refused {what}: it has {length} characters, the limit is {limit}", fix="shorten it"
                )

    def require(self) -> None:
        """Raise `SessionError` naming the first part that is missing."""
        for what in ("task", "operator", "consent"):
            if not getattr(self, what).strip():
                raise SessionError(
                    f"refused start: no {what} is set", fix=f"set `session.{what}` in the configuration"
                )


class Continued(msgspec.Struct, frozen=True):
    """What a session continues that was begun because the daemon had hung in the one before."""

    session: str
    """The session before."""
    shift: str
    """The first session of all that continue one another."""


def new_session_id(utc_ns: int) -> str:
    """`YYYYMMDD-hhmmss-xxxx`: sorts by time where the clock is right, unique where it is not."""
    when = datetime.fromtimestamp(utc_ns / 1e9, UTC)
    return when.strftime("%Y%m%d-%H%M%S-") + "".join(secrets.choice(_BASE32) for _ in range(4))


def versions() -> dict[str, str]:
    """The software that made the recording."""
    return {
        "edgecap": version("edgecap"),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "numba": version("numba"),
        "kernel": platform.release(),
        "machine": platform.machine(),
    }


def open_record(
    *,
    site: str,
    rig: str,
    session: str,
    provenance: Provenance,
    pair: ClockPair,
    streams: Sequence[StreamInfo],
    calibration: Mapping[str, Any],
    config: Mapping[str, Any],
    continued: Continued | None = None,
) -> Record:
    """The manifest: everything that is known before the first sample."""
    record = {
        "type": "open",
        "t_ns": pair.raw_ns,
        "v": MANIFEST_VERSION,
        "site": site,
        "rig": rig,
        "boot": boot_id(),
        "session": session,
        **msgspec.to_builtins(provenance),
        "utc_ns": pair.realtime_ns,
        "utc_trusted": pair.ntp_synced,
        "clock": msgspec.to_builtins(pair),
        "streams": msgspec.to_builtins(list(streams)),
        "calibration": dict(calibration),
        "versions": versions(),
        "config": dict(config),
    }
    if continued is not None:
        record |= {"continues": continued.session, "shift": continued.shift}
    return record


def mark_record(mark: Mark) -> Record:
    return {"type": "mark", **msgspec.to_builtins(mark)}


def gap_record(gap: Gap) -> Record:
    return {"type": "gap", "t_ns": gap.t0_ns, **msgspec.to_builtins(gap)}


def clock_record(pair: ClockPair) -> Record:
    return {"type": "clock", "t_ns": pair.raw_ns, **msgspec.to_builtins(pair)}


def verdict_record(t_ns: int, verdicts: Sequence[Verdict]) -> Record:
    return {"type": "verdict", "t_ns": t_ns, "streams": msgspec.to_builtins(list(verdicts))}


def event_record(t_ns: int, device: str, kind: str, text: str) -> Record:
    return {"type": "event", "t_ns": t_ns, "device": device, "kind": kind, "text": text}


def stream_record(t_ns: int, info: StreamInfo) -> Record:
    return {"type": "stream", "t_ns": t_ns, "stream": msgspec.to_builtins(info)}


def close_record(t_ns: int, outcome: Outcome, streams: Mapping[str, Record], reason: str = "") -> Record:
    """The last record: per stream how many chunks and samples there must be, and the last hash."""
    return {"type": "close", "t_ns": t_ns, "outcome": outcome, "reason": reason, "streams": dict(streams)}
