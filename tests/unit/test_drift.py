"""Drift: what departs from the calibration is said at quiet moments, and only then."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecap.calibration import AccelRecord, ForceChannel, ForceRecord, GyroRecord, Record
from edgecap.config import load_calibration
from edgecap.drift import LEAST_ABOVE, SPAN_ABOVE_S, DriftWatch
from edgecap.errors import ConfigError
from edgecap.kernels.statistics import add_moments
from edgecap.model import ChannelInfo, ClockFit, SampleBlock, StreamInfo, Verdict
from edgecap.quality import StreamQuality

RATE = 200
FIT = ClockFit(0, 0, 0.0, 1000, 20_000, 5_000.0, 0, True)
HEAD = {"date": "2026-11-21T12:00:00+00:00", "edgecap": "0"}


def force_record(model="linear", **changes) -> ForceRecord:
    channel = ForceChannel(
        name="thumb", model="linear", tare=200.0, gain=0.01, u_tare=1.0, u_gain=1e-5, u_n=0.05,
        residual_n=0.01, max_n=10.0, n=6, noise_counts=2.0,
    )  # fmt: skip
    if model == "fsr":
        changes |= {"model": "fsr", "gain": 20.0, "exponent": 0.9, "full_counts": 4095.0}
    channel = msgspec.structs.replace(channel, **changes)
    return ForceRecord(stream="force", channels=(channel,), **HEAD)


FORCE = StreamInfo(
    "force", "force", "hand", RATE, "int16", (ChannelInfo("index", "N", 1.0), ChannelInfo("thumb", "N", 1.0))
)
IMU = StreamInfo(
    "imu", "imu", "head", RATE, "int16",
    tuple(
        ChannelInfo(f"{s}_{a}", unit, scale)
        for s, unit, scale in (("accel", "g", 0.0005), ("gyro", "deg/s", 0.02))
        for a in "xyz"
    ),
)  # fmt: skip
ACCEL = AccelRecord(
    stream="imu", method="six", matrix=((1.01, 0, 0), (0, 0.99, 0), (0, 0, 1.0)), bias_m_s2=(0.2, -0.1, 0.3),
    u_matrix=1e-3, u_bias_m_s2=5e-3, residual_m_s2=0.01, gravity_m_s2=9.81, n=6, **HEAD,
)  # fmt: skip
GYRO = GyroRecord(
    stream="imu", bias_rad_s=(0.01, -0.02, 0.005), u_bias_rad_s=2e-4, noise_rad_s=2e-3, seconds=60.0, **HEAD
)


def calibration(*records: Record) -> dict:
    return {r.key: msgspec.to_builtins(r) for r in records}


class Feeder:
    """Feeds seconds of counts to a watch, in blocks of 50 samples."""

    def __init__(self, info: StreamInfo, *records: Record) -> None:
        self.watch = DriftWatch(info, calibration(*records))
        self.quality = StreamQuality(info, 0, self.watch)
        self.rng = np.random.default_rng(11)
        self.index = 0

    def feed(self, counts, noise=2.0, seconds=1) -> Verdict:
        counts = np.asarray(counts, float)
        for _ in range(seconds * RATE // 50):
            values = np.rint(counts + self.rng.normal(0, noise, (50, len(counts)))).astype(np.int16)
            ticks = (self.index + np.arange(50, dtype=np.int64)) * 1_000_000 // RATE
            arrival = np.array([int(ticks[-1]) * 1000], np.int64)
            self.quality.see(
                SampleBlock("s", self.index, ticks, values, np.array([50], np.int32), arrival, FIT)
            )
            self.index += 50
        return self.quality.verdict(int(arrival[0]))


def test_a_finger_that_reads_as_calibrated_is_ok_with_its_figure():
    hand = Feeder(FORCE, force_record())
    assert hand.feed([0, 200]).drift is None
    verdict = hand.feed([0, 203], seconds=4)
    assert verdict.state == "ok"
    assert verdict.drift == pytest.approx(0.03, abs=0.01)
    assert verdict.drift_of == "tare of thumb [N], limit 0.3"


def test_below_zero_is_drift_after_a_few_seconds():
    hand = Feeder(FORCE, force_record())
    verdict = hand.feed([0, 200 - 50], seconds=5)
    assert (verdict.state, verdict.drift) == ("drift", pytest.approx(-0.5, abs=0.02))


def test_holding_is_no_drift_as_long_as_the_finger_was_free_once():
    hand = Feeder(FORCE, force_record())
    for _ in range(12):
        assert hand.feed([0, 700], seconds=8).state == "ok"  # holds 5 N, quite still
        assert hand.feed([0, 200], seconds=2).state == "ok"
    assert abs(hand.feed([0, 700]).drift or 0) < 0.1


def test_a_zero_that_has_risen_is_said_after_a_minute():
    hand = Feeder(FORCE, force_record())
    states = [hand.feed([0, 260]).state for _ in range(int(SPAN_ABOVE_S) + LEAST_ABOVE)]
    assert states[:LEAST_ABOVE] == ["ok"] * LEAST_ABOVE
    first = states.index("drift")
    assert SPAN_ABOVE_S <= first <= SPAN_ABOVE_S + 5
    assert set(states[first:]) == {"drift"}


def test_what_is_not_quiet_is_not_judged():
    hand = Feeder(FORCE, force_record())
    verdict = hand.feed([0, 0], noise=60.0, seconds=30)
    assert (verdict.state, verdict.drift) == ("ok", None)


def test_seconds_with_a_loss_in_them_are_not_judged():
    hand = Feeder(FORCE, force_record())
    for _ in range(40):
        hand.feed([0, 100], seconds=1)
        hand.index += 7  # the second never becomes whole without a loss
        hand.watch._n = 100
    assert hand.watch.worst() is not None
    fresh = Feeder(FORCE, force_record())
    for _ in range(40):
        values = np.full((150, 2), 100, np.int16)
        ticks = np.arange(150, dtype=np.int64)
        fresh.watch.see(
            SampleBlock("s", fresh.index, ticks, values, np.array([150], np.int32), ticks[:1], FIT)
        )
        fresh.index += 157
    assert fresh.watch.worst() is None


def test_a_force_sensing_resistor_drifts_both_ways():
    for off, sign in ((-40, -1), (40, 1)):
        hand = Feeder(FORCE, force_record("fsr"))
        verdict = hand.feed([0, 200 + off], seconds=90)
        assert verdict.state == "drift"
        assert np.sign(verdict.drift) == sign


def imu_counts(accel_off=(0.0, 0.0, 0.0), gyro_off=(0.0, 0.0, 0.0)):
    """Counts of an IMU at rest that agrees with its calibration, but for the offsets (SI)."""
    true = np.array([3.0, -4.0, 0.0])
    true[2] = np.sqrt(9.81**2 - 25)
    measured = np.linalg.inv(np.array(ACCEL.matrix)) @ true + ACCEL.bias_m_s2 + accel_off
    rates = np.array(GYRO.bias_rad_s) + gyro_off
    return np.concatenate([measured / (0.0005 * 9.80665), np.rad2deg(rates) / 0.02])


@pytest.mark.parametrize(
    ("counts", "state", "of", "value"),
    [
        (imu_counts(), "ok", "", 0.0),
        (imu_counts(gyro_off=(0, 0.05, 0)), "drift", "bias of gyro_y [rad/s], limit 0.02", 0.05),
        (imu_counts(accel_off=(0, 0, 0.4)), "drift", "length of gravity [m/s^2], limit 0.15", 0.35),
    ],
)
def test_inertial_bias_and_gravity(counts, state, of, value):
    head = Feeder(IMU, ACCEL, GYRO)
    verdict = head.feed(counts, seconds=5)
    assert verdict.state == state
    if state == "drift":
        assert verdict.drift_of == of
        assert verdict.drift == pytest.approx(value, abs=0.02)
    # turning about says nothing
    moving = Feeder(IMU, ACCEL, GYRO)
    assert moving.feed(counts, noise=200.0, seconds=20).drift is None


def test_what_is_worse_comes_first():
    hand = Feeder(FORCE, force_record())
    hand.feed([0, 100], seconds=5)
    assert hand.quality.verdict((hand.index * 5 + 3000) * 1_000_000).state == "silent"


def test_streams_and_channels_without_a_record_are_left_alone():
    assert DriftWatch(IMU, calibration(force_record())).checks == []
    assert DriftWatch(FORCE, calibration(force_record(name="toe"))).checks == []
    assert DriftWatch(FORCE, {"force": {"a": 1}, "left-force": 3}).checks == []


def test_a_damaged_record_stops_the_daemon_with_its_key(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_bytes(msgspec.json.encode({"gyro:imu": {"stream": "imu"}, "sync:a:b": {}}))
    with pytest.raises(ConfigError, match="record 'gyro:imu' cannot be used: Object missing required field"):
        load_calibration(str(path))
    path.write_bytes(msgspec.json.encode(calibration(GYRO, ACCEL, force_record())))
    assert set(load_calibration(str(path))) == {"gyro:imu", "accel:imu", "force:force"}


@given(
    hnp.arrays(
        st.sampled_from([np.int16, np.int32, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.integers(-30_000, 30_000),
    )
)
def test_moments_equal_their_definition(values):
    shift, sums, squares = values[0].astype(float), np.zeros(values.shape[1]), np.zeros(values.shape[1])
    values = values.astype(float)
    add_moments(values, shift, sums, squares)
    x = values - shift
    np.testing.assert_allclose(sums, x.sum(0))
    np.testing.assert_allclose(squares, (x**2).sum(0))
