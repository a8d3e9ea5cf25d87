"""A column's samples to bytes: of the ways to code them, the one that takes least."""

from __future__ import annotations

import numpy as np

from edgecap.codec.adaptive import continues, encode_adaptive, mostly_repeated, others_of
from edgecap.codec.fresh import POOR_BITS_PER_STEP, distinct_samples, offer_fresh
from edgecap.codec.groups import continue_groups, may_be_split, offer_groups
from edgecap.codec.integers import PLACES, to_integers
from edgecap.codec.layout import Array, ColumnLayout
from edgecap.codec.least import Least
from edgecap.codec.numeric import stored
from edgecap.codec.steps_search import Search
from edgecap.codec.tail import Memory, TailWriter

MARGIN_SHIFT = 7
"""What has been learned must take a 128th more than to begin afresh does, if it is to be given up."""


def encode_column(
    column: ColumnLayout,
    array: Array,
    memories: dict[str, Memory],
    tail: TailWriter,
    searches: dict[str, Search],
    goes_on: bool,
) -> bytes:
    """Encode one column adaptively: the coder writes to `tail` and learns into `memories`.

    Args:
        goes_on: Whether the next payload may continue this one.
    """
    before = memories.pop(column.name, None)
    if array.size == 0:
        return b""
    values = np.ascontiguousarray(array, column.dtype).reshape(column.rows, column.lanes)
    known = searches.get(column.name)
    search = searches[column.name] = Search() if known is None else known
    search.payloads += 1
    least = Least(column, tail)
    if before is not None and before.groups is not None:
        least.offer(continue_groups(column, values, before.groups, tail, search))
    elif before is not None:
        others = None if before.repeats is None else others_of(values)
        kept = values if others is None else values[others]
        integers = to_integers(kept, before.last, before.meaning, before.transform, search)
        if integers is not None and continues(integers, before, search):
            found = encode_adaptive(column, integers, before, tail, others)
            if found is None and integers.rests is None and integers.bits is None:
                return stored(column, values)
            least.offer(found)
    gone_on = least.best
    doubted = gone_on is not None and gone_on[1].groups is None and search.is_doubted(column.rows)
    if doubted:
        least.prefer(MARGIN_SHIFT)
    if gone_on is None or doubted or (before is not None and _may_do_better(values, before, least, search)):
        offer_fresh(values, least, search, before, goes_on)
        if may_be_split(column, search) and not doubted:
            offer_groups(values, least, search)
        if doubted:
            search.settle(least.best is not gone_on)
    found = least.take()
    if found is None:
        return stored(column, values)
    body, memories[column.name] = found
    return body


def _may_do_better(values: Array, before: Memory, least: Least, search: Search) -> bool:
    """Whether a column that goes on should be compared with one that begins afresh."""
    if before.groups is not None:
        return False
    if before.recurring:
        return least.best is not None and least.bits_of(least.best) > POOR_BITS_PER_STEP * values.shape[0]
    if least.column.dtype.itemsize > 4 or not search.glance(values):
        return False
    if before.transform != PLACES and distinct_samples(least.column, values, None) is not None:
        return True
    return before.repeats is None and mostly_repeated(others_of(values))
