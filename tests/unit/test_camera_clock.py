"""Sensor timestamps: the clock they are in, their mapping to rig time, and the losses they show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.clock import read_pair
from edgecap.errors import SourceError
from edgecap.model import ClockPair
from edgecap.source.camera_clock import (
    PROBE_MOST,
    FrameNumbers,
    HostClock,
    find_domain,
    host_time,
    plausible_domains,
)

S = 1_000_000_000


def pair(raw_ns, monotonic_ns, boottime_ns, width_ns=150):
    return ClockPair(raw_ns, monotonic_ns, boottime_ns, 0, width_ns, True, 0, 0, 0.0)


@pytest.mark.parametrize("domain", ["monotonic", "boottime", "raw"])
def test_the_clock_is_recognised_when_clocks_are_apart(domain):
    samples = []
    for k in range(5):
        p = pair(100 * S + k * S, 300 * S + k * S, 7000 * S + k * S)
        samples.append((host_time(p, domain) - 40_000_000, p))
    assert plausible_domains(samples) == [domain]


def test_clocks_that_agree_are_named_in_order_of_preference():
    p = pair(100 * S, 100 * S + 5_000_000, 100 * S + 5_000_000)
    assert plausible_domains([(100 * S - 30_000_000, p)]) == ["monotonic", "boottime", "raw"]
    # raw is behind monotonic by more than the frame took: a stamp in monotonic is in raw's future
    assert plausible_domains([(100 * S + 1_000_000, p)]) == ["monotonic", "boottime"]


@pytest.mark.parametrize("timestamp", [0, 10**18, 103 * S])
def test_a_foreign_clock_is_refused(timestamp):
    with pytest.raises(SourceError, match="none of the host's clocks") as caught:
        plausible_domains([(timestamp, pair(100 * S, 101 * S, 102 * S))])
    assert caught.value.evidence["delays_ns"]


@pytest.mark.parametrize("domain", ["monotonic", "boottime", "raw"])
def test_a_busy_machine_takes_more_frames_to_recognise_the_clock(domain):
    """Each frame comes late, up to seconds, until one is prompt; the clocks are further apart than that."""
    taken = []

    def frames():
        for k, late_ms in enumerate([700, 2500, 900, 800, 4000, 600, 510, 40, 0]):
            p = pair(100 * S + k * S, 300 * S + k * S, 7000 * S + k * S)
            taken.append(late_ms)
            yield host_time(p, domain) - late_ms * 1_000_000, p

    assert find_domain(frames(), 5) == domain
    assert taken[-1] == 40


def test_a_clock_of_the_cameras_own_is_refused_however_many_frames_are_taken():
    frames = ((k * 33_333_333, pair(100 * S + k * 33_333_333, 300 * S, 7000 * S)) for k in range(10**9))
    with pytest.raises(SourceError, match="none of the host's clocks") as caught:
        find_domain(frames, 5)
    assert len(caught.value.evidence["delays_ns"]["raw"]) == PROBE_MOST
    with pytest.raises(SourceError, match="none of the host's clocks"):
        find_domain(iter(()), 5)


def test_this_machines_monotonic_is_recognised():
    p = read_pair()
    assert "monotonic" in plausible_domains([(p.monotonic_ns - 20_000_000, p)])


@given(
    slews_ppm=st.lists(st.floats(-500, 500), min_size=40, max_size=40),
    delay_ms=st.floats(0.1, 120),
)
def test_truth_lies_within_the_stated_bound_whatever_ntp_does(slews_ppm, delay_ms):
    """MONOTONIC runs at 1 + slew against RAW, another slew in every 10 ms; readings come at 30 Hz."""
    step_ns = 10_000_000
    raw = np.arange(41) * float(step_ns) + 5 * S
    mono = 77 * S + np.concatenate([[0], np.cumsum(step_ns * (1 + np.array(slews_ppm) * 1e-6))])

    def mono_at(raw_ns):
        return round(float(np.interp(raw_ns, raw, mono)))

    clock = HostClock("monotonic")
    for t in range(5 * S, 5 * S + 400_000_000, 33_333_333):
        clock.note(pair(t, mono_at(t), 0))
        true_ns = t - round(delay_ms * 1e6)
        if true_ns < 5 * S:
            continue
        tick = mono_at(true_ns)
        fit = clock.fit(tick)
        elapsed = tick - fit.ref_tick
        mapped = fit.ref_ns + elapsed + round(elapsed * fit.drift_ppm * 1e-6)
        assert abs(mapped - true_ns) <= fit.u_ns
        assert fit.u_ns < 60_000


def test_raw_timestamps_are_rig_time():
    clock = HostClock("raw")
    clock.note(pair(10 * S, 3 * S, 3 * S))
    clock.note(pair(11 * S, 4 * S, 4 * S))
    fit = clock.fit(10 * S + 5)
    assert (fit.ref_ns + 10 * S + 5 - fit.ref_tick, fit.drift_ppm) == (10 * S + 5, 0.0)
    assert fit.u_ns < 200


def test_the_first_frame_has_one_reading_only():
    clock = HostClock("monotonic")
    clock.note(pair(10 * S, 3 * S, 3 * S))
    fit = clock.fit(3 * S - 30_000_000)
    assert fit.ref_ns + (3 * S - 30_000_000 - fit.ref_tick) == 10 * S - 30_000_000
    assert 30_000 <= fit.u_ns < 60_000


def test_frames_are_numbered_by_time():
    numbers = FrameNumbers(33_333_333)
    ticks = [
        5 * S + round(k * 33_333_333 + j) for k, j in [(0, 0), (1, 9e6), (2, -9e6), (5, 0), (6, 0), (6, 0)]
    ]
    assert [numbers.number(t) for t in ticks] == [0, 1, 2, 5, 6, 7]
    assert numbers.next_index == 8


def test_numbering_goes_on_after_a_restart():
    numbers = FrameNumbers(100, next_index=40, last_tick=10_000)
    assert numbers.number(11_000) == 49
    assert FrameNumbers(100, next_index=40).number(11_000) == 40
