"""How residuals are spread: tables of how likely each is by its expected magnitude.

A residual e with expected magnitude m is split into its `k` low bits, coded as they are, and the rest e >> k,
coded with a table of Student's t for the scale m / 2^k. All of it is integer arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import bit_length, u8
from edgecap.kernels.compile import part

SHAPES = 4
SMALL_SCALES = 24
"""Scales for k = 0: magnitudes 2^(-3) to 2^(2.75) in quarter octaves; four more serve k > 0."""
FIRST_SCALE = 16
"""The quarter octave of the first of them."""
PHASES = 3
"""How far a prediction lies above the integer it is rounded to: 0, 1/4 or 1/2, only for k = 0."""
LARGE = PHASES * SMALL_SCALES
"""Number of the first table for k > 0; before it stand those of phase 0, then 1/4, then 1/2."""
TABLES = LARGE + 4
SYMBOLS = 256
REACH = 127
"""Largest |e >> k| with a symbol of its own; `ESCAPE` stands for all others."""
ESCAPE = 255
ESCAPE_SIZE = 16
BUCKET_SHIFT = 8
FIRST_SPLIT = 40
"""The first quarter octave (magnitude 8) with plain bits."""
_ROOTS = (65536, 92682)
"""2^0 and 2^0.5 in units of 2^-16."""
_SPREAD = ((1.5, 95951), (5, 862867), (8, 1839188), (30, 7162579))
"""For each shape: exponent p and c of a density (c m² / 65536 + z²)^-p. Its mean magnitude is some tenths
more than m, which running means only estimate; what came out best over many recordings."""
_POINTS = 8


PLAIN, TURNS = 127, 7
"""Of an entry of `splits`: the bits that count plain bits, and the place of the one that turns the sign."""


TURNED_PHASES = 3
"""So many of the `eighth_of` a prediction turn the sign of residuals."""


class Tables(NamedTuple):
    """What the coder looks up. Tables are counted through all shapes: `shape * TABLES + table`."""

    parts: NDArray[np.uint16]
    """(tables · 256 · 2,): where every symbol's part of 65536 starts, and its size."""
    buckets: NDArray[np.uint16]
    """(tables · 256 · 4,): start, size and number of the symbol in which 256 times the index lies, and 0: one
    look-up tells what mostly two would."""
    splits: NDArray[np.int32]
    """(SHAPES · 256 · 8,) by shape, quarter octave and `eighth_of` the prediction: 65536 times the table,
    plus 2^TURNS where residuals change their sign, plus the number of plain bits."""


def build_tables() -> Tables:
    """The tables of all shapes and scales."""
    # Near values come first: 0, -1, 1, -2, …, -127, 127.
    order = np.arange(2 * REACH + 1, dtype=np.int64)
    symbol = (order >> 1) ^ -(order & 1)
    # Positions within a unit, in 1/16: eight points in the middle of eighths, around the symbol's centre.
    inside = 2 * np.arange(_POINTS, dtype=np.int64) + 1 - _POINTS
    floor = np.maximum(0, 64 >> (2 * np.minimum(np.abs(symbol), 8)))
    starts = np.zeros((SHAPES, TABLES, SYMBOLS + 1), np.uint32)
    for shape, (power, spread) in enumerate(_SPREAD):
        for table in range(TABLES):
            phase, scale = divmod(table, SMALL_SCALES)
            quarter = scale - 12 if table < LARGE else table - LARGE + 8
            # The magnitude stands for a quarter octave: its middle is 2^(1/8) above the lower end.
            half, odd = divmod(quarter, 2)
            square = (_ROOTS[odd] * 77936 >> 16) * spread >> 16
            # In 1/256 of a unit squared, scaled by 2^12.
            c = square << (half + 4) if half + 4 >= 0 else square >> -(half + 4)
            z = 16 * symbol[:, None] + inside[None, :] + (8 if table >= LARGE else -4 * phase)
            ratio = (c << 24) // (c + (z * z << 12))
            weight = ratio.copy()
            if power < 2:
                # Below 2^48 the root of float64, rounded down, is exact.
                weight = ratio * np.sqrt(ratio << 24).astype(np.int64) >> 24
            for _ in range(int(power) - 1):
                weight = weight * ratio >> 24
            mass = weight.sum(axis=1)
            sizes = mass * 65000 // int(mass.sum())
            sizes = np.maximum(sizes, floor if table < LARGE else 1)
            sizes[0] += 65536 - ESCAPE_SIZE - int(sizes.sum())
            starts[shape, table, 1:SYMBOLS] = np.cumsum(sizes)
            starts[shape, table, SYMBOLS] = 65536
    probes = np.arange(1 << (16 - BUCKET_SHIFT), dtype=np.uint32) << BUCKET_SHIFT
    buckets = np.zeros((SHAPES, TABLES, probes.size, 4), np.uint16)
    for shape in range(SHAPES):
        for table in range(TABLES):
            first = np.searchsorted(starts[shape, table], probes, side="right") - 1
            start, end = starts[shape, table][first], starts[shape, table][first + 1]
            buckets[shape, table, :, :3] = np.stack([start, end - start, first], axis=-1)
    parts = np.stack([starts[:, :, :-1], np.diff(starts, axis=2)], axis=-1).astype(np.uint16)
    quarters, way = np.arange(256)[:, None], (32 * np.arange(8)[None, :] - 96) >> 6
    large = quarters - FIRST_SPLIT
    book = np.where(
        large < 0, np.maximum(quarters - FIRST_SCALE, 0) + SMALL_SCALES * np.abs(way), LARGE + (large & 3)
    )
    plain = np.where(large < 0, 0, (large >> 2) + 1)
    splits = np.stack(
        [(book + TABLES * s) << 16 | (np.arange(8) < TURNED_PHASES) << TURNS | plain for s in range(SHAPES)]
    )
    return Tables(parts.reshape(-1), buckets.reshape(-1), splits.astype(np.int32).reshape(-1))


@part
def quarter_octave(value: int) -> int:
    """4·log2 of a positive number, its fraction taken from the two bits below the highest."""
    bits = bit_length(u8(value))
    return 4 * (bits - 1) + (((value << 2) >> (bits - 1)) & 3)
