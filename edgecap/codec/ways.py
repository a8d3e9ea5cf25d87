"""A column's samples to bytes: of the ways to code them, the one that takes least."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgecap.codec import beside, digits, fixed, lattice, places, printed
from edgecap.codec.integers import (
    BESIDE,
    FLOAT_ORDER,
    LATTICE,
    MULTIPLES,
    PLACES,
    PLAIN,
    ROUNDED,
    STEPS,
    Integers,
    find_digits,
    ordered,
    to_beside,
    to_fixed,
    to_integers,
    to_places,
    to_signed,
)
from edgecap.codec.layout import Array, ColumnLayout, Reader
from edgecap.codec.least import Encoded, Least
from edgecap.codec.numeric import FRESH, GROUPS_CONTINUED, GROUPS_FRESH, OTHERS_FRESH, STEPS_FRESH, stored
from edgecap.codec.steps_search import Search
from edgecap.codec.tail import Memory, TailWriter
from edgecap.kernels.recurring import KNOWN

Rows = NDArray[np.bool_]
"""(n,) which rows differ from the one before."""

LEAST_REPEATED = 8
"""Of fewer rows it says little that some equal the one before."""
POOR_BITS_PER_STEP, NEW_STEPS_BITS = 5, 160
SHARES_MARGIN_SHIFT = 5
"""Shares of other channels must save a 32nd: those found are kept for some payloads."""
MARGIN_SHIFT = 7
"""What has been learned must take a 128th more than to begin afresh does, if it is to be given up."""
MOST_SPLIT = 64
"""Of more channels no groups are looked for."""
LEAST_SPLIT_ROWS = 12
SPLIT_AGAIN = 16
LONGEST_SPLIT_PAUSE = 64
"""Payloads after which groups that helped, or did not, are looked for again."""
EXCEPTIONS_PART = 64
"""Exceptions of a lattice that take one byte of so many are a reason to look for another way."""
RESTS_PART = 4
"""One byte of so many may go to the rests of multiples, and 8 bytes more."""


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
        least.offer(_continue_groups(column, values, before.groups, tail, search))
    elif before is not None:
        others = None if before.repeats is None else others_of(values)
        kept = values if others is None else values[others]
        integers = to_integers(kept, before.last, before.meaning, before.transform, search)
        if integers is not None and continues(integers, before, search):
            found = _encode_adaptive(column, integers, before, tail, others)
            if found is None and integers.rests is None and integers.bits is None:
                return stored(column, values)
            least.offer(found)
    gone_on = least.best
    doubted = gone_on is not None and gone_on[1].groups is None and search.is_doubted(column.rows)
    if doubted:
        least.prefer(MARGIN_SHIFT)
    if gone_on is None or doubted or (before is not None and _may_do_better(values, before, least, search)):
        _offer_fresh(values, least, search, before, goes_on)
        if _may_be_split(column, search) and not doubted:
            _offer_groups(values, least, search)
        if doubted:
            search.settle(least.best is not gone_on)
    found = least.take()
    if found is None:
        return stored(column, values)
    body, memories[column.name] = found
    return body


def _may_be_split(column: ColumnLayout, search: Search) -> bool:
    """Whether it is worth looking at the channels of a column one by one."""
    some = 1 < column.channels <= MOST_SPLIT and column.rows >= LEAST_SPLIT_ROWS
    return some and (search.seen or column.dtype == np.float32)


def _continue_groups(
    column: ColumnLayout,
    values: Array,
    groups: list[tuple[list[int], Memory]],
    tail: TailWriter,
    search: Search,
) -> Encoded | None:
    """Groups of channels that go on; None when one of them does not."""
    mark = tail.count
    bodies, known = [bytes([GROUPS_CONTINUED])], []
    for channels, before in groups:
        part = np.ascontiguousarray(values[:, channels])
        others = None if before.repeats is None else others_of(part)
        kept = part if others is None else part[others]
        integers = to_integers(kept, None, before.meaning, before.transform, search.of(channels))
        found = None
        if integers is not None and continues(integers, before, search):
            layout = replace(column, channels=len(channels))
            found = _encode_adaptive(layout, integers, before, tail, others)
        if found is None:
            tail.count = mark
            return None
        # That it goes on, and how, is known.
        bodies.append(found[0][1:])
        known.append((channels, found[1]))
    return b"".join(bodies), Memory.of_groups(known)


def _encode_groups(
    column: ColumnLayout, values: Array, groups: list[list[int]], tail: TailWriter, search: Search
) -> Encoded | None:
    """Groups of channels that begin afresh; None when one of them can only be stored."""
    mark = tail.count
    numbers = bytearray(column.lanes)
    bodies, known = [], []
    for number, channels in enumerate(groups):
        for c in channels:
            numbers[c] = number
        found = _encode_part(column, values, channels, tail, search)
        if found is None:
            tail.count = mark
            return None
        bodies.append(found[0])
        known.append((channels, found[1]))
    return bytes([GROUPS_FRESH]) + bytes(numbers) + b"".join(bodies), Memory.of_groups(known)


def _encode_part(
    column: ColumnLayout, values: Array, channels: list[int], tail: TailWriter, search: Search
) -> Encoded | None:
    """Some channels by themselves, afresh."""
    least = Least(replace(column, channels=len(channels)), tail)
    _offer_fresh(np.ascontiguousarray(values[:, channels]), least, search.of(channels), None, True)
    return least.take()


def _alike(column: ColumnLayout, values: Array, tail: TailWriter, search: Search) -> list[list[int]]:
    """Channels in groups of those that are best coded in the same way when they are by themselves."""
    mark = tail.count
    groups: dict[tuple[int, bytes, bytes], list[int]] = {}
    for c in range(column.lanes):
        found = _encode_part(column, values, [c], tail, search)
        tail.count = mark
        way, step, rows = -1, b"", b""
        if found is not None:
            memory = found[1]
            way = PLAIN if memory.transform == MULTIPLES and column.is_plain else memory.transform
            if memory.transform in (LATTICE, MULTIPLES) and not column.is_plain:
                reader = Reader(memory.meaning)
                lattice.read_step(reader)
                step = memory.meaning[: reader.at]
            if memory.repeats is not None:
                rows = others_of(values[:, c : c + 1]).tobytes()
        groups.setdefault((way, step, rows), []).append(c)
    return list(groups.values())


def _offer_groups(values: Array, least: Least, search: Search) -> None:
    """Code channels in groups where they differ in kind: slower ones, or with steps of their own."""
    if search.payloads < search.next_split:
        return
    least.make_room()
    groups = search.groups
    if groups is not None and sum(map(len, groups)) != least.column.lanes:
        groups = None  # of a table of other channels
    if groups is None or search.payloads % SPLIT_AGAIN == 0:
        groups = _alike(least.column, values, least.tail, search)
    best = least.best
    if 1 < len(groups) <= 255:
        least.offer(_encode_groups(least.column, values, groups, least.tail, search))
    helped = least.best is not best
    search.groups = groups if helped else None
    search.split_pause = 1 if helped else min(2 * search.split_pause, LONGEST_SPLIT_PAUSE)
    search.next_split = search.payloads + (0 if helped else search.split_pause)


def _offer_fresh(values: Array, least: Least, search: Search, before: Memory | None, goes_on: bool) -> None:
    """Code samples (n, c) afresh, in every way that may be worth it."""
    column, tail = least.column, least.tail
    least.make_room()
    shares, sure = _look_beside(column, values, search) if before is None else (None, False)
    usual = _encode_usual(column, values, None, tail, search, shares if sure else None)
    least.offer(usual)
    if not (column.is_plain or column.dtype == np.float32):
        if usual is not None and column.lanes == 1 and not (goes_on and _pays_later(least, usual)):
            _offer(least, to_integers(values, None), None, again=not usual[1].recurring)
            if usual[1].recurring and least.best is not usual:
                search.next_recurring = search.payloads + LONGEST_SPLIT_PAUSE
        return
    if shares is not None:
        _settle_beside(values, least, search, shares)
    floats = values.dtype.kind == "f" and _may_be_other_floats(values, usual, search)
    if floats:
        _offer_floats(values, least, search)
    if not search.glance(values):
        return
    distinct = _distinct(column, values, before)
    if distinct is not None:
        _offer(least, to_places(values, distinct))
    others = others_of(values)
    if not _mostly_repeated(others):
        return
    kept = values[others]
    least.make_room()
    least.offer(_encode_usual(column, kept, others, tail, search))
    if floats:
        _offer_floats(kept, least, search, others)
    if distinct is not None:
        _offer(least, to_places(kept, distinct), others)


def _look_beside(column: ColumnLayout, values: Array, search: Search) -> tuple[beside.Shares | None, bool]:
    """Shares that channels seem to have of others, and whether they surely take less."""
    if not column.is_plain or column.lanes < 2:
        return None, False
    if search.shares is not None and search.payloads % SPLIT_AGAIN:
        return search.shares, True
    if search.payloads < search.next_beside:
        return None, False
    shares, sure = beside.find_shares(to_signed(values))
    if shares is None:
        search.settle_beside(None)
    return shares, sure and search.steps is None


def _settle_beside(values: Array, least: Least, search: Search, shares: beside.Shares) -> None:
    """Keep shares that take less than the usual way, which may be with them."""
    if least.best is not None and least.best[1].transform != BESIDE:
        least.prefer(SHARES_MARGIN_SHIFT)
        _offer(least, to_beside(values, shares))
    serve = least.best is not None and least.best[1].transform == BESIDE
    search.settle_beside(shares if serve else None)


def _offer_floats(values: Array, least: Least, search: Search, others: Rows | None = None) -> None:
    """Code float32 (n, c) as numbers with a point."""
    _offer(least, to_fixed(values, fixed.shifts_of(values)), others)
    _offer(least, find_digits(values, search.shown), others)


def _may_be_other_floats(values: Array, usual: Encoded | None, search: Search) -> bool:
    """Whether float32 may better be coded as numbers with a point than they were."""
    if usual is None:
        return True
    body, memory = usual
    known = Reader(memory.meaning)
    if memory.transform in (FLOAT_ORDER, ROUNDED):
        return memory.transform == FLOAT_ORDER or printed.read_printed(known) is None
    # Of those on a lattice the largest may be on a coarser one, or some on none.
    exceptions = len(body) - len(memory.meaning) - 2
    divisor = lattice.read_step(known)[0]
    if EXCEPTIONS_PART * exceptions <= values.nbytes and not digits.rounder(values, divisor):
        return False
    search.shown = printed.shown(values)
    return True


def _offer(
    least: Least, integers: Integers | None, others: Rows | None = None, again: bool | None = None
) -> None:
    least.make_room()
    if integers is not None:
        least.offer(_encode_adaptive(least.column, integers, None, least.tail, others, again))


def _encode_usual(
    column: ColumnLayout,
    kept: Array,
    others: Rows | None,
    tail: TailWriter,
    search: Search,
    shares: beside.Shares | None = None,
) -> Encoded | None:
    """Samples (n, c) as they are, without shares, as multiples, or as what float32 usually are."""
    if shares is not None:
        found = _encode_adaptive(column, to_beside(kept, shares), None, tail, others)
        if found is not None:
            return found
    look: Search | None = search
    while True:
        integers = to_integers(kept, None, search=look)
        found = _encode_adaptive(column, integers, None, tail, others) if integers is not None else None
        # Multiples whose rests turn out to be too many are tried once more as they are.
        if found is not None or integers is None or integers.rests is None:
            return found
        look = None


def _pays_later(least: Least, usual: Encoded) -> bool:
    """Whether steps that recur seem to: to learn which they are takes more than to predict a few of them."""
    return (
        usual[1].recurring and least.bits_of(usual) <= POOR_BITS_PER_STEP * least.column.rows + NEW_STEPS_BITS
    )


def _may_do_better(values: Array, before: Memory, least: Least, search: Search) -> bool:
    """Whether a column that goes on should be compared with one that begins afresh."""
    if before.groups is not None:
        return False
    if before.recurring:
        return least.best is not None and least.bits_of(least.best) > POOR_BITS_PER_STEP * values.shape[0]
    if least.column.dtype.itemsize > 4 or not search.glance(values):
        return False
    if before.transform != PLACES and _distinct(least.column, values, None) is not None:
        return True
    return before.repeats is None and _mostly_repeated(others_of(values))


def _distinct(column: ColumnLayout, values: Array, before: Memory | None) -> places.Known | None:
    """The samples of channels that have few, with those that had been listed before."""
    known = None
    if before is not None and before.transform == PLACES:
        known = places.read_places(Reader(before.meaning), column.lanes, column.dtype.itemsize)
    return places.find_places(ordered(values), known)


def _mostly_repeated(others: Rows) -> bool:
    """Whether at least every eighth row repeats the one before."""
    return others.size >= LEAST_REPEATED and bool(8 * np.count_nonzero(others) <= 7 * others.size)


def others_of(values: Array) -> Rows:
    """Which rows (n,) of samples (n, c) differ from the one before; the first counts as such."""
    bits = values.view(f"u{values.dtype.itemsize}")
    others = np.ones(values.shape[0], np.bool_)
    np.any(bits[1:] != bits[:-1], axis=1, out=others[1:])
    return others


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


def _encode_adaptive(
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
