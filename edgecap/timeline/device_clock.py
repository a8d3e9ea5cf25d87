"""One device's clock: takes in the frames of each read, maps its counter to rig time with an honest bound."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from edgecap.kernels import align
from edgecap.kernels import align_state as at
from edgecap.model import I64, ClockFit
from edgecap.timeline.pings import PingBook
from edgecap.timeline.quality import ClockQuality, quantiles_ns

KIND_SAMPLES = at.KIND_SAMPLES
KIND_PONG = at.KIND_PONG
KIND_OTHER = at.KIND_OTHER

MAX_SKEW_PPM = 300.0
"""Crystals are within ± 100 ppm; the aligner widens this by itself if the device proves otherwise."""
DRIFT_PPM_S = 0.05
"""A crystal at 1 ppm/K, warmed by 3 K a minute, drifts by this; widened by itself likewise."""
_CHUNK_S = 1.0
"""Ticks up to this far from the newest exchange stay inside the published bound of a fit."""


class DeviceClock:
    """Causal clock estimator of one device.

    Not thread-safe: one reader feeds it. `feed` must be called once per read, with all its frames; frames
    after a reset (new `boot`) belong into a new call if their ticks are to be mapped by `fit()`.
    """

    def __init__(
        self,
        tick_ns: int = 1000,
        *,
        ping_least_ns: int = 0,
        reply_least_ns: int = 0,
        max_skew_ppm: float = MAX_SKEW_PPM,
        drift_ppm_s: float = DRIFT_PPM_S,
        seed: int | None = None,
    ) -> None:
        """Args:
        tick_ns: Nanoseconds per tick of the device's counter.
        ping_least_ns: Least time a ping needs on the wire (its bytes at the baud rate on a UART; 0 on USB).
        reply_least_ns: Least time a pong needs on the wire.
        max_skew_ppm: The device's clock rate is within ± this of the host's, at first.
        drift_ppm_s: The rate changes by at most this per second, at first.
        seed: Of the pings' ids and phases; random when None.
        """
        self.tick_ns = tick_ns
        self._states = at.new_state(tick_ns, max_skew_ppm, drift_ppm_s, ping_least_ns, reply_least_ns)
        self._epoch = self._states["epoch"]  # views
        self._delay_bins = self._states["delay_bins"][0]
        self._trip_bins = self._states["trip_bins"][0]
        self._pings = PingBook(seed)
        self._rows = np.zeros((64, at.ROW_WIDTH), np.int64)
        self._out = np.zeros((64, at.OUT_WIDTH), np.int64)
        self._n = 0

    @property
    def epoch(self) -> int:
        """Restarts of the clock so far (device reset, suspend, crossed band); -1 before the first frame."""
        return int(self._epoch[0])

    @property
    def locked(self) -> bool:
        """Whether enough pings have been answered in this epoch for a narrow bound."""
        return bool(self._states["locked"][0])

    def new_ping(self, sent_ns: int) -> int:
        """A fresh id for a ping; call immediately before the write, with the time read just then."""
        return self._pings.issue(sent_ns)

    def next_ping_due_ns(self) -> int:
        """Rig time at which to send the next ping; in the past means now."""
        return self._pings.due_ns()

    def burst(self) -> None:
        """Send a quick series of pings next: after connecting, reopening or resuming."""
        self._pings.burst()

    def begin_boot(self) -> None:
        """The device told of another boot: what follows belongs to it, even if that boot was seen before.

        A board that was away while another was in its place comes back with its old boot id.
        """
        self._states["prev_boot"] = at.EMPTY

    def feed(
        self,
        kind: ArrayLike,
        arrival_ns: ArrayLike,
        seq: ArrayLike,
        t_us: ArrayLike,
        prev_tx_done_us: ArrayLike,
        has_prev: ArrayLike,
        ping_id: ArrayLike,
        t2_us: ArrayLike,
        boot: ArrayLike,
    ) -> I64:
        """Take in the frames of one read, in order; arrays (or scalars) of one entry per frame.

        Args:
            kind: 0 samples, 1 pong, 2 any other frame that carries a counter in `t_us`.
            arrival_ns: Rig time of the read.
            seq: Frame number.
            t_us: Counter at the first sample, a pong's t3, an event's time.
            prev_tx_done_us: Counter at transfer-complete of frame seq - 1, if `has_prev`.
            has_prev: Whether it is valid.
            ping_id: Pongs only.
            t2_us: Pongs only: counter when the ping was received.
            boot: Boot id of the device.

        Returns:
            (m,) int64 unwrapped ticks of `t_us`; the array is overwritten by the next call.
        """
        kinds = np.asarray(kind)
        m = kinds.shape[0]
        rows = self._room(m)
        rows[:, at.KIND] = kinds
        rows[:, at.ARRIVAL] = arrival_ns
        rows[:, at.SEQ] = seq
        rows[:, at.T_US] = t_us
        rows[:, at.PREV_TX] = prev_tx_done_us
        rows[:, at.HAS_PREV] = has_prev
        rows[:, at.T2_US] = t2_us
        rows[:, at.BOOT] = boot
        rows[:, at.PING_SENT] = at.NO_PING
        pongs = np.flatnonzero(kinds == KIND_PONG)
        if len(pongs):
            ids = np.broadcast_to(np.asarray(ping_id), (m,))
            for i in pongs:
                rows[i, at.PING_SENT] = self._pings.resolve(int(ids[i]), int(rows[i, at.ARRIVAL]))
        return self.feed_rows(rows)

    def feed_rows(self, rows: I64) -> I64:
        """Take in one read as (m, ROW_WIDTH) int64 rows (columns in kernels/align_state), pings resolved."""
        m = rows.shape[0]
        if m > self._out.shape[0]:
            self._room(m)
        self._n = m
        out = self._out[:m]
        epoch = self._epoch[0]
        align.feed(self._states, rows, out, False)
        if self._epoch[0] != epoch:
            self._pings.burst()
        return out[:, at.OUT_TICK]

    def feed_log(self, rows: I64, out: I64) -> int:
        """Feed a recording of many reads into `out` (m, OUT_WIDTH); returns the number of reads."""
        return int(align.feed(self._states, rows, out, True))

    def _room(self, m: int) -> I64:
        if m > self._rows.shape[0]:
            self._rows = np.zeros((2 * m, at.ROW_WIDTH), np.int64)
            self._out = np.zeros((2 * m, at.OUT_WIDTH), np.int64)
        return self._rows[:m]

    @property
    def published(self) -> I64:
        """(m, 5) int64 of the last read: tick, rig time of `t_us`, hard half-width, epoch, locked."""
        return self._out[: self._n]

    def fit(self) -> ClockFit:
        """The mapping in force now; its bound holds for ticks within a second of the newest frame."""
        s = at.snapshot(self._states)
        half_ns, theta = _band(s)
        d = s.band_d
        tick = s.ref_tick + round(d * 1e9 / self.tick_ns)
        d_tick = (tick - s.ref_tick) * self.tick_ns * 1e-9
        slope = s.slope
        theta += slope * (d_tick - d)
        curvature = s.curvature
        slope_off = max(s.slope_hi - slope, slope - s.slope_lo, 0.0)
        age = max(s.d_most - d, 0.0) + _CHUNK_S
        u_ns = half_ns + slope_off * age + 0.5 * curvature * age * age + self.tick_ns
        delay_p50_ns, delay_p99_ns = quantiles_ns(self._delay_bins, 0.5, 0.99)
        return ClockFit(
            ref_tick=tick,
            ref_ns=s.ref_ns + (tick - s.ref_tick) * self.tick_ns + round(theta),
            drift_ppm=slope * 1e-3,
            tick_ns=self.tick_ns,
            u_ns=math.ceil(u_ns),
            sigma_ns=_sigma_ns(s),
            epoch=s.epoch,
            locked=bool(s.locked),
            device_boot=s.boot_now,
            delay_p50_ns=delay_p50_ns,
            delay_p99_ns=delay_p99_ns,
        )

    def quality(self) -> ClockQuality:
        """Live quality, for status."""
        s, pings = at.snapshot(self._states), self._pings
        half_ns, _ = _band(s)
        rtt_p50_ns, rtt_p99_ns = quantiles_ns(self._trip_bins, 0.5, 0.99)
        delay_p50_ns, delay_p99_ns = quantiles_ns(self._delay_bins, 0.5, 0.99)
        two_step = s.last_tick - s.two_step_tick <= 2_000_000_000 // self.tick_ns
        return ClockQuality(
            locked=bool(s.locked),
            epoch=s.epoch,
            u_ns=math.ceil(half_ns) + self.tick_ns,
            sigma_ns=_sigma_ns(s),
            skew_ppm=s.slope * 1e-3,
            skew_half_ppm=0.5e-3 * (s.slope_hi - s.slope_lo),
            slew_ns=s.slew,
            rtt_p50_ns=rtt_p50_ns,
            rtt_p99_ns=rtt_p99_ns,
            delay_p50_ns=delay_p50_ns,
            delay_p99_ns=delay_p99_ns,
            two_step=two_step,
            frames=s.n_frames,
            pongs=s.n_pongs,
            pings=pings.sent,
            rejected_unknown=pings.unknown,
            rejected_stale=pings.stale,
            rejected_duplicate=pings.duplicate,
            rejected_impossible=s.n_rejected_pongs - pings.unknown - pings.stale - pings.duplicate,
            suspect_frames=s.n_suspect_frames,
            resets=s.n_resets,
            restarts=s.n_restarts,
            widened=s.n_widened,
            seq_lost=s.n_seq_lost,
            repeated=s.n_repeated,
            reordered=s.n_reordered,
            old_boot=s.n_old_boot,
        )


def _band(s: at.State) -> tuple[float, float]:
    """Half-width around the published offset, and that offset, at the time of the last solution."""
    theta = s.theta if s.has_lower else s.hi
    return max(s.hi - theta, theta - s.lo), theta


def _sigma_ns(s: at.State) -> float:
    return math.sqrt(max(s.p00, 0.0)) if s.filter_ready else _band(s)[0]
