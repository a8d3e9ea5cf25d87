"""The `meta/` directory of a LeRobot dataset, version 3.0."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from edgecap.dataset.lerobot_features import Feature
from edgecap.dataset.lerobot_stats import Stats

VERSION = "v3.0"
FILES_IN_CHUNK = 1000
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
TASKS = "meta/tasks.parquet"
INFO = "meta/info.json"
STATS = "meta/stats.json"
OURS = "meta/edgecap.json"
ROBOT = "edgecap"
COLOURS = ["height", "width", "channels"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where pictures are in the dataset: in this file, from this row of it on."""

    file: int
    first_row: int


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of rows `first` ≤ index < `end`; `videos` and `stats` by feature."""

    first: int
    end: int
    task: str
    videos: Mapping[str, Place]
    stats: Mapping[str, Stats]


def write_info(
    root: Path,
    fps: int,
    features: Sequence[Feature],
    videos: Mapping[str, Mapping[str, Any]],
    counts: Sequence[int],
) -> None:
    """`videos`: LeRobot's facts of each by feature; `counts`: episodes, rows and tasks."""
    shown = {
        name: {
            "dtype": "video",
            "shape": [facts["video.height"], facts["video.width"], 3],
            "names": COLOURS,
            "info": dict(facts),
        }
        for name, facts in videos.items()
    }
    episodes, rows, tasks = counts
    info = {
        "codebase_version": VERSION,
        "robot_type": ROBOT,
        "total_episodes": episodes,
        "total_frames": rows,
        "total_tasks": tasks,
        "chunks_size": FILES_IN_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {**shown, **{feature.name: feature.as_info() for feature in features}},
    }
    write_json(root / INFO, info)


def write_tasks(root: Path, tasks: Sequence[str]) -> None:
    """Write the tasks as pandas reads a frame whose index is the task."""
    table = pa.table(
        {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())}
    )
    told = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {
                "name": name,
                "field_name": name,
                "pandas_type": kind,
                "numpy_type": numpy_kind,
                "metadata": None,
            }
            for name, kind, numpy_kind in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
        ],
        "pandas_version": "2.0.0",
    }
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(told)}), root / TASKS)


def write_episodes(root: Path, episodes: Sequence[Episode], fps: int) -> None:
    rows = []
    for number, episode in enumerate(episodes):
        length = episode.end - episode.first
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [episode.task],
            "length": length,
            "dataset_from_index": episode.first,
            "dataset_to_index": episode.end,
            "data/chunk_index": 0,
            "data/file_index": 0,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for name, video in episode.videos.items():
            row[f"videos/{name}/chunk_index"] = video.file // FILES_IN_CHUNK
            row[f"videos/{name}/file_index"] = video.file % FILES_IN_CHUNK
            row[f"videos/{name}/from_timestamp"] = video.first_row / fps
            row[f"videos/{name}/to_timestamp"] = (video.first_row + length) / fps
        for name, stats in episode.stats.items():
            row |= {f"stats/{name}/{what}": values.tolist() for what, values in stats.items()}
        rows.append(row)
    path = root / EPISODES
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_stats(root: Path, stats: Mapping[str, Stats]) -> None:
    told = {name: {what: values.tolist() for what, values in found.items()} for name, found in stats.items()}
    write_json(root / STATS, told)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def columns(path: Path, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Columns of a table of rows as (n, c)."""
    table = pq.read_table(path, columns=list(names))
    found = {}
    for name in names:
        column = table[name].combine_chunks()
        is_list = pa.types.is_fixed_size_list(column.type)
        width = column.type.list_size if is_list else 1
        flat = column.flatten() if is_list else column
        found[name] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
    return found
