"""The videos of a LeRobot dataset: a picture at every row, at a constant rate."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.frames_video import DEMUXER, Mp4Writer, decodable_frames
from edgecap.dataset.lerobot_meta import Place
from edgecap.dataset.lerobot_plan import NONE, Pictures, Plan
from edgecap.dataset.session import RecordedSession
from edgecap.errors import ExportError
from edgecap.model import H264, MJPEG, StreamInfo
from edgecap.source.camera_encoder import H264Encoder

BITS_PER_PIXEL = 0.2
"""Bit rate of pictures that are encoded again."""
LEAST_KBPS = 500
MAX_FILE_S = 900
"""See `lerobot_plan.CLIP_S`."""
MAX_FILE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Clip:
    """A video file of consecutive rows; picture i is row i, at i / fps seconds."""

    path: Path
    rows: int
    facts: dict[str, Any]
    """What LeRobot's `info.json` says of a video."""
    head: tuple[Any, ...]
    """Clips whose heads are the same may follow one another in one file."""


def write_clips(session: RecordedSession, plan: Plan, pictures: Pictures, folder: Path) -> Iterator[int]:
    """Write `folder/clip-NNN.mp4` for every clip; yields the row reached about once a second.

    Raises:
        ExportError: a frame is not what its camera said.
    """
    source = _copied(session, pictures) if pictures.is_copied else _encoded(session, plan, pictures)
    codec = pictures.camera.codec if pictures.is_copied else H264
    folder.mkdir(parents=True)
    for n, (first, end) in enumerate(plan.clips):
        data, key = next(source)
        with Mp4Writer(clip_path(folder, n), codec, data, 1, Fraction(1, plan.fps)) as video:
            video.add(data, 0, key=key)
            for row in range(first + 1, end):
                data, key = next(source)
                video.add(data, row - first, key=key)
                if row % plan.fps == 0:
                    yield row


def clip_path(folder: Path, n: int) -> Path:
    return folder / f"clip-{n:03d}.mp4"


