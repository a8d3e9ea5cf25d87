"""The coders of integers in plain Python, written from edgecap/codec/FORMAT.md § 5.4 to 5.9 alone.

They share no code with the package: numpy only rounds to float32.
"""

from __future__ import annotations

import functools
import math

import numpy as np

F = np.float32
PRESETS = (
    (-1.125, 0.375, 0.25, -1.125),
    (-1, 0.125, 0, -1.25),
    (-1.125, -0.625, -0.125, 0.25),
    (-0.75, -0.5, -0.25, 0),
    (-0.625, -0.3125, -0.125, 0),
    (-0.5, 0, 0, -0.75),
    (-0.5, 0, 0, 0),
    (-0.125, 0.125, 0.125, 0.125),
    (0, 0, 0, 0),
    (0.5, 0, 0, 0),
    (0.875, -0.375, 0.25, 0),
    (1, 0, 0, 0),
    (1.125, 0, -0.25, 0),
    (0.875, 0.625, -0.5, 0),
    (1.5, -0.75, 0, 0),
    (2, -1, 0, 0),
)

BLOCKS = ((64, 8), (128, 16), (512, 32), (1024, 64), (math.inf, 96))


class Bits:
    """Bits from the lowest of the first byte up."""

    def __init__(self, data):
        self.value, self.at = int.from_bytes(data, "little"), 0

    def take(self, count):
        found = (self.value >> self.at) & ((1 << count) - 1)
        self.at += count
        return found


def signed(value, width):
    value &= (1 << width) - 1
    return value - (1 << width) if value >> (width - 1) else value


def unfold(u):
    return u // 2 if u % 2 == 0 else -(u + 1) // 2


def clamp(value, low, high):
    return min(max(value, low), high)


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


# § 5.5


