"""A column that begins afresh, in every way that may be worth it."""

from __future__ import annotations

import numpy as np

from edgecap.codec import beside, digits, fixed, lattice, places, printed
from edgecap.codec.adaptive import Rows, encode_adaptive, mostly_repeated, others_of
from edgecap.codec.integers import (
    BESIDE,
    FLOAT_ORDER,
    PLACES,
    ROUNDED,
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
from edgecap.codec.steps_search import Search
from edgecap.codec.tail import Memory, TailWriter

POOR_BITS_PER_STEP, NEW_STEPS_BITS = 5, 160
SHARES_MARGIN_SHIFT = 5
"""Shares of other channels must save a 32nd: those found are kept for some payloads."""
PAUSE = 64
"""Payloads in which steps that recurred, and were better predicted, are not asked for again."""
SHARES_AGAIN = 16
"""Payloads after which shares that helped are looked for again."""
EXCEPTIONS_PART = 64
"""Exceptions of a lattice that take one byte of so many are a reason to look for another way."""


def offer_fresh(values: Array, least: Least, search: Search, before: Memory | None, goes_on: bool) -> None:
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
                search.next_recurring = search.payloads + PAUSE
        return
    if shares is not None:
        _settle_beside(values, least, search, shares)
    floats = values.dtype.kind == "f" and _may_be_other_floats(values, usual, search)
    if floats:
        _offer_floats(values, least, search)
    if not search.glance(values):
        return
    distinct = distinct_samples(column, values, before)
    if distinct is not None:
        _offer(least, to_places(values, distinct))
    others = others_of(values)
    if not mostly_repeated(others):
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
    if search.shares is not None and search.payloads % SHARES_AGAIN:
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
        least.offer(encode_adaptive(least.column, integers, None, least.tail, others, again))


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
        found = encode_adaptive(column, to_beside(kept, shares), None, tail, others)
        if found is not None:
            return found
    look: Search | None = search
    while True:
        integers = to_integers(kept, None, search=look)
        found = encode_adaptive(column, integers, None, tail, others) if integers is not None else None
        # Multiples whose rests turn out to be too many are tried once more as they are.
        if found is not None or integers is None or integers.rests is None:
            return found
        look = None


def _pays_later(least: Least, usual: Encoded) -> bool:
    """Whether steps that recur seem to: to learn which they are takes more than to predict a few of them."""
    return (
        usual[1].recurring and least.bits_of(usual) <= POOR_BITS_PER_STEP * least.column.rows + NEW_STEPS_BITS
    )


def distinct_samples(column: ColumnLayout, values: Array, before: Memory | None) -> places.Known | None:
    """The samples of channels that have few, with those that had been listed before."""
    known = None
    if before is not None and before.transform == PLACES:
        known = places.read_places(Reader(before.meaning), column.lanes, column.dtype.itemsize)
    return places.find_places(ordered(values), known)
