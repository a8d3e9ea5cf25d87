"""Sessions as one LeRobotDataset, version 3.0: docs/LEROBOT.md.

OUT/data, OUT/videos, OUT/meta   as LeRobot reads them
OUT/meta/edgecap.json            whose, under which consent, how good, what was lost
OUT/native/SESSION/STREAM.parquet   every sample of every stream at its own rate
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from edgecap import __version__
from edgecap.dataset import lerobot_meta as meta
from edgecap.dataset.exportable import (
    Progress,
    disk_told,
    one_writer,
    require_exportable,
    settle,
    sync,
)
from edgecap.dataset.frames_sensors import sensor_tracks
from edgecap.dataset.frames_table import FrameTable
from edgecap.dataset.frames_video import carried_cameras
from edgecap.dataset.lerobot_episodes import Stretch, stretches_of
from edgecap.dataset.lerobot_features import RowFeatures
from edgecap.dataset.lerobot_plan import NONE, Plan, plan_session
from edgecap.dataset.lerobot_record import session_record
from edgecap.dataset.lerobot_rows import join_rows, write_rows
from edgecap.dataset.lerobot_stats import PictureStats, Stats, number_stats
from edgecap.dataset.lerobot_video import (
    Clip,
    clip_path,
    join,
    read_clip,
    require_one_size,
    write_clips,
)
from edgecap.dataset.mcap_records import as_json
from edgecap.dataset.native_tables import write_native
from edgecap.dataset.session import RecordedSession
from edgecap.errors import ExportError

PARTS = ("data", "videos", "native", "meta")
"""In the order in which they appear: LeRobot looks for `meta` first."""
UNFINISHED = ".lerobot.part"


class LerobotSession(msgspec.Struct, frozen=True):
    """What a session has become."""

    session: str
    complete: bool
    outcome: str
    utc_trusted: bool
    episodes: list[int]
    rows: int
    fps: int
    lost: int
    """Frames that the camera of the rows counted and that are not rows."""
    rows_not_continuous: int
    """Rows before which a frame is missing, or that come later than the rate says."""
    rows_not_valid: dict[str, int]
    """Rows without values of a stream, or without a picture of another camera."""
    cameras: dict[str, str]
    """`copied` or `encoded again`, by camera."""
    samples: dict[str, int]
    """At their own rate, by stream."""


class LerobotResult(msgspec.Struct, frozen=True):
    """A dataset that is on disk."""

    path: str
    episodes: int
    rows: int
    fps: int
    tasks: int
    bytes: int


class LerobotDataset:
    """Writes sessions one after another; a context manager. Nothing has its name before `finish`.

    Args:
        root: Where the dataset will be; created when missing.

    Raises:
        ExportError: there is one already; the disk refuses.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._part, self._held = root, root / UNFINISHED, contextlib.ExitStack()
        present = [name for name in PARTS if (root / name).exists()]
        if present:
            raise ExportError(
                f"{root} already has {', '.join(present)}: a dataset is not added to",
                fix="choose another directory with --out, and name all its sessions in one command",
            )
        self._features: RowFeatures | None = None
        self._cameras: list[tuple[str, int, int]] = []
        self._fps = 0
        self._tables: list[Path] = []
        self._stretches: list[Stretch] = []
        self._clips: dict[str, list[Clip]] = {}
        self._tasks: dict[str, int] = {}
        self._records: list[dict[str, Any]] = []
        self._rows = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack, disk_told(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(one_writer(self._root, self._root))
            shutil.rmtree(self._part, ignore_errors=True)
            for name in PARTS:
                (self._part / name).mkdir(parents=True)
            self._held = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            shutil.rmtree(self._part, ignore_errors=True)

    def add(
        self,
        session: RecordedSession,
        *,
        allow_incomplete: bool = False,
        apply_lags: bool = False,
        progress: Progress | None = None,
    ) -> LerobotSession:
        """Append a session's episodes; where it cannot be, the dataset is as it was.

        Raises:
            ExportError: the session must not be exported (see `require_exportable`), has no camera or none
                that LeRobot can show, or is not like those before; the disk refuses.
            NameRefused: a camera's or stream's name is none.
            ChunkError: a frame's numbers cannot be.
        """
        require_exportable(session, allow_incomplete=allow_incomplete)
        cameras = carried_cameras(session)
        tracks = sensor_tracks(session, apply_lags=apply_lags)
        table = FrameTable(session, cameras[0], tracks, len(self._stretches), None)
        features = RowFeatures(table, cameras)
        native = self._part / "native" / session.key.session
        if native.exists():
            raise ExportError(
                f"the dataset has a session {session.key.session} already", fix="name every session once"
            )
        sizes = [(c.name, c.width, c.height) for c in cameras]
        plan = plan_session(session, cameras)
        self._require_alike(session, features, sizes, plan.fps)
        work = self._part / "session"
        report = _Report(session, plan, progress)
        try:
            with disk_told(self._root):
                native.mkdir(parents=True)
                work.mkdir()
                for row in write_rows(
                    work / "rows.parquet", session, table, features, plan, self._numbers(session, plan)
                ):
                    report.reached(row)
                report.next_part()
                samples = {
                    t.info.name: write_native(
                        native / f"{t.info.name}.parquet", session, t, table.whose() | table.stream_facts(t)
                    )
                    for t in tracks
                }
                clips = {}
                for pictures in plan.pictures:
                    folder = work / pictures.camera.name
                    for row in write_clips(session, plan, pictures, folder):
                        report.reached(row)
                    report.next_part()
                    name = pictures.camera.name
                    clips[name] = [
                        read_clip(clip_path(folder, n), end - first, plan.fps)
                        for n, (first, end) in enumerate(plan.clips)
                    ]
                    for clip in clips[name]:
                        before = self._clips.get(name, clips[name])[0]
                        require_one_size(session, pictures.camera, before, clip)
                return self._take(session, table, features, plan, sizes, clips, samples)
        except BaseException:
            shutil.rmtree(native, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def finish(self) -> LerobotResult | None:
        """Put everything in its place, on disk; None if there was no session to write."""
        features = self._features
        if features is None:
            return None
        with disk_told(self._root):
            join_rows(self._tables, self._part / meta.DATA, features, [s.end for s in self._stretches])
            videos, places = {}, {}
            for camera, clips in self._clips.items():
                name = features.videos[camera]
                videos[name] = clips[0].facts
                places[name] = join(clips, self._fps, self._part / "videos" / name)
            episodes = [
                meta.Episode(
                    first=s.first,
                    end=s.end,
                    task=s.task,
                    videos={
                        name: meta.Place(at[s.clip].file, at[s.clip].first_row + s.clip_row)
                        for name, at in places.items()
                    },
                    stats=s.stats | {name: pictures.stats() for name, pictures in s.pictures.items()},
                )
                for s in self._stretches
            ]
            meta.write_episodes(self._part, episodes, self._fps)
            meta.write_tasks(self._part, list(self._tasks))
            meta.write_stats(self._part, self._all_stats(features))
            counts = len(episodes), self._rows, len(self._tasks)
            meta.write_info(self._part, self._fps, features.features, videos, counts)
            ours = {
                "edgecap": __version__,
                "columns": {f.name: f.definition for f in features.features},
                "sessions": self._records,
            }
            (self._part / meta.OURS).write_text(as_json(ours) + "\n")
            size = settle(self._part)
            for name in PARTS:
                (self._part / name).rename(self._root / name)
            sync(self._root)
        return LerobotResult(str(self._root), len(episodes), self._rows, self._fps, len(self._tasks), size)

    def _require_alike(
        self, session: RecordedSession, features: RowFeatures, sizes: Sequence[Any], fps: int
    ) -> None:
        """A dataset has one set of columns and one rate."""
        before = self._features
        if before is None:
            return
        mine, theirs = ({(f.name, *(f.names or ())) for f in x.features} for x in (features, before))
        differing = sorted({name for name, *_ in mine ^ theirs})
        differing += [f"camera {name} ({w}×{h})" for name, w, h in sizes if (name, w, h) not in self._cameras]
        differing += [
            f"camera {name}" for name, *_ in self._cameras if name not in {other for other, *_ in sizes}
        ]
        differing += [f"{fps} frames a second, not {self._fps}"] if fps != self._fps else []
        if sizes and self._cameras and sizes[0][0] != self._cameras[0][0]:
            differing.append(f"its first camera is {sizes[0][0]}, not {self._cameras[0][0]}")
        if differing:
            raise ExportError(
                f"session {session.key.session} is not like those before it: {', '.join(differing)}",
                fix="export it into a dataset of its own",
            )

    def _numbers(self, session: RecordedSession, plan: Plan) -> dict[str, np.ndarray[Any, Any]]:
        """The columns that LeRobot wants in every row."""
        lengths = [end - first for first, end in plan.episodes]
        frame_index = np.concatenate([np.arange(n) for n in lengths])
        episodes = len(self._stretches) + np.arange(len(lengths))
        task = self._tasks.get(_task(session), len(self._tasks))
        return {
            "timestamp": (frame_index / plan.fps).astype(np.float32),
            "frame_index": frame_index,
            "episode_index": np.repeat(episodes, lengths),
            "index": self._rows + np.arange(plan.rows),
            "task_index": np.full(plan.rows, task),
        }

    def _take(
        self,
        session: RecordedSession,
        table: FrameTable,
        features: RowFeatures,
        plan: Plan,
        sizes: list[tuple[str, int, int]],
        clips: dict[str, list[Clip]],
        samples: dict[str, int],
    ) -> LerobotSession:
        """Make the files of a session part of the dataset."""
        work = self._part / "session"
        clips_before = sum(len(found) for found in list(self._clips.values())[:1])
        stretches = stretches_of(
            plan, features, clips, work / "rows.parquet", _task(session), self._rows, clips_before
        )
        number = len(self._records)
        kept: dict[str, list[Clip]] = {}
        for camera, found in clips.items():
            kept[camera] = []
            for n, clip in enumerate(found):
                path = clip.path.rename(self._part / f"{number:06d}-{n:03d}.{camera}.mp4")
                kept[camera].append(replace(clip, path=path))
        # From here on nothing can fail.
        self._tables.append((work / "rows.parquet").rename(self._part / f"{number:06d}.parquet"))
        for camera, found in kept.items():
            self._clips.setdefault(camera, []).extend(found)
        episodes = [len(self._stretches) + k for k in range(len(stretches))]
        self._tasks.setdefault(_task(session), len(self._tasks))
        self._features, self._cameras, self._fps = features, sizes, plan.fps
        self._records.append(session_record(session, table, plan, features, episodes, self._rows))
        self._stretches += stretches
        self._rows += plan.rows
        absent = {p.camera.name: int((p.at == NONE).sum()) for p in plan.pictures[1:]}
        return LerobotSession(
            session=session.key.session,
            complete=session.report.complete,
            outcome=session.outcome,
            utc_trusted=session.utc.trusted,
            episodes=episodes,
            rows=plan.rows,
            fps=plan.fps,
            lost=plan.pictures[0].lost,
            rows_not_continuous=int((~plan.continuous).sum()),
            rows_not_valid={**table.nulls, **absent},
            cameras={p.camera.name: "copied" if p.is_copied else "encoded again" for p in plan.pictures},
            samples=samples,
        )

    def _all_stats(self, features: RowFeatures) -> dict[str, Stats]:
        stats = {
            feature.name: number_stats(meta.columns(self._part / meta.DATA, [feature.name])[feature.name])
            for feature in features.features
        }
        for name in features.videos.values():
            stats[name] = PictureStats().merge(s.pictures[name] for s in self._stretches).stats()
        return stats


class _Report:
    """Tells how far a session is: its rows, then each camera's pictures."""

    def __init__(self, session: RecordedSession, plan: Plan, progress: Progress | None) -> None:
        self._span_ns = max(session.t1_ns - session.t0_ns, 1)
        self._rows, self._parts, self._done = plan.rows, 1 + len(plan.pictures), 0
        self._progress = progress

    def reached(self, row: int) -> None:
        self._tell(self._done * self._span_ns + row * self._span_ns // self._rows)

    def next_part(self) -> None:
        self._done += 1
        self._tell(self._done * self._span_ns)

    def _tell(self, done_ns: int) -> None:
        if self._progress is not None:
            self._progress(done_ns, self._parts * self._span_ns)


def _task(session: RecordedSession) -> str:
    return str(session.manifest.get("task", ""))
