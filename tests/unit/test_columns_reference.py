"""The kernels decode what a plain-Python reader of FORMAT.md decodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgecap.sim
from edgecap.codec.columns import ColumnEncoder
from tests.reference.columns import ReferenceDecoder

RECORDINGS = Path(edgecap.sim.__file__).parent / "recordings"


def check(tables, level):
    encoder, decoder = ColumnEncoder(level, key_interval=5), ReferenceDecoder()
    for table in tables:
        found = decoder.decode(encoder.encode(table))
        assert list(found) == list(table)
        for name, array in table.items():
            assert found[name].shape == array.shape
            assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("level", ["fast", "stream"])
@pytest.mark.parametrize(
    "name", ["imu_gopro_karma_gyro", "tactile_anyskin2", "force_smartwheel", "force_smartwheel_f32"]
)
def test_recordings(name, level):
    array = np.load(RECORDINGS / f"{name}.npy")[:300, :4]
    check([{"values": array[i : i + 70]} for i in range(0, 300, 70)], level)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.sampled_from(["<i2", "<u2", "<i4", "<u4", "<f4"]),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.2, 30.0, 1e5, 1e9]),
    st.sampled_from(["fast", "max", "stream"]),
)
def test_any_values(seed, dtype, rows, channels, spread, level):
    rng = np.random.default_rng(seed)

    def table(n):
        shape = (n, channels) if channels else (n,)
        walk = np.cumsum(rng.standard_t(3, shape) * spread, axis=0)
        if dtype == "<f4":
            return {"values": (walk / 1000).astype("<f4")}
        return {"values": np.rint(walk).astype("<i8").astype(dtype)}

    check([table(n) for n in rows], level)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.lists(st.integers(0, 60), min_size=1, max_size=5),
    st.sampled_from(["counter", "two", "jitter", "outliers", "random"]),
    st.sampled_from(["fast", "max", "stream"]),
)
def test_any_ticks(seed, rows, kind, level):
    rng = np.random.default_rng(seed)
    n = sum(rows)
    steps = {
        "counter": np.full(n, 1000),
        "two": rng.choice([9582519, 9613037], n),
        "jitter": rng.integers(9000, 11000, n),
        "outliers": np.where(rng.random(n) < 0.1, rng.integers(-9000, 9000, n), 5010),
        "random": rng.integers(-(1 << 62), 1 << 62, n),
    }[kind]
    with np.errstate(over="ignore"):
        ticks = np.cumsum(steps).astype("<i8") + int(rng.integers(1 << 62))
    cuts = np.cumsum(rows)[:-1]
    check([{"tick": t, "frame_n": np.full(t.size // 9, 9, "<i4")} for t in np.split(ticks, cuts)], level)


def test_a_step_that_was_rounded_itself():
    """A coarse step, which `fast` takes into account without looking for anything finer."""
    k = np.random.default_rng(4).integers(-300, 300, (200, 3))
    values = (np.floor(k * 80.06 + 0.5) / 65536).astype("<f4")
    table = {"values": values}
    assert ColumnEncoder("fast").encode(table)[4:6] == bytes([0x11, 16 + 7])  # a lattice, and its step
    check([table], "fast")


def test_channels_that_grow_old():
    """Blocks become longer with age, up to 96 samples after 1024."""
    rng = np.random.default_rng(8)
    values = np.rint(np.cumsum(rng.normal(0, 40, 1500))).astype("<i4")
    check([{"values": values[:700]}, {"values": values[700:]}], "stream")


@pytest.mark.parametrize("dtype", ["<i2", "<i4"])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 64, 65, 66, 200])
def test_rice_codes_of_smooth_channels_with_outliers(rows, dtype):
    """Every order of differences, escapes at any place in a word, silent blocks and samples that wrap."""
    rng = np.random.default_rng(rows)
    info = np.iinfo(dtype)
    for seed in range(12):
        t = np.arange(rows)[:, None]
        lanes = np.concatenate(
            [
                rng.integers(-9, 9, (rows, 1)),
                t * 7 + rng.integers(0, 2, (rows, 1)),
                t * t // 3 + rng.integers(0, 2, (rows, 1)),
                t**3 // 500 - t * t,
                np.full((rows, 1), info.max - 3) + rng.integers(0, 4, (rows, 1)),
                np.full((rows, 1), seed),
            ],
            axis=1,
        )
        far = rng.random(lanes.shape) < 0.02 * (seed % 3)
        lanes[far] = rng.integers(info.min, info.max, int(far.sum()))
        check([{"values": lanes.clip(info.min, info.max).astype(dtype)}], "fast")
