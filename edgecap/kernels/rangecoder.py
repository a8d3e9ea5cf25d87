"""A 48-bit range coder and the tables of how residuals are spread.

Coder: `low` and `span` with 2^32 ≤ span ≤ 2^48; a symbol with `size` parts of 65536 that begin at `start`
turns them into low + r·start and r·size with r = span >> 16; when the span falls below 2^32 the upper 16 of
the 48 bits of low leave as a big-endian pair of bytes. A carry runs back into what has left.

Tables: a residual e with expected magnitude m is split into its `k` low bits, coded flat, and the rest
e >> k, coded with a table of Student's t for the scale m / 2^k. All of it is integer arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.bits import bit_length, u8
from edgecap.kernels.compile import kernel

Bytes = NDArray[np.uint8]
I64 = NDArray[np.int64]

TOP = 48
FULL = 1 << TOP
LEAST = 1 << 32
SHAPES = 4
SMALL_SCALES = 36
"""Scales for k = 0: magnitudes 2^(-6) to 2^(2.75) in quarter octaves; four more serve k > 0."""
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
_ROOTS = (65536, 92682)
"""2^0 and 2^0.5 in units of 2^-16."""
_SPREAD = ((2, 161704), (3, 363833), (5, 773777), (10, 1802249))
"""For each shape: exponent p and c, so that a density (c m² / 65536 + z²)^-p has mean magnitude near m."""
_POINTS = 8


def build_tables() -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """The tables of all shapes and scales.

    Returns:
        `starts` (shapes, tables, 257): where each symbol's part of 65536 starts, and
        `guess` (shapes, tables, 256): the symbol in which 256 times the index lies.
    """
    symbol = np.arange(-REACH, REACH + 1, dtype=np.int64)
    # Positions within a unit, in 1/16: eight points in the middle of eighths, around the symbol's centre.
    inside = 2 * np.arange(_POINTS, dtype=np.int64) + 1 - _POINTS
    floor = np.maximum(0, 64 >> (2 * np.minimum(np.abs(symbol), 8)))
    starts = np.zeros((SHAPES, TABLES, SYMBOLS + 1), np.uint32)
    for shape, (power, spread) in enumerate(_SPREAD):
        for table in range(TABLES):
            phase, scale = divmod(table, SMALL_SCALES)
            quarter = scale - 24 if table < LARGE else table - LARGE + 8
            # The magnitude stands for a quarter octave: its middle is 2^(1/8) above the lower end.
            half, odd = divmod(quarter, 2)
            square = (_ROOTS[odd] * 77936 >> 16) * spread >> 16
            # In 1/256 of a unit squared, scaled by 2^12.
            c = square << (half + 4) if half + 4 >= 0 else square >> -(half + 4)
            z = 16 * symbol[:, None] + inside[None, :] + (8 if table >= LARGE else -4 * phase)
            ratio = (c << 24) // (c + (z * z << 12))
            weight = ratio.copy()
            for _ in range(power - 1):
                weight = weight * ratio >> 24
            mass = weight.sum(axis=1)
            sizes = mass * 65000 // int(mass.sum())
            sizes = np.maximum(sizes, floor if table < LARGE else 1)
            sizes[REACH] += 65536 - ESCAPE_SIZE - int(sizes.sum())
            starts[shape, table, 1:SYMBOLS] = np.cumsum(sizes)
            starts[shape, table, SYMBOLS] = 65536
    probes = np.arange(256, dtype=np.uint32) << 8
    guess = np.empty((SHAPES, TABLES, 256), np.uint8)
    for shape in range(SHAPES):
        for table in range(TABLES):
            guess[shape, table] = np.searchsorted(starts[shape, table], probes, side="right") - 1
    return starts, guess


@kernel
def put(low: Any, span: Any, at: int, out: Bytes, start: int, size: int) -> tuple[Any, Any, int]:
    """Code `size` parts of 65536 from `start` on into `out` at `at`; returns low, span and at."""
    part = span >> u8(16)
    low += part * u8(start)
    span = part * u8(size)
    if low >> u8(TOP):
        low &= u8(FULL - 1)
        carry(out, at)
    if span < u8(LEAST):
        out[u8(at)] = np.uint8(low >> u8(40))
        out[u8(at + 1)] = np.uint8((low >> u8(32)) & u8(255))
        at += 2
        low = (low & u8(LEAST - 1)) << u8(16)
        span <<= u8(16)
    return low, span, at


@kernel
def carry(out: Bytes, at: int) -> None:
    """Add one to the number whose last byte is before `at`."""
    i = at - 1
    while i >= 0 and out[i] == 255:
        out[i] = 0
        i -= 1
    if i >= 0:
        out[i] += 1


@kernel
def finish(low: Any, span: Any, at: int, out: Bytes) -> int:
    """Write the fewest bytes after which any others may follow; returns how many `out` then holds."""
    count = 0
    while True:
        drop = u8(TOP - 8 * count)
        value = ((low + ((u8(1) << drop) - u8(1))) >> drop) << drop
        if value + (u8(1) << drop) <= low + span:
            break
        count += 1
    if value >> u8(TOP):
        carry(out, at)
    for i in range(count):
        out[at + i] = np.uint8((value >> u8(40 - 8 * i)) & u8(255))
    return at + count


@kernel
def open_coder(data: Bytes) -> Any:
    """The first 48 bits of `data`; bytes that it does not have are zero."""
    code = u8(0)
    for i in range(6):
        code <<= u8(8)
        if i < data.size:
            code |= u8(data[i])
    return code


@kernel
def take(code: Any, span: Any, at: int, data: Bytes, start: int, size: int) -> tuple[Any, Any, int]:
    """Remove a symbol found in `code`, refilling it from `data` at `at`; returns code, span and at."""
    part = span >> u8(16)
    code -= part * u8(start)
    span = part * u8(size)
    if span < u8(LEAST):
        code <<= u8(16)
        span <<= u8(16)
        if at + 1 < data.size:
            code |= (u8(data[u8(at)]) << u8(8)) | u8(data[u8(at + 1)])
        elif at < data.size:
            code |= u8(data[u8(at)]) << u8(8)
        at += 2
    return code, span, at


@kernel
def quarter_octave(value: int) -> int:
    """4·log2 of a positive number, its fraction taken from the two bits below the highest."""
    bits = bit_length(u8(value))
    return 4 * (bits - 1) + (((value << 2) >> (bits - 1)) & 3)
