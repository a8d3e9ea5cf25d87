"""Logs that lie: the clock must stay honest wherever honesty is possible, and recover."""

import numpy as np
import pytest

from edgecap.kernels import align_state as at
from edgecap.sim.clock import simulate
from edgecap.sim.links import SCENARIOS
from edgecap.timeline.device_clock import DeviceClock
from edgecap.timeline.replay import replay, rows_from_arrays


def run(scenario, seed, harm, seconds=60):
    log = simulate(SCENARIOS[scenario], seed=seed, seconds=seconds)
    rows = rows_from_arrays(log.arrays())
    harm(rows, np.random.default_rng(seed))
    result = replay(rows, DeviceClock(seed=0))
    error = np.abs(result.t_ns - log.truth_ns[log.kind == 0])
    return result, (error <= result.u_ns), result.clock.quality()


def some(rows, rng, share, kind=None):
    chosen = rng.random(len(rows)) < share
    return chosen if kind is None else chosen & (rows[:, at.KIND] == kind)


def garbage_counters(rows, rng):
    chosen = some(rows, rng, 0.005, at.KIND_SAMPLES)
    rows[chosen, at.T_US] = rng.integers(0, 1 << 32, chosen.sum())


def garbage_stamps(rows, rng):
    chosen = some(rows, rng, 0.01)
    rows[chosen, at.PREV_TX] = rng.integers(0, 1 << 32, chosen.sum())


def stale_stamps(rows, rng):
    chosen = some(rows[1:], rng, 0.05)
    rows[1:][chosen, at.PREV_TX] = rows[:-1][chosen, at.PREV_TX]


def older_pings(rows, rng):
    pongs = np.flatnonzero(rows[:, at.KIND] == at.KIND_PONG)
    chosen = pongs[20:][rng.random(len(pongs) - 20) < 0.5]
    before = pongs[np.searchsorted(pongs, chosen) - rng.integers(1, 20, len(chosen))]
    rows[chosen, at.PING_SENT] = rows[before, at.PING_SENT].copy()


def far_newer_pings(rows, rng):
    chosen = some(rows, rng, 0.05, at.KIND_PONG)
    rows[chosen, at.PING_SENT] += rng.integers(10_000_000, 500_000_000, chosen.sum())


def unknown_pings(rows, rng):
    rows[some(rows, rng, 0.3, at.KIND_PONG), at.PING_SENT] = 0


def zero_t2(rows, rng):
    rows[some(rows, rng, 0.1, at.KIND_PONG), at.T2_US] = 0


@pytest.mark.parametrize(
    "harm",
    [garbage_counters, garbage_stamps, stale_stamps, older_pings, far_newer_pings, unknown_pings, zero_t2],
)
def test_stays_honest_without_a_restart(harm):
    for seed in (1, 2):
        result, inside, quality = run("usb-1ms-batch", seed, harm)
        assert inside.mean() >= 0.999, f"seed {seed}"
        assert quality.restarts == 0, f"seed {seed}"
        assert result.locked.mean() > 0.98, f"seed {seed}"


def test_without_any_ping_it_never_claims_a_lock():
    def none(rows, _):
        rows[rows[:, at.KIND] == at.KIND_PONG, at.PING_SENT] = 0

    result, inside, _ = run("usb-1ms-batch", 3, none, seconds=20)
    assert inside.all()
    assert not result.locked.any()


@pytest.mark.parametrize("ids", [0, 2])
def test_resets_are_noticed_whatever_the_boot_ids_say(ids):
    """Boot ids that never change, or only toggle: the fallen counter and sequence give the reset away."""

    def dull(rows, _):
        boots = np.unique(rows[:, at.BOOT], return_inverse=True)[1]
        rows[:, at.BOOT] = boots % ids if ids else 7

    for seed in (1, 2):
        result, inside, quality = run("resets", seed, dull, seconds=150)
        assert inside.mean() >= 0.999, f"seed {seed}"
        assert result.locked[-1000:].all(), f"seed {seed}"
        assert quality.epoch >= 3, f"seed {seed}"


