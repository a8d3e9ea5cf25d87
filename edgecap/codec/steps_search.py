"""When a column is looked at for the steps that it is multiples of, and which steps are kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgecap.codec import beside, rounded
from edgecap.codec.layout import Array
from edgecap.codec.multiples import Split, Steps, split
from edgecap.codec.printed import Shown
from edgecap.codec.quick import halves, own
from edgecap.codec.spacing import MARGIN_BITS, find_steps
from edgecap.kernels import multiples as kernels
from edgecap.kernels import repeats

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

SEARCH_ROWS = 2048
SEARCH_SAMPLES = 1 << 16
"""Most that is looked at, and kept for the next look."""
LEAST_ROWS = 12
"""Fewer are only kept: they would fit many steps, and tell none."""
ROWS_THAT_TELL = 256
"""Where so many show no step, they are not kept to be looked at with others."""
MOST_SEARCHED = 256
"""A column of more channels is not searched: it would take seconds."""
RESTART_BITS = 12
"""A column that starts afresh must save so much of a payload for each channel: it costs about 12 bytes."""
MOST_GRIDS = 16
PAUSE_AT_REST = 8
LONGEST_PAUSE = 1024
"""Payloads after which a column without steps is looked at again."""
FEW_GLANCED, FEW_GLANCED_FLOATS = 8, 14
"""Of so many rows so few samples of a channel may differ for it to be looked at more closely."""
LONGEST_GLANCE_PAUSE = 8
LONGEST_BESIDE_PAUSE = 64
LONGEST_DOUBT_PAUSE = 64
"""Payloads after which a column that goes on is compared again with one that begins afresh."""


@dataclass(slots=True)
class Search:
    """What an encoder has found out about a column's steps, so that it need not look again in every key.

    It changes only which steps are tried: a payload says itself which ones it uses.
    """

    steps: Steps | None = None
    channels: int = 0
    grid: bytes = b""
    """Of float32: what the integers are multiples of."""
    by_grid: dict[bytes, Steps] = field(default_factory=dict)
    """Steps found in other powers of two, which float32 come back to."""
    shown: Shown | None = None
    """Of float32: the decimal digits that were seen last."""
    lattice: bytes = b""
    """Of float32: the step of the lattice that was found last."""
    rows: I32 | None = None
    """What was looked at lately, or is kept to be looked at together."""
    wanted: int = LEAST_ROWS
    """So many rows are looked at next,"""
    enough: int = 0
    """and with so many the steps are worth finding again, more exactly."""
    payloads: int = 0
    kept: int = -1
    """Number of the payload that was kept last."""
    next_look: int = 0
    pause: int = 1
    next_recurring: int = 0
    """Number of the payload whose steps may be coded as recurring ones again, which had taken more."""
    next_glance: int = 0
    """Number of the payload whose rows are looked at next for repeats and few distinct samples."""
    glance_pause: int = 1
    seen: bool = False
    """What the last glance showed."""
    doubt: bool = False
    """Whether the payload before took more than one that began afresh, though it went on."""
    next_doubt: int = 0
    doubt_pause: int = 1
    shares: beside.Shares | None = None
    """Of other channels, which were better taken off, and the payload in which they are looked for next."""
    next_beside: int = 0
    beside_pause: int = 1
    next_split: int = 0
    """Number of the payload in which channels are looked at one by one next."""
    split_pause: int = 1
    groups: list[list[int]] | None = None
    """Channels that were better coded by themselves, in groups."""
    searches: dict[tuple[int, ...], Search] = field(default_factory=dict)
    """Of groups of channels."""

    def find(self, x: Array, grid: bytes) -> Split | None:
        """Integers (n, c) by steps that save bytes: those found last if they still do."""
        if x.shape[1] > MOST_SEARCHED:
            return None
        if grid != self.grid or x.shape[1] != self.channels:
            self._begin(x.shape[1], grid)
        return self._best(x)

    def _best(self, x: Array) -> Split | None:
        known = split(x, self.steps) if self.steps is not None else None
        if known is not None and known.bits < known.plain_bits:
            # They fit, but may not save what it takes to name them.
            self.pause, self.next_look = 1, self.payloads
            best = (self._adopted(x, known) if self._learns_more(x) else None) or known
            return best if serves(best) else None
        if known is not None and known.plain_bits <= MARGIN_BITS:
            return None
        return self._adopted(x, known) if self.payloads >= self.next_look else None

    def _begin(self, channels: int, grid: bytes) -> None:
        """Other integers come: only steps of float32 may serve again, in another power of two."""
        if channels != self.channels:
            self.by_grid = {}
        elif self.steps is not None and len(self.by_grid) < MOST_GRIDS:
            self.by_grid[self.grid] = self.steps
        self.steps = self.by_grid.get(grid)
        self.channels, self.grid, self.rows, self.wanted = channels, grid, None, LEAST_ROWS
        now = rounded.shift_in(grid)
        if self.steps is None and now is not None:
            for known, steps in self.by_grid.items():
                was = rounded.shift_in(known)
                if was is not None and self.steps is None:
                    # Less exact than what these samples show, so these are looked at as well.
                    self.steps, self.enough = rounded.at_shift(steps, was - now), 0

    def _adopted(self, x: Array, known: Split | None) -> Split | None:
        """What a look shows, if it is better than the steps that are known, and saves bytes."""
        found = self._look(x)
        if found is None:
            return None
        if known is not None:
            # Of float32 the whole numbers show only a part of what a more exact step saves.
            most = cost(known) if rounded.shift_in(self.grid) is None else cost(known) * 9 // 8
            if cost(found) >= most:
                return None
        self.steps = found.steps
        return found if serves(found) else None

    def shift_for(self, values: F32) -> int | None:
        """The shift to see float32 (n, c) with: the one before while it serves."""
        before = rounded.shift_in(self.grid)
        if before is not None and rounded.keeps_shift(values, before):
            return before
        return rounded.shift_of(values)

    def prefers_other(self, x: Array, grid: bytes, now: Steps | None) -> bool:
        """Whether a column that goes on with the steps `now`, or without, should rather start afresh."""
        if grid != self.grid or x.shape[1] != self.channels or x.shape[1] > MOST_SEARCHED:
            return False
        found = self._best(x) if now is None or self._learns_more(x) else None
        if found is None:
            return False
        before = found.plain_bits if now is None else split(x, now).bits
        return bool(before - found.bits > len(found.steps.packed()) + RESTART_BITS * x.shape[1])

    def _learns_more(self, x: Array) -> bool:
        """Whether there are so many more rows by now that steps are known more exactly."""
        kept = 0 if self.rows is None else self.rows.shape[0]
        if kept >= _most_rows(x):
            return False
        return bool(self._keep(x).shape[0] >= self.enough)

    def _look(self, x: Array) -> Split | None:
        """These integers by the steps that they show together with the rows kept, if they show any."""
        rows = self._keep(x)
        most = _most_rows(x)
        if rows.shape[0] < min(self.wanted, most):
            return None
        spaced, seen = np.empty(rows.shape[1], np.int64), np.empty(kernels.SEEN_WORDS, np.uint64)
        steps = find_steps(rows, spaced) if kernels.find_spaced(rows, spaced, seen) else None
        found = split(x, steps) if steps is not None else None
        # Where nothing moves it says little, and may end at any time.
        self._rest(PAUSE_AT_REST if (spaced == kernels.TOO_FEW).all() else 2 * self.pause)
        self.wanted, self.enough = LEAST_ROWS, min(4 * rows.shape[0], most)
        if rows.shape[0] > most // 2:
            self.enough = most + 1  # enough was seen
        if found is not None and serves(found):
            self._rest(1)
        elif found is None and rows.shape[0] >= ROWS_THAT_TELL:
            self.rows = None
        elif found is None:
            self.wanted = 2 * rows.shape[0]
        return found

    def of(self, channels: list[int]) -> Search:
        """What is known of some of the channels by themselves."""
        if len(self.searches) > MOST_SEARCHED:
            self.searches = {}
        search = self.searches.setdefault(tuple(channels), Search())
        search.payloads = self.payloads
        return search

    def glance(self, values: Array) -> bool:
        """Whether samples (n, c) may be repeated rows, or few distinct ones; of most it is seen at once."""
        self.seen = False
        if self.payloads < self.next_glance or values.shape[0] < LEAST_ROWS:
            return False
        few = FEW_GLANCED if values.dtype.kind != "f" else FEW_GLANCED_FLOATS
        seen = repeats.glance(halves(own(values)), values.itemsize == 4, few)
        self.seen = seen
        self.glance_pause = 1 if seen else min(2 * self.glance_pause, LONGEST_GLANCE_PAUSE)
        self.next_glance = self.payloads + (0 if seen else self.glance_pause)
        return seen

    def is_doubted(self, rows: int) -> bool:
        """Whether a column of so many rows that goes on is to be compared with one that begins afresh."""
        return self.doubt and rows >= LEAST_ROWS and self.payloads >= self.next_doubt

    def settle(self, afresh: bool) -> None:
        """To begin `afresh` took less, or not: then it is tried less often."""
        self.doubt_pause = (
            max(self.doubt_pause // 2, 1) if afresh else min(4 * self.doubt_pause, LONGEST_DOUBT_PAUSE)
        )
        self.next_doubt = self.payloads + (0 if afresh else self.doubt_pause)

    def settle_beside(self, shares: beside.Shares | None) -> None:
        """These shares of other channels served, or None: then they are looked for less often."""
        self.shares = shares
        self.beside_pause = 1 if shares else min(4 * self.beside_pause, LONGEST_BESIDE_PAUSE)
        self.next_beside = self.payloads + (0 if shares else self.beside_pause)

    def _rest(self, payloads: int) -> None:
        """Do not look again before so many payloads more."""
        self.pause = min(payloads, LONGEST_PAUSE)
        self.next_look = self.payloads + self.pause

    def _keep(self, x: Array) -> I32:
        if self.kept != self.payloads or self.rows is None:
            few = np.array(x[:SEARCH_ROWS], np.int32, order="C")
            rows = few if self.rows is None else np.concatenate([self.rows, few])
            self.rows, self.kept = rows[-_most_rows(x) :], self.payloads
        return self.rows


def _most_rows(x: Array) -> int:
    return max(1, min(SEARCH_ROWS, SEARCH_SAMPLES // int(x.shape[1])))


def cost(found: Split) -> int:
    """About how many bits multiples take, with their steps."""
    return found.bits + 8 * len(found.steps.packed())


def serves(found: Split) -> bool:
    """Whether steps save bytes."""
    return found.plain_bits > cost(found) + MARGIN_BITS
