"""Collects a stream's blocks or frames into drafts of chunks. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.codec.chunk import MAX_CHUNK_BYTES
from edgecap.codec.video import CONTINUATION, FRAME_OVERHEAD_BYTES, KEY, VideoUnit, split_unit
from edgecap.model import ClockFit, FramePacket, Gap, PictureReport, SampleBlock

HEADER_ROOM_BYTES = 6 * 1024
"""What headers with their fit, gaps and verdict may need beside the payload."""
PAYLOAD_BYTES = MAX_CHUNK_BYTES - HEADER_ROOM_BYTES
MAX_GAPS_PER_CHUNK = 32
"""Every gap is a record of the session stream; a header repeats at most this many."""
GOP_NS = 2_000_000_000
"""A camera whose key frames are further apart than this still gets its chunks closed."""
INTRA_NS = 1_000_000_000
"""Length of a chunk of video that has nothing but key frames."""

Columns = dict[str, NDArray[np.generic]]
Record = dict[str, Any]


@dataclass(slots=True)
class Draft:
    """A chunk to be: `columns` of samples, video `units`, or `records`."""

    t0_ns: int
    t1_ns: int
    n: int
    raw_bytes: int
    fit: ClockFit | None
    gaps: list[Gap] = field(default_factory=list)
    columns: Columns | None = None
    units: list[VideoUnit] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


def _widened(fit: ClockFit, ticks_and_fits: list[tuple[int, ClockFit]]) -> ClockFit:
    """`fit` with a bound that covers what each block's own fit promised at its ends.

    A chunk carries one fit, its last. Where an earlier fit placed a tick at `a ± u` and this one places it
    at `b`, the truth is within `|a − b| + u` of `b`. Both maps are straight lines, so their ends suffice.
    """
    u_ns = fit.u_ns
    for tick, other in ticks_and_fits:
        shift_ns = abs(fit.rig_ns(tick) - other.rig_ns(tick))
        u_ns = max(u_ns, shift_ns + other.u_ns)
    return msgspec.structs.replace(fit, u_ns=u_ns, locked=all(f.locked for _, f in ticks_and_fits))


class SampleChunker:
    """Collects sample blocks; a chunk ends after `chunk_ns`, at a gap, at a new epoch, or when large."""

    def __init__(self, chunk_ns: int) -> None:
        self.chunk_ns = chunk_ns
        self._blocks: list[SampleBlock] = []
        self._gaps: list[Gap] = []
        self._bytes = 0
        self._t0_ns = 0

    def add(self, block: SampleBlock) -> Iterator[Draft]:
        """Take a block; yield each chunk that is thereby complete."""
        for part in _fitting(block):
            if self._blocks and not self._continues(part):
                yield self._draft()
            if not self._blocks:
                self._t0_ns = part.fit.rig_ns(int(part.ticks[0]))
            self._blocks.append(part)
            self._bytes += _raw_bytes(part)
            if part.fit.rig_ns(int(part.ticks[-1])) - self._t0_ns >= self.chunk_ns:
                yield self._draft()

    def add_gap(self, gap: Gap) -> Iterator[Draft]:
        """Take a loss: it closes the chunk before it and is stated in the header of the one after."""
        if self._blocks:
            yield self._draft()
        if len(self._gaps) < MAX_GAPS_PER_CHUNK:
            self._gaps.append(gap)

    def flush(self) -> Iterator[Draft]:
        """Yield what is left."""
        if self._blocks:
            yield self._draft()

    def _continues(self, block: SampleBlock) -> bool:
        last = self._blocks[-1]
        return (
            block.index == last.index + len(last.ticks)
            and block.fit.epoch == last.fit.epoch
            and self._bytes + _raw_bytes(block) <= PAYLOAD_BYTES
        )

    def _draft(self) -> Draft:
        blocks = self._blocks
        columns: Columns = {
            "tick": np.concatenate([b.ticks for b in blocks]),
            "values": np.concatenate([b.values for b in blocks]),
            "frame_n": np.concatenate([b.frame_n for b in blocks]),
            "arrival_ns": np.concatenate([b.arrival_ns for b in blocks]),
            "index": np.array([blocks[0].index], np.int64),
        }
        ends = [(int(tick), b.fit) for b in blocks for tick in (b.ticks[0], b.ticks[-1])]
        fit = _widened(blocks[-1].fit, ends)
        draft = Draft(
            t0_ns=fit.rig_ns(ends[0][0]),
            t1_ns=fit.rig_ns(ends[-1][0]),
            n=len(columns["tick"]),
            raw_bytes=sum(c.nbytes for c in columns.values()),
            fit=fit,
            gaps=self._gaps,
            columns=columns,
        )
        self._blocks, self._gaps, self._bytes = [], [], 0
        return draft


def _raw_bytes(block: SampleBlock) -> int:
    return block.ticks.nbytes + block.values.nbytes + block.frame_n.nbytes + block.arrival_ns.nbytes


def _fitting(block: SampleBlock) -> Iterator[SampleBlock]:
    """The block, cut between serial frames where it is too large for one chunk."""
    if _raw_bytes(block) <= PAYLOAD_BYTES:
        yield block
        return
    middle = len(block.frame_n) // 2
    if middle == 0:
        raise ValueError(f"one serial frame of {block.stream} is larger than a chunk")
    cut = int(block.frame_n[:middle].sum())
    for part, rows, frames in (
        (block.index, slice(0, cut), slice(0, middle)),
        (block.index + cut, slice(cut, None), slice(middle, None)),
    ):
        yield from _fitting(
            SampleBlock(
                block.stream,
                part,
                block.ticks[rows],
                block.values[rows],
                block.frame_n[frames],
                block.arrival_ns[frames],
                block.fit,
            )
        )


class VideoChunker:
    """Collects encoded frames; a chunk begins with a key frame and ends before the next, or when large.

    Args:
        intra: Every frame is a key frame (MJPEG); a chunk then ends after a second.
    """

    def __init__(self, *, intra: bool = False) -> None:
        self._longest_ns = INTRA_NS if intra else GOP_NS
        self._intra = intra
        self._units: list[VideoUnit] = []
        self._fits: list[tuple[int, ClockFit]] = []
        self._gaps: list[Gap] = []
        self._bytes = 0

    def add(self, frame: FramePacket) -> Iterator[Draft]:
        """Take a frame; yield each chunk that is thereby complete."""
        if self._units and (
            (frame.key and not self._intra)
            or frame.fit.epoch != self._fits[-1][1].epoch
            or (frame.tick - self._units[0].tick) * frame.fit.tick_ns > self._longest_ns
        ):
            yield self._draft()
        flags = KEY if frame.key else 0
        whole = VideoUnit(
            frame.index,
            frame.tick,
            frame.arrival_ns,
            frame.exposure_ns,
            frame.line_ns,
            flags,
            frame.data,
            frame.metadata,
        )
        room = PAYLOAD_BYTES - FRAME_OVERHEAD_BYTES - len(frame.metadata)
        if self._units and self._bytes + len(frame.data) > room:
            yield self._draft()
        for i, unit in enumerate(split_unit(whole, room, room)):
            if i:
                yield self._draft()
            self._units.append(unit)
            self._fits.append((frame.tick, frame.fit))
            self._bytes += len(unit.data) + len(unit.metadata) + FRAME_OVERHEAD_BYTES

    def add_gap(self, gap: Gap) -> Iterator[Draft]:
        """Take a loss: it closes the chunk before it and is stated in the header of the one after."""
        if self._units:
            yield self._draft()
        if len(self._gaps) < MAX_GAPS_PER_CHUNK:
            self._gaps.append(gap)

    def flush(self) -> Iterator[Draft]:
        """Yield what is left."""
        if self._units:
            yield self._draft()

    def _draft(self) -> Draft:
        units, fits = self._units, self._fits
        fit = _widened(fits[-1][1], fits)
        t0_ns, t1_ns = fit.rig_ns(units[0].tick), fit.rig_ns(units[-1].tick)
        size = sum(len(u.data) for u in units)
        # A frame that continues in the next chunk counts in the one where it begins.
        n = sum(1 for u in units if not u.flags & CONTINUATION)
        draft = Draft(t0_ns, t1_ns, n, size, fit, self._gaps, units=units)
        self._units, self._fits, self._gaps, self._bytes = [], [], [], 0
        return draft


class PreviewChunker:
    """Makes a chunk of each small picture, so that it can be delivered at once."""

    def add(self, picture: PictureReport) -> Iterator[Draft]:
        """Take a picture; yield its chunk."""
        record: Record = {
            "type": "picture",
            "t_ns": picture.t_ns,
            "sharpness": picture.sharpness,
            "brightness": picture.brightness,
            "crushed": picture.crushed,
            "clipped": picture.clipped,
            "jpeg": picture.jpeg,
        }
        yield Draft(picture.t_ns, picture.t_ns, 1, len(picture.jpeg), None, records=[record])

    def add_gap(self, gap: Gap) -> Iterator[Draft]:
        """Losses are stated in the camera's own stream."""
        yield from ()

    def flush(self) -> Iterator[Draft]:
        """Nothing is held back."""
        yield from ()
