"""What every taker of spoiled bytes has in common."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod


class FuzzError(AssertionError):
    """Bytes were treated wrongly; names target, seed and number, which make the input again."""


class Target(ABC):
    """Something that takes bytes in."""

    name = ""

    @abstractmethod
    def make(self, rng: random.Random) -> bytes:
        """A spoiled input."""

    @abstractmethod
    def feed(self, data: bytes) -> bool:
        """Whether `data` was accepted; `EdgecapError` is a refusal, an AssertionError a wrong acceptance."""

    def close(self) -> None:
        """Clear away what it has made."""
        return
