"""A pin that a test can listen to."""

from __future__ import annotations

from gpiozero.pins.mock import MockPWMPin


class HeardPin(MockPWMPin):
    """A mock pin that remembers what frequencies it was set to."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.heard: list[int] = []
        super().__init__(*args, **kwargs)

    def _set_frequency(self, value: float | None) -> None:
        super()._set_frequency(value)
        self.heard.append(round(value or 0))
