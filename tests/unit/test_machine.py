"""The state machine: every event in every state either moves it or is refused without moving it."""

from __future__ import annotations

import contextlib
from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.daemon.recording import _BOARD_PATTERN
from edgecap.errors import SessionError
from edgecap.session.machine import LEDS, SOUNDS, Action, Event, Machine, State, led_for, sound_for

EVENTS = get_args(Event)


def in_state(state: State) -> Machine:
    machine = Machine()
    machine.state = state
    return machine


def test_the_usual_day() -> None:
    machine = Machine()
    assert machine.handle("start") is Action.OPEN
    assert machine.handle("mark") is Action.MARK
    assert machine.handle("stop") is Action.CLOSE
    assert machine.state is State.DRAINING
    assert machine.handle("drained") is Action.NONE
    assert machine.state is State.IDLE


def test_gestures_mean_what_the_state_says() -> None:
    expected = {
        (State.IDLE, "press"): "start",
        (State.FAULT, "press"): "start",
        (State.RECORDING, "press"): "stop",
        (State.RECORDING, "double"): "mark",
        (State.RECORDING, "hold"): "discard",
        (State.DRAINING, "press"): "start",
    }
    for state, gesture in product(State, ("press", "double", "hold")):
        assert in_state(state).event_for(gesture) == expected.get((state, gesture))


@pytest.mark.parametrize(("state", "event"), list(product(State, EVENTS)))
def test_refusal_leaves_the_state(state: State, event: Event) -> None:
    machine = in_state(state)
    try:
        machine.handle(event, "why")
    except SessionError as error:
        assert machine.state is state
        assert state.value in str(error)


@given(st.lists(st.sampled_from(EVENTS)))
def test_every_session_that_opens_is_closed_before_the_next(events: list[Event]) -> None:
    machine, open_ = Machine(), False
    for event in events:
        try:
            action = machine.handle(event, "why")
        except SessionError:
            continue
        if action is Action.OPEN:
            assert not open_
            open_ = True
        if action in (Action.CLOSE, Action.CLOSE_DISCARDED):
            assert open_
            open_ = False
        assert open_ == (machine.state is State.RECORDING)
        assert bool(machine.fault) == (machine.state is State.FAULT)


def test_the_light_never_lies() -> None:
    """A bad recording never looks like a good one, and no two patterns share a rhythm."""
    for state, sensors, disk, consent in product(State, (True, False), (True, False), (True, False)):
        led = led_for(state, sensors_ok=sensors, disk_ok=disk, consent=consent)
        if led.name == "recording":
            assert state is State.RECORDING
            assert sensors
            assert disk
        if led.name == "idle":
            assert (state, sensors, disk, consent) == (State.IDLE, True, True, True)
        if state is State.FAULT:
            assert led.name == "fault"
    rhythms = {(led.on_ms, led.off_ms, led.flashes) for led in LEDS.values()}
    assert len(rhythms) == len(LEDS)
    assert set(_BOARD_PATTERN) == set(LEDS)


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.booleans(), st.booleans(), st.booleans())))
def test_the_light_is_a_function_of_what_holds_now(steps: list[tuple[Event, bool, bool, bool]]) -> None:
    """However the rig came to where it is: the same state and facts show the same light."""
    machine, seen = Machine(), {}
    for event, sensors, disk, consent in steps:
        with contextlib.suppress(SessionError):
            machine.handle(event, "why")
        led = led_for(machine.state, sensors_ok=sensors, disk_ok=disk, consent=consent)
        assert seen.setdefault((machine.state, sensors, disk, consent), led) is led


@given(st.lists(st.sampled_from(EVENTS)))
def test_sounds_tell_of_changes_alone(events: list[Event]) -> None:
    machine = Machine()
    for event in events:
        before = machine.state
        with contextlib.suppress(SessionError):
            machine.handle(event, "why")
        sound = sound_for(before, machine.state)
        assert (sound is None) == (
            machine.state is before or (before, machine.state) == (State.FAULT, State.IDLE)
        )
        if machine.state is State.FAULT and before is not State.FAULT:
            assert sound is SOUNDS["error"]


def test_sounds_can_be_told_apart() -> None:
    """By their number of tones and whether they rise: nobody has to know the notes."""

    def shape(tones: tuple[tuple[int, int], ...]) -> tuple[int, int]:
        pitches = [hz for hz, _ in tones if hz]
        return len(pitches), (pitches[-1] > pitches[0]) - (pitches[-1] < pitches[0])

    assert len({shape(s.tones) for s in SOUNDS.values()}) == len(SOUNDS)
    assert set(SOUNDS) == {"start", "stop", "saved", "error"}
