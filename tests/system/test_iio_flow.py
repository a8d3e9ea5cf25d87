"""An IIO sensor through the whole rig into a store: exact samples, gaps, drift in the records."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgecap.calibration import GyroRecord
from edgecap.cli.main import main
from edgecap.cli.run import sources_of
from edgecap.config import parse_config
from edgecap.daemon.rig import Rig
from edgecap.dataset.session import RecordedSession
from edgecap.source.iio import IioSource
from tests.iio_tree import SCAN, IioTree, host_ns, iio_tree
from tests.rig_session import config_text, record

RATE = 200
PERIOD = 1_000_000_000 // RATE
GYRO_SCALE = 0.001065264
BIAS = 0.08
"""rad/s about x: far from the calibration's."""


def at_rest(t_ns: np.ndarray, rng: np.random.Generator) -> bytes:
    """Scans of a sensor that lies still, its gyroscope off by `BIAS`."""
    out = np.zeros(len(t_ns), SCAN)
    out["t_ns"] = t_ns
    out["accel"] = np.array([0, 0, 16390]) + rng.normal(0, 5, (len(t_ns), 3))
    out["gyro"] = np.array([round(BIAS / GYRO_SCALE), 0, 0]) + rng.normal(0, 1, (len(t_ns), 3))
    out["temp"] = 5
    return out.tobytes()


async def lie_still(tree: IioTree, rig: Rig) -> None:
    """Six seconds of samples in a moment, with a hole, then more as they come, until the rig tells drift."""
    rng = np.random.default_rng(5)
    while tree.read("buffer/enable") != "1":
        await asyncio.sleep(0.01)
    t_ns = host_ns() - 6 * 10**9 + PERIOD * np.arange(6 * RATE)
    kept = np.r_[t_ns[:700], t_ns[750:]]
    for part in np.array_split(kept, 40):
        tree.feed(at_rest(part, rng))
        await asyncio.sleep(0)
    fed = int(t_ns[-1])
    while not any(v.state == "drift" for v in rig.session.verdicts):
        due = np.arange(fed + PERIOD, host_ns(), PERIOD)[:500]
        if len(due):
            tree.feed(at_rest(due, rng))
            fed = int(due[-1])
        await asyncio.sleep(0.02)


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[str, RecordedSession]:
    bias = GyroRecord(
        stream="head-imu", date="2026-11-21", edgecap="0", bias_rad_s=(0.001, 0.0, 0.0), u_bias_rad_s=1e-4,
        noise_rad_s=2e-3, seconds=60.0,
    )  # fmt: skip
    calibration = tmp_path / "calibration.json"
    calibration.write_bytes(msgspec.json.encode({bias.key: bias}))
    text = config_text(tmp_path, calibration, task="lie still")
    text += f"""
    [[iio]]
    name = "head-imu"
    device = "icm42688"
    rate_hz = {RATE}
    channels = ["accel_x", "accel_y", "accel_z", "gyro_x", "gyro_y", "gyro_z", "temperature"]
    lag_us = 1500
    """
    config = parse_config(text)
    (source,) = sources_of(config)
    assert isinstance(source, IioSource)
    with iio_tree(tmp_path) as tree:
        source.sys_root, source.dev_root = tree.sys_root, tree.dev_root
        session = asyncio.run(record(config, [source], tmp_path / "store", partial(lie_still, tree)))
    return str(tmp_path / "store"), session


def test_from_the_device_node_to_the_store(recorded, capsys):
    url, session = recorded
    assert session.report.complete, session.report.problems
    data = session.stream("head-imu")
    assert len(data.t_ns) >= 6 * RATE - 50
    steps = np.diff(data.t_ns)
    assert set(steps.tolist()) == {PERIOD, 51 * PERIOD}
    np.testing.assert_array_equal(data.t_ns, data.ticks)  # MONOTONIC_RAW is rig time
    (gap,) = data.gaps
    assert (gap.t1_ns - gap.t0_ns, gap.stream) == (51 * PERIOD, "head-imu")
    assert (gap.cause, gap.lost) == ("overrun", 50)
    assert np.flatnonzero(np.diff(data.index) != 1).tolist() == [699]
    celsius = data.scaled()[:, 6]
    assert celsius == pytest.approx((5 + 3312) * 7.548309e-3)
    info = session.info("head-imu")
    assert (info.clock, info.lag_ns, info.kind) == ("raw", 1_500_000, "imu")
    assert session.manifest["calibration"]["gyro:head-imu"]["bias_rad_s"] == [0.001, 0.0, 0.0]
    told = [v for r in session.verdicts for v in r["streams"] if v["state"] == "drift"]
    assert told[-1]["drift"] == pytest.approx(BIAS - 0.001, abs=2e-3)
    assert told[-1]["drift_of"] == "bias of gyro_x [rad/s], limit 0.02"
    assert main(["sessions", "show", url, session.key.session]) == 0
    assert "head-imu: departs from its calibration, bias of gyro_x" in capsys.readouterr().out
