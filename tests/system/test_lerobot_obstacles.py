"""Sessions, names and disks that a LeRobot dataset cannot be made of, and what is left behind."""

from __future__ import annotations

import json
import resource

import numpy as np
import pyarrow.parquet as pq
import pytest

from edgecap.cli.main import main
from edgecap.dataset.lerobot_export import UNFINISHED, LerobotDataset
from edgecap.dataset.lerobot_plan import NONE, FrameTimes, nearest
from edgecap.dataset.lerobot_stats import number_stats
from edgecap.errors import ExportError, NameRefused
from edgecap.model import ChannelInfo, StreamInfo
from tests.frames_session import Part, fit_at, jpeg_camera, jpegs, store_session, unit
from tests.system.synthetic import RAW0, make_session
from tests.system.test_frames_export import MS
from tests.system.test_mcap_export import session_of, store_of


def scalar(name: str = "air") -> tuple[StreamInfo, list[Part]]:
    info = StreamInfo(name, "scalar", "base", 20.0, "float32", (ChannelInfo("co2", "ppm", 1.0),))
    return info, [Part(0, np.arange(5, dtype=np.int64) * 50 * MS, np.ones((5, 1), np.float32), fit_at())]


def small(path, *, stream: str = "air", camera: str = "head", rate_hz: float = 20.0, frames: int = 3):
    film = [unit(k, RAW0 + (20 + 50 * k) * MS, 4 * MS, picture) for k, picture in enumerate(jpegs(frames))]
    return store_session(path, [scalar(stream)], cameras={camera: film}, infos=[jpeg_camera(camera, rate_hz)])


@pytest.mark.parametrize(
    ("session", "error", "says"),
    [
        ({"rate_hz": 0.0}, ExportError, "nominal rate of 0 Hz"),
        ({"frames": 0}, ExportError, "no frame of camera head"),
        ({"stream": "state"}, ExportError, "called 'state'"),
        ({"stream": "../air"}, NameRefused, "not a valid name"),
        ({"camera": "../head"}, NameRefused, "not a valid name"),
    ],
)
def test_what_lerobot_cannot_hold_is_named_and_nothing_is_written(tmp_path, session, error, says):
    found = small(tmp_path / "store", **session)
    with LerobotDataset(tmp_path / "out") as writer:
        with pytest.raises(error, match=says):
            writer.add(found, allow_incomplete=True)
        assert writer.finish() is None
    assert list((tmp_path / "out").iterdir()) == []


def test_a_session_that_cannot_be_added_leaves_the_dataset_as_it_was(tmp_path, capsys):
    whole, other = (make_session(seconds=1, session=f"20261121-10150{k}-aaaa") for k in range(2))
    discarded = make_session(seconds=1, session="20261121-101509-aaaa", outcome="discarded")
    store, out = tmp_path / "store", tmp_path / "out"
    store_of(store, whole, other, discarded)
    names = [m.session for m in (whole, discarded, other)]
    command = ["export", str(store), *names, "--to", "lerobot", "--out", str(out), "--json"]
    code = main(command)
    told = capsys.readouterr()
    assert code == 1
    assert "was discarded by its worker" in told.err
    first, second, last = map(json.loads, told.out.splitlines())
    assert (first["episodes"], second["episodes"]) == ([0], [1])
    rows = pq.read_table(out / "data")
    assert (last["path"], last["rows"]) == (str(out), rows.num_rows)
    assert rows["index"].to_pylist() == list(range(60))
    assert not (out / UNFINISHED).exists()
    assert main(command) == 1
    assert "already has data, videos, native, meta" in capsys.readouterr().err
    assert main([*command[:-2], str(tmp_path / "more"), "--allow-incomplete", "--apply-lags"]) == 0
    assert "DISCARDED" in capsys.readouterr().out
    assert main([*command, "--window-ms", "20"]) == 2


def test_a_picture_that_cannot_be_decoded_costs_only_its_session(tmp_path):
    """Found when the rest of the session is written already."""
    films = jpegs(4)
    sessions = []
    for name, spoilt in (("good", films), ("bad", [films[0], b"no picture", *films[2:]]), ("also", films)):
        cameras = {
            camera: [
                unit(k, RAW0 + (20 + 50 * k) * MS + shift, 4 * MS, data) for k, data in enumerate(pictures)
            ]
            for camera, pictures, shift in (("head", films, 0), ("wrist", spoilt[:3], MS))
        }
        infos = [jpeg_camera(camera, 20.0) for camera in cameras]
        path, session = tmp_path / name, f"20261121-131500-{name}"
        sessions.append(store_session(path, [scalar()], cameras=cameras, infos=infos, session=session))
    good, bad, also = sessions
    with LerobotDataset(tmp_path / "out") as writer:
        assert writer.add(good).rows_not_valid["wrist"] == 1
        with pytest.raises(ExportError, match="frame 1 of camera wrist of session .*-bad cannot be decoded"):
            writer.add(bad)
        assert writer.add(also).episodes == [1]
        assert writer.finish().rows == 8
    assert {p.name[-4:] for p in (tmp_path / "out/native").iterdir()} == {"good", "also"}
    assert pq.read_table(tmp_path / "out/data")["index"].to_pylist() == list(range(8))


