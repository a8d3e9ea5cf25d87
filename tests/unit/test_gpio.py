import asyncio
from typing import NamedTuple

import pytest
from gpiozero.pins.mock import MockFactory, MockPWMPin

from edgecap.clock import now_ns
from edgecap.errors import SourceError
from edgecap.session.machine import SOUNDS
from edgecap.source.gpio import BUZZER_MID_HZ, BUZZER_OCTAVES, GpioPanel
from edgecap.source.steps import Step, steps_of
from tests.waiting import until


class Light(NamedTuple):
    on_ms: int
    off_ms: int
    flashes: int = 1


def test_button_edges_arrive_on_the_loop_with_their_times() -> None:
    edges: list[tuple[bool, int]] = []

    async def run() -> None:
        factory = MockFactory()
        with GpioPanel(button=17, on_edge=lambda *e: edges.append(e), pin_factory=factory).open():
            before = now_ns()
            factory.pin(17).drive_low()
            factory.pin(17).drive_high()
            assert edges == []  # never called from another context than the loop
            await until(lambda: len(edges) == 2)
            assert before < edges[0][1] < edges[1][1] < now_ns()

    asyncio.run(run())
    assert [down for down, _ in edges] == [True, False]


def test_light_follows_the_pattern_until_the_next_one() -> None:
    async def run() -> None:
        factory = MockFactory()
        with GpioPanel(led=5, on_edge=lambda *_: None, pin_factory=factory).open() as panel:
            pin = factory.pin(5)
            pin.clear_states()
            panel.show(Light(5, 5))
            await until(lambda: len(pin.states) > 6)
            panel.show(Light(1000, 0))
            assert pin.state
            count = len(pin.states)
            panel.show(Light(0, 1000))
            assert not pin.state
            assert len(pin.states) == count + 1

    asyncio.run(run())


class Tune(NamedTuple):
    tones: tuple[tuple[int, int], ...]


def frequencies(pin: MockPWMPin) -> list[float]:
    """Every frequency that a pin was set to; None silences it."""
    return [round(f) for f in pin.heard]


class HeardPin(MockPWMPin):
    """A mock pin that remembers its frequencies, as `states` remembers its levels."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.heard: list[float] = []
        super().__init__(*args, **kwargs)

    def _set_frequency(self, value: float | None) -> None:
        super()._set_frequency(value)
        self.heard.append(value or 0)


def test_the_buzzer_plays_tone_after_tone_and_falls_silent() -> None:
    async def run() -> None:
        factory = MockFactory(pin_class=HeardPin)
        with GpioPanel(buzzer=6, on_edge=lambda *_: None, pin_factory=factory).open() as panel:
            pin = factory.pin(6)
            pin.heard.clear()
            panel.play(Tune(((1000, 5), (0, 5), (2000, 5))))
            await until(lambda: len(pin.heard) == 4)
            assert frequencies(pin) == [1000, 0, 2000, 0]

    asyncio.run(run())


def test_a_sound_waits_for_the_one_before_and_no_more_than_a_few_wait() -> None:
    async def run() -> None:
        factory = MockFactory(pin_class=HeardPin)
        with GpioPanel(buzzer=6, on_edge=lambda *_: None, pin_factory=factory).open() as panel:
            pin = factory.pin(6)
            pin.heard.clear()
            for _ in range(100):
                panel.play(Tune(((1000, 1), (1500, 1))))
            panel.play(Tune(((3000, 60_000),)))
            await until(lambda: len(pin.heard) >= 6)
            assert frequencies(pin)[:6] == [1000, 1500, 0, 1000, 1500, 0]
            assert len(panel._tones) < 40

    asyncio.run(run())


def test_every_sound_is_within_what_the_buzzer_can_play() -> None:
    low, high = BUZZER_MID_HZ / 2**BUZZER_OCTAVES, BUZZER_MID_HZ * 2**BUZZER_OCTAVES
    for sound in SOUNDS.values():
        assert all(not hz or low <= hz <= high for hz, _ in sound.tones)


def test_missing_parts_are_no_error_and_pins_are_given_back() -> None:
    async def run() -> None:
        factory = MockFactory()
        for _ in range(2):
            with GpioPanel(led=5, button=17, on_edge=lambda *_: None, pin_factory=factory).open() as panel:
                panel.play(Tune(((1000, 5),)))
        panel.show(Light(1000, 0))
        panel.play(Tune(((1000, 5),)))

    asyncio.run(run())


def test_two_parts_on_one_pin_are_refused_by_name() -> None:
    async def run() -> None:
        panel = GpioPanel(button=5, led=5, on_edge=lambda *_: None, pin_factory=MockFactory())
        with pytest.raises(SourceError, match="LED on GPIO 5 cannot be used"), panel.open():
            pass

    asyncio.run(run())


@pytest.mark.parametrize(
    ("light", "wanted"),
    [
        (Light(0, 100), [(False, None)]),
        (Light(1000, 0), [(True, None)]),
        (Light(60, 2940), [(True, 0.06), (False, 2.94)]),
        (Light(120, 760, 2), [(True, 0.12), (False, 0.12), (True, 0.12), (False, 0.76)]),
    ],
)
def test_steps_of_a_pattern(light: Light, wanted: list[tuple[bool, float | None]]) -> None:
    assert steps_of(light) == tuple(Step(*w) for w in wanted)