def read_clip(path: Path, rows: int, fps: int) -> Clip:
    """What is on disk."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        context = stream.codec_context
        facts = {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec.canonical_name,
            "video.pix_fmt": context.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        }
        return Clip(path, rows, facts, (*facts.values(), context.extradata))


def require_one_size(session: RecordedSession, camera: StreamInfo, before: Clip, clip: Clip) -> None:
    """A dataset's pictures of a camera are all of one size, whatever the camera said that it would give.

    Raises:
        ExportError: `clip` has another size than the one before it.
    """
    first, last = ((c.facts["video.width"], c.facts["video.height"]) for c in (before, clip))
    if first != last:
        raise _other_size(session, camera, last, first)


def _other_size(
    session: RecordedSession, camera: StreamInfo, size: tuple[int, int], wanted: tuple[int, int]
) -> ExportError:
    (w, h), (was_w, was_h) = size, wanted
    return ExportError(
        f"pictures of camera {camera.name} of session {session.key.session} are {w}×{h}, "
        f"those before them {was_w}×{was_h}",
        fix="export it into a dataset of its own, or with --to mcap",
    )


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the frame header (ITU-T T.81 § B.2.2); None where there is none."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def join(clips: Sequence[Clip], fps: int, folder: Path) -> list[Place]:
    """Put clips into as few files as may be, `folder/chunk-000/file-NNN.mp4`; takes the clips away."""
    places: list[Place] = []
    groups: list[list[Clip]] = []
    for clip in clips:
        group = groups[-1] if groups else []
        rows, size = sum(c.rows for c in group), sum(c.path.stat().st_size for c in group)
        fits = (rows + clip.rows) <= MAX_FILE_S * fps and size + clip.path.stat().st_size <= MAX_FILE_BYTES
        if group and fits and group[0].head == clip.head:
            group.append(clip)
        else:
            groups.append([clip])
            rows = 0
        places.append(Place(len(groups) - 1, rows))
    for n, group in enumerate(groups):
        target = folder / f"chunk-{n // 1000:03d}" / f"file-{n % 1000:03d}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        if len(group) == 1:
            group[0].path.replace(target)
        else:
            _concatenate(group, fps, target)
    return places


def sampled_pictures(clip: Clip, fps: int, wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """(h, w, 3) uint8 of rows whose frames are key frames."""
    rows = set(wanted)
    with av.open(str(clip.path)) as file:
        stream = file.streams.video[0]
        for packet in file.demux(stream):
            row = _row(packet, fps)
            if row is None or row not in rows:
                continue
            context = stream.codec_context
            shown: list[Any] = []
            with contextlib.suppress(av.error.FFmpegError):  # what the camera gave is kept as it is
                shown = [*context.decode(packet), *context.decode(None)]
            context.flush_buffers()
            if shown:
                picture: NDArray[Any] = shown[0].to_ndarray(format="rgb24")
                yield picture


def key_rows(clip: Clip, fps: int) -> list[int]:
    """Rows of a clip that decoding can start at."""
    with av.open(str(clip.path)) as file:
        rows = [_row(p, fps) for p in file.demux(video=0) if p.is_keyframe]
    return [row for row in rows if row is not None]


def _row(packet: Any, fps: int) -> int | None:
    return None if packet.pts is None else round(packet.pts * packet.time_base * fps)


def _concatenate(clips: Sequence[Clip], fps: int, target: Path) -> None:
    base, first = Fraction(1, fps), 0
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as out:
        stream: Any = None
        for clip in clips:
            with av.open(str(clip.path)) as file:
                if stream is None:
                    stream = out.add_stream_from_template(file.streams.video[0], opaque=True)
                    stream.time_base = base
                for packet in file.demux(video=0):
                    row = _row(packet, fps)
                    if row is None:
                        continue
                    packet.stream, packet.time_base = stream, base
                    packet.pts = packet.dts = first + row
                    packet.duration = 1
                    out.mux(packet)
            first += clip.rows
            clip.path.unlink()


def _copied(session: RecordedSession, pictures: Pictures) -> Iterator[tuple[bytes, bool]]:
    """Frames as they were encoded; one that belongs to several rows comes that many times."""
    at, row, camera = pictures.at, 0, pictures.camera
    size: tuple[int, int] | None = None
    frames = ((f, data) for f, data in decodable_frames(session, camera) if data is not None)
    for k, (frame, data) in enumerate(frames):
        while row < len(at) and at[row] == k:
            found = jpeg_size(data) if camera.codec == MJPEG else None
            if found is not None and size is not None and found != size:
                raise _other_size(session, camera, found, size)
            size = found or size
            yield data, frame.key or camera.codec == MJPEG
            row += 1


def _encoded(session: RecordedSession, plan: Plan, pictures: Pictures) -> Iterator[tuple[bytes, bool]]:
    """Frames decoded and encoded again; a black one where there is none."""
    camera, starts = pictures.camera, {first for first, _ in plan.clips}
    decoded = _decoded(session, pictures)
    number, picture = NONE, None
    kbps = max(round(camera.width * camera.height * plan.fps * BITS_PER_PIXEL / 1000), LEAST_KBPS)
    is_full_range = camera.codec == MJPEG
    encoder = H264Encoder(camera.width, camera.height, Fraction(plan.fps), kbps, full_range=is_full_range)
    black = av.VideoFrame.from_ndarray(np.zeros((camera.height, camera.width, 3), np.uint8), format="rgb24")
    for row, wanted in enumerate(pictures.at.tolist()):
        while number < wanted:
            number, picture = next(decoded, (wanted, None))
        shown = black if wanted == NONE else picture
        if shown is None or number > wanted != NONE:
            raise ExportError(
                f"frame {wanted} of camera {camera.name} of session {session.key.session} cannot be decoded",
                fix="export it with --to mcap",
            )
        yield encoder.encode(shown, row * 1_000_000_000 // plan.fps, key=row in starts)


def _decoded(session: RecordedSession, pictures: Pictures) -> Iterator[tuple[int, Any]]:
    """Each decoded picture, after its frame's number among those that can be decoded."""
    decoder: Any = av.CodecContext.create(DEMUXER[pictures.camera.codec], "r")
    decoder.thread_count = 1
    frames = (data for _, data in decodable_frames(session, pictures.camera) if data is not None)
    try:
        for k, data in enumerate(frames):
            packet = av.Packet(data)
            packet.pts = packet.dts = k
            yield from ((p.pts, p) for p in decoder.decode(packet))
        yield from ((p.pts, p) for p in decoder.decode(None))
    except av.error.FFmpegError:
        return
