"""Channels that have a part in common with an earlier one are coded without it."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec import beside
from edgecap.codec.columns import ColumnDecoder, ColumnEncoder, decode_columns
from edgecap.codec.layout import Reader
from edgecap.errors import ChunkError
from tests.reference.columns import ReferenceDecoder


def sizes(blocks, level="stream"):
    """Bytes of payloads that decoder and reference read."""
    encoder, decoder, slow = ColumnEncoder(level), ColumnDecoder(), ReferenceDecoder()
    found = []
    for block in blocks:
        payload = encoder.encode({"values": block})
        for back in (decoder.decode(payload)["values"], slow.decode(payload)["values"]):
            assert back.dtype == block.dtype
            assert back.tobytes() == block.tobytes()
        found.append(len(payload))
    return found


def electrodes(dtype, rows=600):
    """Three channels with hum in common, and one without."""
    rng = np.random.default_rng(5)
    hum = rng.normal(0, 300, rows)
    x = np.column_stack([share * hum + rng.normal(0, 20, rows) for share in (1, 0.55, -1.2, 0)])
    return (np.rint(x) + (1 << 15 if dtype[1] == "u" else 0)).astype(dtype)


@pytest.mark.parametrize("level", ["max", "stream"])
@pytest.mark.parametrize("dtype", ["<i2", "<u2", "<i4", "<u4"])
def test_what_channels_have_in_common_is_coded_once(dtype, level):
    x = electrodes(dtype)
    together = sum(sizes(np.split(x, 3), level))
    alone = sum(sum(sizes(np.split(np.ascontiguousarray(x[:, c]), 3), level)) for c in range(4))
    # 300 in place of about 25 to 31 in two of four channels: 3.4 bits a sample.
    assert together < alone - 2 * x.shape[0] * 3.0 / 8


@pytest.mark.parametrize("dtype", ["<i2", "<u4"])
def test_channels_that_are_copies_or_cease_to_be(dtype):
    x = electrodes(dtype)
    copies = np.concatenate([x[:, :2], x[:, :2]], axis=1)
    both = sum(sizes(np.split(copies, 3)))
    assert both < sum(sizes(np.split(np.ascontiguousarray(x[:, :2]), 3))) + 60
    unlike = copies.copy()
    unlike[200:, 2:] = np.roll(unlike[200:, 2:], 77, axis=0)
    sizes(np.split(unlike, 6))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(["<i2", "<i4"]), st.integers(1, 40), st.integers(1, 9))
def test_shares_are_put_back(seed, dtype, rows, channels):
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype)
    x = rng.integers(top.min, top.max + 1, (rows, channels)).astype(dtype)
    others = np.array([rng.integers(-1, c) if c else -1 for c in range(channels)])
    shares = np.where(others >= 0, rng.integers(-128, 128, channels), 0)
    known = beside.Shares(others, shares)
    again = beside.read_shares(Reader(known.packed()), channels)
    assert again.others.tolist() == others.tolist()
    assert again.shares.tolist() == shares.tolist()
    left = beside.take_off(x, known)
    expected = x.astype(object)
    for c in range(channels):
        if others[c] >= 0:
            expected[:, c] = expected[:, c] - (int(shares[c]) * x[:, others[c]].astype(object) + 8 >> 4)
    half = 1 << 8 * x.itemsize - 1
    assert left.astype(object).tolist() == ((expected + half) % (2 * half) - half).tolist()
    beside.put_back(left, known)
    assert left.tobytes() == x.tobytes()


def test_impossible_shares_are_refused():
    head = bytes([0x28, 2 << 5 | 1, 4, 2])
    for rest, message in ((bytes([0x92, 2, 16]), "exceeds"), (bytes([0x91, 1, 16]), "does not fit")):
        with pytest.raises(ChunkError, match=message):
            decode_columns(head + rest + bytes(12))
    with pytest.raises(ChunkError, match="does not fit"):
        decode_columns(bytes([0x28, 2 << 5 | 6 << 1 | 1, 4, 2, 0x92, 1, 16]) + bytes(12))


def test_any_bytes_after_shares_end():
    rng = np.random.default_rng(3)
    for _ in range(300):
        head = bytes([64 + int(rng.choice([1, 5])), 9, 3, 0x92, 1, int(rng.integers(256)), 2, 200])
        with contextlib.suppress(ChunkError):
            decode_columns(head + rng.bytes(int(rng.integers(60))))
