"""The rows of a LeRobot dataset as Parquet tables: one per session, in the end one of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from edgecap.dataset.frames_export import BATCH_NS, BATCH_ROWS
from edgecap.dataset.frames_table import FrameRow, FrameTable
from edgecap.dataset.frames_video import decodable_frames
from edgecap.dataset.lerobot_features import RowFeatures
from edgecap.dataset.lerobot_plan import Plan
from edgecap.dataset.session import RecordedSession

JOINED_ROWS = 4096


def write_rows(
    path: Path,
    session: RecordedSession,
    table: FrameTable,
    features: RowFeatures,
    plan: Plan,
    numbers: Mapping[str, np.ndarray[Any, Any]],
) -> Iterator[int]:
    """Write a session's rows; yields the row reached.

    Args:
        path: The table.
        session: Whose rows.
        table: Makes a row per frame.
        features: The columns.
        plan: Which frames are rows.
        numbers: The columns that LeRobot wants in every row, each of all rows.
    """
    with pq.ParquetWriter(path, features.schema(), compression="zstd") as sink:
        first = 0
        for rows in _batches(session, plan):
            found = features.rows(table.batch(rows), plan, first)
            found |= {name: values[first : first + len(rows)] for name, values in numbers.items()}
            arrays = [feature.array(found[feature.name]) for feature in features.features]
            sink.write_batch(pa.record_batch(arrays, schema=features.schema()))
            first += len(rows)
            yield first


def join_rows(tables: Sequence[Path], path: Path, features: RowFeatures, ends: Sequence[int]) -> None:
    """Make one table of several, which are taken away.

    It has one row group per episode, as LeRobot writes them, so that an episode is read without the others;
    `ends` are the rows at which episodes end.
    """
    path.parent.mkdir()
    held: list[pa.RecordBatch] = []
    row = number = 0
    with pq.ParquetWriter(path, features.schema(), compression="zstd") as sink:
        for table in tables:
            for batch in pq.ParquetFile(table).iter_batches(JOINED_ROWS):
                while batch.num_rows:
                    part = batch.slice(0, ends[number] - row)
                    batch = batch.slice(part.num_rows)
                    held.append(part.cast(features.schema()))
                    row += part.num_rows
                    if row == ends[number]:
                        sink.write_table(pa.Table.from_batches(held))
                        held, number = [], number + 1
            table.unlink()


def _batches(session: RecordedSession, plan: Plan) -> Iterator[list[FrameRow]]:
    """The frames that are rows, as many at once as may be held."""
    rows: list[FrameRow] = []
    frames = decodable_frames(session, plan.pictures[0].camera)
    for number, frame in enumerate(f for f, data in frames if data is not None):
        if rows and (len(rows) >= BATCH_ROWS or abs(frame.t_ns - rows[0].frame.t_ns) > BATCH_NS):
            yield rows
            rows = []
        rows.append(FrameRow(frame, number, 0))
    yield rows
