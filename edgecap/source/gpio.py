"""A button, a light and a buzzer on the rig's own GPIO pins, as thin edges around gpiozero."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from edgecap.clock import now_ns
from edgecap.errors import SourceError
from edgecap.source.kernel_light import KernelLight
from edgecap.source.steps import Light, Step, steps_of

BETWEEN_SOUNDS_MS = 120
MOST_TONES = 32
"""More than this waits for nobody: what is played so late tells nothing."""
BUZZER_MID_HZ = 1760.0
BUZZER_OCTAVES = 1
"""What the buzzer can play: an octave either way, 880 to 3520 Hz, where a piezo is loud."""


class Sound(Protocol):
    """Tones of (Hz, ms), played one after another; 0 Hz is a pause."""

    @property
    def tones(self) -> tuple[tuple[int, int], ...]: ...


class GpioPanel:
    """Button, LED and buzzer; any of them may be missing.

    Args:
        button: BCM number of a pin that the button pulls to ground; None for no button.
        led: BCM number of the LED's pin.
        buzzer: BCM number of the pin of a piezo without an oscillator of its own (a passive one).
        light: An LED that the kernel has, beside or in place of `led`.
        on_edge: Called on the event loop with the level and the rig time of each edge of the contact.
        pin_factory: gpiozero's; None lets gpiozero choose.
    """

    def __init__(
        self,
        *,
        button: int | None = None,
        led: int | None = None,
        buzzer: int | None = None,
        light: KernelLight | None = None,
        on_edge: Callable[[bool, int], object],
        pin_factory: Any = None,
    ) -> None:
        self._pins = {"button": button, "LED": led, "buzzer": buzzer}
        self._light = light
        self._on_edge = on_edge
        self._pin_factory = pin_factory
        self._led: Any = None
        self._buzzer: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next_tone: asyncio.TimerHandle | None = None
        self._tones: list[tuple[int, int]] = []
        self._steps: tuple[Step, ...] = (Step(False, None),)

    @contextlib.contextmanager
    def open(self) -> Iterator[GpioPanel]:
        """Claim the pins while inside; call on the event loop.

        Raises:
            SourceError: gpiozero or a pin cannot be used; names which, and the fix.
        """
        try:
            import gpiozero
            import gpiozero.tones
        except ImportError as error:
            raise SourceError(f"gpiozero cannot be imported: {error}", fix="pip install gpiozero") from None
        self._loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            if self._light is not None:
                stack.enter_context(self._light.open())
            made: dict[str, Any] = {}
            mid_tone = gpiozero.tones.Tone.from_frequency(BUZZER_MID_HZ)
            for name, kind in (
                ("button", gpiozero.Button),
                ("LED", gpiozero.LED),
                ("buzzer", partial(gpiozero.TonalBuzzer, mid_tone=mid_tone, octaves=BUZZER_OCTAVES)),
            ):
                if self._pins[name] is not None:
                    made[name] = self._claim(gpiozero, name, kind)
                    stack.callback(made[name].close)
            self._led, self._buzzer = made.get("LED"), made.get("buzzer")
            stack.callback(self._release)
            if "button" in made:
                made["button"].when_pressed = lambda: self._edge(True)
                made["button"].when_released = lambda: self._edge(False)
            yield self

    def show(self, light: Light) -> None:
        """Show a light pattern until the next one."""
        if self._light is not None and self._loop is not None:
            self._light.show(light)
        if self._led is None or self._loop is None:
            return
        self._steps = steps_of(light)
        self._step(0)

    def play(self, sound: Sound) -> None:
        """Play a sound after those that are being played, without waiting for it."""
        if self._buzzer is None or self._loop is None or len(self._tones) > MOST_TONES:
            return
        self._tones += [*sound.tones, (0, BETWEEN_SOUNDS_MS)]
        if self._next_tone is None:
            self._tone()

    def _claim(self, gpiozero: Any, name: str, kind: Callable[..., Any]) -> Any:
        pin = self._pins[name]
        try:
            with warnings.catch_warnings():
                # What it tries before the one that works is of no interest; that none works is an error.
                warnings.simplefilter("ignore", gpiozero.PinFactoryFallback)
                return kind(pin, pin_factory=self._pin_factory)
        except (gpiozero.GPIOZeroError, OSError, ImportError, RuntimeError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise SourceError(
                f"{name} on GPIO {pin} cannot be used: {reason}",
                fix="check the pin number, that nothing else uses it, and that this user is in group gpio",
            ) from None

    def _edge(self, down: bool) -> None:
        """Called by gpiozero in a thread of its own: the time is taken here, the rest happens in the loop."""
        t_ns = now_ns()
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._on_edge, down, t_ns)

    def _step(self, number: int) -> None:
        """Show one step of the pattern and arrange for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        step = self._steps[number]
        self._led.value = step.on
        if step.seconds is not None and self._loop is not None:
            self._timer = self._loop.call_later(step.seconds, self._step, (number + 1) % len(self._steps))

    def _tone(self) -> None:
        """Play the next tone that waits, and arrange for the one after it."""
        self._next_tone = None
        if not self._tones or self._loop is None:
            return
        hz, ms = self._tones.pop(0)
        if hz:
            self._buzzer.play(float(hz))
        else:
            self._buzzer.stop()
        self._next_tone = self._loop.call_later(ms / 1e3, self._tone)

    def _release(self) -> None:
        for timer in (self._timer, self._next_tone):
            if timer is not None:
                timer.cancel()
        self._tones.clear()
        self._timer = self._next_tone = self._loop = self._led = self._buzzer = None