def test_a_late_boot_id_costs_no_honesty():
    def late(rows, _):
        rows[20:, at.BOOT] = rows[:-20, at.BOOT].copy()

    _, inside, _ = run("resets", 1, late, seconds=100)
    assert inside.mean() >= 0.999


@pytest.mark.parametrize("skew_ppm", [-5000.0, 900.0])
def test_a_clock_outside_the_assumed_skew_is_followed(skew_ppm):
    def skewed(rows, _):
        start = rows[0, at.ARRIVAL]
        for column in (at.ARRIVAL, at.PING_SENT):
            off = rows[:, column] - start
            rows[:, column] = start + off + (off * (skew_ppm * 1e-6)).astype(np.int64)

    log = simulate(SCENARIOS["usb-1ms-batch"], seed=4, seconds=60)
    rows = rows_from_arrays(log.arrays())
    start = int(rows[0, at.ARRIVAL])
    skewed(rows, None)
    result = replay(rows, DeviceClock(seed=0))
    off = log.truth_ns[log.kind == 0] - start
    truth = start + off + (off * (skew_ppm * 1e-6)).astype(np.int64)
    late = result.arrival_ns - start > 5e9
    assert (np.abs(result.t_ns - truth) <= result.u_ns)[late].all()
    assert np.percentile(np.abs(result.t_ns - truth)[late], 99) < 100_000
    assert abs(result.clock.quality().skew_ppm - skew_ppm) < 150
    assert result.epoch.max() == 0


def test_a_fast_drift_widens_the_bound_instead_of_breaking_it():
    def drifting(t_s):
        return 20e3 * 20.0 * (1 - np.cos(t_s / 20.0))  # ±20 ppm with a period of 126 s: up to 1 ppm/s

    log = simulate(SCENARIOS["usb-1ms-batch"], seed=5, seconds=150)
    rows = rows_from_arrays(log.arrays())
    start = int(rows[0, at.ARRIVAL])

    def warp(t_ns):
        return t_ns + drifting((t_ns - start) * 1e-9).astype(np.int64)

    rows[:, at.ARRIVAL] = warp(rows[:, at.ARRIVAL])
    pongs = rows[:, at.KIND] == at.KIND_PONG
    rows[pongs, at.PING_SENT] = warp(rows[pongs, at.PING_SENT])
    result = replay(rows, DeviceClock(seed=0))
    error = np.abs(result.t_ns - warp(log.truth_ns[log.kind == 0]))
    assert (error <= result.u_ns).mean() >= 0.999
    assert result.epoch.max() == 0


@pytest.mark.parametrize("ids", [0, 1000])
def test_reads_that_straddle_a_reset_publish_every_frame(ids):
    """Reads only every 50 ms, so that frames from before and after a reset come in one."""

    def polled(rows, _):
        rows[:, at.ARRIVAL] = -(-rows[:, at.ARRIVAL] // 50_000_000) * 50_000_000
        if not ids:
            rows[:, at.BOOT] = 7

    log = simulate(SCENARIOS["resets"], seed=6, seconds=100)
    rows = rows_from_arrays(log.arrays())
    polled(rows, None)
    clock = DeviceClock(seed=0)
    inside = []
    starts = np.flatnonzero(np.diff(rows[:, at.ARRIVAL], prepend=-1))
    for first, last in zip(starts, [*starts[1:], len(rows)], strict=True):
        clock.feed_rows(rows[first:last])
        published = clock.published.copy()
        assert (published[:, at.OUT_TICK] & 0xFFFFFFFF == rows[first:last, at.T_US]).all()
        off = np.abs(published[:, at.OUT_T_NS] - log.truth_ns[first:last])
        inside.append(off <= published[:, at.OUT_U_NS])
        clock.published[:] = -(1 << 60)
    assert np.concatenate(inside).mean() >= 0.999
    assert clock.quality().epoch == 2
