"""Consent that was withdrawn, and sessions that were erased: notes in the store that are only ever added.

    .consent/KIND.DIGEST.T.json              KIND is session, consent or worker; withdrawn at T (UTC, ns)
    .consent/erased.SITE.RIG.SESSION.T.json  a tombstone

Whom a note covers and since when stands in its name (DIGEST is of the subject, which may be any text): a
note whose contents are damaged covers them all the same.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import re
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import msgspec

from edgecap.codec.records import decode_records
from edgecap.config import MAX_REFERENCE_CHARS, MAX_TASK_CHARS
from edgecap.errors import ChunkError, SessionError, StoreError
from edgecap.ingest.store import SessionKey
from edgecap.model import SESSION_STREAM

if TYPE_CHECKING:
    from edgecap.ingest.store import Store

Kind = Literal["session", "consent", "worker"]
T = TypeVar("T")
VERSION = 1
_WITHDRAWAL = re.compile(r"(session|consent|worker)\.([0-9a-f]{32})\.(\d{1,19})\.json")
_ERASURE = re.compile(r"erased\.([a-z0-9-]{1,64})\.([a-z0-9-]{1,64})\.([a-z0-9-]{1,64})\.(\d{1,19})\.json")


class Withdrawal(msgspec.Struct, frozen=True, kw_only=True):
    """Recordings that must no longer be used: which, since when and why."""

    v: int = VERSION
    kind: Kind
    subject: str
    """SITE/RIG/SESSION, a consent reference, or a worker's pseudonym; empty where the note is damaged."""
    t_utc_ns: int
    why: str
    by: str
    """Account and machine that wrote it."""
    note: str = ""
    """Its name in the store."""
    damage: str = ""
    """Why its contents cannot be read; it holds all the same."""

    def in_words(self) -> str:
        """Since when, what, and why."""
        told = self.damage or ("this session" if self.kind == "session" else f"{self.kind} {self.subject}")
        line = f"withdrawn {utc_words(self.t_utc_ns)} ({told}){f': {self.why}' if self.why else ''}"
        return "".join(c if c.isprintable() else "·" for c in " ".join(line.split()))


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the place of a session whose chunks were erased."""

    v: int = VERSION
    site: str
    rig: str
    session: str
    t_utc_ns: int
    by: str = ""
    withdrawal: str = ""
    """Name of the note that allowed it."""
    manifest_sha256: str = ""
    """Hash of the opening record, which every chunk of the session named; empty if it had not arrived."""
    chunks: int = 0
    bytes: int = 0
    streams: dict[str, int] = {}
    """Chunks by stream."""
    day: str = ""
    utc_trusted: bool = False
    session_ns: int = 0
    captured_ns: int = 0
    """Stream time, as the ledger has it."""
    note: str = ""
    damage: str = ""

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.site, self.rig, self.session)

    def in_words(self) -> str:
        """When, and how much."""
        what = self.damage or f"{self.chunks} chunks, {self.bytes / 1e6:.2f} MB"
        return f"erased {utc_words(self.t_utc_ns)} ({what})"


class Consents:
    """What the store's notes say, as of now. A store that cannot list them raises `StoreError`.

    Attributes:
        erased: Sessions of which there is a tombstone.
        strange: Names among the notes that are none of ours.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._withdrawn: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._tombstones: dict[SessionKey, list[str]] = defaultdict(list)
        self._read: dict[str, Withdrawal] = {}
        self.strange: list[str] = []
        for name in store.note_names():
            if match := _WITHDRAWAL.fullmatch(name):
                self._withdrawn[match[1], match[2]].append(name)
            elif match := _ERASURE.fullmatch(name):
                self._tombstones[SessionKey(match[1], match[2], match[3])].append(name)
            else:
                self.strange.append(name)
        self.erased = sorted(self._tombstones)

    def sessions(self) -> list[SessionKey]:
        """Every session of the store, the erased ones too, sorted."""
        return sorted({*self._store.sessions(), *self.erased})

    def withdrawals(self) -> list[Withdrawal]:
        """Every withdrawal once, in order of time."""
        return sorted((self._first(names) for names in self._withdrawn.values()), key=lambda w: w.t_utc_ns)

    def of(self, kind: Kind, subject: str) -> Withdrawal | None:
        """The withdrawal of this subject."""
        names = self._withdrawn.get((kind, _digest(kind, subject)))
        return self._first(names) if names else None

    def covering(self, key: SessionKey, *, consent: str, worker: str) -> Withdrawal | None:
        """The first withdrawal that covers a session recorded under this consent by this worker."""
        return next(iter(self._all_covering(key, consent, worker)), None)

    def covering_stored(self, key: SessionKey) -> Withdrawal | None:
        """The first withdrawal that covers a session of the store, or the one that allowed its erasure."""
        return next(iter(self.all_covering_stored(key)), None)

    def all_covering_stored(self, key: SessionKey) -> list[Withdrawal]:
        """Every withdrawal that covers a session of the store; of an erased one, what allowed that."""
        erasure = self.erasure(key)
        if erasure is not None and _WITHDRAWAL.fullmatch(erasure.withdrawal):
            return [self._withdrawal(erasure.withdrawal)]
        opening: Mapping[str, Any] = {}
        if self._withdrawn:
            with contextlib.suppress(*([SessionError] if erasure is not None else [])):
                opening = opening_record(self._store, key)
        return self._all_covering(key, str(opening.get("consent") or ""), str(opening.get("operator") or ""))

    def erasure(self, key: SessionKey) -> Erasure | None:
        """The first tombstone of a session that can be read; of damaged ones what their name tells."""
        found = None
        for name in sorted(self._tombstones.get(key, ()), key=_t_utc_ns):
            try:
                told = _decode(self._store.note(name), Erasure)
                if told.key != key:
                    raise ValueError("its name says otherwise")
                return msgspec.structs.replace(told, note=name)
            except (StoreError, ValueError, msgspec.DecodeError) as error:
                damage = f"its note {name} cannot be read: {error}"
                found = found or Erasure(**key._asdict(), t_utc_ns=_t_utc_ns(name), note=name, damage=damage)
        return found

    def _all_covering(self, key: SessionKey, consent: str, worker: str) -> list[Withdrawal]:
        subjects: dict[Kind, str] = {"session": "/".join(key), "consent": consent, "worker": worker}
        found = [w for kind, subject in subjects.items() if subject and (w := self.of(kind, subject))]
        return sorted(found, key=lambda w: w.t_utc_ns)

    def _first(self, names: Iterable[str]) -> Withdrawal:
        found = [self._withdrawal(name) for name in sorted(names, key=_t_utc_ns)]
        return next((w for w in found if not w.damage), found[0])

    def _withdrawal(self, name: str) -> Withdrawal:
        if name not in self._read:
            word, digest, t_utc_ns, _ = name.split(".")
            kind = cast("Kind", word)
            try:
                told = _decode(self._store.note(name), Withdrawal)
                if (told.kind, _digest(told.kind, told.subject)) != (kind, digest):
                    raise ValueError("its name says otherwise")
                told = msgspec.structs.replace(told, note=name, damage="")
            except (StoreError, ValueError, msgspec.DecodeError) as error:
                damage = f"its note {name} cannot be read: {error}"
                told = Withdrawal(
                    kind=kind, subject="", t_utc_ns=int(t_utc_ns), why="", by="", note=name, damage=damage
                )
            self._read[name] = told
        return self._read[name]


