"""Button, light and buzzer as a worker meets them: on the rig's own pins, and on the glove.

The daemon runs in this process on gpiozero's mock pins, beside the real firmware. Only what the pins do and
what the firmware was told is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory

from edgecap import topics
from edgecap.clock import now_ns
from edgecap.session.machine import LEDS, SOUNDS
from edgecap.sim.firmware import motion_imu
from edgecap.source import gpio
from tests.heard_pin import HeardPin
from tests.system.onlooker import daemon, shows
from tests.system.site import RIG, SITE, Site

pytestmark = pytest.mark.timeout(180)
BUTTON, LIGHT, BUZZER = 17, 5, 6
MS = 1_000_000


class EdgeClock:
    """Read where gpiozero's thread takes the time of an edge."""

    time_ns = 0

    def __call__(self) -> int:
        return self.time_ns


class Worker:
    """Presses the rig's own button, sees its light, hears its buzzer."""

    def __init__(self, site: Site, pins: MockFactory, clock: EdgeClock) -> None:
        self.site, self.pins, self.clock = site, pins, clock
        self._last_ns = 0

    async def press(self, *lengths_ms: int) -> None:
        """Close the contact for so long, once or more with 150 ms between.

        The edges, with the bounces of a real contact, come all at once and bear scripted times: what a
        gesture is follows from these alone, however busy this machine is.
        """
        edges: list[tuple[int, bool]] = []
        at = 0
        for length in lengths_ms or (80,):
            edges += [(at + k, k % 2 == 0) for k in range(5)]
            edges += [(at + length + k, k % 2 == 1) for k in range(3)]
            at += length + 150
        span_ns = edges[-1][0] * MS
        while now_ns() - self._last_ns < span_ns + 20 * MS:  # time of the scripted edges must not go back
            await asyncio.sleep(0.01)
        t0_ns = now_ns() - span_ns
        pin = self.pins.pin(BUTTON)
        for t_ms, down in edges:
            self._last_ns = t0_ns + t_ms * MS
            self.clock.time_ns = self._last_ns
            pin.drive_low() if down else pin.drive_high()

    def heard(self) -> list[int]:
        return list(self.pins.pin(BUZZER).heard)

    async def hears(self, *names: str) -> None:
        """Wait until just these sounds, in this order, have been played since the last call."""
        wanted: list[int] = []
        for name in names:
            wanted += [hz for hz, _ in SOUNDS[name].tones]
        await self.site.until(f"heard {names}", lambda: ends_silent(self.heard(), wanted))
        self.pins.pin(BUZZER).heard.clear()


def ends_silent(heard: list[int], wanted: list[int]) -> bool:
    """Whether just the wanted tones came, in order, and silence at last."""
    return [hz for hz in heard if hz] == [hz for hz in wanted if hz] and heard[-1:] == [0]


@contextlib.asynccontextmanager
async def rig(
    tmp_path: Path, clock: EdgeClock, *, consent: str = "c-1", reserve_mb: int = 16
) -> AsyncIterator[tuple[Site, Worker]]:
    """A rig with its own button, light and buzzer, and a glove."""
    pins = Device.pin_factory
    async with Site(tmp_path) as site:
        await site.add_device("glove", [motion_imu()])
        site.add_section(f"[button]\ngpio = {BUTTON}\nled_gpio = {LIGHT}\nbuzzer_gpio = {BUZZER}")
        path = site.config()
        text = path.read_text().replace('consent = "c-1"', f'consent = "{consent}"')
        path.write_text(text.replace("reserve_mb = 16", f"reserve_mb = {reserve_mb}"))
        async with daemon(site, path):
            await site.until_state("idle")
            await site.until("claimed", lambda: pins.pin(BUZZER).heard)
            pins.pin(BUZZER).heard.clear()  # what claiming the pin does to it
            yield site, Worker(site, pins, clock)


def on_a_rig(body: Callable[..., object], tmp_path: Path, **options: object) -> None:
    async def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Device, "pin_factory", MockFactory(pin_class=HeardPin))
            clock = EdgeClock()
            patch.setattr(gpio, "now_ns", clock)
            async with rig(tmp_path, clock, **options) as (site, worker):  # type: ignore[arg-type]
                await body(site, worker)  # type: ignore[misc]

    asyncio.run(run())