def test_sessions_that_differ_do_not_share_a_dataset(tmp_path):
    made = make_session(seconds=1)
    session = session_of(store_of(tmp_path / "a", made), made)
    with LerobotDataset(tmp_path / "out") as writer:
        writer.add(session)
        with pytest.raises(ExportError, match="has a session .* already"):
            writer.add(session)
        with pytest.raises(
            ExportError, match=r"not like those before it: .*observation\.air.*camera head"
        ) as caught:
            writer.add(small(tmp_path / "b"))
        assert "20 frames a second, not 30" in str(caught.value)
        result = writer.finish()
    assert (result.episodes, result.rows) == (1, 30)
    assert [p.name for p in (tmp_path / "out/native").iterdir()] == [made.session]


def test_pictures_of_another_size_than_was_said_do_not_share_a_dataset(tmp_path):
    """The descriptors are alike; a dataset whose pictures are not cannot be put into batches."""

    def filmed(name: str, pictures: list[bytes]):
        film = [unit(k, RAW0 + (100 + 33 * k) * MS, MS, jpeg) for k, jpeg in enumerate(pictures)]
        infos = [jpeg_camera("head", 30.0)]
        return store_session(tmp_path / name, [], cameras={"head": film}, infos=infos, session=name)

    odd = r"pictures of camera head of session {} are 64×48, those before them 32×16"
    with LerobotDataset(tmp_path / "out") as writer:
        writer.add(filmed("first", jpegs(5)))
        with pytest.raises(ExportError, match=odd.format("larger")):
            writer.add(filmed("larger", jpegs(5, 64, 48)))
        with pytest.raises(ExportError, match=odd.format("changing")):
            writer.add(filmed("changing", jpegs(3) + jpegs(3, 64, 48)))
        assert writer.add(filmed("last", jpegs(5))).episodes == [1]
        assert writer.finish().rows == 10
    with LerobotDataset(tmp_path / "own") as writer:
        writer.add(filmed("own", jpegs(5, 64, 48)))
        writer.finish()
    info = json.loads((tmp_path / "own/meta/info.json").read_text())
    assert info["features"]["observation.images.head"]["shape"] == [48, 64, 3]  # what is, not what was said


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    session = small(tmp_path / "store", frames=30)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with LerobotDataset(tmp_path / "out") as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
        try:
            with pytest.raises(ExportError, match=r"cannot write .*File too large"):
                writer.add(session)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert writer.finish() is None
    assert list((tmp_path / "out").iterdir()) == []


def test_a_camera_alone_has_no_state(tmp_path):
    film = [unit(k, RAW0 + 50 * k * MS, 4 * MS, picture) for k, picture in enumerate(jpegs(3))]
    session = store_session(tmp_path / "store", [], cameras={"head": film}, infos=[jpeg_camera("head", 20.0)])
    with LerobotDataset(tmp_path / "out") as writer:
        assert writer.add(session).rows == 3
        writer.finish()
    names = pq.read_table(tmp_path / "out/data").column_names
    assert not [name for name in names if name.startswith(("observation.", "valid."))]
    assert "observation.images.head" in json.loads((tmp_path / "out/meta/info.json").read_text())["features"]


def test_what_a_killed_export_left_is_cleared_away(tmp_path):
    left = tmp_path / "out" / UNFINISHED / "data"
    left.mkdir(parents=True)
    (left / "half.parquet").write_bytes(b"PAR1")
    with LerobotDataset(tmp_path / "out") as writer:
        writer.add(small(tmp_path / "store"))
        assert writer.finish().rows == 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["data", "meta", "native", "videos"]


@pytest.mark.parametrize("seed", range(20))
def test_the_nearest_picture_by_search(seed):
    """Each row takes the nearest frame within reach, of a locked clock, never one shown before."""
    rng = np.random.default_rng(seed)

    def times(count: int) -> FrameTimes:
        t_ns = np.sort(rng.integers(0, 3000, count)).astype(np.int64) * 10**6 + rng.integers(0, 10**6, count)
        some = rng.random(count) < 0.9
        return FrameTimes(t_ns, np.arange(count), np.ones(count, bool), some, ())

    rows, other = times(40), times(int(rng.integers(0, 40)))
    found = nearest(rows, other, 20.0)
    for row, at in enumerate(found.tolist()):
        away = [
            (abs(int(t) - int(rows.t_ns[row])), k)
            for k, (t, ok) in enumerate(zip(other.t_ns, other.locked, strict=True))
            if ok
        ]
        best, k = min(away, default=(10**12, NONE))
        assert at == (k if best <= 30 * MS and rows.locked[row] else NONE), (seed, row)


def test_statistics_of_nothing_and_of_what_is_no_number():
    stats = number_stats(np.array([[1.0, np.nan], [3.0, np.inf], [np.nan, np.nan]]))
    assert stats["mean"].tolist() == [2.0, 0.0]
    assert stats["count"].tolist() == [2]
    assert all(np.isfinite(values).all() for values in stats.values())
