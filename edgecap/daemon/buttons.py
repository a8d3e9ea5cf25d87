"""Every button of the rig is one button: edges from pins and boards become gestures of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edgecap.clock import now_ns
from edgecap.session.machine import Gesture
from edgecap.source.gestures import Gestures

LOOK_AGAIN_S = 0.05


class Buttons:
    """Takes edges at any time; `run` hands out the gestures that they make."""

    def __init__(self) -> None:
        self._gestures = Gestures()
        self._fed = asyncio.Event()
        self._by: object = None
        self._told_ns: Callable[[], int] = now_ns

    def edge(self, *, down: bool, t_ns: int, by: object = None, told_ns: Callable[[], int] = now_ns) -> None:
        """An edge of any of the buttons; call on the event loop.

        Args:
            down: The contact closes.
            t_ns: Rig time.
            by: Whose button it is; None for one that cannot go away.
            told_ns: Rig time up to which its edges are known here. A button that is down is held only as
                long as that is known: a board that says nothing, or waits to be heard, may have had its
                button released long ago.
        """
        self._by, self._told_ns = (by, told_ns) if down else (None, now_ns)
        self._gestures.feed(down, t_ns)
        self._fed.set()

    def gone(self, by: object) -> bool:
        """A board has gone or started anew; returns whether that cut a press short, which then counts not."""
        if by is None or by is not self._by:
            return False
        self._by, self._told_ns = None, now_ns
        self._gestures.cancel()
        self._fed.set()
        return True

    async def run(self, on_gesture: Callable[[Gesture, int], Awaitable[None]]) -> None:
        """Hand out each gesture, with the time of its first edge, as soon as no edge can change it."""
        least_s = 0.0
        while True:
            deadline_ns = self._gestures.deadline_ns()
            wait_s = None if deadline_ns is None else max(least_s, (deadline_ns - now_ns()) / 1e9)
            try:
                async with asyncio.timeout(wait_s):
                    await self._fed.wait()
            except TimeoutError:
                pass
            self._fed.clear()
            known_ns = min(now_ns(), self._told_ns())
            for gesture in self._gestures.poll(known_ns):
                await on_gesture(gesture.kind, gesture.t_ns)
            deadline_ns = self._gestures.deadline_ns()
            least_s = LOOK_AGAIN_S if deadline_ns is not None and known_ns < deadline_ns <= now_ns() else 0.0
