"""float32 that were read from text of a few significant digits."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec import digits, printed
from edgecap.codec.columns import decode_columns
from edgecap.errors import ChunkError
from tests.unit.test_columns_repeats import damaged, through

ODD = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -3e38, 9.99999e9, 1e-12], "<f4")


def as_text(values, number):
    """float32 nearest to what is printed with so many significant digits."""
    texts = [f"{v:.{number - 1}e}" for v in np.asarray(values, float).reshape(-1).tolist()]
    return np.array(texts, float).astype("<f4").reshape(np.shape(values))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.integers(1, 7),
    st.sampled_from(["smooth", "spread", "odd", "mixed", "repeated"]),
    st.lists(st.integers(1, 90), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from(["max", "stream"]),
)
def test_the_reference_decodes_the_same(seed, number, kind, rows, channels, level):
    rng = np.random.default_rng(seed)
    shape = (sum(rows), channels) if channels else (sum(rows),)
    x = np.cumsum(rng.normal(0, 1, shape), axis=0) * 10.0 ** rng.integers(-20, 12)
    if kind == "spread":
        x *= 10.0 ** rng.uniform(-4, 2, shape)
    x = as_text(x, number)
    if kind == "odd":
        x = np.where(rng.random(shape) < 0.05, rng.choice(ODD, shape), x)
    if kind == "mixed" and channels:
        x[:, 0] = rng.normal(0, 1, sum(rows))
    if kind == "repeated":
        x = np.repeat(x, 3, axis=0)[: len(x)]
    ends = np.cumsum(rows)
    payloads = through([x[end - n : end] for n, end in zip(rows, ends.tolist(), strict=True)], level, True)
    assert all(len(p) <= 4 * n * max(channels, 1) + 40 for p, n in zip(payloads, rows, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.integers(4, 7),
    st.sampled_from([1 / 2048, 1 / 16.4, 0.061, 3.3 / 4096, 9.80665 / 8192]),
    st.lists(st.integers(12, 300), min_size=1, max_size=3),
    st.integers(0, 2),
    st.sampled_from(["max", "stream"]),
)
def test_the_reference_decodes_what_a_sensor_counted_and_text_showed(
    seed, number, step, rows, channels, level
):
    rng = np.random.default_rng(seed)
    shape = (sum(rows), channels) if channels else (sum(rows),)
    counts = np.rint(np.cumsum(rng.normal(0, 9, shape), axis=0) + rng.normal(0, 3, shape))
    x = as_text(np.round(counts * step, 8), number)
    ends = np.cumsum(rows)
    through([x[end - n : end] for n, end in zip(rows, ends.tolist(), strict=True)], level, True)


@pytest.mark.parametrize(("step", "number"), [(1 / 2048, 7), (1 / 2048, 6), (1 / 16.4, 6), (0.061, 7)])
def test_counts_that_were_printed_cost_no_more_than_counts(step, number):
    rng = np.random.default_rng(12)
    counts = np.rint(np.cumsum(rng.normal(0, 9, (900, 2)), axis=0) + rng.normal(0, 6, (900, 2)))
    (payload,) = through([as_text(counts * step, number)])
    (wanted,) = through([counts.astype("<i4")])
    assert len(payload) < len(wanted) + 70


@pytest.mark.parametrize("number", [4, 5, 6, 7])
def test_text_costs_what_its_noise_does(number):
    rng = np.random.default_rng(number)
    t = np.arange(1500)
    x = as_text(np.sin(t / 40) + rng.normal(0, 40 * 10.0**-number, 1500), number)
    (payload,) = through([x])
    assert payload[3] >> 4 == 8
    # Noise of 400 of the largest samples' last digit has 10.7 bits; three in ten samples have a digit more.
    assert 8 * len(payload) / x.size < 12.2


def test_zeros_among_decimals_cost_little():
    rng = np.random.default_rng(8)
    x = as_text(np.where(np.arange(900) % 300 < 60, 10 ** rng.uniform(-3, 1, 900), 0), 6)
    (payload,) = through([x])
    assert payload[3] >> 4 == 8
    assert 8 * len(payload) < 180 * 26


def test_a_stream_goes_on_and_begins_afresh_where_it_must():
    rng = np.random.default_rng(9)
    walk = np.cumsum(rng.normal(0, 1, (500, 2)), axis=0)
    small, large = as_text(walk, 6), as_text(walk * 4e3, 6)
    blocks = [
        small[:100],
        small[100:200],
        large[:100],
        large[100:200],
        small[200:300],
        walk[:100].astype("<f4"),
    ]
    payloads = through(blocks, "stream", reference=True)
    assert len(payloads[1]) < 0.97 * len(payloads[0])
    assert len(payloads[2]) < 1.1 * len(payloads[0])


def test_the_samples_that_are_no_decimals_are_exceptions():
    x = as_text(np.linspace(-3, 30, 400), 5)
    x[[7, 100, 399]] = np.pi, np.nan, 1e-45
    found = digits.find(x.reshape(-1, 1), [(5, 5)])
    assert found is not None
    assert found[1].at.tolist() == [7, 100, 399]
    through([x], reference=True)
    x[::4] = np.linspace(-3, 30, 100)
    assert digits.find(x.reshape(-1, 1), [(5, 5)]) is None
    assert printed.shown(x.reshape(-1, 1)) is None


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (damaged(0x82, 8 * 8, 0), "without digits"),
        (damaged(0x82, 8 * 8 + 1, 5), "exceeds the limit"),
        (damaged(0x82, 8 * 8 + 1, 1, 4, 0, 0, 0, 0), "beyond the column"),
        (damaged(0x52, 0, 3, 128, 0), "number of decimal digits"),
        (damaged(0x52, 4, 23, 128, 0), "number of decimal digits"),
        (damaged(0x52, 16, 0), "impossible shift"),
        (damaged(0x81, 8 * 8 + 1, 0), "does not fit"),
        (damaged(0x83, 8 * 8 + 1, 0), "does not have"),
        (bytes([0x28, 2 << 5, 4, 0x82, 65, 0]), "does not fit"),
    ],
)
def test_impossible_fronts_are_refused(payload, message):
    with pytest.raises(ChunkError, match=message):
        decode_columns(payload)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([0x82, 0x86, 0x52]), st.integers(0, 255), st.binary(max_size=80))
def test_any_bytes_end(head, front, data):
    with contextlib.suppress(ChunkError):
        decode_columns(damaged(head, front, 0) + data)


def test_a_few_samples_beyond_the_lattice_do_not_end_it():
    rng = np.random.default_rng(14)
    motion = np.round(rng.normal(0, 0.01, (400, 2)), 6)
    (wanted,) = through([motion.astype("<f4")])
    motion[200:203] += 17  # of float32 above 16.8 the last decimal place is less than they show
    (payload,) = through([motion.astype("<f4")], reference=True)
    assert len(payload) < len(wanted) + 200
