"""Every button of the rig is one button: edges from pins and boards become gestures of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edgecap.clock import now_ns
from edgecap.session.machine import Gesture
from edgecap.source.gestures import Gestures


class Buttons:
    """Takes edges at any time; `run` tells the gestures that they make."""

    def __init__(self) -> None:
        self._gestures = Gestures()
        self._fed = asyncio.Event()

    def edge(self, *, down: bool, t_ns: int) -> None:
        """An edge of any of the buttons at rig time `t_ns`; call on the event loop."""
        self._gestures.feed(down, t_ns)
        self._fed.set()

    async def run(self, on_gesture: Callable[[Gesture, int], Awaitable[None]]) -> None:
        """Tell each gesture with the time of its first edge, as soon as nothing can change it."""
        while True:
            deadline_ns = self._gestures.deadline_ns()
            wait_s = None if deadline_ns is None else max(0.0, (deadline_ns - now_ns()) / 1e9)
            try:
                async with asyncio.timeout(wait_s):
                    await self._fed.wait()
            except TimeoutError:
                pass
            self._fed.clear()
            for gesture in self._gestures.poll(now_ns()):
                await on_gesture(gesture.kind, gesture.t_ns)
