"""The columns of a table with one row per frame of a camera, and what is written into its head."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from edgecap import __version__
from edgecap.calibration import Record
from edgecap.dataset.frames_sensors import SensorRows, SensorTrack, Windows
from edgecap.dataset.mcap_records import as_json, metadata
from edgecap.dataset.recorded import VideoFrame
from edgecap.dataset.session import RecordedSession
from edgecap.model import Gap, StreamInfo

KEY = "edgecap"
"""Key of the table's metadata, which is a JSON object."""
LONGEST_NS = 10_000_000_000
"""An exposure said to be longer is not believed."""
_UNIT_WORD = {"%": "percent", "°": "deg", "°C": "degC", "°/s": "deg_s", "Ω": "ohm"}
_PLAIN = str.maketrans({"²": "2", "³": "3", "µ": "u", "μ": "u", "/": "_", "·": "_", "*": "_", "^": ""})
FRAME_COLUMNS: tuple[tuple[str, pa.DataType, str, str], ...] = (
    ("session", pa.string(), "", "id of the session"),
    ("task", pa.string(), "", "the task in words"),
    ("episode_index", pa.int64(), "", "number of the session within one export, from 0"),
    ("frame_index", pa.int64(), "", "number of the row, and of the picture in the video file, from 0"),
    ("frame_n", pa.int64(), "", "number of the frame as the camera counts; a jump is a loss"),
    (
        "timestamp",
        pa.float64(),
        "s",
        "since the first row; the picture's presentation time in the video file",
    ),
    ("t_ns", pa.int64(), "ns", "mid-exposure of the middle row, rig time (CLOCK_MONOTONIC_RAW)"),
    ("t_utc_ns", pa.int64(), "ns", "the same in UTC"),
    ("t_uncertainty_ns", pa.int64(), "ns", "the true time of the frame lies within ± this of t_ns"),
    ("exposure_ns", pa.int64(), "ns", "exposure time of a row of the picture; null where unknown"),
    ("line_ns", pa.int64(), "ns", "between the exposures of two rows; 0 for a global shutter or unknown"),
    ("key_frame", pa.bool_(), "", "whether decoding can start here"),
)
"""Name, type, unit and definition of what a row tells of the frame itself."""


@dataclass(frozen=True, slots=True)
class FrameRow:
    """A frame and its place in the table and in the video file."""

    frame: VideoFrame
    number: int
    pts_us: int


