"""A stream's samples at a camera's frames: at mid-exposure and over the exposure; nothing crosses a gap."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.physical import Quantity, quantities, valid_values
from edgecap.dataset.recorded import SampleChunk
from edgecap.dataset.session import RecordedSession
from edgecap.errors import ConfigError, ExportError
from edgecap.kernels.resample import box_over, linear_at
from edgecap.model import I64, Gap, StreamInfo

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
GAP_PERIODS = 3
"""Neighbours further apart than this many nominal periods are taken for a gap, even if none was stated."""

_NOTHING = (-1, -1, -1)
MARGIN_NS = 1_000_000_000
"""So much more is read and kept on either side: clock corrections may step back, exposures may overlap."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Of m frames, mostly the exposures of their middle rows.

    Attributes:
        from_ns, mid_ns, to_ns: (m,) int64, rig time; all equal where the exposure time is unknown.
        known: (m,) bool, whether it is known.
        locked: (m,) bool, whether the camera's clock was.
    """

    from_ns: I64
    mid_ns: I64
    to_ns: I64
    known: Bool
    locked: Bool


@dataclass(frozen=True, slots=True)
class SensorRows:
    """A stream at m frames.

    Attributes:
        valid: (m,) bool, whether samples without a gap lie within and on both sides of the window.
        n: (m,) int32, samples within the window, ends included.
        u_ns: (m,) int64, the greatest bound of their times.
        saturated: (m,) int32, channels that were at full scale in any of them.
        linear, mean, deviation: (m, c) float64; NaN where there is none.
    """

    valid: Bool
    n: NDArray[np.int32]
    u_ns: I64
    saturated: NDArray[np.int32]
    linear: F64
    mean: F64
    deviation: F64


@dataclass(frozen=True, slots=True)
class _Piece:
    """A chunk's samples; `run` counts up where anything is missing between two of them."""

    t_ns: I64
    values: F64
    full: Bool
    u_ns: I64
    run: I64


def sensor_tracks(session: RecordedSession, *, apply_lags: bool) -> list[SensorTrack]:
    """Every stream of samples of a session, with its stated delay taken off where wanted."""
    return [
        SensorTrack(session, info, lag_ns=info.lag_ns if apply_lags else 0)
        for info in session.sample_streams()
    ]


