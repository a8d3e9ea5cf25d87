"""A stored session, read back: every stream with raw numbers, rig time, its bound and its gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.codec.chunk import Chunk
from edgecap.codec.columns import CODEC as SAMPLES_CODEC
from edgecap.codec.columns import ColumnDecoder
from edgecap.codec.records import CODEC as RECORDS_CODEC
from edgecap.codec.records import decode_records
from edgecap.codec.video import CONTINUATION, KEY, VideoUnit, decode_units, join_units
from edgecap.dataset.recorded import Preview, SampleChunk, StreamData, VideoFrame
from edgecap.dataset.utc import UtcMap
from edgecap.errors import ChunkError, NeedsChunk, SessionError
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.consent import require_not_withdrawn
from edgecap.ingest.session_report import SessionReport
from edgecap.ingest.store import SessionKey, Store
from edgecap.model import I64, SESSION_STREAM, ClockFit, ClockPair, Gap, Mark, StreamInfo
from edgecap.timeline.fit import to_rig_ns

MISSING = "missing-chunk"
"""Cause of a gap that the rig never stated: a chunk is not in the store."""
FARTHEST_NS = 1 << 61
"""A frame whose numbers lie beyond this has no valid time."""
COLUMNS = ("tick", "values", "frame_n", "arrival_ns", "index")

T = TypeVar("T")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Begin:
    """The chunk in which a frame begins."""

    seq: int
    fit: ClockFit
    gaps: tuple[Gap, ...]
    is_torn: bool
    """Whether chunks that are not in the store come before it."""


class RecordedSession:
    """A session of the store. Records are in memory, samples and frames are read as they are asked for.

    Attributes:
        key: Site, rig and session.
        manifest: The opening record.
        manifest_hash: SHA-256 of its chunk's header, which every other chunk of the session names.
        infos: Streams by name, the late ones included.
        marks, pairs, events, verdicts: What the session's own stream holds, in order.
        gaps: Losses that the rig stated.
        close: The closing record, if it has arrived.
        report: What ingest can prove about the session.
        utc: Rig time to UTC.
        t0_ns, t1_ns: First and last rig time that the session's own records name.
    """

    def __init__(
        self,
        store: Store,
        key: SessionKey,
        records: list[Record],
        report: SessionReport,
        manifest_hash: bytes,
    ) -> None:
        self.key = key
        self.manifest_hash = manifest_hash
        self.report = report
        self._store = store
        self.manifest = records[0]
        of = _by_type(records)
        infos = [_struct(s, StreamInfo) for s in self.manifest["streams"]]
        infos += [_struct(r["stream"], StreamInfo) for r in of("stream")]
        self.infos: dict[str, StreamInfo] = {info.name: info for info in infos}
        self.marks = tuple(_struct(r, Mark) for r in of("mark"))
        self.gaps = tuple(_struct(r, Gap) for r in of("gap"))
        self.events = tuple(of("event"))
        self.verdicts = tuple(of("verdict"))
        self.pairs = (
            _struct(self.manifest["clock"], ClockPair),
            *(_struct(r, ClockPair) for r in of("clock")),
        )
        self.close: Record | None = next(iter(of("close")), None)
        self.utc = UtcMap(self.pairs)
        self.t0_ns = int(self.manifest["t_ns"])
        self.t1_ns = max(int(record["t_ns"]) for record in records)

    @property
    def outcome(self) -> str:
        """`complete`, `discarded`, `interrupted`, or `open` while no closing record has arrived."""
        return str(self.close["outcome"]) if self.close else "open"

    def sample_streams(self) -> list[StreamInfo]:
        return [info for info in self.infos.values() if info.kind not in ("video", "preview")]

    def video_streams(self) -> list[StreamInfo]:
        return [info for info in self.infos.values() if info.kind == "video"]

    def info(self, stream: str) -> StreamInfo:
        """The descriptor of a stream; raises `SessionError` naming those that exist."""
        if stream not in self.infos:
            raise SessionError(
                f"session {self.key.session} has no stream {stream!r}",
                fix=f"it has {', '.join(sorted(self.infos)) or 'none'}",
            )
        return self.infos[stream]

    def sample_chunks(self, stream: str) -> Iterator[SampleChunk]:
        """The chunks of a stream of samples, decoded one by one.

        A chunk that is not in the store becomes a gap of the next one; chunks that cannot be decoded
        without it are left out as well.
        """
        info = self.info(stream)
        decoder = ColumnDecoder()
        last: SampleChunk | None = None
        expected, skipped = 0, False
        for chunk in self._store.chunks(self.key, stream):
            if chunk.header.seq != expected:
                decoder, skipped = ColumnDecoder(), True
            expected = chunk.header.seq + 1
            _check_codec(chunk, SAMPLES_CODEC)
            try:
                columns = decoder.decode(chunk.payload)
            except NeedsChunk:
                skipped = True
                continue
            found = _sample_chunk(chunk, columns, len(info.channels))
            if skipped:
                # An index that went back counts from a restart of the device.
                lost = found.index - (last.index + len(last.ticks) if last else 0)
                start = int(last.t_ns[-1]) if last else min(self.t0_ns, int(found.t_ns[0]))
                gap = Gap(info.name, start, int(found.t_ns[0]), max(lost, -1), MISSING)
                found = replace(found, gaps=(*found.gaps, gap))
                skipped = False
            last = found
            yield found

    def stream(self, stream: str) -> StreamData:
        """A whole stream of samples in memory (about 60 bytes per six-channel sample)."""
        info = self.info(stream)
        chunks = list(self.sample_chunks(stream))
        stated = [g for g in self.gaps if g.stream == stream]
        if not chunks:
            none = np.zeros(0, np.int64)
            values = np.zeros((0, len(info.channels)), np.float64)
            epoch = none.astype(np.int32)
            return StreamData(info, none, none, values, none, none, epoch, none, tuple(stated))
        lengths = [len(c.ticks) for c in chunks]
        found = [g for c in chunks for g in c.gaps if g not in stated]
        return StreamData(
            info=info,
            index=np.concatenate([c.index + np.arange(len(c.ticks), dtype=np.int64) for c in chunks]),
            ticks=np.concatenate([c.ticks for c in chunks]),
            values=np.concatenate([c.values for c in chunks]),
            t_ns=np.concatenate([c.t_ns for c in chunks]),
            u_ns=np.repeat(np.array([c.u_ns for c in chunks], np.int64), lengths),
            epoch=np.repeat(np.array([c.fit.epoch for c in chunks], np.int32), lengths),
            arrival_ns=np.concatenate([c.sample_arrival_ns() for c in chunks]),
            gaps=tuple(sorted([*stated, *found], key=lambda g: g.t0_ns)),
        )

    def frames(self, stream: str) -> Iterator[VideoFrame]:
        """The frames of a camera, one by one.

        Where a chunk is not in the store, the frames up to the next key frame are left out: they could
        not be decoded. The frame after them carries the gap.

        Raises:
            ChunkError: a frame's numbers cannot be.
        """
        info = self.info(stream)
        begins: dict[int, _Begin] = {}
        last: VideoFrame | None = None
        for unit in join_units(self._units(info, begins)):
            begin = begins.pop(unit.index)
            for index in [i for i in begins if i < unit.index]:
                del begins[index]
            first_row = int(to_rig_ns(begin.fit, np.array([unit.tick], np.int64))[0])
            t_ns = first_row - unit.exposure_ns // 2 + unit.line_ns * (info.height // 2)
            gaps = begin.gaps
            if begin.is_torn:
                lost = unit.index - (last.index + 1 if last else 0)
                start = last.t_ns if last else min(self.t0_ns, t_ns)
                gaps = (*gaps, Gap(info.name, start, t_ns, max(lost, -1), MISSING))
            last = VideoFrame(
                seq=begin.seq,
                index=unit.index,
                t_ns=t_ns,
                u_ns=begin.fit.u_ns,
                epoch=begin.fit.epoch,
                key=bool(unit.flags & KEY),
                data=unit.data,
                tick=unit.tick,
                arrival_ns=unit.arrival_ns,
                exposure_ns=unit.exposure_ns,
                line_ns=unit.line_ns,
                gaps=gaps,
                metadata=unit.metadata,
                locked=begin.fit.locked,
            )
            _check_times(last, info.name)
            yield last

    def previews(self, stream: str) -> Iterator[Preview]:
        """The small pictures in a stream of kind `preview`."""
        for chunk in self._store.chunks(self.key, self.info(stream).name):
            _check_codec(chunk, RECORDS_CODEC)
            for record in decode_records(chunk.payload):
                jpeg = record.get("jpeg")
                if record["type"] == "picture" and isinstance(jpeg, bytes):
                    yield Preview(chunk.header.seq, int(record["t_ns"]), jpeg)

    def _units(self, info: StreamInfo, begins: dict[int, _Begin]) -> Iterator[VideoUnit]:
        """Parts of frames in order; notes in `begins` the chunk in which each frame begins."""
        expected, decodable, torn = 0, False, False
        for chunk in self._store.chunks(self.key, info.name):
            header = chunk.header
            _check_codec(chunk, info.codec)
            torn = torn or header.seq != expected
            decodable = decodable and header.seq == expected
            expected = header.seq + 1
            gaps = header.gaps
            for unit in decode_units(chunk.payload):
                starts = not unit.flags & CONTINUATION
                decodable = decodable or (starts and bool(unit.flags & KEY))
                if not decodable:
                    continue
                if starts:
                    begins[unit.index] = _Begin(header.seq, _fit(chunk), gaps, torn)
                    gaps, torn = (), False
                yield unit


def load_session(store: Store, key: SessionKey) -> RecordedSession:
    """Read a session's records and check what ingest can prove about it.

    Raises:
        SessionError: the session was withdrawn, or its manifest is not in the store.
    """
    require_not_withdrawn(store, [key])
    records: list[Record] = []
    manifest_hash = b""
    for chunk in store.chunks(key, SESSION_STREAM):
        manifest_hash = manifest_hash or chunk.hash
        _check_codec(chunk, RECORDS_CODEC)
        records += decode_records(chunk.payload)
    if not records or records[0]["type"] != "open":
        raise SessionError(
            f"session {key.session} of {key.site}/{key.rig} has no manifest in the store",
            fix="its first chunk has not arrived; let the rig upload and try again",
        )
    return RecordedSession(store, key, records, verify_session(store, key), manifest_hash)


def segments(t_ns: I64, index: I64, epoch: NDArray[np.int32]) -> list[slice]:
    """Stretches without a loss: the index runs on by one, time runs forward, the epoch stays.

    Args:
        t_ns: (n,) int64, rig time of each sample.
        index: (n,) int64, its running number.
        epoch: (n,) int32, that of its clock.

    Returns:
        Slices of these arrays that cover them, in order.
    """
    if not len(t_ns):
        return []
    breaks = (np.diff(index) != 1) | (np.diff(t_ns) <= 0) | (np.diff(epoch) != 0)
    cuts = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(t_ns)]
    return [slice(a, b) for a, b in pairwise(cuts)]


def _by_type(records: list[Record]) -> Callable[[str], list[Record]]:
    def of(kind: str) -> list[Record]:
        return [r for r in records if r["type"] == kind]

    return of


def _struct(fields: Record, kind: type[T]) -> T:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise ChunkError(f"session record is not a {kind.__name__}: {error}") from error


def _check_codec(chunk: Chunk, codec: str) -> None:
    header = chunk.header
    if header.enc is not None:
        raise ChunkError(
            f"chunk {header.stream}/{header.seq} is encrypted ({header.enc!r}): this version cannot read it",
            fix="update edgecap on this side",
        )
    if header.codec != codec:
        raise ChunkError(
            f"chunk {header.stream}/{header.seq} is encoded as {header.codec!r}, expected {codec!r}",
            fix="update edgecap on this side",
        )


def _fit(chunk: Chunk) -> ClockFit:
    header = chunk.header
    if header.fit is None:
        raise ChunkError(f"chunk {header.stream}/{header.seq} carries no clock fit")
    return header.fit


def _sample_chunk(chunk: Chunk, columns: dict[str, NDArray[Any]], channels: int) -> SampleChunk:
    header, fit = chunk.header, _fit(chunk)
    where = f"chunk {header.stream}/{header.seq}"
    absent = [name for name in COLUMNS if name not in columns]
    if absent:
        raise ChunkError(f"{where} lacks the columns {', '.join(absent)}")
    ticks, values, frame_n, arrival_ns, index = (columns[name] for name in COLUMNS)
    n = header.n
    if n == 0 or ticks.shape != (n,) or frame_n.shape != arrival_ns.shape or int(frame_n.sum()) != n:
        raise ChunkError(f"{where} states {n} samples, its columns do not agree")
    if values.shape != (n, channels):
        raise ChunkError(f"{where} has values of shape {values.shape}, its stream has {channels} channels")
    return SampleChunk(
        seq=header.seq,
        hash=chunk.hash,
        fit=fit,
        index=int(index[0]),
        ticks=ticks,
        values=values,
        frame_n=frame_n,
        arrival_ns=arrival_ns,
        t_ns=to_rig_ns(fit, ticks),
        gaps=header.gaps,
    )


def _check_times(frame: VideoFrame, stream: str) -> None:
    numbers = (frame.index, frame.t_ns, frame.u_ns, frame.arrival_ns, frame.exposure_ns, frame.line_ns)
    if any(abs(number) > FARTHEST_NS for number in numbers):
        raise ChunkError(
            f"frame {frame.index} of {stream} (chunk {frame.seq}) is at {frame.t_ns} ns, "
            f"exposed for {frame.exposure_ns} ns, which cannot be",
            fix="report it",
        )
