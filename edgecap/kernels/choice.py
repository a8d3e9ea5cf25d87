"""What coding residuals would cost at each shape and speed, and the choice of both for a channel."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.adaptive import FAST, NOISE, SHAPE, SLOW, SPEED
from edgecap.kernels.bits import Words, i8, u8
from edgecap.kernels.compile import part
from edgecap.kernels.quads import SCALES_BEFORE, all_four, falling_four, floor_four, keep_scales, most_four
from edgecap.kernels.tables import ESCAPE, PLAIN, SHAPES, TURNED_PHASES, Tables, build_tables

U16 = NDArray[np.uint16]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]

SPEEDS = 4
"""Speed s has running means over 2^(s+1) and, as of `calmness`, more residuals."""
CHOICE_BITS = 4
"""Plain bits that say shape and speed."""
SAME = 61440
"""Of 65536: how likely a channel keeps shape and speed."""
CHANGE = 1408
"""What a change must save, in 1/256 of a bit: less than the 8 bits it costs, since it saves later too."""


LEAST_SKIPPED = 256
"""Of so many residuals not all are priced:"""
RUN, SKIPPED = 9, 8
"""of every 17 only the first 9, which no power of two divides that samples may repeat with."""
FOUND = 3 * SPEEDS
"""Length of what `find_costs` finds: for every speed sums over shapes 0 and 1 in the halves of a word, over 2
and 3, and the number of plain bits."""


@part
def price(value: int, sign: int, split: int, width: int, costs: Words) -> tuple[Any, Any, int]:
    """What one residual costs with all shapes: words of `build_costs`, and plain bits."""
    k = split & PLAIN
    folded = ((value >> k) << 1) ^ sign
    if folded >= ESCAPE:
        folded, k = i8(ESCAPE), i8(width + 1)
    where = u8((split >> 8) + folded) << u8(1)
    return costs[where], costs[where | u8(1)], k


@part
def find_costs(
    e: I64, phases: I8, state: I64, width: int, costs: Words, splits: I32, index: I64, found: Words
) -> None:
    """Find about what a channel's residuals would cost at every shape and speed.

    Args:
        e, phases: (n,) residuals and phases.
        state: The channel's, before the first residual.
        costs: Of `build_costs`.
        index: Scratch of 2 · SPEEDS, the second half zeros.
        found: (FOUND,).
    """
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = u8(0)
    k0 = k1 = k2 = k3 = i8(0)
    quick, calm = all_four(float(state[FAST])), all_four(float(state[SLOW]))
    rate = falling_four(0.5)
    # As of `calmness`: 1/4, 1/16, 1/32, 1/64.
    slow_rate = rate * all_four(0.25) + most_four(rate - all_four(0.375), all_four(0.0))
    once = i8(e.size) < i8(LEAST_SKIPPED)
    stop = i8(0)
    while stop < e.size:
        begin = stop
        stop = i8(e.size) if once else min(begin + RUN, i8(e.size))
        for t in range(begin, stop):
            value, phase = e[u8(t)], i8(phases[u8(t)])
            # Their quarter octaves only: a prediction of -128 is in the first eighth.
            keep_scales(index, 0, quick + calm + all_four(float(NOISE)), all_four(-128.0), index[SPEEDS:])
            grown = all_four(float(abs(value) << 6))
            quick = quick + floor_four((grown - quick) * rate)
            calm = calm + floor_four((grown - calm) * slow_rate)
            if phase < TURNED_PHASES:
                value = -value
            sign = value >> 63
            # Sums in names of their own stay in registers, which those in an array do not.
            a, b, k = price(value, sign, i8(splits[u8(index[u8(0)] + phase - SCALES_BEFORE)]), width, costs)
            a0, b0, k0 = a0 + a, b0 + b, k0 + k
            a, b, k = price(value, sign, i8(splits[u8(index[u8(1)] + phase - SCALES_BEFORE)]), width, costs)
            a1, b1, k1 = a1 + a, b1 + b, k1 + k
            a, b, k = price(value, sign, i8(splits[u8(index[u8(2)] + phase - SCALES_BEFORE)]), width, costs)
            a2, b2, k2 = a2 + a, b2 + b, k2 + k
            a, b, k = price(value, sign, i8(splits[u8(index[u8(3)] + phase - SCALES_BEFORE)]), width, costs)
            a3, b3, k3 = a3 + a, b3 + b, k3 + k
        begin = stop
        stop = min(begin + SKIPPED, i8(e.size))
        for t in range(begin, stop):
            grown = all_four(float(abs(e[u8(t)]) << 6))
            quick = quick + floor_four((grown - quick) * rate)
            calm = calm + floor_four((grown - calm) * slow_rate)
    if not once:
        # About what all would cost.
        a0, a1, a2, a3 = a0 + a0, a1 + a1, a2 + a2, a3 + a3
        b0, b1, b2, b3 = b0 + b0, b1 + b1, b2 + b2, b3 + b3
        k0, k1, k2, k3 = k0 + k0, k1 + k1, k2 + k2, k3 + k3
    found[0], found[1], found[2], found[3] = a0, a1, a2, a3
    found[4], found[5], found[6], found[7] = b0, b1, b2, b3
    found[8], found[9], found[10], found[11] = u8(k0), u8(k1), u8(k2), u8(k3)


@part
def cost_of(found: Words, shape: int, speed: int) -> int:
    """Bits, in units of 1/256, that residuals would take at one shape and speed."""
    half = (found[u8(SPEEDS * (shape >> 1) + speed)] >> u8((shape & 1) << 5)) & u8(0xFFFFFFFF)
    cost: int = i8(half) + (i8(found[u8(2 * SPEEDS + speed)]) << 8)
    return cost


@part
def choose(found: Words, state: I64) -> tuple[int, int]:
    """A channel's best shape and speed."""
    shape, speed = state[SHAPE], state[SPEED]
    best = cost_of(found, shape, speed)
    chosen_shape, chosen = shape, speed
    for other_shape in range(SHAPES):
        for other in range(SPEEDS):
            cost = cost_of(found, i8(other_shape), i8(other)) + CHANGE
            if cost < best:
                best, chosen_shape, chosen = cost, i8(other_shape), i8(other)
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


@cache
def tables_and_costs() -> tuple[Tables, Words]:
    """The coder's tables and their costs: built while warming up, not when samples wait for them."""
    built = build_tables()
    return built, build_costs(built.parts)
