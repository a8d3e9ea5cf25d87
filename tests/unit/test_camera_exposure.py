"""Exposure policy: what libcamera is told, and what is refused."""

from __future__ import annotations

import pytest

from edgecap.errors import SourceError
from edgecap.source.camera_exposure import ExposurePolicy, limit_exposure

OLD = {"ExposureTime": (14, 33_000, None), "AnalogueGain": (1.0, 16.0, None)}
NEW = {**OLD, "ExposureTimeMode": (0, 1, 0), "AnalogueGainMode": (0, 1, 0)}


@pytest.mark.parametrize(
    ("policy", "available", "controls"),
    [
        (ExposurePolicy(), NEW, {}),
        (ExposurePolicy(exposure_us=5000), OLD, {"ExposureTime": 5000}),
        (ExposurePolicy(exposure_us=5000), NEW, {"ExposureTimeMode": 1, "ExposureTime": 5000}),
        (ExposurePolicy(gain=2.5), NEW, {"AnalogueGainMode": 1, "AnalogueGain": 2.5}),
        (ExposurePolicy(5000, 2.5), OLD, {"ExposureTime": 5000, "AnalogueGain": 2.5}),
        (ExposurePolicy(max_exposure_us=5000), {}, {}),
    ],
)
def test_only_what_is_fixed_is_told(policy, available, controls):
    policy.check("camera head", 30)
    assert policy.controls("camera head", available) == controls


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (ExposurePolicy(exposure_us=40_000), "40000 µs does not fit a frame of 33333 µs; .*lower fps to 25"),
        (ExposurePolicy(max_exposure_us=40_000), "does not fit"),
        (ExposurePolicy(5000, 0, 5000), "set one of the two to 0"),
        (ExposurePolicy(gain=-1), "cannot be negative"),
    ],
)
def test_contradictions_are_refused(policy, words):
    with pytest.raises(SourceError, match=words):
        policy.check("camera head", 30)


def test_what_the_camera_cannot_do_is_refused():
    with pytest.raises(SourceError, match="no control AnalogueGain; set gain to 0"):
        ExposurePolicy(gain=2).controls("camera head", {})
    with pytest.raises(SourceError, match=r"takes gain from 1.0 to 16.0, not 20"):
        ExposurePolicy(gain=20).controls("camera head", OLD)
    with pytest.raises(SourceError, match="takes exposure_us from 14 to 33000, not 5"):
        ExposurePolicy(exposure_us=5).controls("camera head", OLD)


MODES = {
    "normal": {"shutter": [100, 10_000, 66_666], "gain": [1.0, 2.0, 8.0]},
    "short": {"shutter": [9], "gain": [1]},
}


@pytest.mark.parametrize(
    "tuning",
    [
        {
            "version": 2.0,
            "algorithms": [{"rpi.black_level": {}}, {"rpi.agc": {"channels": [{"exposure_modes": MODES}]}}],
        },
        {"version": 2.0, "algorithms": [{"rpi.agc": {"exposure_modes": MODES}}]},
        {"rpi.agc": {"exposure_modes": MODES}},
    ],
    ids=["channels", "flat", "version 1"],
)
def test_a_tuning_is_limited_and_otherwise_kept(tuning):
    limited = limit_exposure(tuning, 8000)
    assert "66666" not in str(limited)
    assert str(limited) == str(tuning).replace("10000, 66666", "8000, 8000")
    assert "66666" in str(tuning)  # the original is as it was


@pytest.mark.parametrize("tuning", [{}, {"version": 2.0, "algorithms": []}, {"version": 2.0}])
def test_a_tuning_without_exposure_is_no_tuning(tuning):
    with pytest.raises(KeyError):
        limit_exposure(tuning, 8000)
