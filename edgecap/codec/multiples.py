"""Integers as multiples of a step that need not be whole: a sensor's own numbers before they were rescaled.

`x = ((k * m + a) >> e) + rest`, with the channel's m, a and e: the step is m / 2^e. The rests are mostly 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.layout import Array, Reader, put_varint
from edgecap.errors import ChunkError
from edgecap.kernels import rests

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

MAX_EXPONENT = 24
NONE, NEW_STEP, FIRST_OFFSET = 0, 1, 2 + MAX_EXPONENT
"""What a channel begins with: it has no step, or the exponent of a new one plus 1, or its offset plus 26."""
MAX_STEP = (1 << 31) - 1
OFFSET_BITS = 3
"""Offsets are in eighths, or in what steps are in where that is coarser."""

SEARCH_ROWS = 2048
MOST_DISTINCT = 128
"""Of a channel: so many distinct samples, and"""
MOST_CHANNELS = 8
"""so many channels show the step well enough."""
LEAST_STEP = 1.9
BINS = 1024
MARGIN_BITS = 24
"""What a step must save at least: it may be chance, and its rests cost time."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Step and offset of every channel, (c,) each; m = 1 and a = e = 0 for a channel without."""

    m: I64
    a: I64
    e: I64

    @property
    def channels(self) -> I64:
        """Number of every channel among those that have a step, or -1."""
        has = self.has
        return np.where(has, np.cumsum(has) - 1, -1)

    @property
    def has(self) -> NDArray[np.bool_]:
        has: NDArray[np.bool_] = (self.m != 1) | (self.e != 0)
        return has

    def values(self, k: Array) -> I64:
        """The integers that multiples (n, c) stand for, without their rests."""
        found: I64 = (k.astype(np.int64) * self.m + self.a) >> self.e
        return found

    def nearest(self, x: Array) -> I64:
        """The multiples (n, c) that lie nearest."""
        twice = (x.astype(np.int64) << (self.e + 1)) - 2 * self.a + (1 << self.e) - 1 + self.m
        found: I64 = twice // (2 * self.m)
        return found

    def packed(self) -> bytes:
        """Every channel's offset, and its step where it differs from the one before."""
        out = bytearray()
        step = (0, 0)
        for m, a, e in zip(self.m.tolist(), self.a.tolist(), self.e.tolist(), strict=True):
            if (m, e) == (1, 0):
                put_varint(out, NONE)
                continue
            if (m, e) != step:
                step = m, e
                put_varint(out, NEW_STEP + e)
                put_varint(out, m)
            put_varint(out, FIRST_OFFSET + (a >> _unit(e)))
        return bytes(out)


def read_steps(reader: Reader, channels: int) -> Steps:
    """Read what `Steps.packed` wrote."""
    m, a, e = np.ones(channels, np.int64), np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    step: tuple[int, int] | None = None
    for c in range(channels):
        offset = reader.varint(MAX_STEP)
        if offset == NONE:
            continue
        if offset < FIRST_OFFSET:
            step = reader.varint(MAX_STEP), offset - NEW_STEP
            offset = reader.varint(MAX_STEP)
            if step[0] == 0 or step == (1, 0):
                raise ChunkError("columns payload: impossible step of multiples")
        if step is None or offset < FIRST_OFFSET:
            raise ChunkError("columns payload: impossible offset of multiples")
        m[c], e[c] = step
        a[c] = (offset - FIRST_OFFSET) << (_unit(step[1]))
    return Steps(m, a, e)


def split(x: Array, steps: Steps) -> tuple[Array, I32] | None:
    """Multiples (n, c), of the type of `x`, and rests (n, c); None where that type does not hold them."""
    k = steps.nearest(x)
    rest = x - steps.values(k)
    info = np.iinfo(x.dtype)
    if k.min() < info.min or k.max() > info.max:
        return None
    return k.astype(x.dtype), rest.astype(np.int32)


