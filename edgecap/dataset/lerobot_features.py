"""What a row of a LeRobot dataset holds, and how it is made of a row per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from edgecap.dataset.frames_table import FrameTable
from edgecap.dataset.lerobot_plan import NONE, Plan
from edgecap.errors import ExportError
from edgecap.model import StreamInfo
from edgecap.topics import check_name

STATE = "observation.state"
OWN: tuple[tuple[str, str, str], ...] = (
    (
        "capture_time_s",
        "float64",
        "mid-exposure, in seconds since that of the session's first row: the true time",
    ),
    ("capture_t_ns", "int64", "the same in rig time (CLOCK_MONOTONIC_RAW), ns"),
    ("capture_utc_ns", "int64", "the same in UTC, ns"),
    ("capture_uncertainty_ns", "int64", "the true time lies within ± this of capture_t_ns"),
    ("frame_n", "int64", "number of the frame as the camera counts; a jump is a loss"),
    ("frame_continuous", "bool", "whether nothing is missing between the row before and this one"),
)
"""Name, type and definition of what a row tells of its frame."""
DEFAULT: tuple[tuple[str, str, str], ...] = (
    ("timestamp", "float32", "frame_index / fps, as LeRobot wants it; the true time is capture_time_s"),
    ("frame_index", "int64", "number of the row in its episode"),
    ("episode_index", "int64", "number of the episode"),
    ("index", "int64", "number of the row in the dataset"),
    ("task_index", "int64", "number of the task in meta/tasks.parquet"),
)
"""What LeRobot wants in every row."""
_ARROW = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}


@dataclass(frozen=True, slots=True)
class Feature:
    """A column: `names` has one word per number in it."""

    name: str
    dtype: str
    names: list[str] | None
    definition: str

    @property
    def size(self) -> int:
        return len(self.names) if self.names else 1

    def as_info(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": [self.size], "names": self.names}

    def field(self) -> pa.Field:
        """LeRobot reads a shape of (1,) as a plain number."""
        kind = _ARROW[self.dtype]
        return pa.field(self.name, kind if self.size == 1 else pa.list_(kind, self.size))

    def array(self, values: NDArray[Any]) -> pa.Array:
        """The column that holds these (n,) or (n, size) values."""
        flat = pa.array(np.ascontiguousarray(values).reshape(-1), _ARROW[self.dtype])
        return flat if self.size == 1 else pa.FixedSizeListArray.from_arrays(flat, self.size)


class RowFeatures:
    """The columns of a session's rows.

    Args:
        table: Makes a row per frame.
        cameras: The first gives the rows.

    Attributes:
        features: All columns, in order.
        videos: LeRobot's name of each camera's pictures, by camera.

    Raises:
        ExportError: a stream's name cannot be one in LeRobot.
        NameRefused: a stream's name cannot be that of a file.
    """

    def __init__(self, table: FrameTable, cameras: Sequence[StreamInfo]) -> None:
        self._table = table
        self.videos = {camera.name: f"observation.images.{camera.name}" for camera in cameras}
        streams = {name: columns for name, columns in table.linear.items() if columns}
        for name in streams:
            check_name("stream", name)
            if f"observation.{name}" == STATE:
                raise ExportError(
                    f"a stream is called {name!r}, which LeRobot keeps for all of them",
                    fix="export it with --to frames",
                )
        every = [column for columns in streams.values() for column in columns]
        found = []
        if every:
            found.append(Feature(STATE, "float32", every, "all streams at mid-exposure; NaN where not valid"))
        found += [
            Feature(f"observation.{name}", "float32", columns, f"{name} at mid-exposure; NaN where not valid")
            for name, columns in streams.items()
        ]
        found += [
            Feature(f"valid.{name}", "bool", None, f"whether samples of {name} surround and cover "
                    "the exposure without a gap, on a locked clock")
            for name in streams
        ]  # fmt: skip
        found += [
            Feature(f"valid.{camera.name}", "bool", None, f"whether {camera.name} took a picture near "
                    "mid-exposure; it is black where not")
            for camera in cameras[1:]
        ]  # fmt: skip
        found += [Feature(name, dtype, None, text) for name, dtype, text in (*OWN, *DEFAULT)]
        self.features = found
        self._streams = streams

    def schema(self) -> pa.Schema:
        return pa.schema([feature.field() for feature in self.features])

    def rows(self, batch: pa.RecordBatch, plan: Plan, first: int) -> dict[str, NDArray[Any]]:
        """Columns of consecutive rows from `first` on, but for those of `DEFAULT`."""
        span = slice(first, first + batch.num_rows)
        streams = {name: _float32(batch, columns) for name, columns in self._streams.items()}
        found: dict[str, NDArray[Any]] = {}
        if streams:
            found[STATE] = np.concatenate(list(streams.values()), axis=1)
        found |= {f"observation.{name}": values for name, values in streams.items()}
        found |= {f"valid.{name}": _plain(batch, self._table.valid[name]) for name in streams}
        found |= {f"valid.{p.camera.name}": p.at[span] != NONE for p in plan.pictures[1:]}
        t_ns = _plain(batch, "t_ns")
        return found | {
            "capture_time_s": (t_ns - plan.frames.t_ns[0]) * 1e-9,
            "capture_t_ns": t_ns,
            "capture_utc_ns": _plain(batch, "t_utc_ns"),
            "capture_uncertainty_ns": _plain(batch, "t_uncertainty_ns"),
            "frame_n": _plain(batch, "frame_n"),
            "frame_continuous": plan.continuous[span],
        }


def _plain(batch: pa.RecordBatch, name: str) -> NDArray[Any]:
    values: NDArray[Any] = batch.column(name).to_numpy(zero_copy_only=False)
    return values


def _float32(batch: pa.RecordBatch, columns: Sequence[str]) -> NDArray[np.float32]:
    """(n, c); NaN for null and for what float32 cannot hold."""
    wide = np.stack([_plain(batch, name).astype(np.float64) for name in columns], axis=1)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    narrow[~np.isfinite(narrow)] = np.nan
    return narrow
