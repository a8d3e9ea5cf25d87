"""Channels that differ in kind, coded in groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgecap.codec import lattice
from edgecap.codec.adaptive import continues, encode_adaptive, others_of
from edgecap.codec.fresh import offer_fresh
from edgecap.codec.integers import LATTICE, MULTIPLES, PLAIN, to_integers
from edgecap.codec.layout import Array, ColumnLayout, Reader
from edgecap.codec.least import Encoded, Least
from edgecap.codec.numeric import GROUPS_CONTINUED, GROUPS_FRESH
from edgecap.codec.steps_search import Search
from edgecap.codec.tail import Memory, TailWriter

MOST_SPLIT = 64
"""Of more channels no groups are looked for."""
LEAST_SPLIT_ROWS = 12
SPLIT_AGAIN = 16
LONGEST_SPLIT_PAUSE = 64
"""Payloads after which groups that helped, or did not, are looked for again."""


def may_be_split(column: ColumnLayout, search: Search) -> bool:
    """Whether it is worth looking at the channels of a column one by one."""
    some = 1 < column.channels <= MOST_SPLIT and column.rows >= LEAST_SPLIT_ROWS
    return some and (search.seen or column.dtype == np.float32)


def continue_groups(
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
            found = encode_adaptive(layout, integers, before, tail, others)
        if found is None:
            tail.count = mark
            return None
        # That it goes on, and how, is known.
        bodies.append(found[0][1:])
        known.append((channels, found[1]))
    return b"".join(bodies), Memory.of_groups(known)


def offer_groups(values: Array, least: Least, search: Search) -> None:
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
    offer_fresh(np.ascontiguousarray(values[:, channels]), least, search.of(channels), None, True)
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
