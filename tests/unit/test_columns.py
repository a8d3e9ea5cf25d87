"""The column codec gives back exactly what it was given, for every type, shape and level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecap.codec.columns import LEVELS, ColumnDecoder, ColumnEncoder, decode_columns, max_encoded_bytes
from edgecap.errors import ChunkError, NeedsChunk

DTYPES = ("<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4")


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def arrays(dtype):
    shape = st.one_of(st.tuples(st.integers(0, 200)), st.tuples(st.integers(0, 150), st.integers(1, 5)))
    raw = shape.flatmap(
        lambda s: st.binary(min_size=0, max_size=64).map(
            lambda seed: np.frombuffer(
                np.random.default_rng(list(seed)).bytes(int(np.prod(s)) * np.dtype(dtype).itemsize), dtype
            ).reshape(s)
        )
    )
    return st.one_of(hnp.arrays(dtype, shape), raw, shape.flatmap(lambda s: walks(dtype, s)))


def walks(dtype, shape):
    def walk(seed, spread):
        steps = np.random.default_rng(seed).normal(0, spread, shape)
        return np.rint(np.cumsum(steps, axis=0)).astype("<i8").astype(dtype)

    return st.builds(walk, st.integers(0, 1 << 32), st.sampled_from([0.0, 0.3, 20.0, 3000.0]))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(DTYPES).flatmap(lambda d: st.lists(arrays(d), min_size=1, max_size=4)),
    st.sampled_from(LEVELS),
)
def test_every_table_comes_back_bit_for_bit(tables, level):
    encoder, decoder = ColumnEncoder(level), ColumnDecoder()
    for array in tables:
        payload = encoder.encode({"values": array})
        assert len(payload) <= max_encoded_bytes({"values": array})
        assert same(decoder.decode(payload)["values"], array)


@pytest.mark.parametrize("level", LEVELS)
def test_a_table_of_all_columns_comes_back(level):
    rng = np.random.default_rng(1)
    encoder, decoder = ColumnEncoder(level), ColumnDecoder()
    for n in (250, 250, 251, 0, 250):
        table = {
            "tick": np.cumsum(rng.integers(990, 1010, n)).astype("<i8"),
            "values": np.cumsum(rng.integers(-9, 9, (n, 6)), axis=0).astype("<i2"),
            "frame_n": np.full(n // 10, 10, "<i4"),
            "arrival_ns": np.cumsum(rng.integers(9e6, 11e6, n // 10)).astype("<i8"),
            "index": np.array([n], "<i8"),
            "another": rng.normal(0, 1, n).astype("<f4"),
        }
        found = decoder.decode(encoder.encode(table))
        assert list(found) == list(table)
        assert all(same(found[name], table[name]) for name in table)


def test_a_chunk_that_continues_another_says_which_it_needs():
    encoder = ColumnEncoder("stream", key_interval=4)
    tables = [{"values": np.arange(i, 90 + i, dtype="<i2").reshape(30, 3)} for i in range(6)]
    payloads = [encoder.encode(t) for t in tables]
    decoder = ColumnDecoder()
    with pytest.raises(NeedsChunk, match="the 2 chunks before") as error:
        decoder.decode(payloads[2])
    assert error.value.evidence == {"back": 2}
    decoder.decode(payloads[0])
    with pytest.raises(NeedsChunk):
        decoder.decode(payloads[2])
    for i in (1, 2, 3, 4, 5):
        assert same(decoder.decode(payloads[i])["values"], tables[i]["values"])
    assert same(decode_columns(payloads[4])["values"], tables[4]["values"])
    with pytest.raises(NeedsChunk):
        decode_columns(payloads[5])


def test_the_level_may_change_between_tables():
    encoder, decoder = ColumnEncoder(), ColumnDecoder()
    rng = np.random.default_rng(2)
    for level in ("stream", "stream", "fast", "stream", "max", "stream", "stream"):
        encoder.level = level
        table = rng.normal(0, 100, (100, 3)).astype("<i2")
        assert same(decoder.decode(encoder.encode({"values": table}))["values"], table)


def test_key_payloads_of_changing_layouts_come_back():
    decoder = ColumnDecoder()
    a, b = np.arange(12, dtype="<i2"), np.arange(300, dtype="<i2").reshape(100, 3)
    tables = [
        {"a": a},
        {"a": a},
        {"a": a[:3]},
        {"a": a, "b": b},
        {"a": a},
        {"values": b},
        {"values": b + 1},
        {},
    ]
    for table in [*tables, *reversed(tables)]:
        found = decoder.decode(ColumnEncoder("fast").encode(table))
        assert list(found) == list(table)
        assert all(same(found[name], table[name]) for name in table)


def test_float_bits_are_kept():
    odd = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 3.14, -2.5], "<f4")
    odd = np.append(odd, np.array([0x7FC00001, 0xFF800001, 0x7F800001, 0x80000001], "<u4").view("<f4"))
    decimals = np.round(np.random.default_rng(3).normal(0, 3, 400), 2).astype("<f4")
    decimals[100:112] = odd
    for level in LEVELS:
        for array in (odd, decimals):
            assert same(decode_columns(ColumnEncoder(level).encode({"values": array}))["values"], array)


def test_constant_channels_are_nearly_free():
    table = np.tile(np.array([[5, -3000, 0, 32767, -32768, 1]], "<i2"), (1000, 1))
    for level in LEVELS:
        assert len(ColumnEncoder(level).encode({"values": table})) <= 40


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"values": np.zeros((2, 2, 2), "<i2")}, "dimensions"),
        ({"values": np.zeros(3, complex)}, "cannot be encoded"),
        ({"values": np.zeros(3, object)}, "cannot be encoded"),
        ({"": np.zeros(3, "<i2")}, "name"),
        ({"values": np.zeros((3, 0), "<i2")}, "channels"),
        ({"values": np.zeros((1 << 22) + 1, "<i2")}, "limit"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(columns, message):
    encoder = ColumnEncoder()
    with pytest.raises(ChunkError, match=message):
        encoder.encode(columns)


def test_unknown_levels_are_refused():
    with pytest.raises(ChunkError, match="level"):
        ColumnEncoder("best")


def test_jitter_of_whole_microseconds_costs_its_entropy():
    """Frame times in ns whose steps recur by chance alone are predicted, not looked up."""
    rng = np.random.default_rng(5)
    ticks = np.arange(2000) * 50_000_000 + 1000 * np.rint(rng.normal(0, 10, 2000)).astype("<i8")
    encoder, decoder = ColumnEncoder("stream"), ColumnDecoder()
    size = 0
    for part in np.split(ticks, 8):
        payload = encoder.encode({"tick": part})
        size += len(payload)
        assert decoder.decode(payload)["tick"].tolist() == part.tolist()
    entropy_bytes = np.log2(10 * np.sqrt(2 * np.pi * np.e)) / 8
    assert entropy_bytes < size / ticks.size < 1.15 * entropy_bytes
