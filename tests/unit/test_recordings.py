"""The recordings in the package are what their table says, and the GoPro's are its own track's."""

from __future__ import annotations

import numpy as np
import pytest

from edgecap.sim.recordings import GOPRO_ACCL_SCAL, GOPRO_GYRO_SCAL, RECORDINGS, VIDEO
from tests.reference.gpmf import GpmfStream, read_gpmf


@pytest.fixture(scope="module")
def track() -> dict[str, GpmfStream]:
    return read_gpmf(VIDEO)


@pytest.mark.parametrize("name", sorted(RECORDINGS))
def test_table_matches_array(name):
    recording = RECORDINGS[name]
    array = np.load(recording.path)
    assert array.dtype == np.dtype(recording.dtype).newbyteorder("<")
    assert array.flags.c_contiguous
    assert array.shape[1] == len(recording.channels)
    names = [channel.name for channel in recording.channels]
    assert len(set(names)) == len(names)
    assert recording.licence_file.stat().st_size > 500
    for column, channel in zip(array.T, recording.channels, strict=True):
        if channel.full_scale:
            assert np.abs(column.astype(np.float64)).max() * channel.scale <= channel.full_scale


def test_gyro_is_the_whole_track(track):
    assert np.array_equal(np.load(RECORDINGS["gopro-gyro"].path), track["GYRO"].values)
    assert track["GYRO"].total == len(track["GYRO"].values)


def test_accl_is_the_track_up_to_its_last_full_payload(track):
    array = np.load(RECORDINGS["gopro-accl"].path)
    samples = track["ACCL"].values
    assert len(array) == sum(len(payload) for payload in track["ACCL"].samples[:-1])
    assert np.array_equal(array, samples[: len(array)])
    assert len(samples) - len(array) == 14


@pytest.mark.parametrize(
    ("name", "key", "scal", "unit"),
    [("gopro-accl", "ACCL", GOPRO_ACCL_SCAL, "m/s^2"), ("gopro-gyro", "GYRO", GOPRO_GYRO_SCAL, "rad/s")],
)
def test_scale_unit_and_rate_are_the_tracks(track, name, key, scal, unit):
    stream = track[key]
    recording = RECORDINGS[name]
    assert stream.scales == [scal]
    assert stream.units.replace("\xb2", "^2") == unit
    assert {channel.unit for channel in recording.channels} == {unit}
    assert {channel.scale for channel in recording.channels} == {1 / scal}
    full = sum(len(payload) for payload in stream.samples[:-1])
    seconds = sum(duration for _, duration in stream.payload_s[:-1])
    assert recording.rate_hz == pytest.approx(full / seconds, abs=5e-4)


def test_gravity_shows_that_the_scale_is_si():
    recording = RECORDINGS["gopro-accl"]
    accel = np.load(recording.path) * recording.channels[0].scale
    assert np.linalg.norm(accel.mean(axis=0)) == pytest.approx(9.80665, rel=0.03)
