"""Whatever the bytes are, decoding ends, stays within its arrays, and answers with ChunkError or a table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec.columns import LEVELS, ColumnDecoder, ColumnEncoder
from edgecap.codec.layout import MAX_CHANNELS, MAX_ELEMENTS, put_varint
from edgecap.errors import ChunkError

ROOT = Path(__file__).parents[2]


def example(level, count=3):
    rng = np.random.default_rng(7)
    encoder = ColumnEncoder(level)
    payloads = []
    for i in range(count):
        walk = np.cumsum(rng.normal(0, 20, (60, 3)), axis=0)
        payloads.append(
            encoder.encode(
                {
                    "tick": np.cumsum(rng.choice([999, 1000, 1001, 5], 60)).astype("<i8"),
                    "values": np.rint(walk).astype("<i2"),
                    "wide": np.rint(walk * 1e5).astype("<i4"),
                    "decimal": np.round(walk / 50, 2).astype("<f4"),
                    "real": (walk / 7).astype("<f4"),
                    "text": np.array([f"{v:.5g}" for v in (walk[:, 0] * 1.37e-3).tolist()], "<f8").astype(
                        "<f4"
                    ),
                    "rescaled": np.floor(np.rint(walk) * 9.175 + 0.6).astype("<i2"),
                    "scaled": np.rint(walk).astype("<f4") * np.float32(0.061) * np.float32(9.80665),
                    "held": np.repeat(np.rint(walk), 3, axis=0)[:60].astype("<i2"),
                    "pins": rng.choice([12, 3300], (60, 2)).astype("<u2"),
                    "mixed": np.column_stack([np.repeat(walk[:6, 0], 10), walk[:, 1] / 7]).astype("<f4"),
                    "frame_n": np.full(6, 10, "<i4"),
                    "index": np.array([60 * i], "<i8"),
                }
            )
        )
    return payloads


EXAMPLES = {level: example(level) for level in LEVELS}


def try_decoding(payloads):
    decoder = ColumnDecoder()
    for payload in payloads:
        try:
            table = decoder.decode(payload)
        except ChunkError:
            continue
        assert sum(a.size for a in table.values()) <= MAX_ELEMENTS


def damaged(rng, payload):
    data = bytearray(payload)
    for _ in range(int(rng.integers(1, 4))):
        match int(rng.integers(4)):
            case 0:
                data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            case 1:
                data[int(rng.integers(len(data)))] = int(rng.integers(256))
            case 2:
                del data[int(rng.integers(len(data))) :]
            case 3:
                at = int(rng.integers(len(data)))
                data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        if not data:
            return b""
    return bytes(data)


def torture(seed, rounds):
    """Decode damaged examples: one damaged payload, then whole ones that build on it."""
    rng = np.random.default_rng(seed)
    for i in range(rounds):
        payloads = EXAMPLES[LEVELS[i % 3]]
        place = int(rng.integers(3))
        try_decoding([*payloads[:place], damaged(rng, payloads[place]), *payloads[place:]])
        try_decoding([payloads[0][: 1 + int(rng.integers(80))] + rng.bytes(int(rng.integers(200)))])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 32))
def test_damaged_payloads(seed):
    torture(seed, 20)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x61\x20\x02", b"\x21\x01\x45\x40\x03", b"\x21\x02\x28\x20\x4d\x20\x02"]),
)
def test_any_bytes(data, prefix):
    try_decoding([prefix + data])


def test_a_column_alone_has_a_known_type():
    for kind in range(2 * 11, 32):
        with pytest.raises(ChunkError, match="unknown type"):
            ColumnDecoder().decode(bytes([64 + kind, 1, 1, 0, 0]))


def test_a_failed_payload_leaves_the_decoder_as_it_was():
    payloads = EXAMPLES["stream"]
    rng = np.random.default_rng(3)
    decoder, whole = ColumnDecoder(), ColumnDecoder()
    refused = 0
    for payload in payloads:
        expected = whole.decode(payload)
        for _ in range(30):
            probe = ColumnDecoder()
            probe.__dict__.update(decoder.__dict__)
            try:
                probe.decode(damaged(rng, payload))
            except ChunkError:
                refused += 1
                again = probe.decode(payload)
                assert all(again[k].tobytes() == expected[k].tobytes() for k in expected)
        decoder.decode(payload)
    assert refused > 30


@pytest.mark.parametrize(
    ("rows", "channels", "message"),
    [(MAX_ELEMENTS + 1, 1, "limit"), (MAX_ELEMENTS // 2, 3, "samples"), (1, MAX_CHANNELS + 1, "limit")],
)
def test_sizes_beyond_the_limit_are_refused_before_allocating(rows, channels, message):
    payload = bytearray(b"\x21\x01\x41")
    put_varint(payload, rows)
    put_varint(payload, channels)
    with pytest.raises(ChunkError, match=message):
        ColumnDecoder().decode(bytes(payload) + b"\x01\x00")


def test_a_tiny_payload_of_many_samples_ends():
    payload = bytearray(b"\x21\x01\x41")
    put_varint(payload, MAX_ELEMENTS)
    put_varint(payload, 1)
    table = ColumnDecoder().decode(bytes(payload) + b"\x01\x04\x00\x00")
    assert table["values"].shape == (MAX_ELEMENTS, 1)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kernels_stay_within_bounds(tmp_path):
    """With Numba's own bounds checks compiled in, warming up and damaged payloads raise no IndexError."""
    script = (
        "from tests.unit.test_columns_kernels import compiled_twice\n"
        "assert compiled_twice() == []\n"
        "from tests.unit.test_columns_hostile import torture\n"
        "torture(11, 600)\n"
    )
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert run.returncode == 0, run.stderr[-2000:]
