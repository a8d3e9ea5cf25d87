"""The clock aligner against simulated links whose truth is known."""

import numpy as np
import pytest
from msgspec.structs import replace

from edgecap.kernels import align_state as at
from edgecap.sim.clock import LinkLog, simulate
from edgecap.sim.links import SCENARIOS
from edgecap.timeline.device_clock import KIND_OTHER, KIND_PONG, KIND_SAMPLES, DeviceClock
from edgecap.timeline.fit import to_rig_ns
from edgecap.timeline.replay import Replay, replay, rows_from_arrays


def run(log: LinkLog, clock: DeviceClock | None = None) -> Replay:
    arrays = {name: getattr(log, name) for name in log.__slots__ if name != "truth_ns"}
    return replay(rows_from_arrays(arrays), clock or DeviceClock(seed=0))


def errors(log: LinkLog, result: Replay) -> np.ndarray:
    return result.t_ns - log.truth_ns[log.kind == 0]


@pytest.mark.parametrize("name", SCENARIOS)
def test_truth_lies_inside_the_published_bound(name):
    for seed in (1, 2):
        log = simulate(SCENARIOS[name], seed=seed, seconds=150)
        result = run(log, SCENARIOS[name].clock())
        inside = np.abs(errors(log, result)) <= result.u_ns
        assert inside.mean() >= 0.999, f"{name} seed {seed}: {inside.mean():.5f}"
        assert result.locked.mean() > 0.95, f"{name} seed {seed}"


@pytest.mark.parametrize(
    ("name", "limit_ns"),
    [("usb-1ms", 60_000), ("usb-125us", 25_000), ("uart", 25_000), ("uart-one-step", 25_000)],
)
def test_error_after_ten_seconds_and_in_the_first(name, limit_ns):
    for seed in (1, 2, 3):
        log = simulate(SCENARIOS[name], seed=seed, seconds=120)
        result = run(log, SCENARIOS[name].clock())
        error = np.abs(errors(log, result))
        since = result.arrival_ns - result.arrival_ns[0]
        assert np.percentile(error[since > 10e9], 99) <= limit_ns, f"seed {seed}"
        young = (since < 1e9) & (result.locked == 1)
        assert np.percentile(error[young], 99) <= 400_000, f"seed {seed}"
        assert np.median(result.u_ns[since > 10e9]) <= 80_000, f"seed {seed}"


@pytest.mark.parametrize(
    ("name", "batch", "limit_ns"),
    [("usb-1ms-one-step", 1, 110_000), ("usb-1ms-one-step", 10, 70_000), ("usb-125us-one-step", 1, 40_000)],
)
def test_without_stamps_a_wait_that_never_varies_is_put_where_it_belongs(name, batch, limit_ns):
    """The middle of the band would be up to half a USB frame off, half a millisecond."""
    for seed in range(4):
        log = simulate(replace(SCENARIOS[name], batch=batch), seed=seed, seconds=120)
        result = run(log)
        error = np.abs(errors(log, result))
        late = result.arrival_ns - result.arrival_ns[0] > 10e9
        assert np.percentile(error[late], 99) <= limit_ns, f"seed {seed}"
        assert (error <= result.u_ns).all(), f"seed {seed}"
        assert np.percentile(result.u_ns[late], 99) < 1_060_000, f"seed {seed}"
        assert result.epoch.max() == 0, f"seed {seed}"


def test_without_stamps_a_minute_of_unanswered_pings_is_bridged():
    scenario = replace(SCENARIOS["silence"], two_step=False)
    for seed in range(3):
        log = simulate(scenario, seed=seed, seconds=150)
        result = run(log)
        error = np.abs(errors(log, result))
        late = result.arrival_ns - result.arrival_ns[0] > 10e9
        assert np.percentile(error[late], 99) <= 400_000, f"seed {seed}"
        assert (error <= result.u_ns).mean() >= 0.999, f"seed {seed}"


def test_epochs_count_resets_and_suspends_and_nothing_else():
    for name in ("usb-1ms", "temperature", "tails", "losses", "stalls"):
        result = run(simulate(SCENARIOS[name], seed=3, seconds=100))
        assert result.epoch.max() == 0, name
    assert run(simulate(SCENARIOS["resets"], seed=3, seconds=100)).epoch.max() == 2
    assert run(simulate(SCENARIOS["suspends"], seed=3, seconds=100)).epoch.max() == 1


def test_relocks_within_a_second_of_a_reset():
    result = run(simulate(SCENARIOS["resets"], seed=4, seconds=100))
    for epoch in range(3):
        part = result.epoch == epoch
        arrival, locked = result.arrival_ns[part], result.locked[part]
        assert arrival[np.argmax(locked)] - arrival[0] < 1e9


def test_before_any_pong_the_bound_is_open_and_unlocked():
    log = simulate(SCENARIOS["usb-1ms"], seed=5, seconds=3)
    only = log.kind == 0
    arrays = {name: getattr(log, name)[only] for name in log.__slots__ if name != "truth_ns"}
    result = replay(rows_from_arrays(arrays), DeviceClock())
    assert not result.locked.any()
    assert (np.abs(result.t_ns - log.truth_ns[only]) <= result.u_ns).all()
    assert (result.t_ns <= result.arrival_ns).all()


def live(clock: DeviceClock, log: LinkLog, count: int) -> np.ndarray:
    """Feed the log frame by frame through the daemon's interface; the truth of the last frame's ticks."""
    sent = {}
    for i in range(count):
        pong = log.kind[i] == KIND_PONG
        if pong:
            sent[i] = clock.new_ping(int(log.ping_sent_ns[i]))
        ticks = clock.feed(
            log.kind[i : i + 1],
            log.arrival_ns[i],
            log.seq[i],
            log.t_us[i],
            log.prev_tx_done_us[i],
            log.has_prev[i],
            sent.get(i, 0),
            log.t2_us[i],
            log.boot[i],
        )
        assert ticks.shape == (1,)
    return ticks


