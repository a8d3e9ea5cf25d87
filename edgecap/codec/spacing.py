"""The steps that integers are rounded multiples of, as the samples that occur show them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.layout import Array
from edgecap.codec.multiples import FIRST_OFFSET, MAX_EXPONENT, MAX_STEP, Split, Steps, split, unit_of
from edgecap.kernels import multiples as kernels

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

MARGIN_BITS = 24
"""What a step must save at least: it may be chance, and its rests cost time."""
MOST_DISTINCT = 128
"""Of a channel: so many distinct samples, and"""
MOST_CHANNELS = 8
"""so many channels show the step well enough."""
LEAST_STEP = 1.9
LEAST_POWER = 0.2
"""Of what it would be if all distinct samples were whole multiples of one step."""
MOST_STEPS = 8
BINS = 1024
MOST_BLUR = 3.0
"""How far off multiples three roundings take a sample."""


def find_steps(x: I32, spaced: I64) -> Steps | None:
    """Steps that integers (n, c) are rounded multiples of, where that saves bytes.

    Args:
        spaced: (c,) which channels may have a step, as `find_spaced` has it.
    """
    channels = [int(c) for c in np.flatnonzero(spaced == kernels.SPACED)]
    quiet = [int(c) for c in np.flatnonzero(spaced == kernels.TOO_FEW)]
    distinct = {c: np.unique(x[:, c]).astype(np.int64) for c in channels + quiet}
    quiet = [c for c in quiet if distinct[c].size > 1]
    whole = {c: int(np.gcd.reduce(np.diff(u))) for c, u in distinct.items() if u.size > 1}
    m, a, e = (np.ones(spaced.size, np.int64), *np.zeros((2, spaced.size), np.int64))
    saved = False
    for look in range(MOST_STEPS):
        if not channels:
            break
        step = 0.0
        members: list[int] = []
        if any(whole[c] == 1 for c in channels) and look < MOST_STEPS // 2:
            step, members = _step(distinct, channels)
        own = [c for c in channels if whole[c] > 1]
        if not members and own:
            # Channels of few values may by chance be multiples of more than the others are.
            shared = min(whole[c] for c in own)
            step = float(shared)
            members = [c for c in own if whole[c] % shared == 0 and distinct[c].size < 12]
            members += [c for c in own if whole[c] == shared and distinct[c].size >= 12]
        if not members:
            break
        channels = [c for c in channels if c not in members]
        # Of channels that hardly change, a step is only known from others.
        members += [c for c in quiet if _fits(distinct[c], step)]
        quiet = [c for c in quiet if c not in members]
        found = _rounded(step, [distinct[c] for c in members])
        if found is None:
            continue
        exponent, multiple, offsets = found
        gained = []
        for c, offset in zip(members, offsets, strict=True):
            found_here = _split_by(x[:, c : c + 1], multiple, offset, exponent)
            gain = found_here.plain_bits - found_here.bits
            if gain > 8:
                gained.append((gain, c, offset))
        if sum(gain for gain, _, _ in gained) > MARGIN_BITS + 8 * (1 + _varint_bytes(multiple)):
            saved = True
            for _, c, offset in gained:
                m[c], a[c], e[c] = multiple, offset, exponent
    return Steps(m, a, e) if saved else None


def _varint_bytes(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)


def _step(distinct: dict[int, I64], channels: list[int]) -> tuple[float, list[int]]:
    """The step most channels share, and which they are: the strongest period among their distinct samples."""
    chosen = sorted(channels, key=lambda c: -distinct[c].size)[:MOST_CHANNELS]
    points = [_thinned(distinct[c]) for c in chosen]
    gaps = np.sort(np.concatenate([np.diff(distinct[c]) for c in chosen]))
    gap = int(gaps[gaps.size // 16])
    bin_width = max(1, gap // 16)
    power = np.zeros(BINS + 1)
    centres = []
    total = squares = 0
    for c in chosen:
        u = distinct[c]
        reach = np.searchsorted(u, u + BINS * bin_width) - np.arange(u.size)
        first = int(reach.argmax())
        inside = u[first : first + int(reach[first])]
        centres.append(int(inside[inside.size // 2]))
        total += inside.size
        squares += inside.size**2
        present = np.zeros(2 * BINS)
        present[(inside - inside[0]) // bin_width] = 1
        power += np.abs(np.fft.rfft(present)) ** 2
    low = max(1, int(2 * BINS * bin_width / (gap + 3)))
    high = min(BINS, int(2 * BINS * bin_width * min(1 / LEAST_STEP, 5 / gap)) + 1)
    peaks = power[low : high + 1]
    if not peaks.size or peaks.max() < max(LEAST_POWER * squares, 3 * total):
        return 0.0, []
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
    if not members:
        return 0.0, []
    step = _fitted(frequency, [distinct[c] for c in members])
    fitting = [c for c in members if _fits(distinct[c], step)]
    if 2 * len(fitting) > len(members):
        return step, fitting
    # Axes that were calibrated one by one have almost the same step: the one that shows most is taken alone.
    one = distinct[max(members, key=lambda c: distinct[c].size)]
    frequency = _sharpened(frequency, [_thinned(one)], [int(one[one.size // 2])], max(1, int(8 / frequency)))
    if frequency <= 0:
        return 0.0, []
    step = _fitted(frequency, [one])
    return step, [c for c in members if _fits(distinct[c], step)]


def _fits(u: I64, step: float) -> bool:
    """Whether values are multiples of a step, but for an offset and rounding."""
    middle = u - u[u.size // 2]
    offset = np.angle(_turns(middle, 1 / step)) / (2 * np.pi) * step
    left = middle - offset - np.rint((middle - offset) / step) * step
    left -= np.median(left)
    blur = max(1.0, min(MOST_BLUR, step / 8))
    return bool(np.count_nonzero(np.abs(left) > blur) * 8 <= u.size)


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
        near = [u for u in near if u.size]
        tried = frequency + np.arange(-8, 9) / (16 * reach)
        if near:
            # One turn for the first frequency tried, and one more for every other.
            values = np.concatenate(near)
            turns = np.empty((tried.size, values.size), np.complex128)
            turns[0] = np.exp(2j * np.pi * tried[0] * values)
            turns[1:] = np.exp(2j * np.pi / (16 * reach) * values)
            np.cumprod(turns, axis=0, out=turns)
            starts = np.cumsum([0, *(u.size for u in near[:-1])])
            power = (np.abs(np.add.reduceat(turns, starts, axis=1)) ** 2).sum(axis=1)
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
    best: tuple[int, int, int] | None = None
    widest = max(int(u[-1] - u[0]) for u in distinct) / step
    shown = sorted(distinct, key=lambda u: -u.size)[:MOST_CHANNELS]
    for exponent in range(MAX_EXPONENT + 1):
        multiple = round(step * (1 << exponent))
        off = abs(multiple / (1 << exponent) - step) * widest
        if multiple > MAX_STEP >> 2:
            break
        if multiple < 2 or off > 8:
            continue
        cost = 8 * _varint_bytes(multiple)
        for u in shown:
            offset, missed = _offset(u, multiple, exponent)
            cost += missed + 8 * _varint_bytes(FIRST_OFFSET + (offset >> unit_of(exponent)))
        if best is None or cost < best[0]:
            best = cost, exponent, multiple
        if off < 0.05:
            break
    if best is None:
        return None
    _, exponent, multiple = best
    return exponent, multiple, [_offset(u, multiple, exponent)[0] for u in distinct]


def _fitted(frequency: float, distinct: list[I64]) -> float:
    """The step as least squares have it, each channel with an offset of its own."""
    above = below = 0.0
    for u in distinct:
        v = (u - u[u.size // 2]).astype(np.float64)
        turn = np.angle(_turns(u - u[u.size // 2], frequency)) / (2 * np.pi)
        place = v * frequency - turn
        k = np.rint(place)
        # Single samples that lie anywhere do not count.
        near = np.abs(place - k) <= max(0.1, 2 * frequency)
        if not near.any():
            continue
        k, v = k[near], v[near]
        k -= k.mean()
        above += math.fsum((k * (v - v.mean())).tolist())
        below += math.fsum((k * k).tolist())
    return above / below if above > 0 and below > 0 else 1 / frequency


def _offset(u: I64, multiple: int, exponent: int) -> tuple[int, int]:
    """The offset that leaves most of the distinct values without a rest, and the bits that the rests cost."""
    size, zero = 1 << exponent, 0
    if exponent == 0:
        shift = np.bincount(u % multiple).argmax() if multiple <= 1 << 20 else u[0] % multiple
        offset = int(shift)
    else:
        # Where x begins within its step, for every x: k with it is right for offsets in [y, y + 1).
        step = multiple / size
        centre = float(np.angle(_turns(u, 1 / step)) / (2 * np.pi) * step) + 0.5
        k = np.rint((u - centre + 0.5) / step)
        y = np.sort(u - k * step)
        within = np.searchsorted(y, y + 0.999) - np.arange(y.size)
        first = int(within.argmax())
        middle = (y[first] + 1 + y[first + int(within[first]) - 1]) / 2
        unit = unit_of(exponent)
        offset = (round(middle * size) % multiple) >> unit << unit
        zero = _split_by(u[:, None], multiple, size >> 1, exponent).rest_bits
    found = _split_by(u[:, None], multiple, offset, exponent).rest_bits
    # Mostly 0 became 0.
    return (size >> 1, zero) if exponent and zero <= found else (offset, found)


def _split_by(x: Array, multiple: int, offset: int, exponent: int) -> Split:
    """One channel's integers (n, 1) by a step."""
    return split(x, Steps(np.array([multiple]), np.array([offset]), np.array([exponent])))
