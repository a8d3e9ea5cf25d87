"""What a person sees of a rig: the log, what `doctor` finds, and what the light is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from edgecap.checkup import Check, Exam, examine
from edgecap.checkup.daemon import check_daemon
from edgecap.checkup.devices import check_devices
from edgecap.checkup.disk import check_state_directory
from edgecap.checkup.panel import check_panel
from edgecap.cli.run import panel_of, serve, sources_of
from edgecap.config import load_config
from edgecap.daemon.recording import _BOARD_PATTERN as BOARD_PATTERN
from edgecap.kernels.compile import warm_up
from edgecap.mqtt import parse_broker
from edgecap.session.machine import LEDS
from edgecap.sim.firmware import HostFirmware
from edgecap.source.protocol import Source
from tests.system.site import Site

HARDWARE = (
    Check("daemon", check_daemon),
    Check("devices", check_devices),
    Check("button", check_panel),
    Check("state directory", check_state_directory),
)


class Log(logging.Handler):
    """Keeps lines of level WARNING and above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    handler, logger = Log(), logging.getLogger("edgecap")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)


@contextlib.asynccontextmanager
async def daemon(site: Site, config: Path, sources: list[Source] | None = None) -> AsyncIterator[None]:
    """The daemon in this process, as `edgecap run` composes it; ended by SIGTERM."""
    loaded = load_config(config)
    await asyncio.to_thread(lambda: list(warm_up()))  # compiling takes longer than a test is patient
    task = asyncio.create_task(
        serve(loaded, parse_broker(site.broker.url), sources or sources_of(loaded)), name="serve"
    )
    try:
        yield
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(60):
            await task


async def doctor(config: Path, sources: list[Source] | None = None) -> list[Any]:
    loaded = load_config(config)
    exam = Exam(loaded, sources or sources_of(loaded), panel=panel_of(loaded, lambda **_: None), seconds=1.0)
    return [f async for f in examine(exam, HARDWARE)]


def light(name: str) -> str:
    """How the firmware tells of a light that was asked for: colour, pattern, rhythm."""
    led = LEDS[name]
    parts = (*led.rgb, BOARD_PATTERN[name], led.on_ms, led.off_ms, led.flashes)
    return " ".join(map(str, parts))


async def shows(board: HostFirmware, name: str) -> None:
    """Wait until a board was told to show a light."""
    async with asyncio.timeout(30):
        while not (await board.command("led")).startswith(light(name)):
            await asyncio.sleep(0.02)


def row(findings: list[Any], check: str) -> Any:
    (found,) = [f for f in findings if f.check == check]
    return found
