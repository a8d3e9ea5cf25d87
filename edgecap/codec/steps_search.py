"""Finding the steps that a recording's integers are rounded multiples of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.codec import rounded
from edgecap.codec.layout import Array
from edgecap.codec.multiples import FIRST_OFFSET, MAX_EXPONENT, MAX_STEP, Steps, unit_of
from edgecap.kernels import rests

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

SEARCH_ROWS = 2048
SEARCH_SAMPLES = 1 << 16
"""Most that is looked at, and kept for the next look."""
ROWS_THAT_TELL = 256
"""Where so many show no step, they are not kept to be looked at with others."""
MOST_DISTINCT = 128
"""Of a channel: so many distinct samples, and"""
MOST_SEARCHED = 256
"""A column of more channels is not searched: it would take seconds."""
MOST_CHANNELS = 8
"""so many channels show the step well enough."""
LEAST_STEP = 1.9
LEAST_POWER = 0.2
"""Of what it would be if all distinct samples were whole multiples of one step."""
MOST_STEPS = 8
BINS = 1024
MARGIN_BITS = 24
"""What a step must save at least: it may be chance, and its rests cost time."""
MOST_BLUR = 3.0
"""How far off multiples three roundings take a sample."""
REST_BITS = 2
RESTART_BITS = 12
"""A column that starts afresh must save so much of a payload for each channel: it costs about 12 bytes."""
PAUSE_AT_REST = 8
LONGEST_PAUSE = 1024
"""Payloads after which a column without steps is looked at again."""


@dataclass(slots=True)
class Search:
    """What an encoder has found out about a column's steps, so that it need not look again in every key.

    It changes only which steps are tried: a payload says itself which ones it uses.
    """

    steps: Steps | None = None
    grid: bytes = b""
    """Of float32: what the integers are multiples of."""
    lattice: bytes = b""
    """Of float32: the step of the lattice that was found last."""
    rows: I32 | None = None
    """What was looked at lately."""
    enough: int = 0
    """With so many rows the steps are worth finding again, more exactly."""
    payloads: int = 0
    next_look: int = 0
    pause: int = 1

    def find(self, x: Array, grid: bytes) -> Steps | None:
        """Steps for integers (n, c) that save bytes: those found last if they still do."""
        if x.shape[1] > MOST_SEARCHED:
            return None
        if grid != self.grid or (self.rows is not None and self.rows.shape[1] != x.shape[1]):
            if (
                self.steps is not None
                and self.steps.m.size == x.shape[1]
                and len(grid) == len(self.grid) == 2
            ):
                self.steps = rounded.at_shift(self.steps, int(self.grid[1]) - int(grid[1]))
            else:
                self.steps = None
            self.rows = None
            self.grid = grid
        if self.steps is not None and serve(self.steps, x) and not self._learns_more(x):
            return self.steps
        if self.payloads < self.next_look:
            return None
        found = self._look(x)
        return found if found is not None and serve(found, x) else None

    def shift_for(self, values: F32) -> int | None:
        """The shift to see float32 (n, c) with: the one before while it serves."""
        if len(self.grid) == 2 and rounded.keeps_shift(values, int(self.grid[1]) - rounded.SHIFT_BIAS):
            return int(self.grid[1]) - rounded.SHIFT_BIAS
        return rounded.shift_of(values)

    def prefers_other(self, x: Array, grid: bytes, now: Steps | None) -> bool:
        """Whether a column that goes on with the steps `now`, or without, should rather start afresh."""
        if (now is None and self.payloads < self.next_look) or x.shape[1] > MOST_SEARCHED:
            return False
        if grid != self.grid or (self.rows is not None and self.rows.shape[1] != x.shape[1]):
            return False
        if now is not None and not self._learns_more(x):
            return False
        found = self._look(x)
        if found is not None and serve(found, x):
            before = _lengths(x) if now is None else _price(now, x)
            price = _price(found, x)
            least = len(found.packed()) + RESTART_BITS * x.shape[1]
            if before - price > least:
                return True
            self.pause = min(2 * self.pause, LONGEST_PAUSE)
            self.next_look = self.payloads + self.pause
        return False

    def _learns_more(self, x: Array) -> bool:
        """Whether there are so many more rows by now that steps are known more exactly."""
        kept = 0 if self.rows is None else self.rows.shape[0]
        if kept >= _most_rows(x):
            return False
        return bool(self._keep(x).shape[0] >= self.enough)

    def _look(self, x: Array) -> Steps | None:
        rows = self._keep(x)
        spaced, seen = np.empty(rows.shape[1], np.int64), np.empty(rests.SEEN_WORDS, np.uint64)
        found = find_steps(rows, spaced) if rests.find_spaced(rows, spaced, seen) else None
        if found is not None:
            self.pause = 1
        elif (spaced == rests.TOO_FEW).all():
            # Nothing moves: it says little, and may end at any time.
            self.pause = PAUSE_AT_REST
        else:
            self.pause = min(2 * self.pause, LONGEST_PAUSE)
        self.next_look = self.payloads + self.pause
        if found is None:
            if rows.shape[0] >= ROWS_THAT_TELL:
                self.rows = None
            return None
        self.steps, self.enough = found, 4 * rows.shape[0]
        return found

    def _keep(self, x: Array) -> I32:
        few = np.array(x[:SEARCH_ROWS], np.int32, order="C")
        rows = few if self.rows is None else np.concatenate([self.rows, few])
        self.rows = rows[-_most_rows(x) :]
        return self.rows


def _most_rows(x: Array) -> int:
    return max(1, min(SEARCH_ROWS, SEARCH_SAMPLES // int(x.shape[1])))


def serve(steps: Steps, x: Array) -> bool:
    """Whether steps save bytes."""
    return _lengths(x) - _price(steps, x) > 8 * len(steps.packed()) + MARGIN_BITS


def _price(steps: Steps, x: Array) -> int:
    """About how many bits multiples and rests take: the same multiple mostly has the same rest again."""
    k = steps.nearest(x)
    left = (x - steps.values(k)).reshape(-1)
    off = np.flatnonzero(left)
    first = np.unique(x.reshape(-1)[off], return_index=True)[1]
    return _lengths(k) + _rest_bits(left[off[first]])


def _rest_bits(left: I64) -> int:
    """About how many bits rests take that are seen for the first time."""
    lengths = np.frexp(np.abs(left[left != 0]).astype(np.float64))[1]
    return int(REST_BITS * lengths.size + 2 * lengths.sum())


def _lengths(x: Array) -> int:
    """About how many bits the changes of integers (n, c) have."""
    return int(np.frexp(np.abs(np.diff(x.astype(np.float64), axis=0)))[1].sum())


def find_steps(x: I32, spaced: I64) -> Steps | None:
    """Steps that integers (n, c) are rounded multiples of, where that saves bytes.

    Args:
        spaced: (c,) which channels may have a step, as `find_spaced` has it.
    """
    channels = [int(c) for c in np.flatnonzero(spaced == rests.SPACED)]
    quiet = [int(c) for c in np.flatnonzero(spaced == rests.TOO_FEW)]
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
            one = Steps(np.array([multiple]), np.array([offset]), np.array([exponent]))
            column = x[:, c : c + 1]
            gain = _lengths(column) - _lengths(one.nearest(column)) - _rest_bits(_left(distinct[c], one))
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
        none = Steps(np.array([multiple]), np.array([size >> 1]), np.array([exponent]))
        zero = _rest_bits(_left(u, none))
    one = Steps(np.array([multiple]), np.array([offset]), np.array([exponent]))
    found = _rest_bits(_left(u, one))
    # Mostly 0 became 0.
    return (size >> 1, zero) if exponent and zero <= found else (offset, found)


def _left(u: I64, one: Steps) -> I64:
    return u - one.values(one.nearest(u))