def test_live_feed_publishes_what_replay_publishes():
    log = simulate(SCENARIOS["usb-1ms"], seed=6, seconds=20)
    count = 15_000
    clock = DeviceClock(seed=1)
    ticks = live(clock, log, count)
    fit = clock.fit()
    result = run(LinkLog(**{name: getattr(log, name)[:count] for name in log.__slots__}))
    samples = log.kind[:count] == KIND_SAMPLES
    assert samples[-1]
    assert abs(int(to_rig_ns(fit, ticks)[0]) - int(result.t_ns[-1])) <= 500  # reads are grouped otherwise
    assert fit.locked
    assert fit.epoch == 0
    assert fit.u_ns >= result.u_ns[-1] - 500
    quality = clock.quality()
    assert quality.pongs == int((log.kind[:count] == KIND_PONG).sum())
    assert quality.frames == count
    assert quality.rejected_unknown == quality.restarts == quality.seq_lost == 0
    assert 500_000 < quality.rtt_p50_ns < 3_000_000


def test_ticks_unwrap_across_the_counter_and_keep_its_low_half():
    log = simulate(SCENARIOS["usb-1ms"], seed=7, seconds=120)
    assert (np.diff(log.t_us[log.kind == 0].astype(np.int64)) < 0).sum() == 1
    clock = DeviceClock()
    rows = rows_from_arrays({name: getattr(log, name) for name in log.__slots__})
    out = np.zeros((len(rows), 5), np.int64)
    clock.feed_log(rows, out)
    assert (np.diff(out[log.kind == 0, 0]) == 1000).all()
    assert ((out[:, 0] & 0xFFFFFFFF) == log.t_us).all()


def test_round_trips_are_counted_in_quarters_of_an_octave():
    log = simulate(SCENARIOS["tails"], seed=7, seconds=60)
    rows = rows_from_arrays(log.arrays())
    clock = DeviceClock()
    clock.feed_log(rows, np.zeros((len(rows), at.OUT_WIDTH), np.int64))
    pong = log.kind == KIND_PONG
    turn_us = (log.t_us[pong] - log.t2_us[pong]).astype(np.int64)
    trip_us = (log.arrival_ns[pong] - log.ping_sent_ns[pong]) / 1e3 - turn_us
    bins = np.floor(4.0 * np.log2(1.0 + trip_us)).astype(int)
    assert clock.quality().rejected_impossible == 0
    assert (clock._trip_bins == np.bincount(bins, minlength=at.BINS)).all()


def test_frames_without_a_counter_do_no_harm():
    log = simulate(SCENARIOS["usb-1ms"], seed=8, seconds=12)
    arrays = {name: getattr(log, name).copy() for name in log.__slots__}
    hello = np.arange(0, len(log.kind), 100)
    arrays["kind"][hello] = KIND_OTHER
    arrays["t_us"][hello] = 0
    arrays["has_prev"][hello[::2]] = 0
    result = replay(rows_from_arrays(arrays), DeviceClock())
    error = np.abs(result.t_ns - arrays["truth_ns"][arrays["kind"] == 0])
    assert (error <= result.u_ns).all()
    assert result.epoch.max() == 0
    assert result.clock.quality().suspect_frames == 0


def test_pings_are_answered_once_and_only_while_fresh():
    clock = DeviceClock(seed=2)
    ping = clock.new_ping(1_000_000_000)

    def pong(ping_id: int, arrival_ns: int, seq: int) -> None:
        t_us = arrival_ns // 1000 - 500
        clock.feed(np.array([1]), arrival_ns, seq, t_us, 0, 0, ping_id, t_us - 10, 7)

    pong(ping, 1_001_000_000, 0)
    pong(ping, 1_002_000_000, 1)
    pong(ping ^ 0x5555, 1_003_000_000, 2)
    late = clock.new_ping(1_100_000_000)
    pong(late, 4_000_000_000, 3)
    quality = clock.quality()
    assert (quality.pongs, quality.pings) == (1, 2)
    assert (quality.rejected_duplicate, quality.rejected_unknown, quality.rejected_stale) == (1, 1, 1)
    assert quality.rejected_impossible == 0


def test_pings_come_in_a_burst_and_then_at_ten_hertz_with_random_phase():
    clock = DeviceClock(seed=3)
    now, gaps = 5_000_000_000, []
    assert clock.next_ping_due_ns() <= now
    for _ in range(216):
        clock.new_ping(now)
        gaps.append(clock.next_ping_due_ns() - now)
        now = clock.next_ping_due_ns()
    assert sum(gaps[:16]) < 300_000_000
    assert 0.09e9 < np.mean(gaps[16:]) < 0.11e9
    assert np.std(gaps[16:]) > 0.01e9
    clock.burst()
    assert clock.next_ping_due_ns() <= now


def test_a_slewed_or_stepped_host_clock_would_cost_what_the_raw_one_saves():
    log = simulate(SCENARIOS["usb-1ms-batch"], seed=9, seconds=200)
    raw = np.percentile(np.abs(errors(log, run(log))), 99)
    for steps in (False, True):
        other = log.on_slewed_clock(np.random.default_rng(9), steps=steps)
        result = run(other)
        error = np.abs(errors(other, result))
        assert np.percentile(error, 99) > 4 * raw
        assert result.locked[-500:].all(), "it recovers"
    assert raw < 100_000
