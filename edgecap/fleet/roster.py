"""Who is out there and how they are, from retained status messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from edgecap import topics
from edgecap.errors import NameRefused
from edgecap.mqtt import Broker, Connection, Message, connect
from edgecap.status import NOT_JSON, RigStatus

QUIET_S = 0.5
"""Retained messages come at once; nothing for this long means that all have been seen."""


class RigRow(msgspec.Struct, frozen=True):
    """One rig as the operator sees it."""

    site: str
    rig: str
    state: str
    status: RigStatus | None = None
    """None while it is offline, or when it speaks another version."""

    @property
    def bad_streams(self) -> list[str]:
        """`stream: state` of each stream that loses data or may."""
        if self.status is None:
            return []
        return [f"{v.stream}: {v.state}" for v in self.status.streams if v.state not in ("ok", "waiting")]

    @property
    def needs_attention(self) -> bool:
        return self.state in ("fault", "unreadable") or bool(self.bad_streams)


class Roster:
    """Collects status messages; the latest of each rig counts."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], RigRow] = {}
        self.refused = 0

    def see(self, message: Message) -> None:
        """Take a message on a `status` topic into account."""
        try:
            address = topics.parse(message.topic)
        except NameRefused:
            self.refused += 1
            return
        self._rows[address.site, address.rig] = _row(address.site, address.rig, message.payload)

    def rows(self) -> list[RigRow]:
        """Those that need attention first, then by name."""
        return sorted(self._rows.values(), key=lambda r: (not r.needs_attention, r.site, r.rig))


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


async def watch(connection: Connection, roster: Roster, changed: Callable[[Sequence[RigRow]], None]) -> None:
    """Keep a roster up to date for as long as the connection lasts."""
    async for message in connection.messages():
        roster.see(message)
        changed(roster.rows())
