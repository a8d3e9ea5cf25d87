"""Verdicts: each fault is named while it lasts and forgotten when it is over."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgecap.kernels.statistics import count_saturated
from edgecap.model import ChannelInfo, ClockFit, FramePacket, Gap, PictureReport, SampleBlock, StreamInfo
from edgecap.quality import StreamQuality
from tests.reference.statistics import count_saturated_slowly

MS = 1_000_000
FIT = ClockFit(0, 0, 0.0, 1000, 20_000, 100.0, 0, True)
INFO = StreamInfo(
    "hand-imu",
    "imu",
    "hand",
    1000.0,
    "int16",
    (ChannelInfo("accel_x", "m/s^2", 0.001, 32.768), ChannelInfo("gyro_x", "rad/s", 1.0)),
)


def feed(quality: StreamQuality, start_ms: int, end_ms: int, *, value: int = 0, fit: ClockFit = FIT) -> None:
    for t_ms in range(start_ms, end_ms, 10):
        values = np.full((10, 2), value, np.int16)
        ticks = np.arange(t_ms, t_ms + 10, dtype=np.int64) * 1000
        arrival = np.array([(t_ms + 10) * MS], np.int64)
        block = SampleBlock("hand-imu", t_ms, ticks, values, np.array([10], np.int32), arrival, fit)
        quality.see(block)


def state(quality: StreamQuality, t_ms: int) -> str:
    return quality.verdict(t_ms * MS).state


def test_good_silent_and_good_again() -> None:
    quality = StreamQuality(INFO, 0)
    assert state(quality, 0) == "waiting"
    assert state(quality, 1100) == "silent"
    feed(quality, 0, 3000)
    assert state(quality, 3000) == "ok"
    verdict = quality.verdict(3000 * MS)
    assert verdict.rate_hz == pytest.approx(1000, rel=0.01)
    assert verdict.n == 3000
    assert state(quality, 4100) == "silent"
    feed(quality, 8000, 12_000)
    assert state(quality, 12_000) == "ok"


def test_a_slow_stream_is_not_silent_between_its_samples() -> None:
    quality = StreamQuality(msgspec.structs.replace(INFO, rate_hz_nominal=0.5), 0)
    assert state(quality, 4900) == "waiting"
    for t_ms in range(2000, 20_001, 2000):
        ticks, arrival = np.array([t_ms * 1000]), np.array([t_ms * MS])
        one = np.zeros((1, 2), np.int16)
        quality.see(SampleBlock("hand-imu", t_ms // 2000, ticks, one, np.array([1], np.int32), arrival, FIT))
        assert {state(quality, t_ms + late_ms) for late_ms in (0, 1500, 1999)} == {"ok"}
    assert quality.verdict(21_900 * MS).rate_hz == 0.5
    assert state(quality, 25_100) == "silent"


def test_gap_saturation_rate_and_clock() -> None:
    quality = StreamQuality(INFO, 0)
    feed(quality, 0, 3000)
    quality.see_gap(Gap("hand-imu", 3000 * MS, 3050 * MS, 50, "line"))
    feed(quality, 3050, 4000)
    assert state(quality, 4000) == "gaps"
    assert quality.verdict(4000 * MS).lost == 50
    feed(quality, 4000, 7000, value=32767)
    assert state(quality, 7000) == "saturated"
    feed(quality, 7000, 11_000)
    assert state(quality, 11_000) == "ok"
    for t_ms in range(11_000, 15_000, 20):
        feed(quality, t_ms, t_ms + 10)
    assert state(quality, 15_000) == "rate"
    unlocked = msgspec.structs.replace(FIT, locked=False)
    feed(quality, 15_000, 19_000, fit=unlocked)
    assert state(quality, 19_000) == "clock"


@given(
    hnp.arrays(
        st.sampled_from([np.int16, np.int32, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
    ),
    st.data(),
)
def test_saturation_kernel_equals_its_reference(values: np.ndarray, data: st.DataObject) -> None:
    limits = data.draw(
        hnp.arrays(np.float64, values.shape[1], elements=st.floats(0, 4e9) | st.just(float("inf")))
    )
    assert count_saturated(values.astype(float), limits) == count_saturated_slowly(values, limits)


CAMERA = StreamInfo("head", "video", "head", 30.0, codec="h264-annexb")
GOOD = {"sharpness": 300.0, "brightness": 0.5, "crushed": 0.0, "clipped": 0.01}


def film(quality: StreamQuality, start_ms: int, end_ms: int, **look: float) -> None:
    """Frames at 30 Hz and a look at the picture every half second."""
    for t_ms in range(start_ms, end_ms, 33):
        quality.see(FramePacket("head", t_ms // 33, b"", True, t_ms * MS, t_ms * MS, 0, 0, FIT))
    for t_ms in range(start_ms, end_ms, 500):
        quality.see_picture(PictureReport("head", t_ms * MS, **{**GOOD, **look}))


@pytest.mark.parametrize(
    ("bad", "name"),
    [({"brightness": 0.03}, "dark"), ({"clipped": 0.4}, "overexposed"), ({"sharpness": 6.0}, "blurred")],
)
def test_a_bad_picture_is_named_when_it_lasts_and_forgotten_when_it_is_over(
    bad: dict[str, float], name: str
) -> None:
    quality = StreamQuality(CAMERA, 0)
    film(quality, 0, 3000)
    assert state(quality, 3000) == "ok"
    film(quality, 3000, 5000, **bad)
    assert state(quality, 5000) == "ok"  # not for long enough
    film(quality, 5000, 7000, **bad)
    assert state(quality, 7000) == name
    film(quality, 7000, 8000)
    assert state(quality, 8000) == "ok"


def test_picture_numbers_are_those_of_the_last_look_and_of_cameras_only() -> None:
    quality = StreamQuality(CAMERA, 0)
    assert quality.verdict(0).sharpness is None
    assert quality.picture() == {}
    film(quality, 0, 1000, sharpness=123.456)
    verdict = quality.verdict(1000 * MS)
    assert (verdict.sharpness, verdict.brightness, verdict.clipped) == (123.5, 0.5, 0.01)
    assert "sharpness" not in msgspec.to_builtins(StreamQuality(INFO, 0).verdict(0))
