"""One way to code a column: integers through the adaptive coder into the tail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.integers import STEPS, Integers
from edgecap.codec.layout import Array, ColumnLayout
from edgecap.codec.least import Encoded
from edgecap.codec.numeric import FRESH, OTHERS_FRESH, STEPS_FRESH
from edgecap.codec.steps_search import Search
from edgecap.codec.tail import Memory, TailWriter
from edgecap.kernels.recurring import KNOWN

Rows = NDArray[np.bool_]
"""(n,) which rows differ from the one before."""

LEAST_REPEATED = 8
"""Of fewer rows it says little that some equal the one before."""
RESTS_PART = 4
"""One byte of so many may go to the rests of multiples, and 8 bytes more."""


def encode_adaptive(
    column: ColumnLayout,
    integers: Integers,
    before: Memory | None,
    tail: TailWriter,
    others: Rows | None = None,
    again: bool | None = None,
) -> Encoded | None:
    """Integers, of the rows that `others` (n,) names or of all; `again`: whether steps recur, if known."""
    if before is not None:
        again = before.recurring
    elif again is None:
        again = integers.transform == STEPS and recurring(integers.lanes)
    limit = column.raw_bytes - len(integers.meaning) - len(integers.extra) - 1
    known = before.learned if before else None
    mark, rests, repeats = tail.count, None, None
    rest_limit = 0
    if integers.rests is not None:
        rest_limit = integers.lanes.nbytes // RESTS_PART + 8
        limit -= rest_limit
    if integers.widths is not None:
        limit -= (int(integers.widths.sum()) >> 3) + 1
    if others is not None:
        repeats = tail.add_repeats(others.view(np.uint8), before.repeats if before else None)
        limit -= (tail.price_bits(tail.steps[mark : tail.count]) >> 3) + 1
    learned = None
    if limit >= 0:
        learned = tail.add_steps(integers.lanes, known) if again else tail.add(integers.lanes, known, limit)
    if learned is not None and integers.rests is not None and integers.channels is not None:
        rests = tail.add_rests(
            integers.lanes,
            integers.rests,
            integers.channels,
            before.rests if before else None,
            rest_limit,
        )
    if learned is None or (integers.rests is not None and rests is None):
        tail.count = mark
        return None
    if integers.bits is not None and integers.widths is not None:
        tail.add_plain(integers.bits, integers.widths)
    if integers.further is not None:
        number, split = integers.further
        rests = tail.add_digits(
            integers.lanes,
            number.digits,
            split.zeros,
            split.rests,
            before.rests if before else None,
            limit,
        )
        if rests is None or (tail.price_bits(tail.steps[mark : tail.count]) >> 3) >= limit:
            tail.count = mark
            return None
    coder = (STEPS_FRESH if again else FRESH if others is None else OTHERS_FRESH) + (before is not None)
    body = bytes([integers.transform << 4 | coder])
    if before is None:
        body += integers.meaning
    body += integers.extra
    return body, Memory(integers.transform, integers.meaning, learned, integers.last, again, rests, repeats)


def continues(integers: Integers, before: Memory, search: Search) -> bool:
    """Whether what was learned of a column still serves."""
    if (before.transform, before.meaning) != (integers.transform, integers.meaning):
        return False
    if integers.transform != STEPS or before.recurring or search.payloads < search.next_recurring:
        return True
    return not recurring(integers.lanes)


def recurring(lanes: Array) -> bool:
    """Whether steps are few distinct ones, most of them among the 16 that the coder of recurring steps knows.

    White jitter on a coarse grid has few distinct steps as well, but is predicted at its entropy.
    """
    if lanes.shape[1] != 1:
        return False
    counts = np.unique(lanes, return_counts=True)[1]
    if counts.size > 4 + lanes.size // 3:
        return False
    return counts.size <= KNOWN or bool(4 * np.sort(counts)[-KNOWN:].sum() >= 3 * lanes.size)


def others_of(values: Array) -> Rows:
    """Which rows (n,) of samples (n, c) differ from the one before; the first counts as such."""
    bits = values.view(f"u{values.dtype.itemsize}")
    others = np.ones(values.shape[0], np.bool_)
    np.any(bits[1:] != bits[:-1], axis=1, out=others[1:])
    return others


def mostly_repeated(others: Rows) -> bool:
    """Whether at least every eighth row repeats the one before."""
    return others.size >= LEAST_REPEATED and bool(8 * np.count_nonzero(others) <= 7 * others.size)
