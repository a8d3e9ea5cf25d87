"""A plain-Python decoder of samples payloads, written from edgecap/codec/FORMAT.md § 5 alone.

It shares no code with the package: numpy only holds what was decoded.
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np

from tests.reference.adaptive_coder import Tail, adaptive, signed
from tests.reference.column_coders import (
    Repeats,
    Rests,
    decimal,
    fixed_point,
    read_digits,
    read_places,
    read_steps,
    recurring,
    rice,
    take_repeats,
    take_rests,
)

TYPES = ("<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", "|i1", "|u1", "<f8", "|b1")
NAMES = ("", "tick", "values", "frame_n", "arrival_ns", "index")


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


def read_step(b):
    head = b.byte()
    divisor = (
        struct.unpack("<d", b.take(8))[0]
        if head & 15 == 15
        else (65536.0 if head & 15 == 7 else 10.0 ** (head & 15))
    )
    coarse = struct.unpack("<d", b.take(8))[0] if head & 16 else 1.0
    return divisor, coarse


def read_shift(b):
    first = b.byte()
    if first > 15:
        return None, first - 128
    places = b.byte()
    assert first > 0
    assert places <= 22
    return (first, places), b.byte() - 128


def printed(y, n, q):
    powers = [float(f"1e{d}") for d in range(-46, 60)]
    d = -46 + max(sum(power <= abs(y) for power in powers) - 1, 0)
    s = min(n - 1 - d, q)
    u, w = float(f"1e{max(s, 0)}"), float(f"1e{max(-s, 0)}")
    return math.copysign(float(round(abs(y) * u / w)) / u * w, y)


def read_exceptions(b, count):
    found, at = [], -1
    for _ in range(count):
        at += 1 + b.varint()
        found.append((at, b.take(4)))
    return found


def replaced(out, exceptions):
    for at, four in exceptions:
        assert at < out.size
        out.view("<u4")[at] = int.from_bytes(four, "little")
    return out


def read_shares(b, lanes):
    found = [None]
    for c in range(1, lanes):
        v = b.varint()
        assert v <= c
        found.append((v - 1, signed(b.byte(), 8)) if v else None)
    return found


def with_shares(rows, shares, width):
    out = []
    for row in rows:
        x = []
        for k, share in zip(row, shares, strict=True):
            x.append(signed(k + (share[1] * x[share[0]] + 8 >> 4), width) if share else k)
        out.append(x)
    return out


class ReferenceDecoder:
    def __init__(self):
        self.columns, self.memory, self.k, self.crc = [], {}, -1, 0

    def decode(self, payload):
        b = Bytes(payload)
        head = b.byte()
        k = head - 128
        if k > 0:
            head = 32 + 6
        alone = head >> 6 == 1
        if alone:
            kind, head = head & 31, 32 + 8 + (4 if head & 32 else 0)
        assert head >> 4 == 2
        fresh = head & 8
        if alone:
            rows = b.varint()
            self.memory, self.k = {}, 0
            columns = [("values", TYPES[kind >> 1], rows, b.varint() if kind & 1 else 0)]
        elif fresh or head & 15 == 1:
            self.memory, self.k, columns = {}, 0, []
            for _ in range((head & 3) + 1 if fresh else b.varint()):
                kind = b.byte()
                name = NAMES[kind >> 5] or b.take(b.byte()).decode()
                rows = b.varint()
                columns.append((name, TYPES[kind >> 1 & 15], rows, b.varint() if kind & 1 else 0))
        else:
            assert (k if k > 0 else b.byte()) == self.k + 1
            self.k += 1
            columns = self.columns
            if not head & 2:
                columns = [(name, dtype, b.varint(), channels) for name, dtype, _, channels in columns]
        left_out = None
        if head & 15 != 1 and head & 4:
            left_out = {
                name: 2 if fresh else self.memory[name]["head"] for name, _, rows, _ in columns if rows
            }
        parts = [self.front(b, left_out, *column) for column in columns]
        tail = Tail(payload[b.at :])
        memory, table_ = {}, {}
        for (name, dtype, rows, channels), part in zip(columns, parts, strict=True):
            shape = (rows, channels) if channels else (rows,)
            if isinstance(part, bytes):
                table_[name] = np.frombuffer(part, dtype).reshape(shape)
            else:
                table_[name] = self.finish(part, tail, name, dtype, rows, channels, memory).reshape(shape)
        if any(part.get("adaptive") for part in parts if isinstance(part, dict)):
            tail.finish(0 if fresh or head & 15 == 1 else self.crc & 0xFFFF)
        else:
            assert b.at == len(payload)
        self.columns, self.memory, self.crc = columns, memory, zlib.crc32(payload)
        return table_

    def front(self, b, left_out, name, dtype, rows, channels):
        lanes = channels or 1
        if rows == 0:
            return b""
        head = left_out[name] if left_out else b.byte()
        transform, coder = head >> 4, head & 15
        if head == 8:
            numbers = b.take(channels)
            assert set(numbers) == set(range(max(numbers) + 1))
            groups = [[c for c in range(channels) if numbers[c] == g] for g in range(max(numbers) + 1)]
            parts = [self.front(b, None, name, dtype, rows, len(group)) for group in groups]
            assert all(part["adaptive"] and "groups" not in part for part in parts)
            return {"groups": list(zip(groups, parts, strict=True)), "adaptive": True}
        if head == 9:
            found, whole = [], self.memory
            for group, memory in whole[name]["groups"]:
                self.memory = {name: memory}
                part = self.front(b, {name: memory["head"]}, name, dtype, rows, len(group))
                found.append((group, part))
            self.memory = whole
            return {"groups": found, "adaptive": True}
        if coder == 0:
            return b.take(rows * lanes * np.dtype(dtype).itemsize)
        continued = coder in (3, 5, 7)
        before = self.memory[name] if continued else None
        part = {"transform": transform, "coder": coder, "before": before, "adaptive": coder > 1}
        if transform == 3:
            if continued:
                part["unit"], part["last"] = before["unit"], before["last"]
            else:
                unit = b.varint()
                part["unit"] = (unit, b.varint() if unit > 1 else 0)
                part["last"] = [int(v) for v in np.frombuffer(b.take(8 * lanes), "<i8")]
        floats = np.dtype(dtype).kind == "f"
        if transform == 1 or (transform == 4 and floats):
            part["step"] = before["step"] if continued else read_step(b)
        if transform == 5:
            part["step"] = before["step"] if continued else read_shift(b)
            assert part["step"][1] >= -60
        if transform in (4, 5):
            part["steps"] = before["steps"] if continued else read_steps(b, lanes)
        if transform == 6:
            part["shifts"] = before["shifts"] if continued else [v - 128 for v in b.take(lanes)]
            assert min(part["shifts"]) >= -60
        if transform == 7:
            size = np.dtype(dtype).itemsize
            part["places"] = before["places"] if continued else read_places(b, lanes, size)
        if transform == 8:
            part["digits"] = before["digits"] if continued else read_digits(b, lanes)
        if transform == 9:
            part["shares"] = before["shares"] if continued else read_shares(b, lanes)
        if transform in (1, 8):
            part["exceptions"] = read_exceptions(b, b.varint())
        if transform == 4 and floats:
            both = b.varint()
            part["minus"], part["exceptions"] = both & 1, read_exceptions(b, both >> 1)
        width = 16 if np.dtype(dtype).itemsize == 2 else 32
        part["width"], part["rows"] = width, rows - (1 if transform == 3 and not continued else 0)
        if coder == 1:
            part["lanes"], used = (
                rice(b.data[b.at :], part["rows"], lanes, width) if part["rows"] else ([], 0)
            )
            b.take(used)
        return part

    def finish(self, part, tail, name, dtype, rows, channels, memory):
        if "groups" in part:
            values, known = np.empty((rows, channels), dtype), []
            for group, of in part["groups"]:
                values[:, group] = self.finish(of, tail, name, dtype, rows, len(group), memory).reshape(
                    rows, len(group)
                )
                known.append((group, memory[name]))
            memory[name] = {"head": 9, "groups": known}
            return values
        lanes, before = channels or 1, part["before"]
        states = before["states"] if before else None
        others = None
        if part["coder"] in (6, 7):
            part["repeats"] = before["repeats"] if before else Repeats()
            others = take_repeats(tail, part["repeats"], rows)
            rows = part["rows"] = sum(others)
        if part["coder"] in (4, 5):
            part["lanes"], states = recurring(tail, states, part["rows"])
        elif part["coder"] in (2, 3, 6, 7):
            part["lanes"], states = adaptive(tail, states, part["rows"], lanes, part["width"])
        if part["transform"] in (4, 5):
            part["left"] = before["left"] if before else Rests()
            part["rests"] = take_rests(tail, part["left"], part["lanes"], part["steps"])
        if part["transform"] == 4:
            part["lanes"] = [
                [
                    k if step is None else signed((k * step[0] + step[2] >> step[1]) + rest, part["width"])
                    for k, rest, step in zip(*both, part["steps"], strict=True)
                ]
                for both in zip(part["lanes"], part["rests"], strict=True)
            ]
        if part["transform"] == 8:
            part["left"] = before["left"] if before else {}
            part["numbers"] = [
                [decimal(tail, part["left"], k, *of) for k, of in zip(row, part["digits"], strict=True)]
                for row in part["lanes"]
            ]
        if part["transform"] == 6:
            part["order"] = fixed_point(tail, part["lanes"], part["shifts"])
        values = self.samples(part, dtype, rows, lanes)
        if others:
            values = values.reshape(rows, lanes)[np.cumsum(others) - 1]
        if part["adaptive"]:
            memory[name] = {
                "head": part["transform"] << 4 | part["coder"] | 1,
                "states": states,
                "step": part.get("step"),
                "unit": part.get("unit"),
                "steps": part.get("steps"),
                "left": part.get("left"),
                "last": part.get("last"),
                "shifts": part.get("shifts"),
                "digits": part.get("digits"),
                "places": part.get("places"),
                "shares": part.get("shares"),
                "repeats": part.get("repeats"),
            }
        return values

    def samples(self, part, dtype, rows, lanes):
        k, transform = part["lanes"], part["transform"]
        if transform == 7:
            k = [[p[v] if p else v for v, p in zip(row, part["places"], strict=True)] for row in k]
            assert all(v >= 0 for row in part["lanes"] for v, p in zip(row, part["places"], strict=True) if p)
            transform = 2 if np.dtype(dtype).kind == "f" else 0
        if transform == 6:
            k, transform = part["order"], 2
        if transform == 9:
            k, transform = with_shares(k, part["shares"], part["width"]), 0
        if transform == 0 or (transform == 4 and np.dtype(dtype).kind != "f"):
            half = 1 << (part["width"] - 1) if np.dtype(dtype).kind == "u" else 0
            return np.array([[v + half for v in row] for row in k], dtype)
        if transform == 8:
            out = np.array(part["numbers"], "<f4").reshape(-1)
            return replaced(out, part["exceptions"])
        if transform in (1, 4):
            divisor, coarse = part["step"]
            flat = []
            for row in k:
                for v in row:
                    fine = float(v) if coarse == 1 else math.floor(float(v) * coarse + 0.5)
                    flat.append(np.float32(-0.0 if v == 0 and part.get("minus") else float(fine) / divisor))
            return replaced(np.array(flat, "<f4"), part["exceptions"])
        if transform == 5:
            flat = []
            for both in zip(k, part["rests"], strict=True):
                for v, rest, step in zip(*both, part["steps"], strict=True):
                    order = v
                    if step is not None:
                        m, e, a = step
                        text, shift = part["step"]
                        y = float(v * m + a - (1 << e >> 1)) * 2.0 ** -(e + shift)
                        y = printed(y, *text) if text else y
                        with np.errstate(over="ignore"):
                            b = int(np.float32(y).view("<i4"))
                        order = (b ^ 0x7FFFFFFF if b < 0 else b) + rest
                    order = signed(order, 32)
                    flat.append(order ^ 0x7FFFFFFF if order < 0 else order)
            return np.array(flat, "<i4").view("<f4")
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
