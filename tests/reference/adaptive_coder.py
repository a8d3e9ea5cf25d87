"""The adaptive coder in plain Python, written from edgecap/codec/FORMAT.md § 5.5 and 5.6 alone.

It shares no code with the package: numpy only rounds to float32.
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


def signed(value, width):
    value &= (1 << width) - 1
    return value - (1 << width) if value >> (width - 1) else value


def unfold(u):
    return u // 2 if u % 2 == 0 else -(u + 1) // 2


def clamp(value, low, high):
    return min(max(value, low), high)


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
