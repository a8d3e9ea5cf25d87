"""The rig's state machine and the LED that shows it. Pure: events in, actions out."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

from edgecap.errors import SessionError


class State(StrEnum):
    """What the rig is doing."""

    IDLE = "idle"
    RECORDING = "recording"
    DRAINING = "draining"
    FAULT = "fault"


class Action(StrEnum):
    """What the daemon must do after a transition."""

    OPEN = "open"
    CLOSE = "close"
    CLOSE_DISCARDED = "close-discarded"
    MARK = "mark"
    NONE = "none"


Event = Literal["start", "stop", "mark", "discard", "drained", "failed"]
Gesture = Literal["press", "double", "hold"]

_TABLE: dict[tuple[State, Event], tuple[State, Action]] = {
    (State.IDLE, "start"): (State.RECORDING, Action.OPEN),
    (State.IDLE, "failed"): (State.FAULT, Action.NONE),
    (State.RECORDING, "stop"): (State.DRAINING, Action.CLOSE),
    (State.RECORDING, "discard"): (State.DRAINING, Action.CLOSE_DISCARDED),
    (State.RECORDING, "mark"): (State.RECORDING, Action.MARK),
    (State.RECORDING, "failed"): (State.FAULT, Action.CLOSE),
    (State.DRAINING, "drained"): (State.IDLE, Action.NONE),
    (State.DRAINING, "failed"): (State.FAULT, Action.NONE),
    # A fault is left by trying again: the worker presses once more.
    (State.FAULT, "start"): (State.RECORDING, Action.OPEN),
    (State.FAULT, "failed"): (State.FAULT, Action.NONE),
    (State.FAULT, "drained"): (State.FAULT, Action.NONE),
}

_WHY_NOT: dict[Event, str] = {
    "start": "a session is already {state}",
    "stop": "no session is recording (the rig is {state})",
    "mark": "no session is recording to put a mark into (the rig is {state})",
    "discard": "no session is recording that could be discarded (the rig is {state})",
}


class Machine:
    """Holds the state; `handle` is the only way to change it."""

    def __init__(self) -> None:
        self.state = State.IDLE
        self.fault = ""
        """Why the rig is in FAULT."""

    def handle(self, event: Event, reason: str = "") -> Action:
        """Move to the next state.

        Raises:
            SessionError: the event has no meaning in this state; the state is unchanged.
        """
        found = _TABLE.get((self.state, event))
        if found is None:
            why = _WHY_NOT.get(event, "{event} does not apply while {state}")
            raise SessionError(f"refused {event}: {why.format(state=self.state.value, event=event)}")
        self.state, action = found
        self.fault = reason if self.state is State.FAULT else ""
        return action

    def event_for(self, gesture: Gesture) -> Event | None:
        """What a gesture asks for now: press starts and stops, double marks, hold discards."""
        recording = self.state is State.RECORDING
        if gesture == "press":
            return "stop" if recording else "start"
        if not recording:
            return None
        return "mark" if gesture == "double" else "discard"


class Led(NamedTuple):
    """A light pattern. Told apart by rhythm first, so that it needs no colour vision.

    `on_ms` / `off_ms` repeat for ever; `off_ms` 0 is steady light and `on_ms` 0 is dark.
    `flashes` short flashes (120 ms apart) stand in place of one when larger than 1.
    """

    name: str
    rgb: tuple[int, int, int]
    on_ms: int
    off_ms: int
    flashes: int = 1


LEDS = {
    led.name: led
    for led in (
        Led("idle", (0, 0, 40), 60, 2940),
        Led("recording", (0, 158, 115), 1000, 0),
        Led("draining", (0, 114, 178), 100, 100),
        Led("sensor-fault", (230, 159, 0), 120, 760, 2),
        Led("low-disk", (230, 159, 0), 120, 1500, 3),
        Led("no-consent", (204, 121, 167), 1000, 1000),
        Led("fault", (213, 94, 0), 120, 1000, 4),
    )
}
"""Colours are from the Okabe-Ito palette (jfly.uni-koeln.de/color): colour-blind people tell them apart."""


def led_for(state: State, *, sensors_ok: bool, disk_ok: bool, consent: bool) -> Led:
    """The pattern for what holds; a running recording with a bad stream must not look like a good one."""
    if state is State.FAULT:
        return LEDS["fault"]
    if state is State.DRAINING:
        return LEDS["draining"]
    if state is State.RECORDING and not sensors_ok:
        return LEDS["sensor-fault"]
    if not disk_ok:
        return LEDS["low-disk"]
    if state is State.RECORDING:
        return LEDS["recording"]
    return LEDS["idle"] if consent else LEDS["no-consent"]