def withdraw(store: Store, kind: Kind, subject: str, why: str) -> tuple[Withdrawal, bool]:
    """Note durably that a session, a consent or a worker is withdrawn, for what is stored and what will come.

    Returns:
        The withdrawal, and whether it is new: where one can be read already, it stays the only one.

    Raises:
        SessionError: subject or reason is empty or too long.
        StoreError: the store cannot be written.
    """
    subject, why = subject.strip(), why.strip()
    for what, text, limit in ((kind, subject, MAX_REFERENCE_CHARS), ("reason", why, MAX_TASK_CHARS)):
        if not text or len(text) > limit:
            raise SessionError(f"refused: the {what} has {len(text)} characters", fix=f"give 1 to {limit}")
    try:
        f"{subject}{why}".encode()
    except UnicodeEncodeError as error:
        raise SessionError(f"refused: {kind} or reason is no text", fix="give it in UTF-8") from error
    found = Consents(store).of(kind, subject)
    if found is not None and not found.damage:
        # Whoever wrote it may have died before it was durable.
        store.add_note(found.note, store.note(found.note))
        return found, False
    now_ns = time.time_ns()
    made = Withdrawal(kind=kind, subject=subject, t_utc_ns=now_ns, why=why, by=account())
    name = f"{kind}.{_digest(kind, subject)}.{now_ns}.json"
    store.add_note(name, encode_note(made))
    return msgspec.structs.replace(made, note=name), True


