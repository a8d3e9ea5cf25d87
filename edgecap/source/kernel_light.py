"""An LED that the kernel blinks: its light lapses by itself when the program that shows it hangs or dies.

The kernel's `pattern` trigger (Documentation/ABI/testing/sysfs-class-led-trigger-pattern) plays a rhythm by
its own timer. What is written is a few seconds of the light, then the flashes of a fault, then darkness; a
program that lives writes it anew long before the flashes are due.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgecap.errors import SourceError
from edgecap.source.steps import Light, Step, steps_of

log = logging.getLogger("edgecap.light")

LEDS = Path("/sys/class/leds")
TRIGGER, CHOSEN = "pattern", "[pattern]"
DARK, ONCE = "0 1000 0 0", "1"
AGAIN_S = 1.0
"""A steady light is written anew so often; a rhythm once in each of its periods, where that is longer."""
LAPSE_S = 3.0
"""So much longer it is shown, should nobody write it anew, as a board's light is (hw/PROTOCOL.md)."""
FAULT_ON_MS, FAULT_OFF_MS, FAULT_FLASHES, FAULT_TIMES = 120, 1000, 4, 20
"""What then tells of the hang, for half a minute: a file of sysfs takes one page."""

_FIXES = {
    errno.ENOENT: "name one of /sys/class/leds; `dtoverlay=gpio-led,gpio=N,label=NAME` makes one of a pin",
    errno.EACCES: "install the udev rule (systemd/udev) and put this user into group gpio",
    errno.EINVAL: "load the kernel's pattern trigger: modprobe ledtrig-pattern",
}


class KernelLight:
    """One LED of /sys/class/leds.

    Args:
        name: Of its directory.
        leds: Where the LEDs are.
    """

    def __init__(self, name: str, leds: Path = LEDS) -> None:
        self.name = name
        self._path = leds / name
        self._full = 255
        self._steps: tuple[Step, ...] = (Step(False, None),)
        self._timer: asyncio.TimerHandle | None = None
        self._broken: set[str] = set()

    @contextlib.contextmanager
    def open(self) -> Iterator[KernelLight]:
        """Take the LED from whatever triggered it, and leave it dark. Raises `SourceError`.

        A trigger brings its files with it when it is chosen, anew and root's: one that is chosen already, by
        the udev rule, is left alone. Writing 0 to `brightness` would dismiss it.
        """
        try:
            self._full = int((self._path / "max_brightness").read_text())
            if CHOSEN not in (self._path / "trigger").read_text():
                (self._path / "trigger").write_text(TRIGGER)
            (self._path / "repeat").write_text(ONCE)
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None) or 0
            what = error.strerror if isinstance(error, OSError) else "its max_brightness is no number"
            raise SourceError(
                f"LED {self.name!r} cannot be used: {self._path}: {what}", fix=_FIXES.get(number, "check it")
            ) from None
        try:
            yield self
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._play(DARK)

    def show(self, light: Light) -> None:
        """Show a light pattern until the next one; call on the event loop."""
        self._steps = steps_of(light)
        self._again()

    def _again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        period_s = sum(step.seconds or 0.0 for step in self._steps) or AGAIN_S
        self._play(in_tuples(self._steps, self._full))
        self._timer = asyncio.get_running_loop().call_later(max(period_s, AGAIN_S), self._again)

    def _play(self, tuples: str) -> None:
        """Begin a rhythm; once the kernel has played it, it plays nothing until told to again."""
        self._write("pattern", tuples)
        self._write("repeat", ONCE)

    def _write(self, file: str, text: str) -> None:
        """A light that cannot be switched must not end recording: it is told once, and tried again."""
        try:
            (self._path / file).write_text(text)
        except OSError as error:
            if file not in self._broken:
                log.error("LED %r cannot be switched: %s", self.name, error)
            self._broken.add(file)
        else:
            self._broken.discard(file)


def in_tuples(steps: Sequence[Step], full: int) -> str:
    """A light and what follows if nobody writes it anew, as the kernel takes it: brightness and ms, in turn.

    Each brightness is named twice, the second time for 0 ms: the kernel else fades from one to the next.
    """
    period_s = sum(step.seconds or 0.0 for step in steps)
    if period_s:
        times = int(-(-(max(period_s, AGAIN_S) + LAPSE_S) // period_s))
        shown = [(step.on, round((step.seconds or 0) * 1e3)) for step in steps] * times
    else:
        shown = [(steps[0].on, round((AGAIN_S + LAPSE_S) * 1e3))]
    flash = [(True, FAULT_ON_MS), (False, FAULT_ON_MS)] * FAULT_FLASHES
    shown += [*flash[:-1], (False, FAULT_OFF_MS)] * FAULT_TIMES
    return " ".join(f"{full * on} {ms} {full * on} 0" for on, ms in shown)
