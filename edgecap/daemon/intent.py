"""Requests to a rig's state machine, and the events and counts that the rig publishes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgecap.model import Mark
from edgecap.session.machine import Event, Led, Sound
from edgecap.session.manifest import Continued, Provenance
from edgecap.status import CommandResult


class Panel(Protocol):
    """Button, light and buzzer of the rig itself; edges are given to `Rig.buttons`."""

    def show(self, led: Led) -> None: ...

    def play(self, sound: Sound) -> None: ...


@dataclass(slots=True)
class Intent:
    """A request to move the state machine."""

    event: Event
    by: str
    t_ns: int
    mark: Mark | None = None
    task: str = ""
    reason: str = ""
    provenance: Provenance | None = None
    """With `start`: of this session and the ones after it."""
    continued: Continued | None = None
    """With `start`: the session that the new one continues."""
    reply: asyncio.Future[CommandResult] | None = None
    id: str = ""


@dataclass(slots=True)
class Counters:
    """What went wrong since the daemon started; published as it is."""

    events_dropped: int = 0
    source_faults: int = 0
    gaps: int = 0
    sessions_failed: int = 0


@dataclass(slots=True)
class RigEvent:
    """Something that happened, for the `event` topic."""

    kind: str
    t_ns: int
    text: str
    session: str = ""
    """The one in which it happened, empty outside of any: another may run when it is published."""
    fields: dict[str, Any] = field(default_factory=dict)
