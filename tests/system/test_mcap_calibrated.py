"""What a manifest's calibration makes of a stream stands beside the raw numbers, which stay as they are."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgecap.calibration import AccelRecord, CameraRecord, ForceChannel, ForceRecord, GyroRecord
from edgecap.dataset.mcap_export import export_mcap
from edgecap.errors import ExportError
from tests.system.synthetic import imu_info, make_session
from tests.system.test_mcap_export import GRAVITY, read, session_of, store_of

HEAD = {"date": "2026-11-21T12:00:00+00:00", "edgecap": "0", "version": 4}
FINGER = {"u_tare": 1.0, "u_gain": 1e-6, "u_n": 0.1, "residual_n": 0.02, "max_n": 10.0, "n": 6}
FINGER |= {"noise_counts": 40.0}
FORCE = ForceRecord(
    stream="left-hand-force",
    channels=(
        ForceChannel(name="finger1", model="linear", tare=900.0, gain=-0.0004, **FINGER),
        ForceChannel(
            name="finger3", model="fsr", tare=100.0, gain=3.0, exponent=0.8, full_counts=80_000.0, **FINGER
        ),
    ),
    **HEAD,
)
ACCEL = AccelRecord(
    stream="left-hand-imu", method="six", matrix=((1.01, 0.002, 0), (0, 0.99, 0), (0, 0, 1.02)),
    bias_m_s2=(0.2, -0.1, 0.3), u_matrix=1e-3, u_bias_m_s2=5e-3, residual_m_s2=0.01, gravity_m_s2=9.81, n=6,
    **HEAD,
)  # fmt: skip
GYRO = GyroRecord(
    stream="left-hand-imu",
    bias_rad_s=(0.01, -0.02, 0.005),
    u_bias_rad_s=2e-4,
    noise_rad_s=2e-3,
    seconds=60.0,
    **HEAD,
)
CAMERA = CameraRecord(
    stream="head-camera", intrinsics=(520.0, 515.0, 322.0, 236.0), distortion_model="radtan",
    distortion_coeffs=(-0.2, 0.06, 0.001, -0.001), resolution=(640, 480), **HEAD,
)  # fmt: skip


def test_si_values_beside_raw_ones(tmp_path: Path):
    records = [FORCE, ACCEL, GYRO, CAMERA]
    calibration = {r.key: msgspec.to_builtins(r) for r in records} | {"sync:a:b": {}}
    made = make_session(seconds=2, calibration=calibration)
    result = export_mcap(session_of(store_of(tmp_path / "store", made), made), tmp_path / "out")
    topics = read(Path(result.path))

    newtons = [x.m for x in topics["/left_hand_force/force"]]
    raw = made.values["left-hand-force"]
    assert len(newtons) == len(raw)
    assert list(newtons[0].name) == ["finger1", "finger3"]
    found = np.array([m.value for m in newtons])
    np.testing.assert_allclose(found[:, 0], (raw[:, 1] - 900.0) * -0.0004, rtol=1e-5, atol=1e-6)
    y, rest = raw[:, 3] / (80_000.0 - raw[:, 3]), 100.0 / 79_900.0
    np.testing.assert_allclose(found[:, 1], 3.0 * np.maximum(y - rest, 0) ** 0.8, rtol=1e-5, atol=1e-6)
    assert all(all(m.valid) for m in newtons[:50])

    scales = np.array([c.scale for c in imu_info().channels])
    imu = made.values["left-hand-imu"]
    measured = imu[:, :3] * scales[:3] * GRAVITY
    rates = np.deg2rad(imu[:, 3:6] * scales[3:6])
    for i in (0, 777, 1999):
        message = topics["/left_hand_imu/imu_calibrated"][i].m
        accel, gyro = message.linear_acceleration, message.angular_velocity
        expected = np.array(ACCEL.matrix) @ (measured[i] - ACCEL.bias_m_s2)
        np.testing.assert_allclose([accel.x, accel.y, accel.z], expected, rtol=1e-9)
        np.testing.assert_allclose(
            [gyro.x, gyro.y, gyro.z], rates[i] - GYRO.bias_rad_s, rtol=1e-9, atol=1e-12
        )

    (camera,) = topics["/head_camera/camera_info"]
    assert (camera.m.width, camera.m.height, camera.m.distortion_model) == (640, 480, "plumb_bob")
    assert list(camera.m.k) == [520.0, 0, 322.0, 0, 515.0, 236.0, 0, 0, 1]
    assert list(camera.m.d) == [-0.2, 0.06, 0.001, -0.001, 0]
    assert list(camera.m.p) == [520.0, 0, 322.0, 0, 0, 515.0, 236.0, 0, 0, 0, 1, 0]

    plain = make_session(seconds=2)
    without = read(
        Path(export_mcap(session_of(store_of(tmp_path / "plain", plain), plain), tmp_path / "out2").path)
    )
    beside = {"/left_hand_force/force", "/left_hand_imu/imu_calibrated", "/head_camera/camera_info"}
    assert set(topics) - set(without) == beside
    for stream, field in (("left_hand_imu", "counts_int"), ("left_hand_tactile", "counts_float")):
        for one, other in zip(topics[f"/{stream}/raw"], without[f"/{stream}/raw"], strict=True):
            assert list(getattr(one.m, field)) == list(getattr(other.m, field))
    for one, other in zip(
        topics["/left_hand_force/channels"], without["/left_hand_force/channels"], strict=True
    ):
        assert list(one.m.value) == list(other.m.value)


def test_a_damaged_record_is_named_and_nothing_is_written(tmp_path: Path):
    damaged = {"force:left-hand-force": {"stream": "left-hand-force", "channels": []}}
    made = make_session(seconds=2, calibration=damaged)
    session = session_of(store_of(tmp_path / "store", made), made)
    with pytest.raises(ExportError, match="record 'force:left-hand-force' cannot be used"):
        export_mcap(session, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
