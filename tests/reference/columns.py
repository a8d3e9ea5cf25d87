"""A plain-Python decoder of samples payloads, written from edgecap/codec/FORMAT.md § 5 alone.

It shares no code with the package: numpy only holds what was decoded.
"""

from __future__ import annotations

import functools
import math
import struct
import zlib

import numpy as np

TYPES = ("<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", "|i1", "|u1", "<f8", "|b1")
NAMES = ("", "tick", "values", "frame_n", "arrival_ns", "index")
MIX = [256] * 5 + [255] * 4 + [254, 254, 253, 252, 250, 248, 245, 241, 235, 228, 218, 205, 189, 171, 150]
MIX += [128, 106, 85, 67, 51, 38, 28, 21, 15, 11, 8, 6, 4, 3, 2, 2, 1, 1, 1, 1] + [0] * 5
PRESETS = (
    (0, 0, 0),
    (32768, 0, 0),
    (65536, 0, 0),
    (-32768, 0, 0),
    (-49152, -32768, -16384),
    (98304, -49152, 0),
    (131072, -65536, 0),
    (-39322, -19661, -6554),
)


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert self.at + count <= len(self.data), "payload too short"
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        value = shift = 0
        while True:
            b = self.byte()
            value |= (b & 127) << shift
            shift += 7
            if b < 128:
                return value


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
        self.data = data
        self.flat = Bits(data[::-1])
        self.code = int.from_bytes((data + bytes(6))[:6], "big")
        self.span = 1 << 48
        self.read = 6

    def slot(self):
        return min(self.code // (self.span >> 16), 65535)

    def take(self, start, size):
        r = self.span >> 16
        self.code -= r * start
        self.span = r * size
        if self.span < 1 << 32:
            pair = (self.data[self.read : self.read + 2] + bytes(2))[:2]
            self.code = (self.code << 16) + int.from_bytes(pair, "big")
            self.span <<= 16
            self.read += 2

    def symbol(self, sizes):
        slot, start = self.slot(), 0
        for s, size in enumerate(sizes):
            if slot < start + size:
                self.take(start, size)
                return s
            start += size
        raise AssertionError("parts do not add up")

    def counted(self, counts):
        total, before, sizes = sum(counts), 0, []
        for count in counts:
            sizes.append((before + count) * 65536 // total - before * 65536 // total)
            before += count
        return self.symbol(sizes)

    def finish(self):
        ranged = len(self.data) - (self.flat.at + 7) // 8
        assert 0 <= ranged - (self.read - 6) <= 6, "tail has a wrong length"


# § 5.6


@functools.cache
def table(shape, number):
    w, s = ((2, 161704), (3, 363833), (5, 773777), (10, 1802249))[shape]
    h = number % 36 - 24 if number < 108 else number - 100
    f = h // 2
    root = 92682 if h % 2 else 65536
    c0 = (((root * 77936) >> 16) * s) >> 16
    big = c0 << (f + 4) if f + 4 >= 0 else c0 >> -(f + 4)
    mass = []
    for y in range(-127, 128):
        total = 0
        for o in (-7, -5, -3, -1, 1, 3, 5, 7):
            z = 16 * y + o + (8 if number >= 108 else -4 * (number // 36))
            ratio = (big << 24) // (big + (z * z << 12))
            weight = ratio
            for _ in range(w - 1):
                weight = weight * ratio >> 24
            total += weight
        mass.append(total)
    sizes = [
        max(m * 65000 // sum(mass), 64 >> min(2 * abs(y), 16) if number < 108 else 1)
        for y, m in zip(range(-127, 128), mass, strict=True)
    ]
    sizes[127] += 65520 - sum(sizes)
    return [*sizes, 16]


def e8(v):
    return 8 * (v.bit_length() - 1) + ((v * 8 >> (v.bit_length() - 1)) & 7)


class Equations:
    def __init__(self, order, forget):
        self.order, self.forget = order, forget
        self.weights = [0] * order
        self.squares = [[0] * order for _ in range(order)]
        self.side = [0] * order

    def learn(self, rows, targets, weigh):
        n, order = len(rows), self.order
        for i in range(order):
            p = self.side[i]
            self.side[i] = (
                p
                + weigh(sum(r[i] * u for r, u in zip(rows, targets, strict=True)))
                - ((p * n) >> self.forget)
            )
            for j in range(order):
                q = self.squares[i][j]
                self.squares[i][j] = q + weigh(sum(r[i] * r[j] for r in rows)) - ((q * n) >> self.forget)
        largest = max(self.squares[i][i] for i in range(order))
        while largest > 1 << 38:
            largest >>= 1
            self.side = [v >> 1 for v in self.side]
            self.squares = [[v >> 1 for v in row] for row in self.squares]
        for i in reversed(range(order)):
            gap = (self.side[i] << 16) - sum(
                q * w for q, w in zip(self.squares[i], self.weights, strict=True)
            )
            w = self.weights[i] + gap // (self.squares[i][i] + 4096)
            self.weights[i] = clamp(w, -(1 << 19), 1 << 19)


class Channel:
    def __init__(self, first, octave, preset):
        self.past = [0] * 17  # oldest first
        self.last = first
        self.long, self.short = Equations(20, 8), Equations(3, 6)
        for k in range(3):
            self.long.weights[15 - k] = PRESETS[preset][k]
            self.short.weights[k] = PRESETS[preset][k]
        self.el = self.es = 0
        self.f = self.g = 1 << octave
        self.shape, self.speed = 1, 2


def adaptive_channel(tail, state, rows, width, shift, v, z):
    """Decode one channel; v, z and the result are lists of 17 past and all new differences u."""
    if tail.slot() < 61440:
        tail.take(0, 61440)
    else:
        tail.take(61440, 4096)
        both = tail.flat.take(4)
        state.shape, state.speed = both >> 2, both & 3
    top = (1 << (width - 1)) - 1
    u = [clamp(d >> shift, -(1 << 20), 1 << 20) for d in state.past]
    values, block, error = [], [], 0
    for t in range(17, 17 + rows):
        row = [*u[t - 16 : t], v[t - 1], v[t], z[t - 1], z[t]]
        near = [u[t - 1], u[t - 2], u[t - 3]]
        far = (sum(a * b for a, b in zip(row, state.long.weights, strict=True)) << shift) >> 8
        m = (sum(a * b for a, b in zip(near, state.short.weights, strict=True)) << shift) >> 8
        lead = clamp(e8(state.el + 16) - e8(state.es + 16), -24, 24)
        y = m + (((far - m) * MIX[lead + 24]) >> 8)
        g = state.f + state.g + 1
        i = 4 * (g.bit_length() - 1) + ((4 * g >> (g.bit_length() - 1)) & 3)
        j = (((y + 128) & 255) - 96) >> 6
        number, k = (max(i - 4, 0) + 36 * abs(j), 0) if i < 40 else (108 + (i & 3), ((i - 40) >> 2) + 1)
        s = tail.symbol(table(state.shape, number))
        other = s == 255
        e = tail.flat.take(width + 1) - (1 << width) if other else ((s - 127) << k) + tail.flat.take(k)
        if i < 40 and j < 0:
            e = -e
        x = clamp(state.last + ((y + 128) >> 8), -top - 1, top) + e
        assert -top - 1 <= x <= top
        d = x - state.last
        state.past = [*state.past[1:], d]
        state.last = x
        values.append(x)
        u.append(clamp(d >> shift, -(1 << 20), 1 << 20))
        state.el += (abs((d << 8) - far) - state.el) >> 4
        state.es += (abs((d << 8) - m) - state.es) >> 4
        state.f += (64 * abs(e) - state.f) >> (state.speed + 1)
        state.g += (64 * abs(e) - state.g) >> (state.speed + 3)
        block.append((row, near, u[t]))
        error += min(abs(e) >> shift, 1 << 19)
        if len(block) == 16 or t == 16 + rows:
            a = 16 * error // len(block) + 5
            b = (a * a).bit_length()
            c = (1 << (b + 14)) // (a * a)

            def weigh(total, b=b, c=c):
                return (total * c) >> (b - 2)

            targets = [target for _, _, target in block]
            state.long.learn([r for r, _, _ in block], targets, weigh)
            state.short.learn([r for _, r, _ in block], targets, weigh)
            block, error = [], 0
    return values, u


def adaptive(tail, states, rows, channels, width, shift):
    first = None
    if states is None:
        if rows == 0:
            return [], [Channel(0, 0, 0) for _ in range(channels)]
        states, first = [], []
        for _ in range(channels):
            short = 5 if width == 16 else 6
            length = tail.flat.take(short)
            assert length <= width
            sample = unfold(length if length <= 1 else 2 ** (length - 1) + tail.flat.take(length - 1))
            octave = tail.flat.take(short)
            assert octave <= width + 7
            states.append(Channel(sample, octave, tail.flat.take(3)))
            first.append(sample)
        rows -= 1
    v = z = [0] * (17 + rows)
    lanes = []
    for state in states:
        values, u = adaptive_channel(tail, state, rows, width, shift, v, z) if rows else ([], v)
        v, z = u, v
        lanes.append(values)
    out = [list(row) for row in zip(*lanes, strict=True)] if rows else []
    return ([first, *out] if first is not None else out), states


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
            u = w if w <= 1 else 2 ** (w - 1) + tail.flat.take(w - 1)
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


# § 5.1–5.3


def read_step(b):
    head = b.byte()
    divisor = (
        struct.unpack("<d", b.take(8))[0]
        if head & 15 == 15
        else (65536.0 if head & 15 == 7 else 10.0 ** (head & 15))
    )
    coarse = struct.unpack("<d", b.take(8))[0] if head & 16 else 1.0
    return divisor, coarse


def read_exceptions(b):
    found, at = [], -1
    for _ in range(b.varint()):
        at += 1 + b.varint()
        found.append((at, b.take(4)))
    return found


class ReferenceDecoder:
    def __init__(self):
        self.columns, self.memory, self.k, self.crc = [], {}, -1, 0

    def decode(self, payload):
        b = Bytes(payload)
        head = b.byte()
        assert head >> 4 == 1
        if head & 15 == 1:
            self.memory, self.k, columns = {}, 0, []
            for _ in range(b.varint()):
                kind = b.byte()
                name = NAMES[kind >> 5] or b.take(b.byte()).decode()
                rows = b.varint()
                columns.append((name, TYPES[kind >> 1 & 15], rows, b.varint() if kind & 1 else 0))
        else:
            assert b.byte() == self.k + 1
            assert b.byte() == self.crc & 0xFF
            self.k += 1
            columns = self.columns
            if not head & 2:
                columns = [(name, dtype, b.varint(), channels) for name, dtype, _, channels in columns]
        parts = [self.front(b, head & 15 != 1 and head & 4, *column) for column in columns]
        tail = Tail(payload[b.at :])
        memory, table_ = {}, {}
        for (name, dtype, rows, channels), part in zip(columns, parts, strict=True):
            shape = (rows, channels) if channels else (rows,)
            if isinstance(part, bytes):
                table_[name] = np.frombuffer(part, dtype).reshape(shape)
            else:
                table_[name] = self.finish(part, tail, name, dtype, rows, channels, memory).reshape(shape)
        if any(part.get("adaptive") for part in parts if isinstance(part, dict)):
            tail.finish()
        else:
            assert b.at == len(payload)
        self.columns, self.memory, self.crc = columns, memory, zlib.crc32(payload)
        return table_

    def front(self, b, continues, name, dtype, rows, channels):
        lanes = channels or 1
        if rows == 0:
            return b""
        head = self.memory[name]["head"] if continues else b.byte()
        transform, coder = head >> 4, head & 15
        if coder == 0:
            return b.take(rows * lanes * np.dtype(dtype).itemsize)
        continued = coder in (3, 5)
        before = self.memory[name] if continued else None
        part = {"transform": transform, "coder": coder, "before": before, "adaptive": coder > 1}
        if transform == 3:
            if continued:
                part["unit"], part["last"] = before["unit"], before["last"]
            else:
                unit = b.varint()
                part["unit"] = (unit, b.varint() if unit > 1 else 0)
                part["last"] = [int(v) for v in np.frombuffer(b.take(8 * lanes), "<i8")]
        if transform == 1:
            part["step"] = before["step"] if continued else read_step(b)
            part["exceptions"] = read_exceptions(b)
        width = 16 if np.dtype(dtype).itemsize == 2 else 32
        part["width"], part["rows"] = width, rows - (1 if transform == 3 and not continued else 0)
        if coder in (2, 3):
            part["shift"] = b.byte() if width == 32 else 0
        if coder == 1:
            part["lanes"], used = (
                rice(b.data[b.at :], part["rows"], lanes, width) if part["rows"] else ([], 0)
            )
            b.take(used)
        return part

    def finish(self, part, tail, name, dtype, rows, channels, memory):
        lanes, before = channels or 1, part["before"]
        states = before["states"] if before else None
        if part["coder"] in (4, 5):
            part["lanes"], states = recurring(tail, states, part["rows"])
        elif part["coder"] in (2, 3):
            part["lanes"], states = adaptive(tail, states, part["rows"], lanes, part["width"], part["shift"])
        values = self.samples(part, dtype, rows, lanes)
        if part["adaptive"]:
            memory[name] = {
                "head": part["transform"] << 4 | (5 if part["coder"] in (4, 5) else 3),
                "states": states,
                "step": part.get("step"),
                "unit": part.get("unit"),
                "last": part.get("last"),
            }
        return values

    def samples(self, part, dtype, rows, lanes):
        k, transform = part["lanes"], part["transform"]
        if transform == 0:
            half = 1 << (part["width"] - 1) if np.dtype(dtype).kind == "u" else 0
            return np.array([[v + half for v in row] for row in k], dtype)
        if transform == 1:
            divisor, coarse = part["step"]
            flat = []
            for row in k:
                for v in row:
                    fine = float(v) if coarse == 1 else math.floor(float(v) * coarse + 0.5)
                    flat.append(np.float32(float(fine) / divisor))
            out = np.array(flat, "<f4")
            for at, four in part["exceptions"]:
                out.view("<u4")[at] = int.from_bytes(four, "little")
            return out
        if transform == 2:
            flat = [v ^ 0x7FFFFFFF if v < 0 else v for row in k for v in row]
            return np.array(flat, "<i4").view("<f4")
        unit, rest = part["unit"]
        out = [] if len(k) == rows else [list(part["last"])]
        now = list(part["last"])
        for row in k:
            now = [signed(a + v * unit + rest, 64) for a, v in zip(now, row, strict=True)]
            out.append(now)
        part["last"] = now
        return np.array(out, "<i8").view(dtype)
