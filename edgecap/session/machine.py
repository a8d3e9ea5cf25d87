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


Event = Literal["start", "stop", "mark", "discard", "drained", "failed", "mended"]
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
    # Or its cause has gone by itself: a device has been plugged in.
    (State.FAULT, "mended"): (State.IDLE, Action.NONE),
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
        Led("low-battery", (230, 159, 0), 120, 1500, 5),
        Led("no-consent", (204, 121, 167), 1000, 1000),
        Led("fault", (213, 94, 0), 120, 1000, 4),
    )
}
"""Colours are from the Okabe-Ito palette (jfly.uni-koeln.de/color): colour-blind people tell them apart."""


class Sound(NamedTuple):
    """What the buzzer plays: tones of (Hz, ms), one after another; 0 Hz is a pause."""

    name: str
    tones: tuple[tuple[int, int], ...]


SOUNDS = {
    sound.name: sound
    for sound in (
        Sound("start", ((1047, 90), (1568, 140))),
        Sound("stop", ((1568, 90), (1047, 140))),
        Sound("saved", ((1047, 70), (1319, 70), (1568, 70), (2093, 180))),
        Sound("error", ((932, 250), (0, 90), (932, 250), (0, 90), (932, 400))),
    )
}
"""Told apart by direction and count: up, down, four up, three low ones. A piezo is loudest at 1 to 4 kHz."""


def sound_for(before: State, after: State) -> Sound | None:
    """What a change of state sounds like; None where nothing changed that a worker waits for."""
    if after is before:
        return None
    if after is State.FAULT:
        return SOUNDS["error"]
    if after is State.RECORDING:
        return SOUNDS["start"]
    if after is State.DRAINING:
        return SOUNDS["stop"]
    return SOUNDS["saved"] if before is State.DRAINING else None


def led_for(state: State, *, sensors_ok: bool, disk_ok: bool, consent: bool, battery_ok: bool = True) -> Led:
    """The pattern for what holds, the worst first.

    A recording with a bad stream must not look like a good one; while idle, what would refuse a start comes
    before a device that is missing from a rig that can still record.
    """
    if state is State.FAULT:
        return LEDS["fault"]
    if state is State.DRAINING:
        return LEDS["draining"]
    if state is State.RECORDING and not sensors_ok:
        return LEDS["sensor-fault"]
    if not disk_ok:
        return LEDS["low-disk"]
    if state is State.RECORDING:
        return LEDS["recording" if battery_ok else "low-battery"]
    if not consent:
        return LEDS["no-consent"]
    if not sensors_ok:
        return LEDS["sensor-fault"]
    return LEDS["idle" if battery_ok else "low-battery"]
