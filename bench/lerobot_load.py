"""Loads a dataset of `edgecap export --to lerobot` with the real lerobot and checks it picture by picture.

In an environment of its own, for lerobot brings torch: `pip install lerobot`, then

    python bench/lerobot_load.py DIR [--backend pyav] [--every 100]

Needs nothing of edgecap: pictures are compared with PyAV's own decoding of the same files, rows with the
Parquet table, masks with NaN.
"""

import argparse
import json
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def own_pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [picture.to_ndarray(format="rgb24") for picture in file.decode(video=0)]


def check(root: Path, backend: str | None, every: int) -> dict:
    dataset = LeRobotDataset("local/edgecap", root=root, video_backend=backend)
    episodes = pq.read_table(root / "meta/episodes").to_pylist()
    table = pq.read_table(root / "data")
    assert len(dataset) == table.num_rows == sum(e["length"] for e in episodes)
    assert dataset.num_episodes == len(episodes)
    files: dict[Path, list[np.ndarray]] = {}
    worst = 0.0
    for episode in episodes:
        for k in sorted({*range(0, episode["length"], every), episode["length"] - 1}):
            index = episode["dataset_from_index"] + k
            item = dataset[index]  # raises where a picture is further than 0.1 ms from the row's time
            assert item["task"] == episode["tasks"][0]
            assert (int(item["frame_index"]), int(item["index"])) == (k, index)
            row = table.slice(index, 1).to_pylist()[0]
            for name, value in row.items():
                assert np.array_equal(
                    np.asarray(item[name]), np.asarray(value, np.asarray(item[name]).dtype), equal_nan=True
                ), name
            for key in dataset.meta.video_keys:
                path = root / dataset.meta.get_video_file_path(episode["episode_index"], key)
                pictures = files.setdefault(path, own_pictures(path)) if path not in files else files[path]
                own = pictures[round(episode[f"videos/{key}/from_timestamp"] * dataset.fps) + k]
                shown = (item[key].permute(1, 2, 0) * 255).numpy()
                # Two libraries turn YUV into RGB with different rounding.
                worst = max(worst, float(np.abs(shown - own).mean()))
    state = {"observation.state": [0.0, 1 / dataset.fps]} if "observation.state" in dataset.features else {}
    windows = LeRobotDataset("local/edgecap", root=root, video_backend=backend, delta_timestamps=state)
    for _, batch in zip(range(3), torch.utils.data.DataLoader(windows, batch_size=4), strict=False):
        assert len(batch["task"]) == len(batch["index"])
    return {
        "backend": dataset.video_backend,
        "rows": len(dataset),
        "episodes": dataset.num_episodes,
        "fps": dataset.fps,
        "pictures_differ_by_mean_level_max": round(worst, 3),
        "stats": sorted(dataset.meta.stats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", metavar="DIR", type=Path)
    parser.add_argument("--backend", choices=("torchcodec", "pyav"))
    parser.add_argument(
        "--every", metavar="N", type=int, default=1, help="every Nth row of an episode, and its last"
    )
    args = parser.parse_args()
    found = check(args.dataset, args.backend, args.every)
    print(json.dumps(found))
    sys.exit(found["pictures_differ_by_mean_level_max"] > 2)


if __name__ == "__main__":
    main()
