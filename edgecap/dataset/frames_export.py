"""A session as one table per camera, one row per frame, beside its video.

OUT/SESSION.CAMERA.parquet   docs/FRAMES.md
OUT/SESSION.CAMERA.mp4       picture i is row i
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from edgecap.dataset.exportable import Progress, require_exportable, whole_file
from edgecap.dataset.frames_sensors import sensor_tracks
from edgecap.dataset.frames_table import FrameRow, FrameTable
from edgecap.dataset.frames_video import Mp4Writer, carried_cameras, decodable_frames
from edgecap.dataset.recorded import VideoFrame
from edgecap.dataset.session import RecordedSession
from edgecap.model import Gap, StreamInfo

BATCH_ROWS = 256
BATCH_NS = 4_000_000_000
"""Rows made at once span at most this: so much of every stream is in memory."""
SLOWEST_HZ = 0.001
GROUP_ROWS = 4096
"""Rows of a row group."""


class CameraTable(msgspec.Struct, frozen=True):
    """One camera's files."""

    camera: str
    table: str
    video: str | None
    """None where no frame can be decoded."""
    rows: int
    lost: int
    """Frames that the camera counted and that are not rows."""
    rows_not_valid: dict[str, int]
    """Rows without values of a stream, by stream."""
    bytes: int
    rows_without_window: int = 0
    """Rows without mean and deviation, because the camera did not tell its exposure time."""


class FramesExport(msgspec.Struct, frozen=True):
    """What an export has written."""

    session: str
    complete: bool
    outcome: str
    utc_trusted: bool
    cameras: list[CameraTable]


def export_frames(
    session: RecordedSession,
    out_dir: Path,
    *,
    allow_incomplete: bool = False,
    apply_lags: bool = False,
    window_ns: int | None = None,
    episode: int = 0,
    progress: Progress | None = None,
) -> FramesExport:
    """Write a table and a video for every camera; a name appears only when the file is whole and on disk.

    Args:
        session: What to export.
        out_dir: Created when missing.
        allow_incomplete: Export what there is.
        apply_lags: Take each stream's known lag (`StreamInfo.lag_ns`) off its times.
        window_ns: Take mean and deviation over this long around mid-exposure, not over the exposure.
        episode: The session's number among those exported.
        progress: Told how far it is.

    Raises:
        ExportError: the session must not be exported (see `require_exportable`), has no camera, or has one
            whose encoding no MP4 can carry; a calibration cannot be used; the disk refuses.
        NameRefused: a camera's name is none.
        ChunkError: a frame's numbers cannot be.
    """
    require_exportable(session, allow_incomplete=allow_incomplete)
    cameras = carried_cameras(session)
    tracks = sensor_tracks(session, apply_lags=apply_lags)
    writers = [
        _CameraWriter(session, camera, FrameTable(session, camera, tracks, episode, window_ns), out_dir)
        for camera in cameras
    ]
    _write_together(session, writers, progress)
    return FramesExport(
        session=session.key.session,
        complete=session.report.complete,
        outcome=session.outcome,
        utc_trusted=session.utc.trusted,
        cameras=[writer.result() for writer in writers],
    )


def _write_together(
    session: RecordedSession, writers: Sequence[_CameraWriter], progress: Progress | None
) -> None:
    """Write every camera's files, always the one that is furthest behind, so that sensors are read once."""
    span_ns = max(session.t1_ns - session.t0_ns, 1)
    with ExitStack() as stack:
        parts = [stack.enter_context(closing(writer.write())) for writer in writers]
        reached = dict.fromkeys(range(len(parts)), session.t0_ns)
        done_ns = dict.fromkeys(reached, 0)
        while reached:
            behind = min(reached, key=lambda k: reached[k])
            t_ns = next(parts[behind], None)
            if t_ns is None:
                del reached[behind]
            else:
                reached[behind] = t_ns
            share_ns = span_ns if t_ns is None else min(max(t_ns - session.t0_ns, 0), span_ns)
            done_ns[behind] = max(done_ns[behind], share_ns)
            if progress is not None:
                progress(sum(done_ns.values()), len(parts) * span_ns)


