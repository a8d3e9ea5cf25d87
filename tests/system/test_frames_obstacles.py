"""Sessions and disks that a table of frames cannot be made of, or only in part."""

from __future__ import annotations

import resource

import numpy as np
import pyarrow.parquet as pq
import pytest

from edgecap.dataset.frames_export import export_frames
from edgecap.dataset.mcap_export import export_mcap
from edgecap.errors import ChunkError, ExportError, NameRefused
from edgecap.model import ChannelInfo, StreamInfo
from tests.frames_session import SESSION, Part, fit_at, jpeg_camera, jpegs, store_session, unit
from tests.system.synthetic import RAW0, make_session
from tests.system.test_frames_export import MS, head_of
from tests.system.test_mcap_export import session_of, store_of


def test_a_session_without_frames(tmp_path):
    info = StreamInfo("air", "scalar", "base", 20.0, "float32", (ChannelInfo("co2", "ppm", 1.0),))
    part = Part(0, np.arange(5, dtype=np.int64) * MS, np.zeros((5, 1), np.float32), fit_at())
    none = store_session(tmp_path / "none", [(info, [part])])
    with pytest.raises(ExportError, match="has no camera") as caught:
        export_frames(none, tmp_path / "out")
    assert caught.value.fix == "export it with --to mcap"
    dark = store_session(
        tmp_path / "dark", [(info, [part])], cameras={"head": []}, infos=[jpeg_camera("head", 30.0)]
    )
    (camera,) = export_frames(dark, tmp_path / "out").cameras
    assert (camera.rows, camera.video) == (0, None)
    assert (pq.read_table(camera.table).num_rows, head_of(camera.table)["video"]) == (0, None)
    outside = store_session(tmp_path / "outside", [(info, [part])], infos=[jpeg_camera("../../head", 30.0)])
    with pytest.raises(NameRefused, match="not a valid name"):
        export_frames(outside, tmp_path / "out", allow_incomplete=True)
    odd = store_session(
        tmp_path / "odd", [(info, [part])], cameras={"head": [unit(0, RAW0, MS, b"no picture")]},
        infos=[jpeg_camera("head", 30.0)],
    )  # fmt: skip
    with pytest.raises(ExportError, match="first frame is not mjpeg"):
        export_frames(odd, tmp_path / "odd-out")
    assert list((tmp_path / "odd-out").iterdir()) == []


def test_numbers_that_cannot_be(tmp_path):
    """A sensor beyond all scales is null; a frame at no possible time is named, and nothing is written."""
    info = StreamInfo("hot", "scalar", "base", 0.0, "float32", (ChannelInfo("k", "K", 1e300),))
    part = Part(0, np.arange(9, dtype=np.int64) * 10 * MS, np.full((9, 1), 3e38, np.float32), fit_at())
    film = [unit(k, RAW0 + 40 * MS + k * MS, k * 10**12, jpegs(1)[0]) for k in range(2)]
    cameras = [jpeg_camera("head", 0.0)]
    session = store_session(tmp_path / "far", [(info, [part])], cameras={"head": film}, infos=cameras)
    (camera,) = export_frames(session, tmp_path / "out").cameras
    for row in pq.read_table(camera.table).to_pylist():
        assert row["hot_valid"]
        assert [v for k, v in row.items() if k.startswith("hot.k_K")] == [None] * 3
        assert row["exposure_ns"] is None  # none is told, and a quarter of an hour is not believed
    film[1] = unit(1, 1 << 62, MS, jpegs(1)[0])
    session = store_session(tmp_path / "beyond", [(info, [part])], cameras={"head": film}, infos=cameras)
    with pytest.raises(ChunkError, match=r"frame 1 of head \(chunk 0\) is at 4611686018427387904 ns"):
        export_frames(session, tmp_path / "none")
    with pytest.raises(ChunkError, match=r"frame 1 of head \(chunk 0\)"):
        export_mcap(session, tmp_path / "none")
    assert list((tmp_path / "none").iterdir()) == []


def test_names_that_meet_stay_apart(tmp_path):
    """A stream may be called `frame`, and two channels may differ only in what a name cannot hold."""
    channels = (ChannelInfo("p", "N/m", 1.0), ChannelInfo("p", "N m", 2.0, offset=-3.0))
    info = StreamInfo("frame", "force", "base", 1000.0, "int16", channels)
    part = Part(0, np.arange(100, dtype=np.int64) * MS, np.ones((100, 2), np.int16), fit_at())
    film = {"head": [unit(0, RAW0 + 50 * MS, 4 * MS, jpegs(1)[0])]}
    session = store_session(
        tmp_path / "store", [(info, [part])], cameras=film, infos=[jpeg_camera("head", 30.0)]
    )
    (camera,) = export_frames(session, tmp_path).cameras
    (row,) = pq.read_table(camera.table).to_pylist()
    assert (row["frame_n"], row["frame_n_2"]) == (0, 5)
    assert (row["frame.p_N_m"], row["frame.p_N_m_2"]) == (1.0, -4.0)
    assert SESSION in camera.table


def test_frames_before_the_cameras_clock_is_known_have_no_sensors(tmp_path):
    info = StreamInfo("touch", "force", "hand", 1000.0, "int16", (ChannelInfo("p", "N", 1.0),))
    part = Part(0, np.arange(500, dtype=np.int64) * MS, np.ones((500, 1), np.int16), fit_at())
    films = jpegs(15)
    film = {"head": [unit(k, RAW0 + (20 + 30 * k) * MS, 4 * MS, films[k]) for k in range(15)]}
    session = store_session(
        tmp_path / "store", [(info, [part])], cameras=film, infos=[jpeg_camera("head", 30.0)],
        camera_locked_from=10,
    )  # fmt: skip
    (camera,) = export_frames(session, tmp_path).cameras
    table = pq.read_table(camera.table)
    assert table["touch_valid"].to_pylist() == [False] * 10 + [True] * 5
    assert table["touch.p_N"].to_pylist() == [None] * 10 + [1.0] * 5


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    made = make_session(seconds=2)
    session = session_of(store_of(tmp_path / "store", made), made)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 4_000, 60_000, 100_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(ExportError, match="cannot write"):
                export_frames(session, tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list((tmp_path / "out").iterdir()) == [], limit
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="cannot write"):
        export_frames(session, tmp_path / "file" / "out")
