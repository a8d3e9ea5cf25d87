"""A stream at its own rate as a Parquet table: every sample, raw and in units."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from edgecap.dataset.frames_sensors import SensorTrack
from edgecap.dataset.frames_table import KEY, unit_word
from edgecap.dataset.mcap_records import as_json
from edgecap.dataset.recorded import SampleChunk
from edgecap.dataset.session import RecordedSession

GROUP_ROWS = 65_536
SAMPLE_COLUMNS = (
    ("sample_n", pa.int64(), "number of the sample as the device counts; a jump is a loss"),
    ("t_ns", pa.int64(), "rig time (CLOCK_MONOTONIC_RAW); the stream's lag_ns is not taken off"),
    ("t_utc_ns", pa.int64(), "the same in UTC"),
    ("t_uncertainty_ns", pa.int64(), "the true time lies within ± this of t_ns"),
    ("locked", pa.bool_(), "whether the clock fit behind t_ns was locked; nobody vouches for t_ns where not"),
    ("epoch", pa.int32(), "counts restarts of the device's clock"),
    ("tick", pa.int64(), "the device's own counter"),
    ("arrival_ns", pa.int64(), "rig time at which the sample was read"),
)
"""Name, type and definition of what a row tells of the sample itself."""


def write_native(path: Path, session: RecordedSession, track: SensorTrack, facts: Mapping[str, Any]) -> int:
    """Write every sample of a track's stream; returns how many.

    Channel `C` in unit `U` is `C_U` (float64, calibrated where the manifest says how; null where it is no
    number) and `C.raw`, as recorded. The file's head has `facts`, and every gap.
    """
    info = track.info
    gaps = [g for g in session.gaps if g.stream == info.name]
    chunks = session.sample_chunks(info.name)
    first = next(chunks, None)
    raw_type = pa.from_numpy_dtype(first.values.dtype) if first is not None else pa.int32()
    schema = _schema(track, raw_type)
    batches: list[pa.RecordBatch] = []
    held = count = 0
    with pq.ParquetWriter(path, schema, compression="zstd", store_schema=False) as sink:
        for chunk in chain([] if first is None else [first], chunks):
            gaps += [g for g in chunk.gaps if g not in gaps]
            batches.append(pa.record_batch(_arrays(session, track, chunk), schema=schema))
            held += len(chunk.ticks)
            if held >= GROUP_ROWS:
                sink.write_table(pa.Table.from_batches(batches))
                count, held, batches = count + held, 0, []
        sink.write_table(pa.Table.from_batches(batches, schema))
        columns = {name: text for name, _, text in SAMPLE_COLUMNS}
        told = {**facts, "gaps": msgspec.to_builtins(gaps), "columns": columns}
        sink.add_key_value_metadata({KEY: as_json(told)})
    return count + held


def _schema(track: SensorTrack, raw_type: pa.DataType) -> pa.Schema:
    """The table's columns; their names are numbered where two would be the same."""
    by_channel = {c: u for q in track.quantities for c, u in zip(q.columns, q.units, strict=True)}
    fields = {name: pa.field(name, kind) for name, kind, _ in SAMPLE_COLUMNS}
    wanted = [
        ("_".join(word for word in (channel.name, unit_word(by_channel[c])) if word), pa.float64())
        for c, channel in enumerate(track.info.channels)
    ]
    wanted += [(f"{channel.name}.raw", raw_type) for channel in track.info.channels]
    for name, kind in wanted:
        unique, k = name, 2
        while unique in fields:
            unique, k = f"{name}_{k}", k + 1
        fields[unique] = pa.field(unique, kind)
    return pa.schema(list(fields.values()))


def _arrays(session: RecordedSession, track: SensorTrack, chunk: SampleChunk) -> list[pa.Array]:
    n, fit = len(chunk.ticks), chunk.fit
    values = np.empty(chunk.values.shape, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite becomes null
        for quantity in track.quantities:
            values[:, quantity.columns] = quantity.values(chunk.values)
    channels = range(len(track.info.channels))
    return [
        pa.array(chunk.index + np.arange(n, dtype=np.int64)),
        pa.array(chunk.t_ns),
        pa.array(session.utc.to_utc_ns(chunk.t_ns)),
        pa.array(np.full(n, fit.u_ns, np.int64)),
        pa.array(np.full(n, fit.locked, np.bool_)),
        pa.array(np.full(n, fit.epoch, np.int32)),
        pa.array(chunk.ticks),
        pa.array(chunk.sample_arrival_ns()),
        *(pa.array(values[:, c], mask=~np.isfinite(values[:, c])) for c in channels),
        *(pa.array(np.ascontiguousarray(chunk.values[:, c])) for c in channels),
    ]