def test_three_gestures_on_the_rigs_own_button(tmp_path: Path) -> None:
    async def body(site: Site, worker: Worker) -> None:
        glove = site.devices["glove"]
        light = worker.pins.pin(LIGHT)
        await shows(glove, "idle")
        # A press starts; light steady on both, one sound.
        await worker.press()
        await site.until_state("recording")
        await shows(glove, "recording")
        await site.until("steady", lambda: light.state)
        await worker.hears("start")
        # Twice marks, and changes nothing that is seen or heard.
        await worker.press(80, 80)
        await site.until("marked", lambda: any(e["kind"] == "mark" for e in site.events))
        (mark,) = [e for e in site.events if e["kind"] == "mark"]
        assert mark["text"] == "went-wrong"
        assert worker.heard() == []
        # A press stops: stop, then saved.
        await worker.press()
        await site.until_state("idle")
        await shows(glove, "idle")
        await worker.hears("stop", "saved")
        # Held for three seconds, a session is discarded.
        await worker.press()
        await site.until_state("recording")
        await worker.hears("start")
        await worker.press(3200)
        await site.until("discarded", lambda: any(e.get("outcome") == "discarded" for e in site.events))
        await worker.hears("stop", "saved")
        gestures = [e["text"] for e in site.events if e["kind"] == "button"]
        assert gestures == ["press", "double", "press", "press", "hold"]  # no bounce was taken for a press

    on_a_rig(body, tmp_path)


def test_the_gloves_button_moves_both_lights(tmp_path: Path) -> None:
    async def body(site: Site, worker: Worker) -> None:
        glove = site.devices["glove"]
        await glove.press(80)
        await shows(glove, "recording")
        await site.until("steady", lambda: worker.pins.pin(LIGHT).state)
        await glove.press(80)
        await shows(glove, "idle")
        await worker.hears("start", "stop", "saved")
        # Nor does it matter that somebody far away started it: the worker must see and hear that it records.
        for cmd, light in (("start", "recording"), ("stop", "idle")):
            command = {"id": cmd, "cmd": cmd}
            await site.link.publish(topics.topic(SITE, RIG, topics.CMD), json.dumps(command).encode(), qos=1)
            await shows(glove, light)
        await worker.hears("start", "stop", "saved")

    on_a_rig(body, tmp_path)


def test_without_consent_no_light_and_no_sound_say_that_it_records(tmp_path: Path) -> None:
    async def body(site: Site, worker: Worker) -> None:
        await shows(site.devices["glove"], "no-consent")
        await worker.press()
        await site.until("refused", lambda: any(e["kind"] == "refused" for e in site.events))
        await shows(site.devices["glove"], "no-consent")
        assert (site.status["state"], site.status["led"]) == ("idle", "no-consent")
        assert worker.heard() == []

    on_a_rig(body, tmp_path, consent="")


def test_a_full_card_shows_and_a_fault_sounds(tmp_path: Path) -> None:
    async def body(site: Site, worker: Worker) -> None:
        glove = site.devices["glove"]
        await shows(glove, "low-disk")
        await worker.press()
        await site.until("refused", lambda: any(e["kind"] == "refused" for e in site.events))
        assert worker.heard() == []
        # The only device goes: the rig cannot record at all.
        await glove.stop()
        await site.until_state("fault")
        await worker.hears("error")
        await glove.start()
        await shows(glove, "low-disk")
        assert worker.heard() == []

    on_a_rig(body, tmp_path, reserve_mb=1 << 40)


def test_the_document_has_the_tables_of_the_machine() -> None:
    """docs/BUTTON.md: names, colours and rhythms of lights, and tones of sounds, as the program has them."""
    text = (Path(__file__).parents[2] / "docs/BUTTON.md").read_text()
    rows = {m[1]: m[0] for m in re.finditer(r"^\| ([a-z-]+) \|.*$", text, re.MULTILINE)}
    for led in LEDS.values():
        row = rows[led.name]
        assert "#{:02x}{:02x}{:02x}".format(*led.rgb) in row
        if led.off_ms == 0:
            assert "steady" in row
        else:
            assert f"{led.on_ms} ms on" in row
            assert f"{led.off_ms} ms off" in row
            assert led.flashes == 1 or f"{led.flashes} flashes" in row
    for sound in SOUNDS.values():
        assert ", ".join(f"{hz} Hz {ms} ms" for hz, ms in sound.tones if hz) in rows[sound.name]
