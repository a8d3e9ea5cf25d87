"""Repeated rows, float32 as fixed-point numbers, channels of few distinct samples, and groups of channels."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec.columns import ColumnDecoder, ColumnEncoder, decode_columns
from edgecap.errors import ChunkError
from tests.reference.columns import ReferenceDecoder

RNG = np.random.default_rng(3)
NOISE = np.rint(np.cumsum(RNG.normal(0, 9, (600, 3)), axis=0) + RNG.normal(0, 20, (600, 3))).astype("<i2")


def through(blocks, level="stream", reference=False, key_interval=4):
    """Encode, decode and compare; returns the payloads."""
    encoder, decoder = ColumnEncoder(level, key_interval), ColumnDecoder()
    slow = ReferenceDecoder()
    payloads = []
    for block in blocks:
        payloads.append(encoder.encode({"values": block}))
        found = decoder.decode(payloads[-1])["values"]
        assert found.shape == block.shape
        assert found.tobytes() == block.tobytes()
        if reference:
            assert slow.decode(payloads[-1])["values"].tobytes() == block.tobytes()
    return payloads


@pytest.mark.parametrize("dtype", ["<i2", "<u2", "<i4", "<f4"])
def test_a_sensor_that_is_polled_too_often_costs_little_more(dtype):
    once = NOISE.astype("<i4")[:200].astype(dtype)
    wanted = len(through([once])[0])
    assert len(through([np.repeat(once, 4, axis=0)])[0]) < wanted + 16
    uneven = np.repeat(once, RNG.integers(2, 4, 200), axis=0)
    assert len(through([uneven])[0]) < wanted + 45


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.sampled_from(["<i2", "<u2", "<i4", "<u4", "<f4"]),
    st.sampled_from(["repeats", "few", "both", "floats", "odd floats"]),
    st.lists(st.integers(1, 90), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from(["max", "stream"]),
)
def test_the_reference_decodes_the_same(seed, dtype, kind, rows, channels, level):
    rng = np.random.default_rng(seed)
    levels = rng.integers(-30000, 30000, 5)

    def block(n):
        shape = (n, channels) if channels else (n,)
        if "floats" in kind:
            x = (rng.normal(0, 1, shape) * 10.0 ** rng.integers(-9, 9)).astype("<f4")
            if kind == "odd floats":
                odd = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -3e38], "<f4")
                x = np.where(rng.random(shape) < 0.1, rng.choice(odd, shape), x)
            return x
        x = rng.choice(levels, shape) if kind in ("few", "both") else rng.integers(-300, 300, shape)
        if kind in ("repeats", "both"):
            x = np.repeat(x, rng.integers(1, 5, n), axis=0)[:n]
        return x.astype("<i4").astype(dtype)

    through([block(n) for n in rows], level, reference=True)


def test_signals_of_float32_that_pass_zero_need_no_more_than_their_noise():
    t = np.arange(1000)[:, None]
    x = (np.sin(t / [40, 55, 70]) + np.random.default_rng(4).normal(0, 1e-3, (1000, 3))).astype("<f4")
    (payload,) = through([x])
    # Noise of 2^14 times the last place of the largest has 16.1 bits; in the order of float32 it takes 21.
    assert payload[4] >> 4 == 6
    assert 8 * len(payload) / x.size < 17.5


def test_few_levels_cost_fractions_of_a_bit():
    rng = np.random.default_rng(5)
    pins = rng.choice([12, 3300], (2000, 2), p=[0.9, 0.1]).astype("<u2")
    (payload,) = through([pins])
    assert 8 * len(payload) / pins.size < 0.66  # 0.469 is their entropy, 12 bits their distance
    spikes = np.full(1000, -7, "<i2")
    spikes[[100, 500, 505]] = 300
    assert len(through([spikes])[0]) < 30


def test_a_stream_finds_repeats_and_levels_between_its_keys():
    quiet = np.full((100, 2), 5, "<i2")
    repeated = np.repeat(NOISE[100:200, :2], 3, axis=0)
    payloads = through([quiet, NOISE[:100, :2], repeated, repeated, quiet], reference=True)
    assert len(payloads[3]) < 1.35 * len(payloads[1])
    levels = [np.where(np.arange(100) % 7 < k, 3000, -3000).astype("<i2") for k in (0, 3, 4)]
    payloads = through(levels, reference=True)
    assert sum(map(len, payloads)) < 90


def test_what_was_learned_is_given_up_where_it_serves_no_more():
    """Single lost samples spoil what is learned of a signal for long, and short blocks feel them less."""
    rng = np.random.default_rng(8)
    t = np.arange(2400)[:, None]
    x = np.rint(3000 * np.sin(t / [100, 155, 170]) + 3000 + rng.normal(0, 3, (2400, 3)))
    blocks = np.split(np.where(rng.random(x.shape) < 0.02, 0, x).astype("<i2"), 8)
    alone = sum(len(p) for p in through(blocks, "max"))
    assert sum(len(p) for p in through(blocks, reference=True, key_interval=8)) <= alone


@pytest.mark.parametrize("dtype", ["<i2", "<f4"])
def test_channels_that_differ_in_kind_are_coded_apart(dtype):
    fast = NOISE[:, :2].astype(dtype)
    slow = np.repeat(NOISE[:60, 2:], 10, axis=0).astype(dtype)
    both = np.concatenate([slow, fast], axis=1)
    if dtype == "<f4":
        both[:, 1:] *= np.float32(np.pi / 32768)
        fast = fast * np.float32(np.pi / 32768)
    for level in ("max", "stream"):
        blocks = [both[i : i + 200] for i in range(0, 600, 200)]
        payloads = through(blocks, level, reference=True)
        assert payloads[0][4] == 8
        alone = [through([x[i : i + 200] for i in range(0, 600, 200)], level) for x in (slow, fast)]
        assert sum(map(len, payloads)) < sum(len(p) for other in alone for p in other) + 20


@pytest.mark.parametrize("level", ["max", "stream"])
def test_a_column_that_has_other_channels_next_is_grouped_anew(level):
    slow, fast = np.repeat(NOISE[:60, :1], 10, axis=0), NOISE[:, 1:2]
    through([np.hstack(parts) for parts in ([slow, fast], [slow, fast, fast], [fast, slow])], level)


def test_a_group_that_does_not_go_on_begins_afresh_with_the_others():
    rng = np.random.default_rng(6)
    a = np.column_stack([np.repeat(NOISE[:60, 0], 10) / 8, NOISE[:, 1] * np.float32(0.7)]).astype("<f4")
    b = a.copy()
    b[:, 0] = rng.normal(0, 1e5, 600)
    through([a[:200], a[200:400], b[:200], a[400:], b[200:]], reference=True)
    for few in (np.sign(b).astype("<f4"), np.repeat(b, 4, axis=0)[:600]):
        through([a[:200], few[:200], a[200:400], few[200:400], few[400:]], reference=True)


def damaged(*parts):
    """A key of one column `values` of four float32, of the given bytes."""
    return bytes([0x28, 2 << 5 | 6 << 1, 4, *parts])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (damaged(0x62, 128 - 61), "impossible shift"),
        (damaged(0x61, 128), "does not fit"),
        (damaged(0x78), "does not fit"),
        (damaged(0x72, 65), "exceeds the limit"),
        (damaged(0x72, 2, 0xFF, 0xFF, 0xFF, 0x7F, 0), "beyond their type"),
        (damaged(0x67, 128), "does not have"),
        (damaged(0x08), "does not fit"),
    ],
)
def test_impossible_fronts_are_refused(payload, message):
    with pytest.raises(ChunkError, match=message):
        decode_columns(payload)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([8, 0, 2], "group without channels"),
        ([8, 0, 0, 8, 0, 0], "groups within groups"),
        ([8, 0, 1, *([0] * 17)], "must be coded adaptively"),
        ([9], "does not have"),
        ([8, 0], "ends|too short"),
    ],
)
def test_impossible_groups_are_refused(parts, message):
    with pytest.raises(ChunkError, match=message):
        decode_columns(bytes([0x28, 2 << 5 | 1, 4, 2, *parts]))


def test_repeats_are_not_for_steps():
    with pytest.raises(ChunkError, match="does not fit"):
        decode_columns(bytes([0x28, 1 << 5 | 4 << 1, 4, 0x36, 1, *bytes(8)]))


def test_an_exception_must_lie_in_the_rows_that_are_there():
    x = np.repeat(np.linspace(-4, 4, 33), 3).astype("<f4")
    x[30:33] = 0.3
    (payload,) = through([x], "max")
    assert payload[2] & 15 == 6
    for place in range(2, 16):
        for value in range(0, 256, 5):
            with contextlib.suppress(ChunkError):
                decode_columns(payload[:place] + bytes([value]) + payload[place + 1 :])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([0x62, 0x66, 0x72, 0x76, 0x82, 0x86, 0x16, 0x46, 0x56, 0x26, 8]), st.binary(max_size=80)
)
def test_any_bytes_end(head, data):
    with contextlib.suppress(ChunkError):
        decode_columns(bytes([0x28, 2 << 5 | 6 << 1 | 1, 4, 2, head]) + data)
    with contextlib.suppress(ChunkError):
        decode_columns(damaged(head) + data)