class FrameTable:
    """Makes rows of frames and of the streams beside them.

    Args:
        session: Theirs.
        camera: The camera.
        tracks: The streams beside it.
        episode: For `episode_index`.
        window_ns: Of mean and deviation, in place of the exposure; None for the exposure.

    Attributes:
        schema: Of the table.
        nulls: Rows so far in which a stream is not valid, by stream.
        linear: Columns of values at mid-exposure, by stream, in the order of its channels.
        valid: Name of the column that says whether they may be used, by stream.
    """

    def __init__(
        self,
        session: RecordedSession,
        camera: StreamInfo,
        tracks: Sequence[SensorTrack],
        episode: int,
        window_ns: int | None,
    ) -> None:
        self._session, self._camera, self._tracks = session, camera, tracks
        self._window_ns = window_ns
        self._over = "the exposure" if window_ns is None else f"{window_ns} ns around t_ns"
        self._fixed = (session.key.session, str(session.manifest.get("task", "")), episode)
        self._columns: dict[str, dict[str, str]] = {}
        self.linear: dict[str, list[str]] = {}
        self.valid: dict[str, str] = {}
        fields = [self._field(*column) for column in FRAME_COLUMNS]
        for track in tracks:
            fields += self._stream_fields(track)
        self.schema = pa.schema(fields)
        self.nulls = {track.info.name: 0 for track in tracks}
        self.windowless = 0
        """Rows without mean and deviation: the camera did not tell its exposure time."""

    def batch(self, rows: Sequence[FrameRow]) -> pa.RecordBatch:
        """The rows of frames that follow those of the call before."""
        frames = [row.frame for row in rows]
        t_ns = np.array([f.t_ns for f in frames], np.int64)
        exposure_ns = np.array([min(f.exposure_ns, LONGEST_NS + 1) for f in frames], np.int64)
        known = (exposure_ns > 0) & (exposure_ns <= LONGEST_NS)
        over_ns, windowed = np.where(known, exposure_ns, 0), known
        if self._window_ns is not None:
            over_ns, windowed = np.full(len(rows), self._window_ns), np.ones(len(rows), np.bool_)
        self.windowless += len(rows) - int(windowed.sum())
        from_ns = t_ns - over_ns // 2
        windows = Windows(
            from_ns=from_ns,
            mid_ns=t_ns,
            to_ns=from_ns + over_ns,
            known=windowed,
            locked=np.array([f.locked for f in frames], np.bool_),
        )
        count = len(rows)
        arrays: list[Any] = [
            *(pa.array([value] * count) for value in self._fixed),
            [row.number for row in rows],
            [f.index for f in frames],
            [row.pts_us * 1e-6 for row in rows],
            t_ns,
            self._session.utc.to_utc_ns(t_ns),
            [f.u_ns for f in frames],
            pa.array(exposure_ns, mask=~known),
            [f.line_ns for f in frames],
            [f.key for f in frames],
        ]
        for track in self._tracks:
            found = track.at(windows)
            self.nulls[track.info.name] += count - int(found.valid.sum())
            arrays += _stream_arrays(found, windows.known)
        typed = [
            a if isinstance(a, pa.Array) else pa.array(a, field.type)
            for a, field in zip(arrays, self.schema, strict=True)
        ]
        return pa.record_batch(typed, schema=self.schema)

    def head(self, video: str | None, rows: int, lost: int, gaps: Sequence[Gap]) -> dict[str, str]:
        """What the file says of itself, once all rows are made."""
        camera = self._camera
        facts: dict[str, Any] = {
            "edgecap": __version__,
            **self.facts(),
            "camera": camera.name,
            "video": video,
            "rate_hz_nominal": camera.rate_hz_nominal,
            "width": camera.width,
            "height": camera.height,
            "frames": {"rows": rows, "lost": lost, "gaps": msgspec.to_builtins(list(gaps))},
            "columns": self._columns,
        }
        return {KEY: as_json(facts)}

    def facts(self) -> dict[str, Any]:
        """What is to be known of the session and its streams, once all rows are made."""
        session = self._session
        told = metadata(session)
        return {
            **self.whose(),
            "outcome": session.outcome,
            "complete": session.report.complete,
            "manifest_sha256": session.manifest_hash.hex(),
            "window_ns": self._window_ns,
            "streams": {track.info.name: self.stream_facts(track) for track in self._tracks},
            "marks": msgspec.to_builtins(session.marks),
            "time": {k: v for k, v in told["edgecap.time"].items() if k != "law"},
            "manifest": session.manifest,
        }

    def whose(self) -> dict[str, str]:
        """Which session it is, who recorded it, and under which consent."""
        told = metadata(self._session)["edgecap.manifest"]
        return {
            k: told[k] for k in ("site", "rig", "session", "task", "operator", "consent", "consent_scope")
        }

    def stream_facts(self, track: SensorTrack) -> dict[str, Any]:
        """What is to be known of a stream beside its values."""
        info = track.info
        records: list[Record] = [q.record for q in track.quantities if q.record is not None]
        return {
            "kind": info.kind,
            "rate_hz_nominal": info.rate_hz_nominal,
            "lag_ns": info.lag_ns,
            "lag_applied": track.lag_ns != 0,
            "max_gap_ns": track.max_gap_ns,
            "rows_not_valid": self.nulls[info.name],
            "gaps": msgspec.to_builtins(track.gaps),
            "calibration": [f"{r.key} version {r.version} of {r.date}" for r in records],
        }

    def _stream_fields(self, track: SensorTrack) -> list[pa.Field]:
        name = track.info.name
        fields = [
            self._field(
                f"{name}_valid",
                pa.bool_(),
                "",
                f"whether its samples surround and cover {self._over} without a gap, on a locked clock; "
                "all its other columns are null where not",
            ),
            self._field(f"{name}_n", pa.int32(), "", f"samples within {self._over}"),
            self._field(
                f"{name}_t_uncertainty_ns", pa.int64(), "ns", "greatest bound of the times of those samples"
            ),
            self._field(
                f"{name}_saturated", pa.int32(), "", "channels that were at full scale in any of them"
            ),
        ]
        self.valid[name], self.linear[name] = fields[0].name, []
        units = {c: u for q in track.quantities for c, u in zip(q.columns, q.units, strict=True)}
        for c, channel in enumerate(track.info.channels):
            unit = units[c]
            column = "_".join(word for word in (f"{name}.{channel.name}", unit_word(unit)) if word)
            what = f"{channel.name} of {name}"
            self.linear[name].append(self._unique(column))
            fields += [
                self._field(column, pa.float64(), unit, f"{what}, linear between samples, at t_ns"),
                self._field(f"{column}.mean", pa.float64(), unit, f"{what}, mean over {self._over}"),
                self._field(
                    f"{column}.std", pa.float64(), unit, f"{what}, standard deviation (population) there"
                ),
            ]
        return fields

    def _field(self, name: str, kind: pa.DataType, unit: str, definition: str) -> pa.Field:
        unique = self._unique(name)
        self._columns[unique] = {"unit": unit, "definition": definition}
        return pa.field(unique, kind)

    def _unique(self, name: str) -> str:
        """A name that no column has yet."""
        unique, k = name, 2
        while unique in self._columns:
            unique, k = f"{name}_{k}", k + 1
        return unique


def unit_word(unit: str) -> str:
    """A unit within a column's name: `m/s²` → `m_s2`."""
    word = _UNIT_WORD.get(unit) or unit.translate(_PLAIN)
    return re.sub(r"[^A-Za-z0-9]+", "_", word).strip("_")


def _stream_arrays(rows: SensorRows, known: NDArray[np.bool_]) -> list[pa.Array]:
    lacking = ~rows.valid
    arrays = [
        pa.array(rows.valid),
        pa.array(rows.n, mask=lacking | ~known),
        pa.array(rows.u_ns, mask=lacking),
        pa.array(rows.saturated, mask=lacking),
    ]
    for c in range(rows.linear.shape[1]):
        for values in (rows.linear[:, c], rows.mean[:, c], rows.deviation[:, c]):
            arrays.append(pa.array(values, mask=~np.isfinite(values)))
    return arrays
