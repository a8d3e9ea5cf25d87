"""The other coders of samples in plain Python, from edgecap/codec/FORMAT.md § 5.4 and 5.7 to 5.9 alone.

They share no code with the package: numpy only rounds to float32.
"""

from __future__ import annotations

import numpy as np

from tests.reference.adaptive_coder import signed, unfold


class Bits:
    """Bits from the lowest of the first byte up."""

    def __init__(self, data):
        self.value, self.at = int.from_bytes(data, "little"), 0

    def take(self, count):
        found = (self.value >> self.at) & ((1 << count) - 1)
        self.at += count
        return found


# § 5.4


def rice(data, rows, channels, width):
    bits = Bits(data)
    out = [[0] * channels for _ in range(rows)]
    for c in range(channels):
        head = bits.take(3)
        past = [signed(bits.take(width), width)]
        k = 31
        for j in range(1, rows):
            if head < 4 and (j - 1) % 64 == 0:
                k = bits.take(5)
            e = 0
            if head < 4 and k != 31:
                q = 0
                while not bits.take(1):
                    q += 1
                    assert q <= 24
                e = unfold(bits.take(width) if q == 24 else q * 2**k + bits.take(k))
            o = min(head & 3, j)
            p = [*past[::-1][:3], 0, 0, 0]
            guess = (0, p[0], 2 * p[0] - p[1], 3 * p[0] - 3 * p[1] + p[2])[o]
            past.append(signed(guess + e, width))
        for j in range(rows):
            out[j][c] = past[j]
    return out, (bits.at + 7) // 8


# § 5.7


class Steps:
    def __init__(self):
        self.values, self.counts = [], []
        self.flags = [[32, 32], [32, 32]]
        self.lengths = [4] * 36
        self.last, self.other = 0, False


def count(counts, entry):
    counts[entry] += 32
    if sum(counts) > 8192:
        counts[:] = [(c + 1) >> 1 for c in counts]


def recurring(tail, state, rows):
    state = state or Steps()
    out = []
    for _ in range(rows):
        flags = state.flags[state.other]
        another = tail.counted(flags)
        if another:
            w = tail.counted(state.lengths)
            count(state.lengths, w)
            u = w if w <= 1 else 2 ** (w - 1) + tail.plain(w - 1)
            common = state.values[state.counts.index(max(state.counts))] if state.values else 0
            step = unfold(u) + common - (state.last if state.other else 0)
            count(flags, 1)
            if len(state.values) < 16:
                state.values.append(step)
                state.counts.append(24)
            else:
                place = max(i for i in range(16) if state.counts[i] == min(state.counts))
                state.values[place], state.counts[place] = step, 24
        else:
            i = tail.counted(state.counts)
            step = state.values[i]
            count(flags, 0)
            count(state.counts, i)
        state.last, state.other = step, bool(another)
        out.append([step])
    return out, state


# § 5.8


class Rests:
    def __init__(self):
        self.places = {}
        self.same, self.near, self.up = (
            [[49152, 0], [63488, 0]],
            [[57344, 0], [57344, 0]],
            [[32768, 0], [32768, 0]],
        )
        self.bits = {}

    def known(self, c, k):
        held = self.places.get((c, k % 256))
        return held[1] if held and held[0] == k else None

    def expected(self, c, k):
        rest = self.known(c, k)
        if rest is not None:
            return rest
        for near in (k - 1, k + 1):
            rest = self.known(c, near)
            if rest is not None and abs(rest) > 1:
                return rest
        return 0


