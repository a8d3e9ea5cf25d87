"""Every light and buzzer of a rig in step with its state, and the order that docs/BUTTON.md promises."""

from __future__ import annotations

import asyncio
import itertools
import re
from pathlib import Path

from gpiozero.pins.mock import MockFactory

from edgecap.daemon.panels import Panels
from edgecap.session.machine import LEDS, SOUNDS, Event, Led, Machine, State, led_for
from edgecap.source.gpio import GpioPanel
from tests.heard_pin import HeardPin

LIGHTS = (5, 13)
BUZZERS = (6, 19)


def first_of(
    order: list[str], state: State, *, sensors_ok: bool, disk_ok: bool, consent: bool, battery_ok: bool
) -> str:
    """What the document says is shown."""
    holds = {
        "fault": state is State.FAULT,
        "draining": state is State.DRAINING,
        "recording": state is State.RECORDING,
        "idle": state is State.IDLE,
        "sensor-fault": not sensors_ok,
        "low-disk": not disk_ok,
        "no-consent": not consent,
        "low-battery": not battery_ok,
    }
    for entry in order:
        name, _, when = entry.partition(" while ")
        if holds[name] and when in ("", state.value):
            return name
    raise AssertionError(order)


def test_the_order_of_lights_is_the_documents() -> None:
    text = " ".join((Path(__file__).parents[2] / "docs/BUTTON.md").read_text().split())
    told = re.search(r"the first of these is shown: ([^.]*)\.", text)
    assert told
    order = re.split(", | or ", told[1])
    assert {entry.partition(" while ")[0] for entry in order} == set(LEDS)
    for state, *holds in itertools.product(State, *[(True, False)] * 4):
        facts = dict(zip(("sensors_ok", "disk_ok", "consent", "battery_ok"), holds, strict=True))
        assert led_for(state, **facts).name == first_of(order, state, **facts)


def test_two_lights_and_two_buzzers_go_through_a_session_together() -> None:
    async def run() -> None:
        pins = MockFactory(pin_class=HeardPin)
        machine, panels = Machine(), Panels()

        def follow() -> Led:
            led = led_for(machine.state, sensors_ok=True, disk_ok=True, consent=True)
            panels.follow(machine.state, led, [])
            return led

        async def all_hear(*names: str) -> None:
            wanted = [hz for name in names for hz, _ in SOUNDS[name].tones if hz]
            async with asyncio.timeout(30):
                while any([hz for hz in pins.pin(n).heard if hz] != wanted for n in BUZZERS):
                    await asyncio.sleep(0.005)

        with (
            GpioPanel(led=LIGHTS[0], buzzer=BUZZERS[0], on_edge=print, pin_factory=pins).open() as one,
            GpioPanel(led=LIGHTS[1], buzzer=BUZZERS[1], on_edge=print, pin_factory=pins).open() as two,
        ):
            for pin in BUZZERS:
                pins.pin(pin).heard.clear()
            follow()
            panels.add(one)
            panels.add(two)
            steps: tuple[tuple[Event, str, tuple[str, ...]], ...] = (
                ("start", "recording", ("start",)),
                ("stop", "draining", ("start", "stop")),
                ("drained", "idle", ("start", "stop", "saved")),
                ("failed", "fault", ("start", "stop", "saved", "error")),
            )
            for event, light, sounds in steps:
                for pin in LIGHTS:
                    pins.pin(pin).clear_states()
                machine.handle(event, "because")
                assert follow().name == light
                await all_hear(*sounds)
                if light == "recording":  # steady
                    assert all(pins.pin(n).state and len(pins.pin(n).states) <= 2 for n in LIGHTS)
                else:
                    async with asyncio.timeout(30):
                        while any(len(pins.pin(n).states) < 3 for n in LIGHTS):
                            await asyncio.sleep(0.005)

    asyncio.run(run())
