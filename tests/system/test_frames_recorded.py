"""A rig's own recording as one row per frame: real firmware, a camera whose pictures carry their number."""

from __future__ import annotations

import asyncio

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from edgecap.config import parse_config
from edgecap.daemon.rig import Rig
from edgecap.dataset.frames_export import export_frames
from edgecap.model import ChannelInfo
from edgecap.sim.firmware import FirmwareStream, HostFirmware
from edgecap.source.camera_synthetic import SyntheticCamera, read_index
from edgecap.source.serial_mcu import SerialSource
from tests.reference.frames import Sample, beside, stretches
from tests.rig_session import record

RATE, SAMPLES = 1000, 2500
CONFIG = """
site = "lab"
rig = "rig-01"
spool.dir = "%s"
[session]
task = "stack cups"
operator = "p-001"
consent = "c-1"
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("rig")
    rng = np.random.default_rng(5)
    np.save(path / "grip.npy", np.cumsum(rng.integers(-40, 41, (SAMPLES, 2)), 0).astype(np.int16))
    channels = (ChannelInfo("thumb", "N", 0.01), ChannelInfo("index", "N", 0.01))
    stream = FirmwareStream("force", "force", RATE, channels, file=path / "grip.npy")
    glove, camera = SerialSource("left-hand", str(path / "board")), SyntheticCamera("head", 160, 96, 30.0)

    async def run():
        async with HostFirmware([stream], link=path / "board", loop=True) as board:

            async def wait(rig: Rig) -> None:
                # A camera may start late, or lose time, on a busy machine.
                while (await board.totals())["force"] < SAMPLES or not any(
                    v.n >= 60 for v in rig.session.verdicts if v.stream == "head"
                ):
                    await asyncio.sleep(0.02)

            return await record(
                parse_config(CONFIG % (path / "spool")), [glove, camera], path / "store", wait
            )

    session = asyncio.run(run())
    assert session.report.complete, session.report.problems
    (exported,) = export_frames(session, path / "out").cameras
    return session, exported


def test_every_row_equals_the_slow_definition(recorded):
    session, exported = recorded
    table = pq.read_table(exported.table)
    samples = [
        Sample(
            *(int(v[k]) for v in (c.t_ns, c.index + np.arange(len(c.t_ns)))),
            c.fit.epoch,
            c.fit.locked,
            c.u_ns,
            tuple((c.values[k] * 0.01).tolist()),
            (False, False),
        )
        for c in session.sample_chunks("left-hand-force")
        for k in range(len(c.t_ns))
    ]
    runs = stretches(samples, [(g.t0_ns, g.t1_ns) for g in session.stream("left-hand-force").gaps])
    rows = [beside(runs, 3_000_000, t, 0) for t in table["t_ns"].to_pylist()]
    assert table["left-hand-force_valid"].to_pylist() == [r is not None for r in rows]
    assert sum(r is not None for r in rows) > 30
    for c, name in enumerate(("thumb_N", "index_N")):
        found = table[f"left-hand-force.{name}"].to_pylist()
        assert [v is None for v in found] == [r is None for r in rows]
        pairs = [(v, r.linear[c]) for v, r in zip(found, rows, strict=True) if r]
        np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-9, atol=1e-9)
    bounds = table["left-hand-force_t_uncertainty_ns"].to_pylist()
    assert bounds == [r and r.u_ns for r in rows]


def test_the_picture_of_a_row_carries_the_rows_number(recorded):
    _, exported = recorded
    table = pq.read_table(exported.table)
    with av.open(exported.video) as video:
        seen = [read_index(p.to_ndarray(format="gray")) for p in video.decode(video=0)]
    assert seen == table["frame_n"].to_pylist()
    assert table["frame_index"].to_pylist() == list(range(len(seen)))
