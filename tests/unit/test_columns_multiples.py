"""Recordings that were rescaled and rounded: the sensor's own steps are found, every sample comes back."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec import multiples, steps_search
from edgecap.codec.columns import ColumnDecoder, ColumnEncoder
from edgecap.codec.integers import LATTICE, MULTIPLES, ROUNDED
from edgecap.codec.layout import Reader, put_varint
from edgecap.codec.steps_search import Search
from edgecap.errors import ChunkError
from tests.reference.columns import ReferenceDecoder


def sizes(tables, level, reference=True):
    """Bytes of every payload; all come back from both decoders."""
    encoder = ColumnEncoder(level)
    decoders = [ColumnDecoder(), ReferenceDecoder()][: 1 + reference]
    found = []
    for table in tables:
        payload = encoder.encode(table)
        found.append(len(payload))
        for decoder in decoders:
            back = decoder.decode(payload)
            for name, array in table.items():
                assert back[name].dtype == array.dtype
                assert back[name].tobytes() == array.tobytes(), name
    return found


def motion(seed, rows, channels=3, noise=3.0):
    """What a sensor counts (n, c)."""
    rng = np.random.default_rng(seed)
    t = np.arange(rows)[:, None] / 100
    smooth = 40 * np.sin(2 * np.pi * t * rng.uniform(0.5, 2, channels) + rng.uniform(0, 6, channels))
    return np.rint(smooth + rng.normal(0, noise, (rows, channels)))


def rescaled(k, step, offset, dtype):
    return np.floor(k * step + offset + 0.5).astype("<i8").astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "step"),
    [("<i2", 9.175), ("<u2", 4.0), ("<i2", 2.2935), ("<i4", 1234.567), ("<u4", 16.0), ("<f4", 80.0625)],
)
def test_a_rescaled_recording_costs_what_the_sensor_counted(dtype, step):
    k = motion(1, 1200)
    offset = np.array([0.25, 0, 5.5]) + (33000 if dtype.startswith("<u") else 0)
    x = rescaled(k, step, offset, "<f8") / 65536 if dtype == "<f4" else rescaled(k, step, offset, dtype)
    x = x.astype(dtype)
    for level in ("max", "stream"):
        counted = sizes([{"values": part.astype("<i2")} for part in np.split(k, 12)], level, reference=False)
        found = sizes([{"values": part} for part in np.split(x, 12)], level, reference=level == "stream")
        assert sum(found) < sum(counted) + 12 * (20 if level == "max" else 4)


def test_channels_may_have_steps_of_their_own_or_none():
    rng = np.random.default_rng(3)
    k = motion(2, 400, 6)
    x = rescaled(k, np.array([9.175] * 3 + [31.0] * 2 + [1]), 0.3, "<i4")
    x[:, 5] = 77
    x = np.concatenate([x, np.rint(rng.normal(0, 40, (400, 1))).astype("<i4")], axis=1)
    found = Search().find(x, b"")
    assert found is not None
    steps = found.steps
    assert (steps.m / 2.0**steps.e).round(1).tolist() == [9.2] * 3 + [31.0] * 2 + [1.0] * 2
    assert multiples.read_steps(Reader(steps.packed()), 7).packed() == steps.packed()
    sizes([{"values": part} for part in np.split(x, 4)], "stream")


@pytest.mark.parametrize("dtype", ["<i2", "<i4"])
def test_ordinary_recordings_are_left_alone(dtype):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = np.cumsum(rng.normal(0, 10 ** rng.uniform(0, 3), (int(rng.integers(5, 300)), 3)), axis=0)
        assert Search().find(np.rint(x).clip(-32768, 32767).astype(dtype), b"") is None, seed


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["<i2", "<i4"]),
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(1, 1 << 28), st.integers(0, 24)), min_size=1, max_size=3),
    st.integers(0, 1 << 32),
)
def test_multiples_are_the_nearest_and_their_price_is_that_of_single_steps(dtype, rows, steps, seed):
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    reach = min(info.max, int(10 ** rng.uniform(1, 10)))
    x = rng.integers(-reach, reach, (rows, len(steps)), endpoint=True).astype(dtype)
    x[rng.random(x.shape) < 0.05] = info.min
    m, e = np.array([(m, e) if m > 1 << e else (1, 0) for m, e in steps]).T.copy()
    a = np.where(m == 1, 0, rng.integers(0, m))
    found = multiples.split(x, multiples.Steps(m, a, e))
    changes = multiples_changes = rest_bits = 0
    for c in range(len(steps)):
        held: dict[int, tuple[int, int]] = {}
        before = None
        for t in range(rows):
            sample, step, offset, exponent = int(x[t, c]), int(m[c]), int(a[c]), int(e[c])
            k, rest = int(found.k[t, c]), int(found.rests[t, c])
            assert ((k * step + offset) >> exponent) + rest == sample
            others = [((other * step + offset) >> exponent) - sample for other in (k - 1, k + 1)]
            assert abs(rest) <= min(map(abs, others))
            if before is not None:
                changes += abs(sample - before[0]).bit_length()
                multiples_changes += abs(k - before[1]).bit_length()
            before = sample, k
            if rest and held.get(k % 256) != (k, rest):
                held[k % 256] = k, rest
                rest_bits += 2 + 2 * abs(rest).bit_length()
    assert (found.plain_bits, found.multiple_bits, found.rest_bits) == (
        changes,
        multiples_changes,
        rest_bits,
    )
    for name in ("<i2", "<i4"):
        k = found.multiples(np.dtype(name))
        assert (k is None) == (not (np.abs(found.k.astype("i8") + 0.5) < np.iinfo(name).max + 1).all())


@pytest.mark.parametrize(("rows", "step"), [(4, 0), (8, 0), (4, 9.175), (8, 9.175), (16, 9.175)])
def test_small_tables_are_hardly_ever_looked_at(rows, step, monkeypatch):
    looked = []
    find = steps_search.find_steps
    monkeypatch.setattr(steps_search, "find_steps", lambda *a: looked.append(1) or find(*a))
    k = motion(4, 200 * rows, noise=3.0 if step else 90.0)
    x = rescaled(k, step, 0.3, "<i2") if step else k.astype("<i2")
    for level in ("max", "stream"):
        looked.clear()
        sizes([{"values": part} for part in np.split(x, 200)], level, reference=False)
        assert len(looked) <= 10


def test_float32_that_grow_and_shrink_are_looked_at_once_for_every_power_of_two(monkeypatch):
    looked = []
    find = steps_search.find_steps
    monkeypatch.setattr(steps_search, "find_steps", lambda *a: looked.append(1) or find(*a))
    k = motion(7, 6000, noise=8.0)
    loud = np.repeat(np.tile([1, 4, 1, 16], 15), 100)[:, None]
    x = k.astype("<f4") * loud.astype("<f4") * np.float32(0.061) / np.float32(1000) * np.float32(9.80665)
    sizes([{"values": part} for part in np.split(x, 60)], "max", reference=False)
    assert len(looked) <= 16


def test_a_column_may_get_other_channels():
    rng = np.random.default_rng(10)
    noise = rng.integers(-30000, 30000, (4, 300, 3))
    tables = [
        rescaled(motion(3, 400), 9.175, 0.2, "<i2"),
        *noise.astype("<i2"),
        noise[0, :, :2].astype("<i2"),
    ]
    for level in ("max", "stream"):
        sizes([{"values": table} for table in tables], level, reference=False)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.sampled_from(["<i2", "<u2", "<i4", "<u4", "<f4"]),
    st.floats(1.5, 900),
    st.floats(-300, 300),
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sampled_from(["whole", "breaks", "glitches", "saturates", "double", "edges"]),
    st.sampled_from(["max", "stream"]),
)
def test_any_step_comes_back(seed, dtype, step, offset, rows, channels, kind, level):
    rng = np.random.default_rng(seed)
    n = sum(rows)
    k = motion(seed, n, channels, noise=8.0)
    x = np.floor(k * step + offset + 0.5)
    info = np.iinfo(dtype if dtype != "<f4" else "<i4")
    match kind:
        case "breaks":
            x[n // 2 :] = np.floor(x[n // 2 :] / 3)
        case "glitches":
            x += np.where(rng.random(x.shape) < 0.05, rng.integers(-5000, 5000, x.shape), 0)
        case "saturates":
            x = x.clip(-20 * step, 17 * step + 1)
        case "double":
            x = np.rint(np.rint(x * 7.3) / 7.3 + rng.uniform(-0.6, 0.6))
        case "edges":
            x[rng.random(x.shape) < 0.1] = info.min
            x[rng.random(x.shape) < 0.1] = info.max
    if dtype == "<f4":
        x = (np.where(x == 0, -0.0, x) / 1000).astype("<f4")
        x[rng.random(x.shape) < 0.01] = np.nan
    else:
        x = x.astype("<i8").astype(dtype)
    cuts = np.cumsum(rows)[:-1]
    sizes([{"values": part} for part in np.split(x, cuts)], level)


@pytest.mark.parametrize("chain", ["products", "bias", "gains"])
def test_float32_arithmetic_is_seen_through(chain):
    f = np.float32
    k = motion(8, 1000).astype("<f4") * f(7)
    x = {
        "products": k * f(0.061) / f(1000) * f(9.80665),
        "bias": k * f(0.0012217) - f(0.01375),
        "gains": (k * f(0.0012217) - np.array([0.1, -0.02, 0.3], f)) * np.array([1.003, 0.998, 1.0007], f),
    }[chain]
    x[100, 1] = np.nan
    found = sizes([{"values": part} for part in np.split(x, 5)], "stream")
    k = (k / 7).astype("<i2")
    counted = sizes([{"values": part} for part in np.split(k, 5)], "stream", reference=False)
    assert sum(found) < 1.5 * sum(counted) + 200


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.sampled_from([1e-40, 1e-12, 0.01, 1.0, 1e9, 1e30]),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.01, 0.2]),
    st.sampled_from(["max", "stream"]),
)
def test_any_float32_near_multiples_comes_back(seed, scale, channels, odd, level):
    rng = np.random.default_rng(seed)
    f = np.float32
    with np.errstate(over="ignore"):
        x = motion(seed, 160, channels).astype("<f4") * f(scale) * f(1.2345678) - f(3 * scale)
        x *= rng.choice([1, 1, 4, 1000], (160, 1)).astype("<f4")
    bits = rng.integers(0, 1 << 32, x.shape, dtype="<u4")
    x = np.where(rng.random(x.shape) < odd, bits.view("<f4"), x)
    sizes([{"values": part} for part in np.split(x, [20, 80, 81])], level)


def test_a_step_that_ends_midway_costs_one_payload():
    k = motion(5, 600)
    x = rescaled(k, 9.175, 0.2, "<i2")
    x[300:] = k[300:]
    found = sizes([{"values": part} for part in np.split(x, 12)], "stream")
    as_counted = sizes([{"values": part.astype("<i2")} for part in np.split(k, 12)], "stream")
    assert sum(found) < sum(as_counted) + 120


def test_negative_zeros_cost_nothing():
    x = (-(motion(6, 400) + 0.0) * 5 / 65536).astype("<f4")
    assert np.signbit(x[x == 0]).any()
    with_sign = sizes([{"values": part} for part in np.split(x, 4)], "stream")
    without = sizes([{"values": part + np.float32(0)} for part in np.split(x, 4)], "stream")
    # The check of the payload before, which is another one, may take a byte more or less.
    assert all(abs(a - b) <= 1 for a, b in zip(with_sign, without, strict=True))


def hostile(steps, dtype=0, floats=b""):
    payload = bytearray(
        b"\x21\x01" + bytes([2 << 5 | dtype << 1 | 1]) + b"\x05\x02" + bytes([MULTIPLES << 4 | 2]) + floats
    )
    for number in steps:
        put_varint(payload, number)
    return bytes(payload) + bytes(range(40))


@pytest.mark.parametrize(
    "steps",
    [
        [26],  # no step was given
        [4, 0, 26, 26],
        [1, 1, 26, 26],
        [4, 1 << 31, 26, 26],
        [4, 9, 25],
        [4, 9, 0],
        [4, 9, 1 << 31, 26],
    ],
)
def test_impossible_steps_are_refused(steps):
    for payload in (hostile(steps), hostile(steps, dtype=6, floats=b"\x07")):
        with pytest.raises(ChunkError, match=r"impossible|exceeds"):
            ColumnDecoder().decode(payload)


def test_impossible_lattices_are_refused():
    for divisor in (np.nan, np.inf, 0.0, -1.0, 1e300):
        with pytest.raises(ChunkError, match="impossible lattice"):
            ColumnDecoder().decode(hostile([0, 0], dtype=6, floats=b"\x0f" + np.float64(divisor).tobytes()))
    for coarse in (np.nan, np.inf, 0.0, -2.0, 1e6):
        payload = bytearray(hostile([0, 0], dtype=6, floats=b"\x17" + np.float64(coarse).tobytes()))
        for transform in (LATTICE, MULTIPLES):
            payload[5] = transform << 4 | 2
            with pytest.raises(ChunkError, match="impossible lattice"):
                ColumnDecoder().decode(bytes(payload))


def test_impossible_shifts_are_refused():
    for shift in (16, 67):
        payload = bytearray(hostile([0, 0], dtype=6, floats=bytes([shift])))
        payload[5] = ROUNDED << 4 | 2
        with pytest.raises(ChunkError, match="impossible shift"):
            ColumnDecoder().decode(bytes(payload))


def test_multiples_need_the_adaptive_coder():
    payload = bytearray(hostile([4, 9, 26, 26]))
    for coder in (0, 1, 4, 5):
        payload[5] = MULTIPLES << 4 | coder
        with pytest.raises(ChunkError, match="does not fit"):
            ColumnDecoder().decode(bytes(payload))


def test_any_bytes_after_steps_end():
    rng = np.random.default_rng(9)
    for _ in range(300):
        steps = [int(rng.integers(1, 26)), *rng.integers(26, 1 << 31, 2).tolist(), int(rng.integers(26, 900))]
        dtype = int(rng.choice([0, 1, 2, 3, 6]))
        payload = hostile(steps, dtype, b"\x07" if dtype == 6 else b"")[:-40]
        if dtype == 6 and rng.random() < 0.5:
            payload = payload[:5] + bytes([ROUNDED << 4 | 2, int(rng.integers(68, 256))]) + payload[7:]
        payload += b"\x00" * (dtype == 6) + rng.bytes(int(rng.integers(60)))
        with contextlib.suppress(ChunkError):
            ColumnDecoder().decode(payload)
