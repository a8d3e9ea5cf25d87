"""A stored session as one row per frame: every number by its definition, every picture at its row."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

import edgecap
from edgecap.cli.main import main
from edgecap.dataset import frames_export
from edgecap.dataset.frames_export import export_frames
from edgecap.dataset.frames_table import FRAME_COLUMNS, unit_word
from edgecap.errors import ExportError
from edgecap.model import ChannelInfo, StreamInfo
from tests.frames_session import Part, fit_at, jpeg_camera, jpegs, store_session, unit
from tests.reference.frames import Sample, beside, stretches
from tests.system.synthetic import RAW0, SECOND, fit_for, imu_info, make_session
from tests.system.test_mcap_calibrated import ACCEL, FORCE, GYRO
from tests.system.test_mcap_export import GRAVITY, session_of, store_of, utc_of

PAGE = Path(edgecap.__file__).parents[1] / "docs" / "FRAMES.md"
MS = 1_000_000


def head_of(path: str) -> dict:
    return json.loads(pq.read_schema(path).metadata[b"edgecap"])


def pictures(path: str) -> list[tuple[float, np.ndarray]]:
    with av.open(path) as video:
        return [(p.time, p.to_ndarray(format="gray")) for p in video.decode(video=0)]


def decoded(frames: list[bytes]) -> list[np.ndarray]:
    decoder = av.CodecContext.create("h264", "r")
    found = [p for data in frames for p in decoder.decode(av.Packet(data))] + decoder.decode(None)
    return [p.to_ndarray(format="gray") for p in found]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    calibration = {r.key: msgspec.to_builtins(r) for r in (FORCE, ACCEL, GYRO)}
    made = make_session(seconds=3, calibration=calibration)
    path = tmp_path_factory.mktemp("frames")
    session = session_of(store_of(path / "store", made), made)
    seen: list[tuple[int, int]] = []
    result = export_frames(session, path / "out", progress=lambda done, total: seen.append((done, total)))
    (camera,) = result.cameras
    return SimpleNamespace(
        made=made, session=session, result=result, camera=camera, table=pq.read_table(camera.table),
        head=head_of(camera.table), progress=seen, out=path / "out",
    )  # fmt: skip


def in_units(made) -> dict[str, tuple[list[str], np.ndarray]]:
    """Column names and values of every stream by the formulas of docs/CALIBRATION.md."""
    scales = np.array([c.scale for c in imu_info().channels])
    imu = made.values["left-hand-imu"] * scales
    imu[:, :3] = (imu[:, :3] * GRAVITY - ACCEL.bias_m_s2) @ np.array(ACCEL.matrix).T
    imu[:, 3:6] = np.deg2rad(imu[:, 3:6]) - GYRO.bias_rad_s
    imu[:, 6:9] *= 1e-6
    raw = made.values["left-hand-force"]
    force = raw * 0.0005
    force[:, 1] = (raw[:, 1] - 900.0) * -0.0004
    y, rest = raw[:, 3] / (80_000.0 - raw[:, 3]), 100.0 / 79_900.0
    force[:, 3] = 3.0 * np.maximum(y - rest, 0) ** 0.8
    names = [f"{s}_{a}_{u}" for s, u in (("accel", "m_s2"), ("gyro", "rad_s"), ("mag", "T")) for a in "xyz"]
    return {
        "left-hand-imu": ([*names, "temperature_degC"], imu),
        "left-hand-force": ([f"finger{k}_N" for k in range(5)], force),
        "left-hand-tactile": ([f"cell{k}_kPa" for k in range(16)], made.values["left-hand-tactile"]),
    }


def test_every_value_is_by_its_definition(exported):
    table, made = exported.table, exported.made
    middles, exposures = table["t_ns"].to_pylist(), table["exposure_ns"].to_pylist()
    for stream, (names, values) in in_units(made).items():
        data = exported.session.stream(stream)
        samples = [
            Sample(t, i, e, True, u, tuple(map(float, row)), (False,) * len(row))
            for t, i, e, u, row in zip(
                data.t_ns.tolist(), data.index.tolist(), data.epoch.tolist(), data.u_ns.tolist(), values,
                strict=True,
            )
        ]  # fmt: skip
        runs = stretches(samples, [(g.t0_ns, g.t1_ns) for g in data.gaps])
        max_gap_ns = round(3e9 / data.info.rate_hz_nominal)
        assert exported.head["streams"][stream]["max_gap_ns"] == max_gap_ns
        rows = [beside(runs, max_gap_ns, t, e) for t, e in zip(middles, exposures, strict=True)]
        assert table[f"{stream}_valid"].to_pylist() == [r is not None for r in rows]
        assert table[f"{stream}_n"].to_pylist() == [r and r.n for r in rows]
        assert table[f"{stream}_t_uncertainty_ns"].to_pylist() == [r and r.u_ns for r in rows]
        for c, name in enumerate(names):
            column = f"{stream}.{name}"
            same(table[column], [r and r.linear[c] for r in rows])
            same(table[f"{column}.mean"], [r and r.mean and r.mean[c] for r in rows])
            same(table[f"{column}.std"], [r and r.std and r.std[c] for r in rows])
            assert exported.head["columns"][column]["unit"] or name.startswith("cell")
    force = table["left-hand-force_valid"].to_pylist()
    assert [k for k, ok in enumerate(force) if not ok] == [30, 31]  # 80 ms without a sample
    assert set(table["left-hand-tactile_n"].to_pylist()) == {0, 1}  # a sample each 10 ms, 8 ms of exposure
    tactile = table["left-hand-tactile.cell0_kPa.mean"].to_pylist()
    assert {
        v is None for v, n in zip(tactile, table["left-hand-tactile_n"].to_pylist(), strict=True) if not n
    } == {True}


def same(column, wanted: list[float | None]) -> None:
    found = column.to_pylist()
    assert [v is None for v in found] == [v is None for v in wanted]
    pairs = [(f, w) for f, w in zip(found, wanted, strict=True) if w is not None]
    np.testing.assert_allclose([f for f, _ in pairs], [w for _, w in pairs], rtol=1e-9, atol=1e-9)


def test_what_a_row_tells_of_its_frame(exported):
    table, frames = exported.table, list(exported.session.frames("head-camera"))
    assert table.num_rows == exported.camera.rows == len(frames) == 90
    assert table["frame_index"].to_pylist() == table["frame_n"].to_pylist() == list(range(90))
    assert table["t_ns"].to_pylist() == [f.t_ns for f in frames]
    utc = np.array([utc_of(f.t_ns) for f in frames])
    assert np.max(np.abs(table["t_utc_ns"].to_numpy() - utc)) <= 1
    assert set(table["t_uncertainty_ns"].to_pylist()) == {2_000}
    assert set(table["exposure_ns"].to_pylist()) == {8_000_000}
    assert set(table["line_ns"].to_pylist()) == {18_000}
    assert table["key_frame"].to_pylist() == [k % 15 == 0 for k in range(90)]
    assert set(table["episode_index"].to_pylist()) == {0}
    assert set(table["session"].to_pylist()) == {exported.made.session}
    assert exported.progress == sorted(exported.progress)
    assert exported.progress[-1] == (3 * SECOND, 3 * SECOND)


def test_picture_i_is_row_i(exported):
    shown = pictures(exported.camera.video)
    assert len(shown) == exported.table.num_rows
    for (_, picture), original in zip(shown, decoded(exported.made.frames), strict=True):
        assert np.array_equal(picture, original)
    np.testing.assert_allclose([t for t, _ in shown], exported.table["timestamp"].to_numpy(), atol=1e-9)
    with av.open(exported.camera.video) as video:
        keys = [p.is_keyframe for p in video.demux(video=0) if p.size]
    assert keys == exported.table["key_frame"].to_pylist()
    t_ns = exported.table["t_ns"].to_numpy()
    np.testing.assert_allclose([t for t, _ in shown], (t_ns - t_ns[0]) * 1e-9, atol=1.1e-6)


def test_the_head_tells_who_what_and_how(exported):
    head, made = exported.head, exported.made
    assert (head["session"], head["rig"], head["consent"]) == (made.session, "rig-07", "c-2026-031")
    assert head["task"].startswith("Screw the lid")
    assert head["edgecap"] == edgecap.__version__
    assert head["manifest_sha256"] == made.chunks[0].hash.hex()
    assert head["manifest"]["operator"] == "p-014"
    assert head["video"] == Path(exported.camera.video).name
    assert [(m["t_ns"], m["kind"], m["text"]) for m in head["marks"]] == [
        (m.t_ns, m.kind, m.text) for m in made.marks
    ]
    assert head["frames"] == {"rows": 90, "lost": 0, "gaps": []}
    force = head["streams"]["left-hand-force"]
    assert [(g["lost"], g["cause"]) for g in force["gaps"]] == [(80, "overrun")]
    assert force["rows_not_valid"] == exported.camera.rows_not_valid["left-hand-force"] == 2
    assert force["calibration"] == [f"force:left-hand-force version 4 of {FORCE.date}"]
    imu = head["streams"]["left-hand-imu"]
    assert (imu["lag_ns"], imu["lag_applied"], len(imu["calibration"])) == (3_900_000, False, 2)
    assert list(head["columns"]) == sorted(exported.table.column_names)
    assert head["complete"]


def test_pandas_and_polars_read_the_same(exported):
    path, table = exported.camera.table, exported.table
    by_polars, by_pandas = pl.read_parquet(path), pd.read_parquet(path, dtype_backend="pyarrow")
    assert by_polars.to_dict(as_series=False) == table.to_pydict()
    assert by_polars.select(pl.selectors.float().is_nan().any()).row(0) == (False,) * sum(
        d.is_float() for d in by_polars.dtypes
    )
    assert list(by_pandas.columns) == table.column_names
    for name in table.column_names:
        assert [None if pd.isna(v) else v for v in by_pandas[name]] == table[name].to_pylist()
    plain = pd.read_parquet(path)
    assert plain["left-hand-force_valid"].dtype == bool
    assert [k for k, v in enumerate(plain["left-hand-force.finger0_N"]) if math.isnan(v)] == [30, 31]


def test_the_documented_ways_to_read_work(exported):
    examples = [part.split("```")[0] for part in PAGE.read_text().split("```python\n")[1:]]
    by_pandas, by_polars, head = ({"path": exported.camera.table} for _ in range(3))
    exec(examples[0], by_pandas)
    assert by_pandas["state"].shape == (88, 2)
    assert not np.isnan(by_pandas["state"]).any()
    assert by_pandas["pictures"].tolist() == [k for k in range(90) if k not in (30, 31)]
    exec(examples[1], by_polars)
    original = decoded(exported.made.frames)[by_polars["row"]["frame_index"]]
    assert np.array_equal(by_polars["picture"].to_ndarray(format="gray"), original)
    exec(examples[2], head)
    assert head["head"] == exported.head


def test_the_page_names_every_column_and_key_there_is(exported):
    page = PAGE.read_text()
    assert all(f"`{name}`" in page for name, *_ in FRAME_COLUMNS)
    assert all(f"`{key}`" in page for key in exported.head)
    assert all(
        f"`{key}`" in page or key in ("kind", "rate_hz_nominal", "calibration")
        for key in exported.head["streams"]["left-hand-imu"]
    )


def test_lost_frames_are_no_rows_and_stay_visible(tmp_path):
    made = make_session(seconds=3)
    store = store_of(tmp_path / "store", made, without=(("head-camera", 2), ("left-hand-imu", 1)))
    session = session_of(store, made)
    with pytest.raises(ExportError, match="not complete"):
        export_frames(session, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (camera,) = export_frames(session, tmp_path / "out", allow_incomplete=True).cameras
    table, head = pq.read_table(camera.table), head_of(camera.table)
    kept = [*range(15), *range(30, 90)]  # up to the next key frame nothing can be decoded
    assert table["frame_n"].to_pylist() == kept
    assert table["frame_index"].to_pylist() == list(range(75))
    assert camera.lost == head["frames"]["lost"] == 15
    assert [g["cause"] for g in head["frames"]["gaps"]] == ["missing-chunk"]
    assert not head["complete"]
    originals = decoded(made.frames)
    shown = pictures(camera.video)
    assert len(shown) == 75
    for (_, picture), n in zip(shown, kept, strict=True):
        assert np.array_equal(picture, originals[n])
    # Seconds 1 and 2 of the IMU need the chunk that is not there.
    valid = table["left-hand-imu_valid"].to_pylist()
    assert valid == [n < 29 for n in kept]
    assert [g["cause"] for g in head["streams"]["left-hand-imu"]["gaps"]] == []


def test_two_cameras_of_their_own_rate_and_exposure(tmp_path):
    info = StreamInfo("air", "scalar", "base", 20.0, "float32", (ChannelInfo("co2", "ppm", 1.0),))
    ticks = np.arange(30, dtype=np.int64) * 50 * MS
    values = np.arange(30, dtype=np.float32)[:, None]
    values[11] = np.nan
    films = jpegs(50)
    slow = [unit(k, RAW0 + 70 * MS + k * 100 * MS, 0, films[k]) for k in range(13)]
    fast = [
        unit(k + (k >= 20) * 3, RAW0 + k * 20 * MS + (k >= 20) * 60 * MS, 10 * MS, films[k])
        for k in range(50)
    ]
    fast[40] = unit(43, RAW0 + 39 * 20 * MS, 10 * MS, films[40])  # a corrected clock goes back
    session = store_session(
        tmp_path / "store", [(info, [Part(0, ticks, values, fit_at())])],
        cameras={"wrist": fast, "head": slow}, infos=[jpeg_camera("wrist", 50.0), jpeg_camera("head", 10.0)],
        end_ns=RAW0 + 2 * 10**9,
    )  # fmt: skip
    wrist, head = export_frames(session, tmp_path, episode=7).cameras
    assert (wrist.camera, head.camera) == ("wrist", "head")
    assert (wrist.rows, wrist.lost, head.rows, head.lost) == (50, 3, 13, 0)
    for camera, units in ((wrist, fast), (head, slow)):
        table, shown = pq.read_table(camera.table), pictures(camera.video)
        assert [round(float(p.mean()) / 4) for _, p in shown] == list(range(camera.rows))
        assert table["frame_n"].to_pylist() == [u.index for u in units]
        times = [t for t, _ in shown]
        np.testing.assert_allclose(times, table["timestamp"].to_numpy(), atol=1e-9)
        assert times == sorted(set(times))
        assert set(table["episode_index"].to_pylist()) == {7}
    slow_rows = pq.read_table(head.table)
    assert set(slow_rows["exposure_ns"].to_pylist()) == set(slow_rows["air_n"].to_pylist()) == {None}
    assert set(slow_rows["air.co2_ppm.mean"].to_pylist()) == {None}
    co2 = slow_rows["air.co2_ppm"].to_pylist()
    assert co2[:4] == pytest.approx([1.4, 3.4, 5.4, 7.4], abs=1e-6)
    assert [k for k, v in enumerate(co2) if v is None] == [5]  # beside the sample that is no number
    assert all(slow_rows["air_valid"].to_pylist())
    _, wide = export_frames(session, tmp_path, window_ns=120 * MS).cameras
    for row in pq.read_table(wide.table).to_pylist():
        assert row["exposure_ns"] is None
        inside = [k for k in range(30) if abs(k * 50 * MS + RAW0 - row["t_ns"]) <= 60 * MS]
        assert row["air_n"] == len(inside)
        assert row["air.co2_ppm.mean"] == (None if 11 in inside else pytest.approx(np.mean(inside)))


def test_cameras_that_shoot_seldom_read_sensors_once_and_not_far_ahead(tmp_path, monkeypatch):
    info = StreamInfo("air", "scalar", "base", 10.0, "float32", (ChannelInfo("co2", "ppm", 1.0),))
    parts = [
        Part(at, np.arange(at, at + 10, dtype=np.int64) * 100 * MS, np.zeros((10, 1), np.float32), fit_at())
        for at in range(0, 600, 10)
    ]
    (film,) = jpegs(1)
    cameras = {
        name: [unit(k, RAW0 + k * period_ms * MS, 0, film) for k in range(59_000 // period_ms)]
        for name, period_ms in (("one", 1000), ("two", 400))
    }
    session = store_session(
        tmp_path / "store", [(info, parts)], cameras=cameras,
        infos=[jpeg_camera("one", 1.0), jpeg_camera("two", 2.5)], end_ns=RAW0 + 60 * SECOND,
    )  # fmt: skip
    frames, chunks = type(session).frames, type(session).sample_chunks
    seen: list[int] = []
    ahead, read = [], []

    def frames_seen(own, name):
        for frame in frames(own, name):
            seen.append(frame.t_ns)
            yield frame

    def chunks_read(own, name):
        for chunk in chunks(own, name):
            read.append(int(chunk.t_ns[0]))
            ahead.append(max(seen) - read[-1])
            yield chunk

    monkeypatch.setattr(type(session), "frames", frames_seen)
    monkeypatch.setattr(type(session), "sample_chunks", chunks_read)
    assert [c.rows for c in export_frames(session, tmp_path / "out").cameras] == [59, 147]
    assert read == [RAW0 + k * SECOND for k in range(60)]
    assert max(ahead) <= 7 * SECOND
    # What is measured above is the limit: without it, all frames come before the first sample.
    monkeypatch.setattr(frames_export, "BATCH_NS", 1 << 62)
    ahead.clear()
    export_frames(session, tmp_path / "out")
    assert max(ahead) > 50 * SECOND


def test_command_line(tmp_path, capsys, monkeypatch):
    first, second = make_session(seconds=2), make_session(seconds=2, session="20261121-111111-aaaa")
    store, out = tmp_path / "store", tmp_path / "out"
    store_of(store, first, second)

    def run(*args: object) -> SimpleNamespace:
        code = main(["export", str(store), *map(str, args), "--out", str(out)])
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    done = run(first.session, second.session, "--to", "frames", "--apply-lags", "--json")
    assert done.code == 0, done.err
    for k, line in enumerate(done.out.splitlines()):
        (camera,) = json.loads(line)["cameras"]
        table = pq.read_table(camera["table"])
        assert set(table["episode_index"].to_pylist()) == {k}
        assert head_of(camera["table"])["streams"]["left-hand-imu"]["lag_applied"]
        assert Path(camera["video"]).exists()
    twice = run(first.session, f"rig-07/{first.session}", "--to", "frames", "--json")
    assert (twice.code, len(twice.out.splitlines())) == (0, 1)  # one session, however it is named
    told = run(first.session, "--to", "frames", "--overview")
    assert told.code == 0
    assert "60 frames" in told.out
    assert "left-hand-force not valid in 2" in told.out
    assert (out / f"{first.session}.png").exists()
    for option in (["--apply-lags"], ["--window-ms", 20]):
        odd = run(first.session, "--to", "mcap", *option)
        assert (odd.code, f"{option[0]} means nothing for mcap" in odd.err) == (2, True)
    for wrong in (0, -3, "nan", 10_001):
        none = run(first.session, "--to", "frames", "--window-ms", wrong)
        assert (none.code, "is no window" in none.err) == (2, True)
    assert run(first.session, "--to", "frames", "--window-ms", 20).code == 0
    path = str(out / f"{first.session}.head-camera.parquet")
    assert head_of(path)["window_ns"] == 20 * MS
    assert set(pq.read_table(path)["left-hand-imu_n"].to_pylist()) == {20}
    unknown = run(first.session, "--to", "frame")
    assert (unknown.code, "available are: mcap, frames" in unknown.err) == (2, True)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyarrow.parquet", None)
        without.setitem(sys.modules, "pyarrow", None)
        lacking = run(first.session, "--to", "frames")
    assert lacking.code == 2
    assert "export needs the package 'pyarrow" in lacking.err
    assert "pip install 'edgecap[export]'" in lacking.err


def test_units_become_words():
    units = {"m/s²": "m_s2", "m/s^2": "m_s2", "µT": "uT", "°C": "degC", "%": "percent", "N·m": "N_m", "": ""}
    assert {u: unit_word(u) for u in units} == units


def test_a_fit_is_used_chunk_by_chunk(exported):
    """The bound of a row is that of the chunks its samples came from."""
    found = exported.table["left-hand-imu_t_uncertainty_ns"].to_pylist()
    assert found[5] == fit_for(0).u_ns
    assert found[80] == fit_for(2).u_ns
