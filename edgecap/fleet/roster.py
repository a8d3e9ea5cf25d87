"""Who is out there and how they are, from retained status messages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edgecap import clock, topics
from edgecap.errors import NameRefused
from edgecap.fleet.attention import ORDER, Reason, reasons
from edgecap.mqtt import Broker, Connection, Message, connect
from edgecap.status import NOT_JSON, RigStatus

QUIET_S = 0.5
"""Retained messages come at once; nothing for this long means that all have been seen."""
REDRAW_S = 0.25
"""A page of 14,000 rigs hears hundreds of messages a second; people read four at most."""
REMEMBERED_EVENTS = 200
TWINS_NS = 600_000_000_000
"""How long it is told that two rigs were heard under one name."""


class RigRow(msgspec.Struct, frozen=True):
    """One rig as the operator sees it."""

    site: str
    rig: str
    state: str
    status: RigStatus | None = None
    """None while it is offline, or when it speaks another version."""
    heard_ns: int = 0
    """Rig clock of this machine at its last message; 0 in a single look."""
    since_ns: int = 0
    """When its state was first heard of; 0 in a single look."""
    was: str = ""
    """The state before this one, if it was heard."""
    boots: tuple[str, ...] = ()
    """Kernel boots of the last messages, the newest last; the same one in a row is noted once."""
    twins_ns: int = 0
    """When a boot that had given way to another was last heard again; 0 for never."""

    def reasons(self, now_ns: int = 0) -> list[Reason]:
        """Why somebody should look at it, worst first."""
        age_ns = now_ns - self.heard_ns if now_ns and self.heard_ns else 0
        found = reasons(self.state, self.status, age_ns, self.was)
        if self.twins_ns and now_ns - self.twins_ns < TWINS_NS:
            found.append(Reason("soon", "two rigs use this name: give one another"))
            found.sort(key=lambda reason: ORDER.index(reason.severity))
        return found

    @property
    def needs_attention(self) -> bool:
        """Whether data is being lost, or might be without anybody seeing it."""
        return bool(self.reasons())


class FleetEvent(msgspec.Struct, frozen=True):
    """A fault, gap, mark, start or stop that a rig told of."""

    site: str
    rig: str
    heard_ns: int
    kind: str
    session: str
    text: str


class Roster:
    """Collects status messages and events; the latest status of each rig counts."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], RigRow] = {}
        self.events: deque[FleetEvent] = deque(maxlen=REMEMBERED_EVENTS)
        """Newest last."""
        self.messages = self.refused = 0
        self.version = 0
        """Grows with every message taken."""

    def see(self, message: Message, now_ns: int = 0) -> None:
        """Take a message on a `status` or `event` topic into account; `now_ns` is when it came."""
        self.messages += 1
        try:
            address = topics.parse(message.topic)
        except NameRefused:
            self.refused += 1
            return
        self.version += 1
        if address.suffix == topics.EVENT.suffix:
            self._event(address.site, address.rig, message.payload, now_ns)
            return
        key = address.site, address.rig
        row, old = _row(*key, message.payload), self._rows.get(key)
        same = old is not None and old.state == row.state
        boots, twins_ns = (old.boots, old.twins_ns) if old is not None else ((), 0)
        if row.status is not None and row.status.boot not in boots[-1:]:
            boots = (*boots, row.status.boot)[-3:]
            # A rig that was started anew never comes back to its earlier boot.
            twins_ns = now_ns if boots.count(row.status.boot) > 1 else twins_ns
        self._rows[key] = msgspec.structs.replace(
            row,
            heard_ns=now_ns,
            since_ns=old.since_ns if old is not None and same else now_ns,
            was="" if old is None else old.was if same else old.state,
            boots=boots,
            twins_ns=twins_ns,
        )

    def _event(self, site: str, rig: str, payload: bytes, now_ns: int) -> None:
        try:
            body = msgspec.json.decode(payload, type=dict[str, Any])
        except NOT_JSON:
            self.refused += 1
            return
        kind, session, text = (str(body.get(k, ""))[:400] for k in ("kind", "session", "text"))
        self.events.append(FleetEvent(site, rig, now_ns, kind, session, text))

    def rows(self, now_ns: int = 0) -> list[RigRow]:
        """The worst first, then by name."""

        def rank(row: RigRow) -> tuple[int, str, str]:
            why = row.reasons(now_ns)
            return (ORDER.index(why[0].severity) if why else len(ORDER), row.site, row.rig)

        # sorted() first takes all values at once, so that another thread may ask while messages come.
        return sorted(self._rows.values(), key=rank)

    def find(self, site: str, rig: str) -> RigRow | None:
        """One rig; None if it was never heard."""
        return self._rows.get((site, rig))

    def __len__(self) -> int:
        return len(self._rows)


def _row(site: str, rig: str, payload: bytes) -> RigRow:
    try:
        status = msgspec.json.decode(payload, type=RigStatus)
    except msgspec.ValidationError:
        try:
            state = str(msgspec.json.decode(payload)["state"])[:32]
        except (*NOT_JSON, KeyError, TypeError):
            state = "unreadable"
        return RigRow(site, rig, state if state == "offline" else "unreadable")
    except NOT_JSON:
        return RigRow(site, rig, "unreadable")
    return RigRow(site, rig, status.state, status)


async def look_once(broker: Broker, *, client_id: str, site: str = "+", rig: str = "+") -> list[RigRow]:
    """Every rig that has a retained status now."""
    roster = Roster()
    wanted = [topics.subscription(topics.STATUS, site=site, rig=rig)]
    async with connect(broker, client_id=client_id, subscribe=wanted) as connection:
        messages = aiter(connection.messages())
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    roster.see(await anext(messages))
            except TimeoutError:
                return roster.rows()


async def follow(connection: Connection, roster: Roster) -> None:
    """Keep a roster up to date for as long as the connection lasts."""
    async for message in connection.messages():
        roster.see(message, clock.now_ns())


async def redraw(roster: Roster, changed: Callable[[Sequence[RigRow]], None]) -> None:
    """Show the rows a few times a second, if anything new was heard or a second has passed."""
    shown, idle_s = -1, 0.0
    while True:
        if roster.version != shown or idle_s >= 1:
            shown, idle_s = roster.version, 0.0
            changed(roster.rows(clock.now_ns()))
        await asyncio.sleep(REDRAW_S)
        idle_s += REDRAW_S
