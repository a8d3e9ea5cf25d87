"""What coding residuals would cost at each shape and speed, and the choice of both for a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.adaptive import FAST, SHAPE, SLOW, SPEED
from edgecap.kernels.bits import Words, i8, u8
from edgecap.kernels.compile import part
from edgecap.kernels.tables import ESCAPE, PLAIN, SHAPES, TURNS, quarter_octave

U16 = NDArray[np.uint16]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]

SPEEDS = 4
"""Speed s has running means over 2^(s+1) and 2^(s+3) residuals."""
CHOICE_BITS = 4
"""Plain bits that say shape and speed."""
SAME = 61440
"""Of 65536: how likely a channel keeps shape and speed."""


@part
def symbol_of(e: int, phase: int, magnitude: int, splits: I32, width: int) -> tuple[Any, int]:
    """Where the costs of the residual `e` are, and units of 1/256 of the plain bits that it takes."""
    split = i8(splits[u8(quarter_octave(magnitude + 1) << 3 | phase)])
    k = split & PLAIN
    flip = -(split >> TURNS & 1)
    high = ((e ^ flip) - flip) >> k
    folded = (high << 1) ^ (high >> 63)
    inside = folded < ESCAPE
    return u8((split >> 8) + (folded if inside else ESCAPE)), (k if inside else i8(width + 1)) << 8


@part
def cost_of_speed(
    e: I64, phases: I8, state: I64, shape: int, speed: int, width: int, costs: Words, splits: I32
) -> int:
    """Bits, in units of 1/256, that a channel's residuals `e` (n,) would take at one shape and speed.

    Args:
        state: The channel's, before the first residual.
        costs: (tables · 256 · 2,) bits of every symbol, of two shapes each in one word.
    """
    fast, slow = state[FAST], state[SLOW]
    total: int = i8(0)
    half = u8(shape >> 1)
    both = u8(0)
    for t in range(e.size):
        value = e[u8(t)]
        where, plain = symbol_of(value, i8(phases[u8(t)]), fast + slow, splits, width)
        both += costs[where << u8(1) | half]
        total += plain
        size = abs(value) << 6
        fast += (size - fast) >> (speed + 1)
        slow += (size - slow) >> (speed + 3)
    total += i8((both >> u8((shape & 1) << 5)) & u8(0xFFFFFFFF))
    return total


@part
def costs_of_shapes(
    e: I64, phases: I8, state: I64, speed: int, width: int, costs: Words, splits: I32, found: I64
) -> None:
    """The same at one speed for every shape; found is (SHAPES,)."""
    fast, slow = state[FAST], state[SLOW]
    total = i8(0)
    low, high = u8(0), u8(0)
    for t in range(e.size):
        value = e[u8(t)]
        where, plain = symbol_of(value, i8(phases[u8(t)]), fast + slow, splits, width)
        low += costs[where << u8(1)]
        high += costs[where << u8(1) | u8(1)]
        total += plain
        size = abs(value) << 6
        fast += (size - fast) >> (speed + 1)
        slow += (size - slow) >> (speed + 3)
    mask = u8(0xFFFFFFFF)
    found[0], found[1] = total + i8(low & mask), total + i8(low >> u8(32))
    found[2], found[3] = total + i8(high & mask), total + i8(high >> u8(32))


@part
def choose(
    e: I64, phases: I8, width: int, state: I64, costs: Words, splits: I32, found: I64
) -> tuple[int, int]:
    """Find a channel's best shape and speed.

    Args:
        e, phases: (n,) residuals and phases.
        state: The channel's; not changed.
        found: Scratch of SHAPES.
    """
    shape, speed = state[SHAPE], state[SPEED]
    change = CHOICE_BITS * 256
    costs_of_shapes(e, phases, state, speed, width, costs, splits, found)
    best = found[shape]
    chosen = speed
    for other in range(SPEEDS):
        if other != speed:
            cost = cost_of_speed(e, phases, state, shape, other, width, costs, splits) + change
            if cost < best:
                best, chosen = cost, i8(other)
    if chosen != speed:
        costs_of_shapes(e, phases, state, chosen, width, costs, splits, found)
        best = found[shape] + change
    chosen_shape = shape
    for other in range(SHAPES):
        if found[other] + change < best:
            best, chosen_shape = found[other] + change, i8(other)
    return chosen_shape, chosen


def build_costs(parts: U16) -> Words:
    """Bits of every symbol in units of 1/256, those of shapes 2i and 2i + 1 in the halves of a word.

    Returns:
        (tables · 256 · 2,), the tables of one shape; a symbol without a part costs an escape.
    """
    sizes = parts[1::2].astype(np.int64).reshape(SHAPES, -1, 256)
    distinct, which = np.unique(sizes, return_inverse=True)
    # log2 of size^256 to the nearest lower integer is 256 log2 of size.
    cost = [16 * 256 + 1 - (max(size, 1) ** 256).bit_length() for size in distinct.tolist()]
    costs = np.array(cost, np.int64)[which].reshape(sizes.shape)
    escape = costs[:, :, ESCAPE:]
    costs = np.where(sizes > 0, costs, escape + (17 << 8))
    return (
        np.stack([costs[0] | costs[1] << 32, costs[2] | costs[3] << 32], axis=-1)
        .astype(np.uint64)
        .reshape(-1)
    )
