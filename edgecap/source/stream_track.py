"""The thread of one stream's samples: what came, what was lost, and why. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels import framing
from edgecap.model import I64, NUMPY_DTYPE, ClockFit, Gap, Item, SampleBlock, StreamInfo
from edgecap.source.deframer import Batch

PAUSE_NS = 100_000_000
"""Samples further apart than this and than …"""
PAUSE_PERIODS = 5
"""… so many periods have a gap between them though none was lost: the sensor gave none."""


def signed32(value: int) -> int:
    """The difference of two uint32 counters, nearest to zero."""
    return ((value + 0x80000000) & 0xFFFFFFFF) - 0x80000000


class StreamTrack:
    """Follows one stream through a recording; `begin`, then `add` and `restart`, then `end`.

    In every recording without an uncountable gap (`lost` −1), samples yielded + samples in gaps = `sent`.
    """

    def __init__(self, info: StreamInfo, value_bytes: int) -> None:
        """Args:
        info: The stream.
        value_bytes: Bytes of one value on the wire.
        """
        self.info = info
        self._width = value_bytes
        self._dtype = NUMPY_DTYPE[info.dtype]
        period_ns = 1e9 / info.rate_hz_nominal
        self._pause_ticks = max(PAUSE_NS, PAUSE_PERIODS * period_ns) // info.tick_ns
        self._base = 0
        self._next = 0
        self._last: tuple[int, ClockFit] | None = None
        self._since_ns = 0
        self._arrival_ns = 0
        self.silent = False
        """Nothing has come for longer than is usual for such a stream."""
        self._cause = ""
        self._restarted = False
        self._overrun = 0
        self._lost_frames = 0
        self.repeated = 0
        """Frames dropped because their samples had come already."""

    def begin(self, t_ns: int, lost_frames: int) -> None:
        """A new recording: the device has just acknowledged START.

        Args:
            t_ns: When.
            lost_frames: Frames known to be lost on the line so far.
        """
        self._base = self._next = self._overrun = 0
        self._last, self._cause, self._restarted, self.silent = None, "", False, False
        self._since_ns = self._arrival_ns = t_ns
        self._lost_frames = lost_frames

    def interrupt(self, cause: str) -> None:
        """The device went away or was reset: explains the next gap. The first cause stands."""
        self._cause = self._cause or cause

    def restart(self, t_ns: int, lost_frames: int) -> None:
        """The device counts from 0 again within the recording; what it lost meanwhile is unknown."""
        self._base += self._next
        self._next = self._overrun = 0
        self._restarted = True
        self._arrival_ns = t_ns
        self._lost_frames = lost_frames

    def overrun(self, lost: int) -> None:
        """Note that the device says it had to drop so many samples."""
        self._overrun += lost

    def check_silent(self, now_ns: int) -> bool:
        """True once per silence."""
        if self.silent or now_ns - self._arrival_ns < self.info.silent_after_ns:
            return False
        self.silent = True
        return True

    def add(
        self,
        batch: Batch,
        rows: I64,
        ticks0: I64,
        epochs: I64,
        fits: Mapping[int, ClockFit],
        lost_frames: I64,
    ) -> list[Item]:
        """Take SAMPLES frames in order of arrival.

        Args:
            batch: Where they are.
            rows: (m,) int64, which of `batch.frames`.
            ticks0: (m,) int64, unwrapped tick of each frame's first sample.
            epochs: (m,) int64, clock epoch of each.
            fits: The fit to publish with each epoch.
            lost_frames: (m,) int64, frames lost on the line before each, since any fixed moment.
        """
        frames = batch.frames[rows]
        kept: list[int] = []
        lost_at: dict[int, int] = {}  # samples lost before each kept frame
        expected = self._next
        for k, (index, n) in enumerate(zip(frames["index"].tolist(), frames["n"].tolist(), strict=True)):
            jump = signed32(index - expected)
            if jump < 0:
                self.repeated += 1
                continue
            if jump:
                lost_at[len(kept)] = jump
            kept.append(k)
            expected += jump + n
        if not kept:
            return []
        if len(kept) < len(rows):
            rows, ticks0, epochs, lost_frames = rows[kept], ticks0[kept], epochs[kept], lost_frames[kept]
            frames = frames[kept]
        n_each = frames["n"].astype(np.int64)
        ends = np.cumsum(n_each)
        ticks = np.empty(int(ends[-1]), np.int64)
        values: NDArray[np.generic] = np.empty((len(ticks), len(self.info.channels)), self._dtype)
        halves: NDArray[np.int16] = values.view(np.int16)
        framing.unpack_samples(batch.bodies, batch.frames, rows, ticks0, self._width, ticks, halves)
        edges = self._edges(ticks, ends, ticks0, epochs, lost_at)
        items: list[Item] = []
        for at, stop in zip(edges, [*edges[1:], len(rows)], strict=True):
            first, last = int(ends[at] - n_each[at]), int(ends[stop - 1])
            fit = fits[int(epochs[at])]
            gap = self._gap_before(int(ticks[first]), fit, lost_at.get(at, 0), int(lost_frames[at]))
            if gap is not None:
                items.append(gap)
            self._next += lost_at.get(at, 0)
            items.append(
                SampleBlock(
                    stream=self.info.name,
                    index=self._base + self._next,
                    ticks=ticks[first:last],
                    values=values[first:last],
                    frame_n=n_each[at:stop].astype(np.int32),
                    arrival_ns=frames["arrival_ns"][at:stop].copy(),
                    fit=fit,
                )
            )
            self._next += last - first
            self._last = (int(ticks[last - 1]), fit)
            self._lost_frames = int(lost_frames[stop - 1])
        self._arrival_ns = int(frames["arrival_ns"][-1])
        self.silent = False
        return items

    def _edges(
        self,
        ticks: I64,
        ends: I64,
        ticks0: I64,
        epochs: I64,
        lost_at: Mapping[int, int],
    ) -> list[int]:
        """Positions of frames with which a block must begin: after a loss, a pause or a new epoch."""
        apart = ticks0[1:] - ticks[ends[:-1] - 1] > self._pause_ticks
        apart |= epochs[1:] != epochs[:-1]
        if not lost_at and not apart.any():
            return [0]
        return sorted({0, *lost_at, *(np.flatnonzero(apart) + 1).tolist()})

    def _gap_before(self, tick: int, fit: ClockFit, lost: int, lost_frames: int) -> Gap | None:
        """The gap that ends with the sample at `tick`, if there is one; consumes what explains it."""
        paused = False
        if self._last is not None:
            last_tick, last_fit = self._last
            same = last_fit.epoch == fit.epoch
            paused = same and tick - last_tick > self._pause_ticks
        restarted, self._restarted = self._restarted, False
        cause, self._cause = self._cause, ""
        if not (lost or paused or restarted):
            return None
        if not cause:
            cause = self._why(lost, lost_frames)
        self._overrun = max(0, self._overrun - lost)
        t1_ns = fit.rig_ns(tick)
        return Gap(self.info.name, min(self._last_ns(), t1_ns), t1_ns, -1 if restarted else lost, cause)

    def _why(self, lost: int, lost_frames: int) -> str:
        if lost and (self._overrun >= lost or lost_frames == self._lost_frames):
            return "overrun"
        return "silent" if self.silent or not lost else "line"

    def end(self, total: int | None, t_ns: int, lost_frames: int) -> tuple[list[Item], int | None]:
        """The recording is over.

        Args:
            total: Samples since the last START by the device's own count (mod 2³²); None if it cannot say.
            t_ns: Now.
            lost_frames: As in `begin`.

        Returns:
            A gap for what never came, if anything; and samples that the device sent in the recording.
        """
        if total is None:
            gap = Gap(self.info.name, self._last_ns(), t_ns, -1, self._cause or "unplugged")
            return [gap], None
        tail = max(0, signed32(total - self._next))
        items: list[Item] = []
        if tail or self._restarted or self.silent:
            cause = self._cause or self._why(tail, lost_frames)
            lost = -1 if self._restarted else tail
            items.append(Gap(self.info.name, min(self._last_ns(), t_ns), t_ns, lost, cause))
        self._next += tail
        return items, self._base + self._next

    def _last_ns(self) -> int:
        """Rig time of the last sample, or of the start."""
        return self._since_ns if self._last is None else self._last[1].rig_ns(self._last[0])
