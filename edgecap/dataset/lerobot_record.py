"""What `meta/edgecap.json` tells of a session in a LeRobot dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from edgecap.dataset.frames_table import FrameTable
from edgecap.dataset.lerobot_features import RowFeatures
from edgecap.dataset.lerobot_plan import NONE, Pictures, Plan
from edgecap.dataset.session import RecordedSession
from edgecap.model import Mark


def session_record(
    session: RecordedSession,
    table: FrameTable,
    plan: Plan,
    features: RowFeatures,
    episodes: Sequence[int],
    first_index: int,
) -> dict[str, Any]:
    """Whose it is, under which consent, how good, what was lost, and where it is in the dataset."""
    return {
        **table.facts(),
        "episodes": list(episodes),
        "index": [first_index, first_index + plan.rows],
        "native": f"native/{session.key.session}",
        "cameras": {p.camera.name: _camera(plan, p, features) for p in plan.pictures},
        "marks": [_mark(mark, plan, episodes) for mark in session.marks],
    }


def _camera(plan: Plan, pictures: Pictures, features: RowFeatures) -> dict[str, Any]:
    camera = pictures.camera
    found = pictures.at != NONE
    return {
        "feature": features.videos[camera.name],
        "gives_rows": pictures is plan.pictures[0],
        "is_copied": pictures.is_copied,
        "codec": camera.codec,
        "rate_hz_nominal": camera.rate_hz_nominal,
        "rows_without_picture": int((~found).sum()),
        "lost": pictures.lost,
        "gaps": msgspec.to_builtins(list(pictures.gaps)),
    }


def _mark(mark: Mark, plan: Plan, episodes: Sequence[int]) -> dict[str, Any]:
    """A mark, with the row whose mid-exposure is nearest to it."""
    row = int(np.abs(plan.frames.t_ns - mark.t_ns).argmin())
    inside = next(k for k, (first, end) in enumerate(plan.episodes) if first <= row < end)
    return {
        **msgspec.to_builtins(mark),
        "episode_index": episodes[inside],
        "frame_index": row - plan.episodes[inside][0],
    }
