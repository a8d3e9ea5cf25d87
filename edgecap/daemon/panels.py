"""Lights and buzzers follow the rig's state; a panel whose pins cannot be had is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from edgecap.daemon.intent import Panel
from edgecap.daemon.recording import OpenSource
from edgecap.errors import SourceError
from edgecap.session.machine import Led, State, sound_for

RETRY_S = 10.0


class Panels:
    """Every light and buzzer of a rig, in step with its state."""

    def __init__(self, panels: Iterable[Panel] = ()) -> None:
        self._panels = list(panels)
        self._led: Led | None = None
        self._state = State.IDLE

    def follow(self, state: State, led: Led, devices: Iterable[OpenSource]) -> None:
        """Show what holds now, and sound the change that led to it."""
        sound, changed = sound_for(self._state, state), led != self._led
        self._state, self._led = state, led
        for panel in self._panels:
            if changed:
                panel.show(led)
            if sound is not None:
                panel.play(sound)
        for device in devices:
            device.show(led)

    def add(self, panel: Panel) -> None:
        """Take one more panel in; it shows at once what the others show."""
        self._panels.append(panel)
        if self._led is not None:
            panel.show(self._led)

    async def keep(
        self, opening: Callable[[], AbstractContextManager[Panel]], tell: Callable[[str], None]
    ) -> None:
        """Hold a panel's pins until cancelled; `tell` is given why they cannot be had, or an empty text."""
        while True:
            try:
                with opening() as panel:
                    tell("")
                    self.add(panel)
                    await asyncio.Event().wait()
            except SourceError as error:
                tell(str(error))
            await asyncio.sleep(RETRY_S)
