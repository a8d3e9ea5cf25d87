"""Resampling kernels against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.kernels.resample import box_over, linear_at
from edgecap.model import ClockFit
from edgecap.timeline.fit import to_rig_ns
from tests.reference import resample as reference

DTYPES = [np.int16, np.int32, np.float32, np.float64]
TIMES = st.lists(st.integers(-10_000, 10_000), max_size=25, unique=True).map(sorted)
INSTANTS = st.lists(st.integers(-11_000, 11_000), min_size=1, max_size=12).map(sorted)
GAP = st.sampled_from([1, 300, 1500, 10**9])


def samples(t_ns: list[int], dtype: type, channels: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, (len(t_ns), channels), endpoint=True).astype(dtype)
    return rng.normal(0, 100, (len(t_ns), channels)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(t_ns=TIMES, at_ns=INSTANTS, gap=GAP, channels=st.integers(1, 3), seed=st.integers(0, 99))
def test_linear_equals_its_definition(dtype, t_ns, at_ns, gap, channels, seed):
    values = samples(t_ns, dtype, channels, seed)
    out, valid = np.zeros((len(at_ns), channels)), np.zeros(len(at_ns), np.bool_)
    linear_at(np.array(t_ns, np.int64), values, np.array(at_ns, np.int64), gap, out, valid)
    for row, ok, expected in zip(
        out, valid, reference.linear_at(t_ns, values.tolist(), at_ns, gap), strict=True
    ):
        assert ok == (expected is not None)
        if expected is None:
            assert np.isnan(row).all()
        else:
            np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(
    t_ns=TIMES, from_ns=INSTANTS, length=st.sampled_from([0, 1, 700, 4000]), gap=GAP, seed=st.integers(0, 99)
)
def test_box_equals_its_definition(dtype, t_ns, from_ns, length, gap, seed):
    values = samples(t_ns, dtype, 2, seed)
    to_ns = [t + length for t in from_ns]
    mean, deviation = np.zeros((len(from_ns), 2)), np.zeros((len(from_ns), 2))
    valid = np.zeros(len(from_ns), np.bool_)
    box_over(
        np.array(t_ns, np.int64), values, np.array(from_ns, np.int64), np.array(to_ns, np.int64), gap,
        mean, deviation, valid,
    )  # fmt: skip
    for i, expected in enumerate(reference.box_over(t_ns, values.tolist(), from_ns, to_ns, gap)):
        assert valid[i] == (expected is not None)
        if expected is None:
            assert np.isnan(mean[i]).all()
            assert np.isnan(deviation[i]).all()
        else:
            np.testing.assert_allclose(mean[i], expected[0], rtol=1e-12, atol=1e-5)
            np.testing.assert_allclose(deviation[i], expected[1], rtol=1e-9, atol=1e-3)


def test_nothing_crosses_a_gap():
    t_ns = np.array([0, 10, 20, 500, 510, 520], np.int64)
    values = np.arange(6, dtype=np.int16).reshape(-1, 1)
    at_ns = np.array([-1, 0, 15, 20, 21, 499, 500, 515, 521], np.int64)
    out, valid = np.zeros((9, 1)), np.zeros(9, np.bool_)
    linear_at(t_ns, values, at_ns, 20, out, valid)
    assert valid.tolist() == [False, True, True, True, False, False, True, True, False]
    assert out[2, 0] == 1.5
    from_ns = np.array([0, 5, 15, 25, 480, 500, 505], np.int64)
    to_ns = np.array([20, 15, 30, 480, 510, 520, 525], np.int64)
    mean, deviation, valid = np.zeros((7, 1)), np.zeros((7, 1)), np.zeros(7, np.bool_)
    box_over(t_ns, values, from_ns, to_ns, 20, mean, deviation, valid)
    assert valid.tolist() == [True, True, False, False, False, True, False]
    assert mean[0, 0] == 1.0
    assert deviation[0, 0] == pytest.approx(np.sqrt(2 / 3))


@settings(max_examples=100, deadline=None)
@given(
    ticks=st.lists(st.integers(-(10**9), 10**12), max_size=20),
    ref_tick=st.integers(-(10**9), 10**12),
    ref_ns=st.integers(0, 10**18),
    drift_ppm=st.floats(-300, 300),
)
def test_ticks_to_rig_equals_its_definition(ticks, ref_tick, ref_ns, drift_ppm):
    fit = ClockFit(
        ref_tick=ref_tick,
        ref_ns=ref_ns,
        drift_ppm=drift_ppm,
        tick_ns=1000,
        u_ns=0,
        sigma_ns=0.0,
        epoch=0,
        locked=True,
    )
    mapped = to_rig_ns(fit, np.array(ticks, np.int64))
    assert mapped.dtype == np.int64
    assert mapped.tolist() == reference.ticks_to_rig(ticks, ref_tick, ref_ns, 1000, drift_ppm * 1e-6 * 1000)
    assert mapped.tolist() == [fit.rig_ns(tick) for tick in ticks]
