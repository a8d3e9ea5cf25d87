"""Lag from taps and from an LED: known lags come back, unfit data are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgecap.dataset.sync import Limits, Signal
from edgecap.dataset.sync_led import RowFilm, Switching, brightest_stripe, lag_of_led, led_edges
from edgecap.dataset.sync_taps import lag_of_taps, tap_onsets
from edgecap.errors import CalibrationError
from tests.calibration_events import (
    LINE_NS,
    START_NS,
    acceleration,
    blinking,
    film_of,
    force,
    knock_times,
)

MS = 1_000_000


class TestTaps:
    def test_known_lags_come_back(self):
        worst, inside = 0, 0
        for seed in range(12):
            rng = np.random.default_rng(seed)
            late_ns = int(rng.integers(-100 * MS, 100 * MS))
            knocks = knock_times(rng, 12)
            found = lag_of_taps(force(rng, knocks, late_ns=late_ns), acceleration(rng, knocks))
            assert found.n >= 9, f"seed {seed}"
            assert found.r2 is None
            worst = max(worst, abs(found.lag_ns - late_ns))
            inside += abs(found.lag_ns - late_ns) <= found.u_ns
            assert found.u_ns < 400_000
        assert worst < 300_000
        assert inside >= 11

    def test_equal_sensors_have_no_bias(self):
        errors, inside = [], 0
        for seed in range(20):
            rng = np.random.default_rng(seed)
            knocks = knock_times(rng, 12)
            late_ns = 12_345_678
            a, b = force(rng, knocks, late_ns=late_ns), force(rng, knocks + 0.0004)
            found = lag_of_taps(a, b)
            errors.append(found.lag_ns - (late_ns - 400_000))
            inside += abs(errors[-1]) <= found.u_ns
        assert abs(np.mean(errors)) < 30_000
        assert np.std(errors) < 100_000
        assert inside >= 17

    def test_onsets_are_where_the_edge_begins(self):
        rng = np.random.default_rng(3)
        knocks = knock_times(rng, 10)
        signal = force(rng, knocks, noise_n=0.001)
        onsets, _ = tap_onsets((signal.t_ns - START_NS) * 1e-9, signal.values)
        assert onsets == pytest.approx(knocks, abs=4e-4)

    def test_lost_and_extra_taps_do_not_matter(self):
        rng = np.random.default_rng(6)
        knocks = knock_times(rng, 14)
        a = force(rng, np.delete(knocks, [2, 7]), late_ns=40 * MS)
        b = acceleration(rng, np.sort(np.append(knocks, knocks[-1] + 0.7)))
        found = lag_of_taps(a, b)
        assert abs(found.lag_ns - 40 * MS) < 500_000
        assert found.n + found.n_rejected == 15

    def test_unrelated_clocks(self):
        rng = np.random.default_rng(7)
        knocks = knock_times(rng, 12)
        a = force(rng, knocks, late_ns=-(10**17))
        b = acceleration(rng, knocks)
        with pytest.raises(CalibrationError, match="no event"):
            lag_of_taps(a, b)
        found = lag_of_taps(a, b, Limits(max_lag_s=None))
        assert abs(found.lag_ns + 10**17) < 500_000

    def test_refusals(self):
        rng = np.random.default_rng(8)
        knocks = knock_times(rng, 12)
        a, b = force(rng, knocks), acceleration(rng, knocks)
        with pytest.raises(CalibrationError, match="second stream holds 3 taps"):
            lag_of_taps(a, acceleration(rng, knocks[:3]))
        with pytest.raises(CalibrationError, match="first stream holds 0 taps"):
            lag_of_taps(Signal(a.t_ns, np.ones_like(a.values)), b)
        other = knock_times(np.random.default_rng(1234), 12)
        with pytest.raises(CalibrationError, match="meet at one lag"):
            lag_of_taps(a, acceleration(rng, other))
        steady = 1 + np.arange(12) * 0.4
        with pytest.raises(CalibrationError, match="at another"):
            lag_of_taps(force(rng, steady), acceleration(rng, steady))


class TestLed:
    @pytest.mark.parametrize(
        ("exposure_ns", "within_ns"), [(2 * MS, 40_000), (100_000, 20_000), (8 * MS, 100_000)]
    )
    def test_known_lags_come_back_to_a_row_or_better(self, exposure_ns, within_ns):
        inside = 0
        for seed in range(6):
            rng = np.random.default_rng(seed)
            late_ns = int(rng.integers(-60 * MS, 60 * MS))
            led = blinking(rng, 25)
            found = lag_of_led(film_of(rng, led, exposure_ns=exposure_ns, late_ns=late_ns), led)
            assert found.n >= 10, f"seed {seed}"
            assert abs(found.lag_ns - late_ns) < within_ns, f"seed {seed}"
            assert found.u_ns < within_ns
            inside += abs(found.lag_ns - late_ns) <= found.u_ns
        assert inside >= 4

    def test_edges_carry_their_direction(self):
        rng = np.random.default_rng(1)
        led = blinking(rng, 20)
        edges_s, on = led_edges(film_of(rng, led, exposure_ns=2 * MS))
        nearest = np.abs(edges_s[:, None] - (led.t_ns - START_NS) * 1e-9).argmin(axis=1)
        assert on.tolist() == led.on[nearest].tolist()
        assert edges_s == pytest.approx((led.t_ns[nearest] - START_NS) * 1e-9, abs=1e-3)

    def test_the_led_is_found_in_the_picture(self):
        pictures = np.full((6, 12, 320), 30, np.uint8)
        pictures[3:, :, 100:110] = 200
        rows = brightest_stripe(list(pictures))
        assert rows.tolist() == [[30.0] * 12] * 3 + [[200.0] * 12] * 3
        with pytest.raises(CalibrationError, match="no frame"):
            brightest_stripe([])

    def test_refusals(self):
        rng = np.random.default_rng(2)
        led = blinking(rng, 20)
        film = film_of(rng, led, exposure_ns=2 * MS)
        with pytest.raises(CalibrationError, match="rolling shutter"):
            lag_of_led(replace(film, line_ns=0), led)
        with pytest.raises(CalibrationError, match="change of light"):
            lag_of_led(replace(film, rows=np.full_like(film.rows, 50.0)), led)
        with pytest.raises(CalibrationError, match="switched 3 times"):
            lag_of_led(film, Switching(led.t_ns[:3], led.on[:3]))
        with pytest.raises(CalibrationError, match="meet at one lag|no event"):
            lag_of_led(film, Switching(led.t_ns, ~led.on))
        few = film.t_ns < led.t_ns[2]
        with pytest.raises(CalibrationError, match="the camera shows|change of light"):
            lag_of_led(RowFilm(film.t_ns[few], film.rows[few], LINE_NS, film.exposure_ns[few]), led)
