"""Waiting in `edgecap demo`: as long as something moves, and with a word on what it waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgecap.errors import EdgecapError

if TYPE_CHECKING:
    from edgecap.cli.demo_view import DemoView
    from edgecap.sim.demo import DemoSite

PATIENCE_S = 120.0
"""Nothing moved for so long: a machine that is merely busy gets on within it."""
MOST_S = 1800.0
"""No single step takes longer, even if things go on moving."""
SAID_EVERY_S = 5.0


class Patience:
    """Ends when nothing has changed for `PATIENCE_S`, or after `MOST_S`.

    Args:
        clock: Seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = self._moved_s = self._said_s = clock()
        self._seen: object = None

    @property
    def waited_s(self) -> float:
        """Since the beginning."""
        return self._clock() - self._began_s

    def lasts(self, seen: object) -> bool:
        """Whether to wait on, now that things are as `seen`."""
        if seen != self._seen:
            self._seen, self._moved_s = seen, self._clock()
        return self._clock() - self._moved_s < PATIENCE_S and self.waited_s < MOST_S

    def should_say(self) -> bool:
        """Whether it is time for another word to whoever looks on."""
        due = self._clock() - self._said_s >= SAID_EVERY_S
        if due:
            self._said_s = self._clock()
        return due


async def until(
    site: DemoSite, view: DemoView, what: str, holds: Callable[[], bool], patience: Patience | None = None
) -> None:
    """Wait for something to become true while every part of the demo lives."""
    patience = patience or Patience()
    while not holds():
        site.check()
        if not patience.lasts((view.progress_made(), site.words_logged())):
            raise EdgecapError(
                f"the rig was not {what} after {patience.waited_s:.0f} s, and nothing moves any more: "
                f"{view.standing()}",
                fix=f"see {site.out}/logs",
            )
        if patience.should_say():
            view.wait_for(f"waiting until the rig is {what} ({patience.waited_s:.0f} s): {view.standing()}")
        await asyncio.sleep(0.05)
