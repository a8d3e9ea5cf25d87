"""Of several ways to code a column, the one that takes least."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.layout import ColumnLayout
from edgecap.codec.tail import Memory, TailWriter

Encoded = tuple[bytes, Memory]
"""A column's first bytes, and what is known after it."""
FREE_BITS = 16
"""What the coder's last state holds anyway: another way must save more."""


class Least:
    """The way of several that takes least. Of a single one the size is not asked."""

    def __init__(self, column: ColumnLayout, tail: TailWriter) -> None:
        self.column, self.tail, self.mark = column, tail, tail.count
        self.best: Encoded | None = None
        self._steps: NDArray[np.uint64] | None = None
        self._bits, self._margin = 0, FREE_BITS

    def make_room(self) -> None:
        """Take the steps of the best out of the tail, before another way is coded."""
        if self.best is not None and self._steps is None:
            self._bits = self.bits_of(self.best)
            self._steps = self.tail.take_back(self.mark)

    def prefer(self, shift: int) -> None:
        """Ask of other ways that they save a part of what the best takes, which has learned for later."""
        self.make_room()
        self._margin = FREE_BITS + (self._bits >> shift)

    def offer(self, found: Encoded | None) -> None:
        """Compare what has just been coded, and keep it if it takes less."""
        if found is None:
            return
        if self._steps is None:
            self.best = found
            return
        bits = self.bits_of(found)
        steps = self.tail.take_back(self.mark)
        if bits + self._margin < self._bits:
            self._margin = FREE_BITS
            self.best, self._steps, self._bits = found, steps, bits

    def take(self) -> Encoded | None:
        """The best, with its steps in the tail."""
        if self._steps is not None:
            self.tail.give_back(self._steps)
        return self.best

    def bits_of(self, found: Encoded) -> int:
        """About what takes a way whose steps are the last in the tail."""
        return self.tail.price_bits(self.tail.steps[self.mark : self.tail.count]) + 8 * len(found[0])
