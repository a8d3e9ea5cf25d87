"""The column kernels: tables are the same everywhere, and warming up compiles all that is used later."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.codec.columns import LEVELS, ColumnDecoder, ColumnEncoder
from edgecap.codec.quick import halves
from edgecap.kernels import (
    adaptive,
    beside,
    bits,
    choice,
    columns,
    decoding,
    encoding,
    heads,
    multiples,
    rans,
    recurring,
    repeats,
    rests,
    rice,
    tables,
)
from tests.reference.adaptive_coder import PRESETS, table

ROOT = Path(__file__).parents[2]
TABLES_SHA256 = "0ac61384a0974553df7a31d990575febe805390414d733ed37fb8f158408870d"


def kernels():
    for module in (
        *(adaptive, beside, bits, choice, decoding, encoding, heads),
        *(multiples, rans, recurring, repeats, rests, rice, tables),
    ):
        for name, value in vars(module).items():
            if hasattr(value, "signatures") and getattr(value, "__module__", "") == module.__name__:
                yield f"{module.__name__}.{name}", value


def compiled_twice():
    """What a cold warm-up compiles for several types: a constant has one of its own."""
    columns.warm_up()
    return [name for name, kernel in kernels() if len(kernel.signatures) > 1]


def starts_of(built):
    parts = built.parts.reshape(tables.SHAPES, tables.TABLES, 256, 2).astype(np.int64)
    starts = np.concatenate([parts[..., 0], np.full((*parts.shape[:2], 1), 65536)], axis=2)
    assert (np.diff(starts, axis=2) == parts[..., 1]).all()
    return starts


def test_tables_are_pinned():
    built = tables.build_tables()
    starts = starts_of(built)
    assert hashlib.sha256(starts.astype("<u4").tobytes()).hexdigest() == TABLES_SHA256
    assert (np.diff(starts, axis=2) >= 0).all()
    assert (starts[:, :, 0] == 0).all()
    buckets = built.buckets.reshape(tables.SHAPES, tables.TABLES, -1, 4).astype(np.int64)
    for slot in (0, 255, 256, 40000, 65535):
        begin, size, symbol, _ = np.moveaxis(buckets[:, :, slot >> tables.BUCKET_SHIFT], -1, 0)
        assert (begin <= slot & ~255).all()
        assert (begin + size > slot & ~255).all()
        assert (np.take_along_axis(starts, symbol[..., None], axis=2)[..., 0] == begin).all()


def test_tables_equal_their_reference():
    starts = starts_of(tables.build_tables())
    for shape in range(tables.SHAPES):
        for number in range(tables.TABLES):
            assert np.diff(starts[shape, number]).tolist() == table(shape, number)
    assert adaptive.PRESETS.tolist() == [list(p) for p in PRESETS]


def test_warming_up_compiles_all_that_is_used():
    columns.warm_up()
    before = {name: len(kernel.signatures) for name, kernel in kernels()}
    assert before
    rng = np.random.default_rng(4)
    for level in LEVELS:
        encoder, decoder = ColumnEncoder(level), ColumnDecoder()
        for n in (100, 100, 1, 0, 73):
            walk = np.cumsum(rng.normal(0, 30, (n, 3)), axis=0)
            decoder.decode(
                encoder.encode(
                    {
                        "tick": np.cumsum(rng.integers(1, 5, n)).astype("<i8"),
                        "index": np.array([n], "<i8"),
                        "a": walk.astype("<i2"),
                        "b": (walk * 1e4).astype("<i4"),
                        "c": np.round(walk / 30, 2).astype("<f4"),
                        "d": (walk / 7).astype("<f4"),
                        "e": walk.astype("<i2")[:, 0],
                        "f": np.asfortranarray(walk.astype("<i2")),
                        "g": walk.astype("<i2")[::2, :2],
                        "h": np.frombuffer(walk.astype("<i4").tobytes(), "<i4"),
                        "i": np.frombuffer(walk.astype("<i2").tobytes(), "<i2"),
                        "j": np.floor(np.rint(walk) * 9.175 + 0.7).astype("<i2"),
                    }
                )
            )
    after = {name: len(kernel.signatures) for name, kernel in kernels()}
    assert after == before


def digest_of_payloads():
    """Payloads of every level that come back, as one hash."""
    rng = np.random.default_rng(3)
    found = hashlib.sha256()
    for level in LEVELS:
        encoder, decoder = ColumnEncoder(level), ColumnDecoder()
        for _ in range(3):
            walk = np.cumsum(rng.normal(0, 30, (40, 5)), axis=0)
            table = {
                "tick": np.cumsum(rng.choice([999, 1000, 1001, 5], 40)).astype("<i8"),
                "short": walk.astype("<i2"),
                "long": (walk * 1e6).astype("<i4"),
                "decimal": np.round(walk[:, :2] / 30, 2).astype("<f4"),
                "scaled": np.rint(walk).astype("<f4") * np.float32(0.061) * np.float32(9.80665),
                "rescaled": np.floor(np.rint(walk) * 9.175 + rng.uniform(0.3, 0.8, 5)).astype("<i2"),
            }
            payload = encoder.encode(table)
            found.update(payload)
            back = decoder.decode(payload)
            assert all(back[name].tobytes() == array.tobytes() for name, array in table.items())
    return found.hexdigest()


def test_without_compilation_the_bytes_are_the_same():
    """The kernels run by the interpreter, statement by statement, are one more machine to agree with."""
    script = "from tests.unit.test_columns_kernels import digest_of_payloads as d; print(d())"
    run = subprocess.run(
        [sys.executable, "-W", "ignore::RuntimeWarning", "-c", script],
        cwd=ROOT,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.strip() == digest_of_payloads()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(2, 70), st.sampled_from(["<i2", "<i4"]), st.integers(1, 3))
def test_a_glance_sees_repeats_and_few_levels(seed, rows, dtype, most):
    rng = np.random.default_rng(seed)
    values = rng.integers(-(most**9), most**9 + 1, (rows, 3)).astype("<i4").view(dtype)
    values = np.repeat(values, rng.integers(1, 3, rows), axis=0)[: values.shape[0]]
    n, few = values.shape[0], repeats.GLANCED // 2
    spread = values[:: max(n // repeats.GLANCED, 1)][: repeats.GLANCED]
    middle = max(n // 2 - repeats.GLANCED // 2, 0)
    equal = np.diff(values[middle : middle + repeats.GLANCED + 1], axis=0) == 0
    expected = (
        bool(equal.all(axis=1).any())
        or bool((equal.sum(axis=0) >= repeats.MANY_GLANCED).any())
        or min(np.unique(channel).size for channel in spread.T) <= few
    )
    assert repeats.glance(halves(values), values.itemsize == 4, few) == expected


@numba.njit
def divide(values, reciprocal, more, shift):
    return [bits.quotient(x, reciprocal, more, shift) for x in values]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9),
    st.integers(1, 2**31 - 1) | st.integers(1, 65536),
)
def test_quotients_are_exact(numbers, divisor):
    most = (2**64 - 1) // divisor * divisor
    values = np.array([*numbers, 0, divisor - 1, divisor, most, most - 1, 2**64 - 1], np.uint64)
    (reciprocal,), (shift,) = bits.reciprocals_of(np.array([divisor], np.uint64))
    more = reciprocal if shift > 127 else np.uint64(0)
    expected = [int(x) // divisor for x in values]
    assert [int(bits.quotient(x, reciprocal, more, shift & 127)) for x in values] == expected
    assert divide(values, reciprocal, more, np.uint64(shift & 127)) == expected


def test_every_part_of_the_coder_divides_exactly():
    inverses, shifts = rans.reciprocals()
    rng = np.random.default_rng(3)
    for size, inverse, shift in zip(range(1, 65537), inverses.tolist(), shifts.tolist(), strict=True):
        more = inverse if shift > 127 else 0
        most = min((size << 48) - 1, 2**64 - 1)
        for x in (most, most // size * size - 1, int(rng.integers(1 << 63)) * 2 + 1):
            if x >= 0:
                assert (x * inverse + more) >> 64 + (shift & 127) == x // size, (x, size)