@dataclass(slots=True)
class _Count:
    """Counts of the frames seen so far."""

    rows: int = 0
    lost: int = 0
    gaps: list[Gap] = field(default_factory=list)


class _CameraWriter:
    """Writes one camera's two files in one pass over its frames."""

    def __init__(
        self, session: RecordedSession, camera: StreamInfo, table: FrameTable, out_dir: Path
    ) -> None:
        self._session, self._camera, self._table = session, camera, table
        stem = f"{session.key.session}.{camera.name}"
        self._parquet, self._mp4 = out_dir / f"{stem}.parquet", out_dir / f"{stem}.mp4"
        self._count = _Count(gaps=[g for g in session.gaps if g.stream == camera.name])

    def write(self) -> Generator[int]:
        """Write both; yields the rig time reached. The table's name appears last."""
        frames = self._decodable()
        first = next(frames, None)
        period_us = round(1e6 / max(self._camera.rate_hz_nominal, SLOWEST_HZ))
        with ExitStack() as stack:
            partial = stack.enter_context(whole_file(self._parquet))
            # Without the schema's own copy, readers take the head, which is written last, for the schema's.
            writer = pq.ParquetWriter(partial, self._table.schema, compression="zstd", store_schema=False)
            sink = stack.enter_context(writer)
            if first is not None:
                path = stack.enter_context(whole_file(self._mp4))
                video = stack.enter_context(Mp4Writer(path, self._camera.codec, first[1], period_us))
                yield from self._rows(sink, video, chain([first], frames))
            name = self._mp4.name if first is not None else None
            count = self._count
            sink.add_key_value_metadata(self._table.head(name, count.rows, count.lost, count.gaps))

    def result(self) -> CameraTable:
        """What is on disk now."""
        paths = [p for p in (self._parquet, self._mp4) if self._count.rows or p is self._parquet]
        return CameraTable(
            camera=self._camera.name,
            table=str(self._parquet),
            video=str(self._mp4) if self._count.rows else None,
            rows=self._count.rows,
            lost=self._count.lost,
            rows_not_valid=dict(self._table.nulls),
            rows_without_window=self._table.windowless,
            bytes=sum(p.stat().st_size for p in paths),
        )

    def _rows(
        self, sink: pq.ParquetWriter, video: Mp4Writer, frames: Iterator[tuple[VideoFrame, bytes]]
    ) -> Iterator[int]:
        rows: list[FrameRow] = []
        batches: list[pa.RecordBatch] = []
        t0_ns, pts_us = None, -1
        for frame, data in frames:
            t0_ns = frame.t_ns if t0_ns is None else t0_ns
            # A player wants rising times; a corrected clock may go back, the table's t_ns says so.
            pts_us = max(pts_us + 1, (frame.t_ns - t0_ns) // 1000)
            video.add(data, pts_us, key=frame.key)
            if rows and (len(rows) >= BATCH_ROWS or abs(frame.t_ns - rows[0].frame.t_ns) > BATCH_NS):
                batches.append(self._table.batch(rows))
                yield rows[-1].frame.t_ns
                rows = []
                if sum(b.num_rows for b in batches) >= GROUP_ROWS:
                    sink.write_table(pa.Table.from_batches(batches))
                    batches = []
            rows.append(FrameRow(frame, self._count.rows, pts_us))
            self._count.rows += 1
        batches.append(self._table.batch(rows))
        sink.write_table(pa.Table.from_batches(batches))

    def _decodable(self) -> Iterator[tuple[VideoFrame, bytes]]:
        """Frames with the bytes that a decoder wants; counts those that are missing between them."""
        expected = 0
        for frame, data in decodable_frames(self._session, self._camera):
            self._count.gaps += [g for g in frame.gaps if g not in self._count.gaps]
            if data is None:
                continue
            self._count.lost += max(frame.index - expected, 0)
            expected = frame.index + 1
            yield frame, data
