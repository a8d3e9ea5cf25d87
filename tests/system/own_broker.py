"""A broker of a test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from edgecap.mqtt import Broker, parse_broker
from edgecap.sim.broker import LoopbackBroker


def on_broker(path: Path, body: Callable[[Broker], Awaitable[None]], **options: Any) -> None:
    """Carry out `body` on a broker of its own, which keeps its files below `path`."""
    on_running_broker(path / "broker", lambda broker, _: body(broker), **options)


def on_running_broker(
    path: Path, body: Callable[[Broker, LoopbackBroker], Awaitable[None]], **options: Any
) -> None:
    """The same for a `body` that also kills, freezes or restarts the broker."""
    with LoopbackBroker(path, **options) as running:
        asyncio.run(body(parse_broker(running.url), running))