class Tail:
    def __init__(self, data):
        self.length = len(data)
        size = len(data) if len(data) <= 8 else 5 + (len(data) - 5) % 4
        self.x = int.from_bytes(data[:size], "little")
        self.words = [int.from_bytes(data[i : i + 4], "little") for i in range(size, len(data), 4)]

    def slot(self):
        return self.x & 65535

    def take(self, start, size, k):
        x = size * (self.x >> 16) + (self.x & 65535) - start
        bits = x & ((1 << k) - 1)
        x >>= k
        if x < 1 << 32 and self.words:
            x = x << 32 | self.words.pop(0)
        self.x = x
        return bits

    def plain(self, count):
        found = done = 0
        while done < count:
            part = min(count - done, 16)
            found |= self.take(0, 65536, part) << done
            done += part
        return found

    def symbol(self, sizes):
        slot, start = self.slot(), 0
        for s, size in enumerate(sizes):
            if slot < start + size:
                return s, start, size
            start += size
        raise AssertionError("parts do not add up")

    def even(self, count):
        s, start, size = self.symbol([(v + 1) * 65536 // count - v * 65536 // count for v in range(count)])
        self.take(start, size, 0)
        return s

    def counted(self, counts):
        total, before, sizes = sum(counts), 0, []
        for count in counts:
            sizes.append((before + count) * 65536 // total - before * 65536 // total)
            before += count
        s, start, size = self.symbol(sizes)
        self.take(start, size, 0)
        return s

    def finish(self, check):
        assert self.length == 0 or (self.x == check and not self.words), "tail ends in the wrong place"


# § 5.6


@functools.cache
def table(shape, number):
    w, s = ((1.5, 95951), (5, 862867), (8, 1839188), (30, 7162579))[shape]
    h = number % 24 - 12 if number < 72 else number - 64
    f = h // 2
    root = 92682 if h % 2 else 65536
    c0 = (((root * 77936) >> 16) * s) >> 16
    big = c0 << (f + 4) if f + 4 >= 0 else c0 >> -(f + 4)
    mass = []
    for y in range(-127, 128):
        total = 0
        for o in (-7, -5, -3, -1, 1, 3, 5, 7):
            z = 16 * y + o + (8 if number >= 72 else -4 * (number // 24))
            ratio = (big << 24) // (big + (z * z << 12))
            weight = ratio
            if w == 1.5:
                weight = ratio * math.isqrt(ratio << 24) >> 24
            else:
                for _ in range(w - 1):
                    weight = weight * ratio >> 24
            total += weight
        mass.append(total)
    sizes = {
        y: max(m * 65000 // sum(mass), 64 >> min(2 * abs(y), 16) if number < 72 else 1)
        for y, m in zip(range(-127, 128), mass, strict=True)
    }
    sizes[0] += 65520 - sum(sizes.values())
    return [*(sizes[unfold(s)] for s in range(255)), 16]


class Channel:
    def __init__(self, first, octave, preset):
        self.u = np.zeros(15, F)  # oldest first
        self.v = np.zeros(1, F)  # the level at the sample before the first of `errors`, and since
        self.last = first
        self.w, self.p, self.q = np.zeros(17, F), np.zeros(17, F), np.zeros((17, 17), F)
        *self.w[1:4], self.w[16] = PRESETS[preset]
        for k in range(1, 17):
            if sum(PRESETS[preset][:3]) > 0:
                self.q[k, k] = 8 * k if k < 16 else 256
            else:
                self.q[k, k] = 16 * k if k < 16 else 16
            self.p[k] = self.q[k, k] * self.w[k]
        self.f = self.g = 1 << octave
        self.shape, self.speed = 1, 2
        self.age, self.errors = 0, []

    def expected(self):
        self.v = np.append(self.v, (self.v[-1] + self.u[-2]) * F(0.875))
        even, odd = self.w[14] * self.u[-14], self.w[15] * self.u[-15]
        for k in range(12, 0, -2):
            even = even + self.w[k] * self.u[-k]
        for k in range(13, 1, -2):
            odd = odd + self.w[k] * self.u[-k]
        return int((even + odd + self.w[16] * self.v[-1] + self.w[1] * self.u[-1]) * F(256))

    def learn(self):
        n, u, v, end = len(self.errors), self.u, self.v, len(self.u)
        begin = end - n
        error = F(sum(self.errors)) / F(n) + F(0.2)
        weight, keep = F(1) / (error * error), F(1) - F(n) / F(160)
        c, r, s = np.zeros(16, F), F(0), F(0)
        for t in range(begin, end):
            level = v[t - begin + 1]
            c += u[t] * u[t - 15 : t + 1][::-1]
            r += u[t] * level
            s += level * level
        self.p[1:] = self.p[1:] * keep + np.append(c[1:], r) * weight
        self.q[16, 16] = self.q[16, 16] * keep + s * weight
        second = np.zeros(16, F)
        for i in range(1, 16):
            for j in range(15, i - 1, -1):
                c[j] = c[j - 1] + u[begin - i] * u[begin - j] - u[end - i] * u[end - j]
            if i == 1:
                second[1] = c[2]
            if i == 2:
                second[2:] = c[2:]
            self.q[i, i:16] = self.q[i, i:16] * keep + c[i:] * weight
        for i in range(1, 16):
            r = (r + (u[begin - i] * v[0] - u[end - i] * v[-1] + second[i])) * F(0.875)
            self.q[i, 16] = self.q[i, 16] * keep + r * weight
        self.solve()
        self.age += n
        self.errors = []
        self.u, self.v = self.u[-15:], self.v[-1:]

    def solve(self):
        a = np.concatenate([self.q, self.p[:, None]], axis=1)
        for i in range(1, 17):
            a[i, i] = a[i, i] * F(1.0001220703125) + F(0.25)
        inverse = np.zeros(17, F)
        for k in range(1, 17):
            inverse[k] = F(1) / a[k, k]
            for i in range(k + 1, 17):
                a[i, i:] -= a[k, i] * inverse[k] * a[k, i:]
        for k in range(16, 0, -1):
            v = a[k, 17] * inverse[k]
            self.w[k] = v if abs(v) <= 8 else 0
            a[1:k, 17] -= a[1:k, k] * self.w[k]


def decode_sample(tail, state, width):
    top = (1 << (width - 1)) - 1
    y = state.expected()
    g = state.f + state.g + 16
    i = 4 * (g.bit_length() - 1) + ((4 * g >> (g.bit_length() - 1)) & 3)
    j = (((y + 128) & 255) - 96) >> 6
    number, k = (i - 16 + 24 * abs(j), 0) if i < 40 else (72 + (i & 3), ((i - 40) >> 2) + 1)
    s, start, size = tail.symbol(table(state.shape, number))
    k = width + 1 if s == 255 else k
    if s < 255 and k <= 16:
        bits = tail.take(start, size, k)
    else:
        tail.take(start, size, 0)
        bits = tail.plain(k)
    e = bits - (1 << width) if s == 255 else (unfold(s) << k) + bits
    if j < 0:
        e = -e
    x = clamp(state.last + ((y + 128) >> 8), -top - 1, top) + e
    assert -top - 1 <= x <= top
    state.u = np.append(state.u, F(x - state.last))
    state.errors.append(abs(e))
    state.last = x
    state.f += (64 * abs(e) - state.f) >> (state.speed + 1)
    state.g += (64 * abs(e) - state.g) >> (state.speed + 3 if state.speed else 2)
    if len(state.errors) == next(block for young, block in BLOCKS if state.age < young):
        state.learn()
    return x


def adaptive(tail, states, rows, channels, width):
    out = [[0] * channels for _ in range(rows)]
    known = 0
    if states is None:
        if rows == 0:
            return out, [Channel(0, 0, 8) for _ in range(channels)]
        states, known, octave, preset = [], 1, 0, 0
        for c in range(channels):
            length = tail.even(width + 1)
            sample = unfold(length if length <= 1 else 2 ** (length - 1) + tail.plain(length - 1))
            near = 7
            if c > 0:
                near, start, size = tail.symbol((22528, 12288, 12288, 5120, 5120, 3072, 3072, 2048))
                tail.take(start, size, 0)
            octave = tail.even(width + 8) if near == 7 else octave + unfold(near)
            near = 7
            if c > 0:
                near, start, size = tail.symbol((24576, 8192, 8192, 5120, 5120, 2560, 2560, 9216))
                tail.take(start, size, 0)
            preset = tail.plain(4) ^ 8 if near == 7 else preset + unfold(near)
            assert 0 <= octave <= width + 7
            assert 0 <= preset <= 15
            states.append(Channel(sample, octave, preset))
            out[0][c] = sample
    for first in range(0, channels if rows > known else 0, 8):
        group = states[first : first + 8]
        for before, state in zip([None, *group], group, strict=False):
            if known and before:
                state.shape, state.speed = before.shape, before.speed
            if tail.slot() < 61440:
                tail.take(0, 61440, 0)
            else:
                both = tail.take(61440, 4096, 4)
                state.shape, state.speed = both & 3, both >> 2
        with np.errstate(all="ignore"):
            for t in range(known, rows):
                for c, state in enumerate(group, first):
                    out[t][c] = decode_sample(tail, state, width)
        for state in group:
            if state.errors:
                state.learn()
    return out, states


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