def require_not_withdrawn(store: Store, keys: Iterable[SessionKey]) -> None:
    """Raise `SessionError` naming every session that was withdrawn or erased, since when and why."""
    consents = Consents(store)
    told = []
    for key in keys:
        found = consents.covering_stored(key), consents.erasure(key)
        words = [f.in_words() for f in found if f is not None]
        told += [f"{key.session} was {' and '.join(words)}"] if words else []
    if told:
        raise SessionError(
            f"refused: session {'; session '.join(told)}",
            fix="leave it out" if len(told) == 1 else "leave them out",
        )


def opening_record(store: Store, key: SessionKey) -> Mapping[str, Any]:
    """The session's manifest; empty while it has not arrived, or where it cannot be read."""
    with store.contents(key) as contents:
        chunk = contents.first_chunk(SESSION_STREAM)
        try:
            records = decode_records(chunk.payload) if chunk is not None else []
        except ChunkError:
            records = []
    return next((r for r in records if r["type"] == "open"), {})


class ErasedSessions:
    """For writers: sessions whose chunks must not be stored again; looked up anew every so often."""

    def __init__(self, store: Store, every_s: float) -> None:
        self._store, self._every_s = store, every_s
        self._keys: frozenset[SessionKey] = frozenset()
        self._looked_s: float | None = None

    def now(self) -> frozenset[SessionKey]:
        """Raises `StoreError` when the notes cannot be listed."""
        now_s = time.monotonic()
        if self._looked_s is None or now_s - self._looked_s >= self._every_s:
            found = [_ERASURE.fullmatch(name) for name in self._store.note_names()]
            self._keys = frozenset(SessionKey(m[1], m[2], m[3]) for m in found if m)
            self._looked_s = now_s
        return self._keys


def erasure_note(erasure: Erasure) -> str:
    """The name of a tombstone."""
    return f"erased.{'.'.join(erasure.key)}.{erasure.t_utc_ns}.json"


def encode_note(told: Withdrawal | Erasure) -> bytes:
    """As it stands in the store: one JSON object, for people too; what its name says is not repeated."""
    fields = msgspec.to_builtins(told)
    kept = {k: v for k, v in fields.items() if k not in ("note", "damage")}
    return msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n"


def account() -> str:
    """Who runs this program, and where."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # an account without a name
        return socket.gethostname()


def utc_words(t_utc_ns: int) -> str:
    """A time as people read it."""
    try:
        return datetime.fromtimestamp(t_utc_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{t_utc_ns} ns"


def _decode(data: bytes, kind: type[T]) -> T:
    return msgspec.json.decode(data, type=kind)


def _digest(kind: str, subject: str) -> str:
    return hashlib.sha256(f"{kind}\n{subject.strip()}".encode()).hexdigest()[:32]


def _t_utc_ns(name: str) -> int:
    return int(name.split(".")[-2])
