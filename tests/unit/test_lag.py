"""The lag and flow kernels do what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.kernels import flow, lag
from tests.reference.lag import mean_between, unexplained

MAX_GAP = 4.0


def line(t, values):
    integral, run = np.empty_like(values), np.empty(len(t), np.int32)
    lag.integrate_runs(t, values, MAX_GAP, integral, run)
    return t, values, integral, run


@st.composite
def lines(draw):
    steps = draw(st.lists(st.integers(1, 24), min_size=1, max_size=20))
    t = np.cumsum([0, *steps]) / 4.0
    heights = draw(st.lists(st.integers(-50, 50), min_size=len(t), max_size=len(t)))
    return t, np.array(heights, np.float64)[:, None] / 8


@settings(max_examples=150, deadline=None)
@given(
    lines(),
    st.lists(st.tuples(st.integers(-8, 400), st.integers(0, 120)), min_size=1, max_size=12),
    st.integers(-20, 20),
)
def test_means_equal_the_integral_in_fractions(signal, intervals, shift):
    t, values = signal
    start = np.array([a / 8 for a, _ in intervals])
    end = start + np.array([w / 8 for _, w in intervals])
    out, valid = np.empty((len(start), 1)), np.empty(len(start), np.bool_)
    lag.means_between(*line(t, values), start, end, shift / 8, out, valid)
    for i in range(len(start)):
        expected = mean_between(t, values[:, 0], start[i] + shift / 8, end[i] + shift / 8, MAX_GAP)
        assert valid[i] == (expected is not None)
        assert out[i, 0] == pytest.approx(0.0 if expected is None else expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 3), st.floats(-1.5, 1.5))
def test_unexplained_share_equals_least_squares(seed, ca, cb, tau):
    rng = np.random.default_rng(seed)
    t = np.arange(60) * 0.25
    b = line(t, rng.normal(size=(60, cb)))
    start = np.arange(2.0, 12.0, 0.3)
    a = rng.normal(size=(len(start), ca))
    left, pairs = np.empty((1, ca)), np.empty(1, np.int32)
    lag.score_lags(a, start, start + 0.3, np.array([tau]), *b, 5, left, pairs)
    means, valid = np.empty((len(start), cb)), np.empty(len(start), np.bool_)
    lag.means_between(*b, start, start + 0.3, -tau, means, valid)
    assert pairs[0] == valid.sum() == len(start)
    assert left[0] == pytest.approx(unexplained(a, means), abs=1e-9)


def test_too_few_pairs_and_dead_channels_explain_nothing():
    t = np.arange(40) * 0.25
    b = line(t, np.sin(t)[:, None] * [1.0, 0.0])
    start = np.arange(1.0, 8.0, 0.25)
    a = np.column_stack([np.cos(start), np.ones(len(start))])
    left, pairs = np.empty((2, 2)), np.empty(2, np.int32)
    lag.score_lags(a, start, start, np.array([0.0, 100.0]), *b, 5, left, pairs)
    assert pairs.tolist() == [len(start), 0]
    assert left[0, 0] < 1
    assert left[0, 1] == 1
    assert left[1].tolist() == [1, 1]


def test_an_empty_line_covers_nothing():
    none, values = np.zeros(0), np.zeros((0, 2))
    out, valid = np.empty((1, 2)), np.empty(1, np.bool_)
    lag.means_between(*line(none, values), np.zeros(1), np.ones(1), 0.0, out, valid)
    assert not valid[0]


def scene(x, y):
    """A smooth picture with structure in every direction."""
    return (
        128
        + 40 * np.sin(x / 5.1 + y / 17)
        + 35 * np.cos(y / 4.3 - x / 11)
        + 20 * np.sin((x + y) / 7.7)
        + 15 * np.cos((x - 2 * y) / 9.1)
    )


def seen(motion, *, offset=0.0, shape=(60, 90)):
    """The scene after the motion: where (x, y) was before, the scene's point is found by inverting it."""
    dx, dy, roll, growth = motion
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float)
    x, y = x - (shape[1] - 1) / 2, y - (shape[0] - 1) / 2
    forward = np.array([[1 + growth, -roll], [roll, 1 + growth]])
    back = np.linalg.inv(forward)
    px, py = x - dx, y - dy
    return (scene(back[0, 0] * px + back[0, 1] * py, back[1, 0] * px + back[1, 1] * py) + offset).astype(
        np.float32
    )


@pytest.mark.parametrize(
    "motion", [(0, 0, 0, 0), (1.3, -0.7, 0, 0), (0, 0, 0.02, 0), (-0.6, 0.4, -0.015, 0.01)]
)
def test_a_known_motion_is_found_in_spite_of_a_hand_and_other_light(motion):
    before, after = seen((0, 0, 0, 0)), seen(motion, offset=12.0)
    after[40:55, 10:40] = 240  # a hand that was not there
    found = np.zeros(4)
    _, share = flow.align_pictures(before, after, found, 30)
    assert found[:2] == pytest.approx(motion[:2], abs=0.03)
    assert found[2:] == pytest.approx(motion[2:], abs=1e-3)
    assert 0.5 < share < 0.95


def test_a_blank_picture_has_no_motion():
    blank = np.full((20, 20), 7, np.float32)
    found = np.zeros(4)
    _, share = flow.align_pictures(blank, blank, found, 5)
    assert np.isfinite(found).all()
    far = np.array([100.0, 0, 0, 0])
    assert flow.align_pictures(blank, blank, far, 5)[1] == 0
    assert share <= 1
