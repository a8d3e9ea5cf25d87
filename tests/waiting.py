"""Waiting for what a test is about to look at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 60.0
"""Ends a hang, and nothing else: machines are slow and busy."""


async def until(holds: Callable[[], object], at_most_s: float = PATIENCE_S) -> None:
    """Wait until something holds for which there is no event to wait on."""
    async with asyncio.timeout(at_most_s):
        while not holds():
            await asyncio.sleep(0.005)
