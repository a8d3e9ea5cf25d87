"""The band solver against exact enumeration, and against every bound of an exchange."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.kernels import align_band, align_line
from edgecap.kernels import align_state as at
from edgecap.kernels.compile import kernel
from edgecap.sim.clock import simulate
from edgecap.sim.links import SCENARIOS
from edgecap.timeline.device_clock import DeviceClock
from edgecap.timeline.replay import rows_from_arrays
from tests.reference import align as reference

POINTS = st.lists(
    st.tuples(st.integers(0, 79).map(lambda k: k * 0.5 + 0.125), st.integers(-2_000_000, 2_000_000)),
    min_size=1,
    max_size=9,
    unique_by=lambda point: point[0],
)


@kernel
def keep_bound(states, side, d, theta):
    return align_band.keep_bound(states[0], side, d, theta)


@kernel
def drop_bound(states):
    align_band.drop_bound(states[0])


@kernel
def solve_band(states, d, curvature):
    return align_band.solve_band(states[0], d, curvature)


@kernel
def band_at(states, d):
    return align_band.band_at(states[0], d)


@kernel
def draw_line(states):
    align_line.draw_line(states[0])


def solved(uppers, lowers, d, curvature, skew_ppm):
    states = at.new_state(1000, skew_ppm, 0.05)
    for d_i, theta in uppers:
        assert keep_bound(states, at.UPPER, d_i, float(theta))
    for d_i, theta in lowers:
        assert keep_bound(states, at.LOWER, d_i, float(theta))
    states["has_lower"] = 1
    return solve_band(states, d, curvature), states


@settings(max_examples=300, deadline=None)
@given(
    uppers=POINTS,
    lowers=POINTS,
    slope_ns_s=st.integers(-90_000, 90_000),
    room=st.integers(0, 3_000_000),
    curvature=st.sampled_from([0.0, 50.0, 200.0, 3000.0]),
    ahead=st.sampled_from([0.0, 0.3, 20.0]),
)
def test_equals_exact_enumeration(uppers, lowers, slope_ns_s, room, curvature, ahead):
    uppers = [(d, slope_ns_s * d + theta + room) for d, theta in uppers]
    lowers = [(d, slope_ns_s * d + theta - room) for d, theta in lowers]
    d = max(point[0] for point in uppers + lowers) + ahead
    feasible, states = solved(uppers, lowers, d, curvature, 300.0)
    s = states[0]
    wander = curvature * d
    expected = reference.band(uppers, lowers, d, curvature, -300e3 - wander, 300e3 + wander)
    if expected is None:
        assert not feasible or s.hi - s.lo < 60.0  # feasible within a quarter ns at some slope
        return
    assert feasible
    # the solver accepts a crossing of a quarter of a nanosecond: at lines of almost equal age that is far off
    ages = sorted({d - point[0] for point in uppers + lowers})
    closest = min((b - a for a, b in itertools.pairwise(ages)), default=1.0)
    slack = 0.3 * (1.0 + ages[-1] / closest)
    assert abs(s.hi - expected.hi) <= slack
    assert abs(s.lo - expected.lo) <= slack
    assert s.slope_lo <= expected.slope_lo + slack
    assert s.slope_hi >= expected.slope_hi - slack


@settings(max_examples=100, deadline=None)
@given(
    rate=st.floats(-200.0, 200.0),
    slope=st.floats(-90_000.0, 90_000.0),
    seed=st.integers(0, 1000),
    later=st.floats(-20.0, 60.0),
)
def test_every_clock_that_obeys_the_drift_limit_stays_inside(rate, slope, seed, later):
    rng = np.random.default_rng(seed)
    clock = lambda d: 1e5 + slope * d + 0.5 * rate * d * d  # noqa: E731
    uppers = [(d, clock(d) + rng.exponential(1e5)) for d in np.arange(0.1, 30, 0.7)]
    lowers = [(d, clock(d) - rng.exponential(1e5)) for d in np.arange(0.3, 30, 0.9)]
    feasible, states = solved(uppers, lowers, 30.0, 200.0, 300.0)
    assert feasible
    lo, hi = band_at(states, 30.0 + later)
    assert lo <= clock(30.0 + later) <= hi


def test_keeps_the_best_bound_of_a_bucket_and_takes_it_back():
    states = at.new_state(1000, 300.0, 0.05)
    assert keep_bound(states, at.UPPER, 10.1, 500.0)
    assert not keep_bound(states, at.UPPER, 10.2, 600.0)
    assert keep_bound(states, at.UPPER, 10.3, 400.0)
    drop_bound(states)
    slot = at.UPPER + 20 % at.BUCKETS
    assert (states[0].bound_d[slot], states[0].bound_theta[slot]) == (10.1, 500.0)
    later = 10.1 + at.BUCKETS * at.BUCKET_S
    assert keep_bound(states, at.UPPER, later, 9e9)
    assert not keep_bound(states, at.UPPER, 10.1, 0.0), "an older bucket never replaces a newer one"


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    count=st.integers(9, 39),
    wait_ns=st.sampled_from([2e3, 20e3, 200e3]),
    slope_ns_s=st.integers(-90_000, 90_000),
    room_ns_s=st.sampled_from([3e3, 30e3]),
)
def test_the_line_above_the_lower_bounds_is_the_mean_of_all(seed, count, wait_ns, slope_ns_s, room_ns_s):
    rng = np.random.default_rng(seed)
    at_d = np.sort(rng.choice(39, count, replace=False)) * 0.5 + rng.uniform(0.0, 0.5, count)
    lowers = [
        (d, slope_ns_s * d - wait) for d, wait in zip(at_d, rng.exponential(wait_ns, count), strict=True)
    ]
    d = at_d[-1] + 0.01
    states = at.new_state(1000, 300.0, 0.05)
    for d_j, theta in lowers:
        assert keep_bound(states, at.LOWER, d_j, theta)
    states["band_d"], states["lo"] = d, slope_ns_s * d
    states["slope_lo"], states["slope_hi"] = slope_ns_s - room_ns_s, slope_ns_s + 0.7 * room_ns_s
    draw_line(states)
    s = states[0]
    theta, slope, deviation = reference.line_above(lowers, d, s.slope_lo, s.slope_hi)
    assert s.line_n == len(lowers)
    assert abs(s.line_theta - theta) <= 0.15 * deviation + 20.0
    assert abs(s.line_sigma / deviation - 1.0) <= 0.15
    assert abs(s.line_slope - slope) <= 0.05 * (s.slope_hi - s.slope_lo)


def test_the_live_band_holds_the_band_of_all_exchanges_and_is_hardly_wider():
    log = simulate(SCENARIOS["usb-1ms-batch"], seed=21, seconds=30)
    wrap = np.flatnonzero(np.diff(log.t_us.astype(np.int64)) < -1e9)
    until = int(wrap[0]) if len(wrap) else len(log.kind)
    clock = DeviceClock()
    rows = rows_from_arrays(log.arrays())[:until]
    out = np.zeros((until, at.OUT_WIDTH), np.int64)
    clock.feed_log(rows, out)
    fit = clock.fit()
    _, _, d, lo, hi = reference.band_of_exchange(log, until, 50.0, -100e3, 100e3)
    half = (hi - lo) / 2
    skewed = fit.ref_ns - int(log.arrival_ns[0]) - (fit.ref_tick - int(log.t_us[0])) * 1000
    at_d = skewed + fit.drift_ppm * 1e3 * (d - (fit.ref_tick - int(log.t_us[0])) * 1e-6)
    assert at_d - fit.u_ns <= lo + 100
    assert at_d + fit.u_ns >= hi - 100
    assert fit.u_ns <= 2 * half + 30_000
