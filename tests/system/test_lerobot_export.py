"""Sessions as one LeRobotDataset, against the frames export, numpy and the cameras' own pictures."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import edgecap
from edgecap.cli.main import main
from edgecap.codec.video import KEY, VideoUnit
from edgecap.dataset import lerobot_plan, lerobot_video
from edgecap.dataset.frames_export import export_frames
from edgecap.dataset.lerobot_export import LerobotDataset
from edgecap.dataset.lerobot_features import DEFAULT, OWN
from edgecap.dataset.native_tables import SAMPLE_COLUMNS
from edgecap.model import ChannelInfo, StreamInfo
from tests.frames_session import Part, fit_at, jpeg_camera, jpegs, store_session, unit
from tests.system.synthetic import RAW0, SECOND, camera_info, encode_video, make_session
from tests.system.test_frames_export import MS, decoded, head_of, pictures
from tests.system.test_mcap_export import session_of, store_of

PAGE = Path(edgecap.__file__).parents[1] / "docs" / "LEROBOT.md"
HEAD = "observation.images.head-camera"
STREAMS = ("left-hand-imu", "left-hand-force", "left-hand-tactile")
AIR = StreamInfo("air", "scalar", "base", 20.0, "float32", (ChannelInfo("co2", "ppm", 1.0),))


def opened(root: Path) -> SimpleNamespace:
    """What LeRobot reads, by other readers."""
    read = {
        name: json.loads((root / f"meta/{name}.json").read_text()) for name in ("info", "stats", "edgecap")
    }
    tables = {
        "rows": pq.read_table(root / "data"),
        "tasks": pd.read_parquet(root / "meta/tasks.parquet"),
        "episodes": pq.read_table(root / "meta/episodes").to_pylist(),
    }
    return SimpleNamespace(root=root, **read, **tables)


def film(dataset: SimpleNamespace, name: str) -> list[np.ndarray]:
    """The picture of every row, found as LeRobot does: by the episode's file and the row's time."""
    found = []
    files: dict[str, list] = {}
    for episode in dataset.episodes:
        path = dataset.info["video_path"].format(
            video_key=name,
            chunk_index=episode[f"videos/{name}/chunk_index"],
            file_index=episode[f"videos/{name}/file_index"],
        )
        shown = files.setdefault(path, [])
        if not shown:
            shown += pictures(str(dataset.root / path))
        start, end = (episode[f"videos/{name}/{side}_timestamp"] for side in ("from", "to"))
        times = dataset.rows["timestamp"].to_numpy()[
            episode["dataset_from_index"] : episode["dataset_to_index"]
        ]
        assert end - start == pytest.approx(episode["length"] / dataset.info["fps"])
        for time in times:
            away, best = min((abs(t - start - float(time)), k) for k, (t, _) in enumerate(shown))
            assert away < 1e-4
            found.append(shown[best][1])
    return found


def wide(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].combine_chunks()
    return np.stack(column.to_numpy(zero_copy_only=False)) if pa.types.is_fixed_size_list(column.type) else (
        column.to_numpy(zero_copy_only=False)[:, None]
    )  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("lerobot")
    made = [make_session(seconds=3), make_session(seconds=2, session="20261121-111111-aaaa")]
    store_of(path / "store", *made)
    names = [m.session for m in made]
    assert main(["export", str(path / "store"), *names, "--to", "lerobot", "--out", str(path / "out")]) == 0
    store = store_of(path / "again", *made)
    sessions = [session_of(store, m) for m in made]
    return SimpleNamespace(made=made, sessions=sessions, path=path, dataset=opened(path / "out"))


def test_the_description_fits_the_tables(exported):
    dataset, info = exported.dataset, exported.dataset.info
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == (
        "v3.0",
        30,
        2,
        150,
    )
    assert info["total_tasks"] == 1
    assert info["splits"] == {"train": "0:2"}
    kinds = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}
    features = {name: f for name, f in info["features"].items() if f["dtype"] != "video"}
    assert list(features) == dataset.rows.column_names
    for name, feature in features.items():
        (size,) = feature["shape"]
        kind = kinds[feature["dtype"]]
        assert dataset.rows.schema.field(name).type == (kind if size == 1 else pa.list_(kind, size))
        assert feature["names"] is None or len(feature["names"]) == size
        assert "/" not in name
        assert dataset.rows[name].null_count == 0
    video = info["features"][HEAD]
    assert (video["shape"], video["info"]["video.codec"], video["info"]["video.fps"]) == (
        [180, 320, 3],
        "h264",
        30,
    )
    assert dataset.tasks.to_dict() == {"task_index": {exported.sessions[0].manifest["task"]: 0}}
    assert dataset.tasks.iloc[0].name.startswith("Screw the lid")


def test_rows_are_those_of_the_frames_export(exported):
    rows, at = exported.dataset.rows, 0
    for number, session in enumerate(exported.sessions):
        (camera,) = export_frames(session, exported.path / f"frames{number}").cameras
        frames = pq.read_table(camera.table)
        part = rows.slice(at, frames.num_rows)
        states = []
        for stream in STREAMS:
            valid = frames[f"{stream}_valid"].to_pylist()
            assert part[f"valid.{stream}"].to_pylist() == valid
            names = exported.dataset.info["features"][f"observation.{stream}"]["names"]
            wanted = np.stack([frames[n].to_numpy().astype(np.float32) for n in names], 1)
            found = wide(part, f"observation.{stream}")
            np.testing.assert_array_equal(found, wanted)
            assert np.isnan(found).any(axis=1).tolist() == [not v for v in valid]
            states.append(found)
        np.testing.assert_array_equal(wide(part, "observation.state"), np.concatenate(states, 1))
        t_ns = frames["t_ns"].to_numpy()
        assert part["capture_t_ns"].to_pylist() == t_ns.tolist()
        assert part["capture_utc_ns"].to_pylist() == frames["t_utc_ns"].to_pylist()
        assert part["capture_uncertainty_ns"].to_pylist() == frames["t_uncertainty_ns"].to_pylist()
        np.testing.assert_allclose(part["capture_time_s"].to_numpy(), (t_ns - t_ns[0]) * 1e-9, atol=1e-12)
        n = frames.num_rows
        assert part["frame_index"].to_pylist() == part["frame_n"].to_pylist() == list(range(n))
        assert part["timestamp"].to_pylist() == [float(np.float32(k / 30)) for k in range(n)]
        assert set(part["episode_index"].to_pylist()) == {number}
        assert all(part["frame_continuous"].to_pylist())
        at += n
    assert rows["index"].to_pylist() == list(range(at))
    spans = [(e["dataset_from_index"], e["dataset_to_index"], e["length"]) for e in exported.dataset.episodes]
    assert spans == [(0, 90, 90), (90, 150, 60)]


def test_episodes_share_a_video_of_constant_rate(exported):
    originals = [p for made in exported.made for p in decoded(made.frames)]
    shown = film(exported.dataset, HEAD)
    assert len(shown) == len(originals) == 150
    assert all(np.array_equal(a, b) for a, b in zip(shown, originals, strict=True))
    starts = [e[f"videos/{HEAD}/from_timestamp"] for e in exported.dataset.episodes]
    assert starts == [0.0, 3.0]
    (path,) = (exported.path / "out/videos" / HEAD).rglob("*.mp4")
    with av.open(str(path)) as video:
        packets = [p for p in video.demux(video=0) if p.size]
        assert [p.pts * p.time_base for p in packets] == [Fraction(k, 30) for k in range(150)]
        assert [p.is_keyframe for p in packets] == [k % 15 == 0 for k in range(150)]
        assert video.streams.video[0].average_rate == 30


def test_statistics_are_numpys(exported):
    dataset = exported.dataset
    assert set(dataset.stats) == set(dataset.info["features"])
    spans = [(0, 150, dataset.stats)] + [
        (e["dataset_from_index"], e["dataset_to_index"], unflattened(e)) for e in dataset.episodes
    ]
    for first, end, stats in spans:
        for name in dataset.rows.column_names:
            values = wide(dataset.rows, name)[first:end].astype(np.float64)
            for what, of in (
                ("min", np.nanmin),
                ("max", np.nanmax),
                ("mean", np.nanmean),
                ("std", np.nanstd),
            ):
                np.testing.assert_allclose(stats[name][what], of(values, axis=0), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(stats[name]["q90"], np.nanquantile(values, 0.9, axis=0), rtol=1e-9)
            assert stats[name]["count"] == [int((~np.isnan(values).all(1)).sum())]
        keys = [k for k in range(first, end) if k % 15 == 0]
        with av.open(str(next((dataset.root / "videos").rglob("*.mp4")))) as video:
            found = [p.to_ndarray(format="rgb24") for k, p in enumerate(video.decode(video=0)) if k in keys]
        levels = np.stack(found)[:, ::2, ::2].reshape(-1, 3) / 255
        assert stats[HEAD]["count"] == [len(keys)]
        for what, of in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
            assert np.shape(stats[HEAD][what]) == (3, 1, 1)
            np.testing.assert_allclose(np.ravel(stats[HEAD][what]), of(levels, axis=0), atol=1e-6)


def unflattened(episode: dict) -> dict:
    stats: dict = {}
    for key, value in episode.items():
        if key.startswith("stats/"):
            _, name, what = key.split("/")
            stats.setdefault(name, {})[what] = value
    return stats


def test_native_tables_hold_every_sample(exported):
    for session in exported.sessions:
        for stream in STREAMS:
            path = exported.path / "out/native" / session.key.session / f"{stream}.parquet"
            data, table, head = session.stream(stream), pq.read_table(path), head_of(str(path))
            assert table["t_ns"].to_pylist() == data.t_ns.tolist()
            assert table["sample_n"].to_pylist() == data.index.tolist()
            assert table["tick"].to_pylist() == data.ticks.tolist()
            assert table["t_uncertainty_ns"].to_pylist() == data.u_ns.tolist()
            assert table["arrival_ns"].to_pylist() == data.arrival_ns.tolist()
            raw = np.stack([table[f"{c.name}.raw"].to_numpy() for c in data.info.channels], 1)
            np.testing.assert_array_equal(raw, data.values)
            assert [(g["lost"], g["cause"]) for g in head["gaps"]] == [(g.lost, g.cause) for g in data.gaps]
        np.testing.assert_allclose(table["cell3_kPa"].to_numpy(), data.scaled()[:, 3])


def test_the_documented_way_to_a_rows_samples_works(exported):
    example = PAGE.read_text().split("```python\n")[3].split("```")[0]
    row = exported.dataset.rows.slice(40, 1).to_pylist()[0]
    names = {"DIR": str(exported.path / "out"), "session": exported.made[0].session, "item": row}
    exec(example, names)
    t_ns = names["around"]["t_ns"].to_numpy()
    assert len(t_ns) == 100
    assert t_ns[0] < row["capture_t_ns"] < t_ns[-1]


def test_provenance_goes_along(exported):
    records = exported.dataset.edgecap["sessions"]
    assert [r["session"] for r in records] == [m.session for m in exported.made]
    first, second = records
    assert (first["consent"], first["operator"], first["complete"]) == ("c-2026-031", "p-014", True)
    assert (first["episodes"], first["index"], second["episodes"], second["index"]) == (
        [0],
        [0, 90],
        [1],
        [90, 150],
    )
    t_ns = exported.dataset.rows["capture_t_ns"].to_numpy()
    for record in records:
        first_row = record["index"][0]
        for mark in record["marks"]:
            row = first_row + mark["frame_index"]
            assert abs(t_ns[row] - mark["t_ns"]) == np.abs(t_ns[slice(*record["index"])] - mark["t_ns"]).min()
    assert [m["text"] for m in first["marks"]] == ["dropped the lid", ""]
    assert first["cameras"]["head-camera"]["is_copied"]
    assert set(exported.dataset.edgecap["columns"]) == set(exported.dataset.rows.column_names)


def test_the_page_names_all_columns_and_keys(exported):
    page = PAGE.read_text()
    names = [name for name, *_ in (*OWN, *DEFAULT, *SAMPLE_COLUMNS)]
    missing = [name for name in [*names, *exported.dataset.edgecap["sessions"][0]] if f"`{name}`" not in page]
    assert missing == []


def two_cameras(path: Path):
    """Rows of 20 Hz, two frames lost and a hole of two seconds; a slower camera that pauses for 0.6 s."""
    ticks = np.arange(100, dtype=np.int64) * 50 * MS
    values = np.arange(100, dtype=np.float32)[:, None]
    films = jpegs(60)
    main_n = [k for k in range(40) if k not in (10, 11)]
    main_ms = [k * 50 + (k >= 30) * 2000 for k in main_n]
    frames = list(zip(main_n, main_ms, strict=True))
    slow_ms = [ms for ms in range(30, 4000, 100) if not 500 < ms < 1100]
    return store_session(
        path, [(AIR, [Part(0, ticks, values, fit_at())])],
        cameras={
            "head": [unit(n, RAW0 + ms * MS, 4 * MS, films[n]) for n, ms in frames],
            "wrist": [unit(k, RAW0 + ms * MS, 0, films[k]) for k, ms in enumerate(slow_ms)],
        },
        infos=[jpeg_camera("head", 20.0), jpeg_camera("wrist", 10.0)], end_ns=RAW0 + 5 * SECOND,
    ), main_n, main_ms, slow_ms  # fmt: skip


def test_a_second_camera_is_beside_never_across(tmp_path):
    session, main_n, main_ms, slow_ms = two_cameras(tmp_path / "store")
    seen: list[tuple[int, int]] = []
    with LerobotDataset(tmp_path / "out") as writer:
        added = writer.add(session, progress=lambda done, total: seen.append((done, total)))
        writer.finish()
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0
    dataset = opened(tmp_path / "out")
    assert (added.rows, added.lost, added.episodes) == (38, 2, [0, 1])
    assert added.cameras == {"head": "copied", "wrist": "encoded again"}
    rows = dataset.rows
    # The hole of two seconds parts the episodes; two frames lost do not, and are told.
    assert rows["episode_index"].to_pylist() == [int(n >= 30) for n in main_n]
    assert rows["frame_index"].to_pylist() == [*range(28), *range(10)]
    assert added.rows_not_continuous == 1
    assert [n for n, ok in zip(main_n, rows["frame_continuous"].to_pylist(), strict=True) if not ok] == [12]
    assert rows["capture_time_s"].to_pylist() == pytest.approx([ms / 1000 for ms in main_ms])
    wanted = []
    for ms in main_ms:
        away, k = min((abs(other - ms), k) for k, other in enumerate(slow_ms))
        wanted.append(k if away <= 60 else None)
    assert rows["valid.wrist"].to_pylist() == [k is not None for k in wanted]
    assert added.rows_not_valid["wrist"] == wanted.count(None) > 0
    assert [round(float(p.mean()) / 4) for p in film(dataset, "observation.images.head")] == main_n
    for picture, k in zip(film(dataset, "observation.images.wrist"), wanted, strict=True):
        level = float(picture.mean())
        assert level < 1 if k is None else abs(level - 4 * k) < 3  # encoded again
    assert wide(rows, "observation.air").shape == (38, 1)
    assert dataset.info["features"]["observation.state"]["shape"] == [1]


def h264_units(frames, first_ns: int) -> list[VideoUnit]:
    return [
        VideoUnit(k, first_ns + k * SECOND // 30 + 2 * MS, RAW0, 4 * MS, 0, KEY if key else 0, data)
        for k, (data, key) in enumerate(frames)
    ]


@pytest.mark.parametrize(("first", "how"), [(0, "copied"), (5, "encoded again")])
def test_two_h264_cameras_over_several_files(tmp_path, monkeypatch, first, how):
    """A camera whose frames are one to a row stays as it is, even over files; else it is encoded again."""
    monkeypatch.setattr(lerobot_plan, "CLIP_S", 0.7)
    monkeypatch.setattr(lerobot_video, "MAX_FILE_S", 1.6)
    frames = encode_video(3, (64, 48))
    a, b = (camera_info(name, 64, 48) for name in ("a", "b"))
    ticks = np.arange(60, dtype=np.int64) * 50 * MS
    session = store_session(
        tmp_path / "store", [(AIR, [Part(0, ticks, ticks[:, None].astype(np.float32), fit_at())])],
        # The other begins `first` frames before.
        cameras={"a": h264_units(frames[: 90 - 15], RAW0 + SECOND),
                 "b": h264_units(frames, RAW0 + SECOND - first * SECOND // 30 + MS)},
        infos=[a, b], end_ns=RAW0 + 5 * SECOND,
    )  # fmt: skip
    with LerobotDataset(tmp_path / "out") as writer:
        added = writer.add(session)
        result = writer.finish()
    dataset = opened(tmp_path / "out")
    assert added.cameras == {"a": "copied", "b": how}
    assert result.episodes == 3
    assert [e["length"] for e in dataset.episodes] == [30, 30, 15]  # at the key frames from 0.7 s on
    places = [(e["videos/observation.images.a/file_index"], e["videos/observation.images.a/from_timestamp"])
              for e in dataset.episodes]  # fmt: skip
    assert places == [(0, 0.0), (1, 0.0), (1, 1.0)]
    file = pq.ParquetFile(tmp_path / "out/data/chunk-000/file-000.parquet")
    groups = [set(file.read_row_group(k)["episode_index"].to_pylist()) for k in range(file.num_row_groups)]
    assert groups == [{0}, {1}, {2}]
    originals = decoded([data for data, _ in frames])
    assert all(np.array_equal(p, originals[k]) for k, p in enumerate(film(dataset, "observation.images.a")))
    off = [
        float(np.abs(p.astype(int) - originals[k + first]).mean())
        for k, p in enumerate(film(dataset, "observation.images.b"))
    ]
    assert max(off) == 0 if how == "copied" else max(off) < 8
