"""A second process that has loaded everything and waits, so that a lost camera is back the sooner."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from edgecap.source.camera_link import LinkFrame, LinkPicture, Reply
from edgecap.source.camera_process import CameraProcess, Listener

AFTER_S = 5.0
"""Not at once: a session's start has better use for the processor."""
WORTH_BYTES = 900_000_000
"""It holds some 50 MB; a computer with less memory than this (Zero 2 W) goes without."""


class Standby:
    """Keeps at most one process ready. What it says is heard only once it has been taken.

    Args:
        make: Starts a process that loads what it needs, and then waits for `Open`.
    """

    def __init__(self, make: Callable[[Listener], CameraProcess]) -> None:
        self._make = make
        self._process: CameraProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._worth = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >= WORTH_BYTES

    @property
    def pid(self) -> int:
        """Of the process that waits; 0 when there is none."""
        return self._process.pid if self._process is not None and not self._process.gone else 0

    def arm(self, name: str) -> None:
        """Have one ready in a while."""
        if self._worth and self._task is None:
            self._task = asyncio.create_task(self._prepare(), name=f"standby {name}")

    async def take(self, listener: Listener) -> CameraProcess | None:
        """The process, if one is ready; from now on it speaks to `listener`."""
        await self._cancel()
        process, self._process = self._process, None
        if process is None:
            return None
        if process.gone:
            await process.end()
            return None
        process.listener = listener
        return process

    async def close(self) -> None:
        await self._cancel()
        process, self._process = self._process, None
        if process is not None:
            await process.end()

    async def _prepare(self) -> None:
        await asyncio.sleep(AFTER_S)
        self._process = self._make(self)

    async def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            with contextlib.suppress(asyncio.CancelledError):
                task.exception()

    # -- what it says while nobody listens: nothing of it matters until it is asked to open the camera ----

    def take_word(self, word: Reply) -> None: ...

    def take_frame(self, frame: LinkFrame, arrival_ns: int) -> None: ...

    def take_picture(self, picture: LinkPicture) -> None: ...

    def take_loss(self, reason: str) -> None: ...