def answer(tail, chance):
    p, n = chance
    s = min(2 + n // 2, 5)
    if tail.slot() < p:
        tail.take(0, p, 0)
        chance[:] = p + (65536 - p >> s), n + 1
        return True
    tail.take(p, 65536 - p, 0)
    chance[:] = p - (p >> s), n + 1
    return False


def take_rests(tail, state, multiples, steps):
    coded = tail.slot() >= 61440
    tail.take(*((61440, 4096, 0) if coded else (0, 61440, 0)))
    out = []
    for row in multiples:
        found = []
        for c, (k, step) in enumerate(zip(row, steps, strict=True)):
            if step is None:
                found.append(0)
                continue
            rest, known = state.expected(c, k), state.known(c, k) is not None
            if coded:
                if not answer(tail, state.same[known]):
                    if answer(tail, state.near[known]):
                        rest += 1 if answer(tail, state.up[known]) else -1
                    else:
                        w = 1
                        for _ in range(6):
                            w = 2 * w + (not answer(tail, state.bits.setdefault(w, [32768, 0])))
                        w -= 64
                        rest += unfold(w if w <= 1 else 2 ** (w - 1) + tail.plain(w - 1))
                assert -(2**31) <= rest < 2**31
                state.places[c, k % 256] = k, rest
            found.append(rest)
        out.append(found)
    return out


def read_steps(b, lanes):
    steps, last = [], None
    for _ in range(lanes):
        v = b.varint()
        if 1 <= v < 26:
            last = b.varint(), v - 1
            v = b.varint()
            assert 1 <= last[0] < 2**31
            assert last != (1, 0)
            assert v >= 26
        steps.append((*last, v - 26 << last[1] - min(last[1], 3)) if v else None)
    return steps


# § 5.9


class Repeats:
    def __init__(self):
        self.chances, self.last = {}, 0


def take_repeats(tail, state, rows):
    others, run = [True], 1
    for _ in range(rows - 1):
        chance = state.chances.setdefault((min(run, 15), run == state.last), [32768, 0])
        others.append(answer(tail, chance))
        if others[-1]:
            state.last = run
        run = 1 if others[-1] else run + 1
    return others


def place(k, shift):
    """Where the float32 that are not below k · 2^-shift begin in their order."""
    if k <= -(2**30):
        return -(2**31)
    if k > 2**30:
        return 2**31
    exact = k * 2.0**-shift
    found = np.float32(exact)
    b = int(found.view("<i4"))
    return (b ^ 0x7FFFFFFF if b < 0 else b) + (float(found) < exact)


def fixed_point(tail, numbers, shifts):
    out = []
    for row in numbers:
        found = []
        for k, shift in zip(row, shifts, strict=True):
            first = place(k, shift)
            spare = max(place(k + 1, shift) - first - 1, 0)
            found.append(signed(first + tail.plain(spare.bit_length()), 32))
        out.append(found)
    return out


def number_of(tail, count):
    if count > 10000:
        low = tail.even(10000)
        return low + 10000 * number_of(tail, count // 10000)
    return tail.even(count) if count > 1 else 0


def decimal(tail, state, k, n, point):
    a, chance = (k, "zero") if k >= 0 else (-1 - k, "minus zero")
    sign = 1.0 if k >= 0 else -1.0
    if a > 0:
        j = max(n - len(str(a)), 0)
        m, f = a * 10**j + number_of(tail, 10**j), point + j
    elif answer(tail, state.setdefault(chance, [32768, 0])):
        return np.float32(sign * 0.0)
    else:
        z = 0
        while z < 14 and answer(tail, state.setdefault(z, [32768, 0])):
            z += 1
        m, f = 10 ** (n - 1) + number_of(tail, 9 * 10 ** (n - 1)), point + z + n
    exact = float(m) * 10.0 ** max(-f, 0) / 10.0 ** min(max(f, 0), 22) / 10.0 ** max(f - 22, 0)
    return np.float32(sign * exact)


def read_digits(b, lanes):
    found = [(v % 8, v // 8 - 8) for v in b.take(lanes)]
    assert all(n for n, _ in found)
    return found


def read_places(b, lanes, size):
    places = []
    for _ in range(lanes):
        count, found = b.varint(), []
        assert count <= 64
        for i in range(count):
            if i == 0:
                found.append(int.from_bytes(b.take(size), "little", signed=True))
            else:
                found.append(found[-1] + 1 + b.varint())
        assert not found or found[-1] < 1 << 8 * size - 1
        places.append(found)
    return places
