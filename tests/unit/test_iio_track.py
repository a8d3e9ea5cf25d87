"""IIO time stamps to blocks, gaps and bounds: an oracle, and a simulated driver."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.model import ChannelInfo, ClockPair, Gap, SampleBlock, StreamInfo
from edgecap.source.iio_track import IioTrack
from edgecap.timeline.fit import to_rig_ns

MS = 1_000_000
PERIOD = 5 * MS
INFO = StreamInfo("imu", "imu", "imu", 200.0, "int16", (ChannelInfo("accel_x", "m/s^2", 0.001),), clock="raw")


def pair(t_ns: int, *, monotonic_ns: int | None = None, width_ns: int = 150) -> ClockPair:
    monotonic_ns = t_ns if monotonic_ns is None else monotonic_ns
    return ClockPair(t_ns, monotonic_ns, monotonic_ns, 0, width_ns, True, 0, 0, 0.0)


def take(track: IioTrack, ticks, first: int, arrival_ns: int) -> list:
    ticks = np.asarray(ticks, np.int64)
    values = (first + np.arange(len(ticks), dtype=np.int16))[:, None]
    return track.add(ticks, values, arrival_ns, pair(arrival_ns))


steps = st.one_of(
    st.just(PERIOD),
    st.integers(PERIOD - MS, PERIOD + MS),
    st.integers(2, 40).map(lambda n: n * PERIOD),
    st.integers(-10 * PERIOD, 0),
)


@settings(max_examples=300)
@given(st.lists(steps, min_size=1, max_size=60), st.data())
def test_every_sample_is_kept_and_every_hole_counted(gaps_between, data):
    ticks = np.cumsum([10**12, *gaps_between])
    track = IioTrack(INFO, "raw", 0)
    track.begin(0)
    items, at = [], 0
    while at < len(ticks):
        n = data.draw(st.integers(1, 20))
        items += take(track, ticks[at : at + n], at, int(ticks[at : at + n].max()) + MS)
        at += n
    blocks = [i for i in items if isinstance(i, SampleBlock)]
    np.testing.assert_array_equal(np.concatenate([b.ticks for b in blocks]), ticks)
    values = np.concatenate([b.values[:, 0] for b in blocks])
    np.testing.assert_array_equal(values, np.arange(len(ticks)))
    index, epoch = 0, 0
    for item in items:
        if isinstance(item, Gap):
            # the period that it reckons with is the median step so far: within a fifth of the nominal one
            hole = item.t1_ns - item.t0_ns
            assert item.cause == "overrun"
            assert hole > 1.2 * PERIOD
            assert hole / (1.2 * PERIOD) - 1.5 <= item.lost <= hole / (0.8 * PERIOD)
            index += item.lost
            continue
        assert item.index == index
        assert epoch <= item.fit.epoch <= epoch + 1
        assert (np.diff(item.ticks) > 0).all()
        index += len(item.ticks)
        epoch = item.fit.epoch
    assert track.backward == epoch
    assert track.samples == len(ticks)
    assert track.end(int(ticks[-1])) == []


def driver(rng, n, *, watermark, off, latency_ns, spikes):
    """True times of samples, and stamps as a driver with a hardware FIFO gives them, read by read.

    The chip's oscillator is off by `off`; the driver stamps the interrupt of a batch's last sample,
    served late by up to `latency_ns`, and counts back by the nominal period. Now and then it is late by
    milliseconds; beyond half a period it could not be told from a lost sample.
    """
    true = 10**12 + np.cumsum(np.full(n, PERIOD * (1 + off)))
    for at in range(0, n - watermark + 1, watermark):
        batch = true[at : at + watermark]
        served = batch[-1] + rng.uniform(0.1, 1) * latency_ns
        if rng.random() < spikes:
            served += rng.uniform(0.5, 1.9) * MS
        yield batch, np.rint(served - PERIOD * np.arange(watermark)[::-1]).astype(np.int64), served


@pytest.mark.parametrize("watermark", [1, 4, 20])
@pytest.mark.parametrize("off", [0.0, 0.003, -0.03])
def test_the_truth_lies_within_the_bound(watermark, off):
    inside = total = 0
    widest = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        track = IioTrack(INFO, "raw", 200_000)
        track.begin(0)
        reads = driver(rng, 4000, watermark=watermark, off=off, latency_ns=180_000, spikes=0.01)
        for k, (true, stamps, served) in enumerate(reads):
            for item in take(track, stamps, 0, int(served) + 30_000):
                if isinstance(item, SampleBlock) and k >= 10:
                    error = np.abs(to_rig_ns(item.fit, item.ticks) - true[: len(item.ticks)])
                    inside += int((error <= item.fit.u_ns).sum())
                    total += len(error)
                    widest = max(widest, item.fit.u_ns)
    print(f"watermark {watermark}, off {off:+.1%}: inside {inside / total:.4%}, widest {widest / 1e3:.0f} µs")
    assert inside >= 0.999 * total


def test_a_slewed_host_clock_is_followed_within_the_bound():
    rng = np.random.default_rng(1)
    info = StreamInfo("imu", "imu", "imu", 200.0, "int16", INFO.channels, clock="monotonic")
    track = IioTrack(info, "monotonic", 0)
    track.begin(0)
    raw, mono = 10**12, 7 * 10**11
    for k in range(2000):
        rate = 1 + (450e-6 if 500 <= k < 1200 else -30e-6)  # NTP slews for 3.5 s
        taken_raw = raw + rng.uniform(0, PERIOD)
        taken_mono = mono + (taken_raw - raw) * rate
        raw, mono = raw + PERIOD, mono + PERIOD * rate
        ticks = np.array([round(taken_mono)], np.int64)
        now = pair(round(raw + 20_000), monotonic_ns=round(mono + 20_000 * rate))
        for item in track.add(ticks, np.zeros((1, 1), np.int16), now.raw_ns, now):
            if isinstance(item, SampleBlock):
                error = abs(int(to_rig_ns(item.fit, item.ticks)[0]) - taken_raw)
                assert error <= item.fit.u_ns, k
                assert item.fit.u_ns < 12 * MS
