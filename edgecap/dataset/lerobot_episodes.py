"""The episodes of a session in a LeRobot dataset, and their statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.lerobot_features import RowFeatures
from edgecap.dataset.lerobot_meta import columns
from edgecap.dataset.lerobot_plan import NONE, Plan
from edgecap.dataset.lerobot_stats import PictureStats, Stats, number_stats
from edgecap.dataset.lerobot_video import Clip, key_rows, sampled_pictures

SAMPLED_PICTURES = 50
"""Pictures of each episode and camera that the statistics are taken from."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """An episode: rows of the dataset, its clip, and its first row there; statistics by feature."""

    first: int
    end: int
    task: str
    clip: int
    clip_row: int
    stats: dict[str, Stats]
    pictures: dict[str, PictureStats]


def stretches_of(
    plan: Plan,
    features: RowFeatures,
    clips: Mapping[str, Sequence[Clip]],
    table: Path,
    task: str,
    rows_before: int,
    clips_before: int,
) -> list[Stretch]:
    """A session's episodes: `clips` by camera and `table` are its own, the counts are the dataset's."""
    found = []
    clip = 0
    for first, end in plan.episodes:
        while first >= plan.clips[clip][1]:
            clip += 1
        row = first - plan.clips[clip][0]
        pictures = {
            features.videos[p.camera.name]: _pictures(
                clips[p.camera.name][clip], plan.fps, row, p.at[first:end] != NONE
            )
            for p in plan.pictures
        }
        found.append(
            Stretch(rows_before + first, rows_before + end, task, clips_before + clip, row, {}, pictures)
        )
    for feature in features.features:
        values = columns(table, [feature.name])[feature.name]
        for stretch, (first, end) in zip(found, plan.episodes, strict=True):
            stretch.stats[feature.name] = number_stats(values[first:end])
    return found


def _pictures(clip: Clip, fps: int, first: int, valid: NDArray[np.bool_]) -> PictureStats:
    """Statistics of an episode's key frames, or else of the last one before it."""
    keys = key_rows(clip, fps)
    inside = [k for k in keys if first <= k < first + len(valid) and valid[k - first]]
    chosen = np.linspace(0, len(inside) - 1, min(len(inside), SAMPLED_PICTURES)).round().astype(int)
    wanted = [inside[k] for k in chosen.tolist()] or [max(k for k in keys if k < first + len(valid))]
    stats = PictureStats()
    for picture in sampled_pictures(clip, fps, wanted):
        stats.add(picture)
    return stats