def find_steps(x: Array) -> Steps | None:
    """Steps that integers (n, c) are rounded multiples of, where that saves bytes."""
    few = np.array(x[:SEARCH_ROWS], np.int32, order="C")
    spaced = np.empty(few.shape[1], np.int64)
    if not rests.find_spaced(few, spaced):
        return None
    channels = [int(c) for c in np.flatnonzero(spaced)]
    distinct = {c: np.unique(few[:, c]).astype(np.int64) for c in channels}
    m, a, e = (np.ones(spaced.size, np.int64), *np.zeros((2, spaced.size), np.int64))
    saved = 0.0
    while channels:
        step, members = float(_whole_step(distinct, channels)), channels
        if step <= 1:
            step, members = _step(distinct, channels)
        if not members:
            break
        found = _rounded(step, [distinct[c] for c in members])
        if found is None:
            break
        exponent, multiple, offsets = found
        shared = 8.0 * (1 + _varint_bytes(multiple))
        gained = []
        for c, offset in zip(members, offsets, strict=True):
            one = Steps(np.array([multiple]), np.array([offset]), np.array([exponent]))
            gain = _saved_bits(few[:, c : c + 1], one, distinct[c]) * (x.shape[0] / few.shape[0])
            if gain > 8:
                gained.append((gain, c, offset))
        total = sum(gain for gain, _, _ in gained) - shared
        if total > MARGIN_BITS:
            saved += total
            for _, c, offset in gained:
                m[c], a[c], e[c] = multiple, offset, exponent
        channels = [c for c in channels if c not in members]
    return Steps(m, a, e) if saved > 0 else None


def _unit(exponent: int) -> int:
    """The bit of `a` that offsets are written in."""
    return exponent - min(exponent, OFFSET_BITS)


def _varint_bytes(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)


def _whole_step(distinct: dict[int, I64], channels: list[int]) -> int:
    """The whole number that all distances are multiples of."""
    return math.gcd(*(int(np.gcd.reduce(np.diff(distinct[c]))) for c in channels))