class SensorTrack:
    """Reads a stream once, forward, as far as the frames asked for; holds what lies beside them.

    Args:
        session: Where the stream is.
        info: The stream.
        lag_ns: Taken off every sample's time.

    Attributes:
        quantities: How its numbers are converted.
        max_gap_ns: Neighbours further apart than this are not interpolated between.
        gaps: Losses that the rig stated, and those found so far.

    Raises:
        ExportError: the manifest has a calibration for the stream that cannot be used; names it.
    """

    def __init__(self, session: RecordedSession, info: StreamInfo, *, lag_ns: int = 0) -> None:
        calibration: Mapping[str, Any] = session.manifest.get("calibration") or {}
        try:
            found = quantities(info, calibration)
        except ConfigError as error:
            raise ExportError(f"session {session.key.session}: {error.what}", fix="report it") from error
        self.info = info
        self.lag_ns = lag_ns
        self.quantities: list[Quantity] = list(found.values())
        period_ns = 1e9 / info.rate_hz_nominal if info.rate_hz_nominal > 0 else 0.0
        self.max_gap_ns = round(GAP_PERIODS * period_ns) or int(np.iinfo(np.int64).max)
        self.gaps: list[Gap] = []
        self._gaps_ns = np.zeros((0, 2), np.int64)
        self._tell([g for g in session.gaps if g.stream == info.name])
        self._session = session
        self._begin()

    def _tell(self, gaps: Sequence[Gap]) -> None:
        new = [g for g in gaps if g not in self.gaps]
        self.gaps += new
        times_ns = np.array([(g.t0_ns, g.t1_ns) for g in new], np.int64).reshape(-1, 2) - self.lag_ns
        self._gaps_ns = np.concatenate([self._gaps_ns, times_ns])

    def _begin(self) -> None:
        self._chunks = self._session.sample_chunks(self.info.name)
        self._pieces: deque[_Piece] = deque()
        self._dropped = False
        self._run = 0
        self._expected = _NOTHING
        self._last_ns: int | None = None

    def at(self, windows: Windows) -> SensorRows:
        """The stream at some frames; cheap where they follow those of the call before."""
        m, channels = len(windows.mid_ns), len(self.info.channels)
        rows = SensorRows(
            valid=np.zeros(m, np.bool_),
            n=np.zeros(m, np.int32),
            u_ns=np.zeros(m, np.int64),
            saturated=np.zeros(m, np.int32),
            linear=np.full((m, channels), np.nan),
            mean=np.full((m, channels), np.nan),
            deviation=np.full((m, channels), np.nan),
        )
        if m:
            self._advance(int(windows.from_ns.min()), int(windows.to_ns.max()))
        if not m or not self._pieces:
            return rows
        run = np.concatenate([p.run for p in self._pieces])
        whole = _Piece(
            np.concatenate([p.t_ns for p in self._pieces]),
            np.concatenate([p.values for p in self._pieces]),
            np.concatenate([p.full for p in self._pieces]),
            np.concatenate([p.u_ns for p in self._pieces]),
            run,
        )
        edges = [0, *(np.flatnonzero(np.diff(run)) + 1).tolist(), len(run)]
        for start, end in pairwise(edges):
            self._fill(whole, slice(start, end), windows, rows)
        return rows

    def _advance(self, from_ns: int, to_ns: int) -> None:
        """Have all samples between two times and one on either side; let go of those before."""
        if self._dropped and from_ns < self._pieces[0].t_ns[0]:
            # A frame whose clock had jumped ahead must not take the rest of the session with it.
            self._begin()
        from_ns, to_ns = from_ns - MARGIN_NS, to_ns + MARGIN_NS
        while self._last_ns is None or self._last_ns < to_ns:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._take(chunk)
            self._drop(from_ns)
        self._drop(from_ns)

    def _drop(self, from_ns: int) -> None:
        pieces = self._pieces
        while len(pieces) > 1 and pieces[0].t_ns[-1] < from_ns and pieces[1].t_ns[0] <= from_ns:
            pieces.popleft()
            self._dropped = True

    def _take(self, chunk: SampleChunk) -> None:
        fit, t_ns = chunk.fit, chunk.t_ns - self.lag_ns
        follows = self._expected == (chunk.index, fit.epoch, fit.device_boot)
        self._expected = (chunk.index + len(t_ns), fit.epoch, fit.device_boot)
        self._tell(chunk.gaps)
        if not fit.locked:
            # Times that nobody vouches for are no support; what comes next begins anew.
            self._expected = _NOTHING
            return
        before = np.concatenate([t_ns[:1] - 1 if self._last_ns is None else [self._last_ns], t_ns[:-1]])
        breaks = t_ns <= before
        breaks[0] |= not follows
        # Those of chunks before as well: a corrected clock may go back to them.
        touched = (self._gaps_ns[:, 0] < t_ns.max()) & (self._gaps_ns[:, 1] > before.min())
        for t0_ns, t1_ns in self._gaps_ns[touched].tolist():
            breaks |= (t0_ns < t_ns) & (t1_ns > before)
        run = self._run + np.cumsum(breaks)
        self._run, self._last_ns = int(run[-1]), int(t_ns[-1])
        values = np.empty(chunk.values.shape, np.float64)
        columns = list(range(len(self.info.channels)))
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite becomes null
            for quantity in self.quantities:
                values[:, quantity.columns] = quantity.values(chunk.values)
            full = np.isfinite(chunk.values) & ~valid_values(self.info, chunk.values, columns)
        self._pieces.append(_Piece(t_ns, values, full, np.full(len(t_ns), chunk.u_ns, np.int64), run))

    def _fill(self, whole: _Piece, run: slice, windows: Windows, rows: SensorRows) -> None:
        """Take the rows whose windows lie within one run."""
        t_ns, values = whole.t_ns[run], whole.values[run]
        within = (windows.from_ns >= t_ns[0]) & (windows.to_ns <= t_ns[-1])
        at = np.flatnonzero(within & windows.locked & ~rows.valid)
        # The kernels want rising times, which a corrected camera clock may not give.
        at = at[np.argsort(windows.from_ns[at], kind="stable")]
        if not len(at):
            return
        from_ns, to_ns, mid_ns = windows.from_ns[at], windows.to_ns[at], windows.mid_ns[at]
        by_middle = np.argsort(mid_ns, kind="stable")
        shape = len(at), values.shape[1]
        linear, mean, deviation = np.empty(shape), np.empty(shape), np.empty(shape)
        at_ok, over_ok = np.empty(len(at), np.bool_), np.empty(len(at), np.bool_)
        linear_at(t_ns, values, mid_ns[by_middle], self.max_gap_ns, linear, at_ok)
        back = np.argsort(by_middle, kind="stable")
        linear, at_ok = linear[back], at_ok[back]
        box_over(t_ns, values, from_ns, to_ns, self.max_gap_ns, mean, deviation, over_ok)
        n = np.searchsorted(t_ns, to_ns, "right") - np.searchsorted(t_ns, from_ns, "left")
        # Without a sample in the window, the neighbours of its middle are its whole support.
        valid = np.where(n > 0, over_ok, at_ok)
        low = np.searchsorted(t_ns, from_ns, "right") - 1
        high = np.searchsorted(t_ns, to_ns, "left")
        spans = np.stack([low, high + 1], 1).ravel()
        u_ns = np.maximum.reduceat(np.append(whole.u_ns[run], 0), spans)[::2]
        full = np.concatenate([whole.full[run], np.zeros((1, shape[1]), np.bool_)])
        saturated = np.logical_or.reduceat(full, spans, axis=0)[::2].sum(1)
        known = windows.known[at]
        ok, averaged = at[valid], at[valid & known]
        rows.valid[at] = valid
        rows.u_ns[ok] = u_ns[valid]
        rows.saturated[ok] = saturated[valid]
        rows.linear[ok] = linear[valid]
        rows.n[averaged] = n[valid & known]
        rows.mean[averaged] = mean[valid & known]
        rows.deviation[averaged] = deviation[valid & known]
