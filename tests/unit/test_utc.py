"""Rig time to UTC through clock pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.dataset.utc import UNKNOWN_NS, UtcMap
from edgecap.errors import ExportError
from edgecap.model import ClockPair

SECOND = 1_000_000_000
UTC0 = 1_790_000_000 * SECOND


def pair(raw_ns: int, real_ns: int, *, synced: bool = True, width_ns: int = 200, max_error_us: int = 1500):
    return ClockPair(
        raw_ns=raw_ns,
        monotonic_ns=raw_ns,
        boottime_ns=raw_ns,
        realtime_ns=real_ns,
        width_ns=width_ns,
        ntp_synced=synced,
        ntp_max_error_us=max_error_us,
        ntp_est_error_us=200,
        ntp_freq_ppm=12.0,
    )


def steady(seconds: int, *, ppm: float = 20.0, raw0: int = 5 * SECOND, synced: bool = True):
    return [
        pair(raw0 + k * SECOND, UTC0 + k * SECOND + round(k * SECOND * ppm * 1e-6), synced=synced)
        for k in range(seconds)
    ]


def test_exact_at_the_pairs_and_linear_between():
    pairs = steady(20)
    utc = UtcMap(pairs)
    raw = np.array([p.raw_ns for p in pairs])
    assert utc.to_utc_ns(raw).tolist() == [p.realtime_ns for p in pairs]
    assert utc.utc_ns(raw[3] + SECOND // 2) == UTC0 + 3 * SECOND + SECOND // 2 + 70_000
    assert utc.trusted
    assert utc.steps == 0


def test_extrapolates_at_the_measured_rate_and_widens_the_bound():
    utc = UtcMap(steady(20, ppm=20.0))
    early = np.array([5 * SECOND - 100 * SECOND])
    assert utc.to_utc_ns(early)[0] == UTC0 - 100 * SECOND - round(100 * SECOND * 20e-6)
    inside, outside = utc.u_ns(np.array([10 * SECOND])), utc.u_ns(early)
    assert inside[0] == 200 + 1_500_000
    assert outside[0] == inside[0] + 5_000_000


def test_without_ntp_the_bound_is_unknown():
    utc = UtcMap(steady(5, synced=False))
    assert not utc.trusted
    assert utc.u_ns(np.arange(3)).tolist() == [UNKNOWN_NS] * 3


def test_a_step_does_not_tear_the_session():
    before = [pair(k * SECOND, 1000 * SECOND + k * SECOND, synced=False) for k in range(30)]
    after = [pair(k * SECOND, UTC0 + k * SECOND) for k in range(30, 40)]
    utc = UtcMap(before + after)
    assert utc.trusted
    assert utc.steps == 1
    assert utc.synced_share == pytest.approx(0.25)
    assert abs(utc.utc_ns(0) - UTC0) < 40 * 12_000 * 1000  # at the kernel's 12 ppm for 30 s
    t = np.arange(0, 45 * SECOND, SECOND // 7)
    assert np.all(np.diff(utc.to_utc_ns(t)) > 0)


def test_one_pair_is_enough():
    utc = UtcMap([pair(7 * SECOND, UTC0)])
    assert utc.utc_ns(8 * SECOND) == UTC0 + SECOND + 12_000


def test_no_pair_is_an_error_that_says_so():
    with pytest.raises(ExportError, match="no clock pair"):
        UtcMap([])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**62),
    st.lists(st.floats(-400, 400), min_size=1, max_size=40),
    st.lists(st.integers(-100 * SECOND, 200 * SECOND), min_size=2, max_size=50),
)
def test_order_and_nanoseconds_survive(raw0: int, slews_ppm: list[float], probes: list[int]):
    raw, real, pairs = raw0, UTC0, []
    for ppm in slews_ppm:
        pairs.append(pair(raw, real))
        raw += SECOND
        real += SECOND + round(SECOND * ppm * 1e-6)
    utc = UtcMap(pairs)
    assert utc.to_utc_ns(np.array([p.raw_ns for p in pairs])).tolist() == [p.realtime_ns for p in pairs]
    t = np.sort(np.array([raw0 + p for p in probes if raw0 + p >= 0], dtype=np.int64))
    mapped = utc.to_utc_ns(t)
    assert np.all(np.diff(mapped)[np.diff(t) > 1] > 0)
