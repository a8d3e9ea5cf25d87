"""A light pattern as steps of light and dark."""

from __future__ import annotations

from typing import NamedTuple, Protocol

FLASH_S = 0.12
"""A short flash and the pause after it, where a pattern has more than one."""


class Light(Protocol):
    """A light pattern: `on_ms`/`off_ms` repeated; `flashes` short ones in place of each `on_ms` if > 1."""

    @property
    def on_ms(self) -> int: ...

    @property
    def off_ms(self) -> int: ...

    @property
    def flashes(self) -> int: ...


class Step(NamedTuple):
    """The light is `on` for `seconds`; None for ever."""

    on: bool
    seconds: float | None


def steps_of(light: Light) -> tuple[Step, ...]:
    """One period of a pattern."""
    if light.on_ms <= 0:
        return (Step(False, None),)
    if light.off_ms <= 0:
        return (Step(True, None),)
    if light.flashes <= 1:
        return (Step(True, light.on_ms / 1e3), Step(False, light.off_ms / 1e3))
    flash = (Step(True, FLASH_S), Step(False, FLASH_S))
    return (*(flash * light.flashes)[:-1], Step(False, light.off_ms / 1e3))