def _step(distinct: dict[int, I64], channels: list[int]) -> tuple[float, list[int]]:
    """The step most channels share, and which they are: the strongest period among their distinct samples."""
    chosen = sorted(channels, key=lambda c: -distinct[c].size)[:MOST_CHANNELS]
    points = [_thinned(distinct[c]) for c in chosen]
    gaps = np.sort(np.concatenate([np.diff(distinct[c]) for c in chosen]))
    gap = int(gaps[gaps.size // 16])
    bin_width = max(1, gap // 16)
    power = np.zeros(BINS + 1)
    centres = []
    for c in chosen:
        u = distinct[c]
        reach = np.searchsorted(u, u + BINS * bin_width) - np.arange(u.size)
        first = int(reach.argmax())
        inside = u[first : first + int(reach[first])]
        centres.append(int(inside[inside.size // 2]))
        present = np.zeros(2 * BINS)
        present[(inside - inside[0]) // bin_width] = 1
        power += np.abs(np.fft.rfft(present)) ** 2
    low = max(1, int(2 * BINS * bin_width / (gap + 3)))
    high = min(BINS, int(2 * BINS * bin_width * min(1 / LEAST_STEP, 5 / gap)) + 1)
    if low >= high:
        return 0.0, []
    peaks = power[low : high + 1]
    # Overtones of a step are peaks as well: its own is the lowest.
    frequency = (low + int(np.flatnonzero(peaks >= 0.8 * peaks.max())[0])) / (2 * BINS * bin_width)
    frequency = _sharpened(frequency, points, centres, BINS * bin_width // 2)
    if not frequency * LEAST_STEP < 1:
        return 0.0, []
    members = [
        c
        for c in channels
        if abs(_turns(distinct[c], frequency)) > max(0.5, 2.2 / math.sqrt(distinct[c].size))
    ]
    return 1 / frequency, members


def _thinned(values: I64) -> I64:
    if values.size <= MOST_DISTINCT:
        return values
    return values[np.linspace(0, values.size - 1, MOST_DISTINCT).astype(np.int64)]


def _turns(values: I64, frequency: float) -> complex:
    """How well the values agree in their place between multiples, and where that is."""
    return complex(np.exp(2j * np.pi * frequency * values).mean())


def _sharpened(frequency: float, points: list[I64], centres: list[int], reach: int) -> float:
    """The frequency near one that was found within `reach`, as the values farther away tell it."""
    farthest = max(int(np.abs(u - at).max()) for u, at in zip(points, centres, strict=True))
    sharp = False
    while True:
        near = [u[np.abs(u - at) <= reach] - at for u, at in zip(points, centres, strict=True)]
        tried = frequency + np.arange(-8, 9) / (16 * reach)
        power = sum(np.abs(np.exp(2j * np.pi * np.outer(tried, u)).sum(axis=1)) ** 2 for u in near)
        frequency = float(tried[int(np.argmax(power))])
        if frequency <= 0 or sharp:
            return frequency
        sharp = reach >= farthest
        reach = min(4 * reach, max(farthest, 1))


def _rounded(step: float, distinct: list[I64]) -> tuple[int, int, list[int]] | None:
    """The step and the channels' offsets in as few bytes as serve well: exponent, multiple, offsets."""
    frequency = 1 / step
    if step != int(step):
        step = _fitted(frequency, distinct)
    best: tuple[float, int, int, list[int]] | None = None
    widest = max(int(u[-1] - u[0]) for u in distinct) / step
    for exponent in range(MAX_EXPONENT + 1):
        multiple = round(step * (1 << exponent))
        off = abs(multiple / (1 << exponent) - step) * widest
        if multiple > MAX_STEP >> 2:
            break
        if multiple < 2 or off > 8:
            continue
        offsets, cost = [], 8.0 * _varint_bytes(multiple)
        for u in distinct:
            offset, missed = _offset(u, multiple, exponent)
            offsets.append(offset)
            cost += missed + 8 * _varint_bytes(FIRST_OFFSET + (offset >> _unit(exponent)))
        if best is None or cost < best[0]:
            best = cost, exponent, multiple, offsets
        if off < 0.05:
            break
    return None if best is None else best[1:]


def _fitted(frequency: float, distinct: list[I64]) -> float:
    """The step as least squares have it, each channel with an offset of its own."""
    above = below = 0.0
    for u in distinct:
        v = (u - u[u.size // 2]).astype(np.float64)
        turn = np.angle(_turns(u - u[u.size // 2], frequency)) / (2 * np.pi)
        k = np.rint(v * frequency - turn)
        k -= k.mean()
        above += math.fsum((k * (v - v.mean())).tolist())
        below += math.fsum((k * k).tolist())
    return above / below if above > 0 and below > 0 else 1 / frequency


def _offset(u: I64, multiple: int, exponent: int) -> tuple[int, float]:
    """The offset that leaves most of the distinct values without a rest, and the bits that the rests cost."""
    if exponent == 0:
        shift = np.bincount(u % multiple).argmax() if multiple <= 1 << 20 else u[0] % multiple
        offset = int(shift)
    else:
        size = 1 << exponent
        # Where x begins within its step, for every x: k with it is right for offsets in [y, y + 1).
        step = multiple / size
        centre = float(np.angle(_turns(u, 1 / step)) / (2 * np.pi) * step) + 0.5
        k = np.rint((u - centre + 0.5) / step)
        y = np.sort(u - k * step)
        within = np.searchsorted(y, y + 0.999) - np.arange(y.size)
        first = int(within.argmax())
        middle = (y[first] + 1 + y[first + int(within[first]) - 1]) / 2
        unit = _unit(exponent)
        offset = (round(middle * size) % multiple) >> unit << unit
    one = Steps(np.array([multiple]), np.array([offset]), np.array([exponent]))
    return offset, _rest_bits(u, one)


def _rest_bits(u: I64, one: Steps) -> float:
    rest = np.abs(u - one.values(one.nearest(u)))
    near, far = int(np.count_nonzero(rest == 1)), int(np.count_nonzero(rest > 1))
    return 4.0 * near + 24.0 * far


def _saved_bits(x: Array, one: Steps, u: I64) -> float:
    """About how many bits less the multiples of a channel take than its samples."""
    k = one.nearest(x)
    lengths: list[Any] = [np.frexp(np.abs(np.diff(v.astype(np.float64), axis=0)))[1].sum() for v in (x, k)]
    return float(lengths[0] - lengths[1]) - _rest_bits(u, one)
