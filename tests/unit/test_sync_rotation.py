"""Lag from rotation: known lags come back within the stated uncertainty, unfit data are refused."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest

from edgecap.dataset.sync import Intervals, Limits, Signal, combine, student_95
from edgecap.dataset.sync_flow import Picture, picture_rates
from edgecap.dataset.sync_rotation import lag_of_gyros, lag_of_rotation, orientation_rates
from edgecap.dataset.sync_sources import array_rotation, array_signal, read_arrays
from edgecap.errors import CalibrationError
from edgecap.sim.recordings import RECORDINGS, SYNC_COMMA2K19, SYNC_TWISTNSYNC, VIDEO
from tests.turning_camera import band_noise, gyroscope, pictures, turning

MS = 1_000_000
FAR = Limits(max_lag_s=None)


@pytest.fixture(scope="module")
def comma() -> tuple[Intervals, Signal]:
    arrays = read_arrays(SYNC_COMMA2K19)
    camera = array_rotation(arrays)
    assert isinstance(camera, Intervals)
    return camera, array_signal(arrays, "b")


@pytest.fixture(scope="module")
def twist() -> tuple[Signal, Signal]:
    arrays = read_arrays(SYNC_TWISTNSYNC)
    phone = array_rotation(arrays)
    assert isinstance(phone, Signal)
    return phone, array_signal(arrays, "b")


def moved(signal, by_ns):
    if isinstance(signal, Intervals):
        return replace(signal, from_ns=signal.from_ns + by_ns, to_ns=signal.to_ns + by_ns)
    return replace(signal, t_ns=signal.t_ns + by_ns)


def part(signal, low, high):
    """The share of a signal from `low` to `high`."""
    n = len(signal.values)
    k = slice(int(low * n), int(high * n))
    if isinstance(signal, Intervals):
        return Intervals(signal.from_ns[k], signal.to_ns[k], signal.values[k])
    return Signal(signal.t_ns[k], signal.values[k])


class TestRealCamera:
    """comma2k19: camera orientations and a phone's gyroscope."""

    def test_windows_agree(self, comma):
        found = lag_of_rotation(*comma)
        assert found.n == 6
        assert found.n_rejected == 0
        assert found.sd_ns < 1.2 * MS
        assert found.u_ns < 1.5 * MS
        assert found.r2 > 0.94
        assert abs(found.drift_ppm) < found.u_drift_ppm

    def test_halves_agree(self, comma):
        camera, gyro = comma
        one, two = (lag_of_rotation(part(camera, *half), gyro) for half in ((0, 0.5), (0.5, 1)))
        assert abs(one.lag_ns - two.lag_ns) <= np.hypot(one.u_ns, two.u_ns)

    @pytest.mark.parametrize("late_ns", [-237_654_321, 17_300_000])
    def test_a_known_shift_comes_back(self, comma, late_ns):
        camera, gyro = comma
        base, found = lag_of_rotation(camera, gyro), lag_of_rotation(moved(camera, late_ns), gyro)
        assert abs(found.lag_ns - base.lag_ns - late_ns) < 10_000 < found.u_ns

    def test_camera_and_gyro_swapped_give_the_opposite(self, comma):
        camera, gyro = comma
        middle = Signal((camera.from_ns + camera.to_ns) // 2, camera.values)
        there, back = lag_of_gyros(middle, gyro), lag_of_gyros(gyro, middle)
        assert abs(there.lag_ns + back.lag_ns) <= np.hypot(there.u_ns, back.u_ns)


class TestRealGyros:
    """twist-n-sync: a phone and a microcontroller, on unrelated clocks."""

    def test_windows_agree_within_tens_of_microseconds(self, twist):
        found = lag_of_gyros(*twist, FAR)
        assert found.n == 3
        assert found.n_rejected == 3  # the body lies still at the end
        assert found.u_ns < 100_000
        lags = np.array([w.lag_ns - found.lag_ns for w in found.windows])
        assert np.abs(lags).max() < 50_000
        assert found.r2 > 0.999

    def test_shorter_windows_and_other_halves_agree(self, twist):
        phone, mcu = twist
        whole = lag_of_gyros(phone, mcu, FAR)
        shorter = lag_of_gyros(phone, mcu, replace(FAR, window_s=0.7))
        assert abs(whole.lag_ns - shorter.lag_ns) <= np.hypot(whole.u_ns, shorter.u_ns)
        moving = lag_of_gyros(part(phone, 0, 0.65), mcu, FAR)
        assert abs(whole.lag_ns - moving.lag_ns) <= np.hypot(whole.u_ns, moving.u_ns)

    @pytest.mark.parametrize("late_ns", [3_141_592_653, -777_777])
    def test_a_known_shift_comes_back(self, twist, late_ns):
        phone, mcu = twist
        base, found = lag_of_gyros(phone, mcu, FAR), lag_of_gyros(moved(phone, late_ns), mcu, FAR)
        assert abs(found.lag_ns - base.lag_ns - late_ns) < 2_000 < found.u_ns

    def test_swapped_gives_the_opposite(self, twist):
        phone, mcu = twist
        there, back = lag_of_gyros(phone, mcu, FAR), lag_of_gyros(mcu, phone, FAR)
        assert abs(there.lag_ns + back.lag_ns) <= np.hypot(there.u_ns, back.u_ns)

    def test_unrelated_clocks_need_to_be_called_so(self, twist):
        with pytest.raises(CalibrationError, match="too little time in common"):
            lag_of_gyros(*twist)


class TestSynthetic:
    def test_uncertainty_covers_the_truth(self):
        inside, seeds = 0, range(20)
        for seed in seeds:
            rng = np.random.default_rng(seed)
            body = turning(rng, 20)
            late_ns = int(rng.integers(-300 * MS, 300 * MS))
            a = gyroscope(rng, body, rate_hz=100, noise_rad_s=0.05, start_ns=10**18 + late_ns)
            b = gyroscope(rng, body, rate_hz=500, noise_rad_s=0.05, start_ns=10**18)
            found = lag_of_gyros(a, b)
            assert found.u_ns < 1.5 * MS, f"seed {seed}"
            inside += abs(found.lag_ns - late_ns) <= found.u_ns
        assert inside >= 17, f"{inside} of {len(seeds)}"

    def test_camera_against_gyro(self):
        seed = 5
        rng = np.random.default_rng(seed)
        body = turning(rng, 12)
        late_ns = 23_456_789
        film = pictures(rng, body, 12, late_ns=late_ns, start_ns=10**18)
        del film[100:103]  # lost frames
        flow = picture_rates(film)
        assert len(flow.values) == 360 - 3 - 2
        found = lag_of_rotation(flow, gyroscope(rng, body, start_ns=10**18))
        assert abs(found.lag_ns - late_ns) <= max(found.u_ns, 150_000), f"seed {seed}"
        assert found.u_ns < 400_000
        assert found.r2 > 0.99

    def test_gaps_in_the_gyro_are_not_bridged(self):
        rng = np.random.default_rng(2)
        body = turning(rng, 30)
        a, b = gyroscope(rng, body, start_ns=5 * MS), gyroscope(rng, body)
        keep = np.ones(len(b.t_ns), np.bool_)
        keep[1000:1800] = False
        found = lag_of_gyros(a, Signal(b.t_ns[keep], b.values[keep]))
        assert abs(found.lag_ns - 5 * MS) <= found.u_ns
        assert found.n < 6

    def test_any_lag_of_a_long_recording_is_found_in_coarse_bins(self):
        rng = np.random.default_rng(12)
        body = turning(rng, 200)
        a, b = gyroscope(rng, body, rate_hz=100, start_ns=10**17), gyroscope(rng, body, rate_hz=100)
        later = Signal(a.t_ns[12_000:], a.values[12_000:])
        found = lag_of_gyros(later, b, FAR)
        assert abs(found.lag_ns - 10**17) <= found.u_ns < 100_000

    def test_a_drifting_clock_is_told(self):
        rng = np.random.default_rng(3)
        body = turning(rng, 60)
        a, b = gyroscope(rng, body), gyroscope(rng, body)
        found = lag_of_gyros(Signal(a.t_ns + a.t_ns // 10_000, a.values), b)
        assert abs(found.drift_ppm - 100) <= found.u_drift_ppm < 20
        assert found.u_ns > 1 * MS

    def test_quaternions_and_their_opposites_turn_alike(self):
        t_ns = np.array([0, 10 * MS, 30 * MS], np.int64)
        half = np.array([0.0, 0.05, 0.2])
        turn = np.column_stack([np.cos(half), np.zeros(3), np.sin(half), np.zeros(3)])
        flipped = turn * [[1], [-1], [1]]
        for q in (turn, flipped):
            rates = orientation_rates(t_ns, q)
            assert rates.values == pytest.approx(np.array([[0, 10, 0], [0, 15, 0]]), abs=1e-9)
            assert rates.from_ns.tolist() == [0, 10 * MS]


@pytest.fixture(scope="module")
def pair() -> tuple[Signal, Signal]:
    rng = np.random.default_rng(11)
    body = turning(rng, 20)
    return gyroscope(rng, body), gyroscope(rng, body)


class TestRefusals:
    def test_too_short(self, pair):
        a, b = pair
        with pytest.raises(CalibrationError, match="too short"):
            lag_of_gyros(Signal(a.t_ns[:800], a.values[:800]), b)

    def test_no_motion(self, pair):
        rng = np.random.default_rng(1)
        still = [Signal(s.t_ns, rng.normal(0, 0.001, s.values.shape)) for s in pair]
        with pytest.raises(CalibrationError, match="no motion"):
            lag_of_gyros(*still)

    def test_motion_only_for_a_moment(self, pair):
        rng = np.random.default_rng(1)
        rest = rng.normal(0, 0.001, pair[0].values.shape)
        mostly = [Signal(s.t_ns, np.where(s.t_ns[:, None] < 3e9, s.values, rest)) for s in pair]
        with pytest.raises(CalibrationError, match="no motion in"):
            lag_of_gyros(*mostly)

    def test_unrelated_motion(self, pair):
        rng = np.random.default_rng(99)
        with pytest.raises(CalibrationError, match="R² is too low"):
            lag_of_gyros(pair[0], gyroscope(rng, turning(rng, 20)))

    def test_a_steady_rhythm_fits_at_every_beat(self, pair):
        rng = np.random.default_rng(4)
        t_ns = pair[0].t_ns
        swing = np.sin(2 * np.pi * 4 * t_ns * 1e-9)[:, None]
        a, b = (Signal(t_ns, swing + rng.normal(0, 0.01, (len(t_ns), 1))) for _ in range(2))
        with pytest.raises(CalibrationError, match="equally good"):
            lag_of_gyros(a, b)

    def test_lag_outside_the_search(self, pair):
        a, b = pair
        with pytest.raises(CalibrationError, match=r"R² is too low|edge of the search"):
            lag_of_gyros(Signal(a.t_ns + 900 * MS, a.values), b)

    def test_times_that_do_not_rise_and_values_that_are_no_numbers(self, pair):
        a, b = pair
        with pytest.raises(CalibrationError, match="do not rise"):
            lag_of_gyros(Signal(a.t_ns[::-1].copy(), a.values), b)
        hole = a.values.copy()
        hole[5, 1] = np.nan
        with pytest.raises(CalibrationError, match="not numbers"):
            lag_of_gyros(Signal(a.t_ns, hole), b)
        with pytest.raises(CalibrationError, match="1 samples"):
            lag_of_gyros(Signal(a.t_ns[:1], a.values[:1]), b)

    def test_pictures_without_texture(self):
        blank = [Picture(k * 33 * MS, np.full((60, 80), 90, np.float32)) for k in range(10)]
        flow = picture_rates(blank)
        rng = np.random.default_rng(0)
        with pytest.raises(CalibrationError):
            lag_of_rotation(flow, gyroscope(rng, turning(rng, 8)))
        with pytest.raises(CalibrationError, match="2 frames only"):
            picture_rates(blank[:2])

    def test_a_stabilised_camera_does_not_show_what_the_gyro_feels(self):
        film = []
        with av.open(str(VIDEO)) as file:
            for frame in file.decode(video=0):
                small = frame.reformat(width=96, height=54, format="gray", interpolation="AREA")
                film.append(Picture(round(frame.time * 1e9), small.to_ndarray().astype(np.float32)))
        recording = RECORDINGS["gopro-gyro"]
        rates = np.load(recording.path) * recording.channels[0].scale
        t_ns = np.rint(np.arange(len(rates)) / recording.rate_hz * 1e9).astype(np.int64)
        with pytest.raises(CalibrationError, match="R² is too low"):
            lag_of_rotation(picture_rates(film), Signal(t_ns, rates))


class TestCombine:
    def test_half_width_covers_as_stated(self):
        rng = np.random.default_rng(8)
        inside = 0
        for _ in range(2000):
            sigmas = rng.uniform(1e3, 3e3, 6)
            x = rng.normal(0, np.hypot(sigmas, 2e3))
            mean, u, _, _ = combine(x, sigmas)
            inside += abs(mean) <= u
        assert 0.93 < inside / 2000 < 0.98

    def test_one_wrong_value_among_many_does_not_count(self):
        x = [*np.linspace(-1e4, 1e4, 11), 5e6]
        mean, _, _, keep = combine(x, [1e3] * 12)
        assert abs(mean) < 1
        assert keep.tolist() == [True] * 11 + [False]

    def test_student(self):
        assert student_95(1) == 12.706
        assert student_95(0) == np.inf
        assert student_95(40) == pytest.approx(2.021, abs=2e-3)
        assert student_95(10**6) == pytest.approx(1.960, abs=1e-3)


def test_band_noise_is_what_it_says():
    noise = band_noise(np.random.default_rng(0), 4000, 1000.0, 1.0, 3.0)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    frequency = np.fft.rfftfreq(4000, 1e-3)
    assert noise.std() == pytest.approx(1)
    assert spectrum[(frequency < 1) | (frequency > 3)].sum() < 1e-9 * spectrum.sum()
