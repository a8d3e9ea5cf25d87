"""The thread of one IIO stream: kernel time stamps to blocks with a clock fit, holes to gaps. No I/O."""

from __future__ import annotations

from collections import deque

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.model import I64, ClockFit, ClockPair, Gap, Item, SampleBlock, StreamInfo
from edgecap.source.camera_clock import Domain, HostClock

SILENT_NS = 1_000_000_000
LOSS_RATIO = 1.5
"""Time stamps further apart than this many periods have samples lost between them."""
PERIOD_TOLERANCE = 0.2
"""A sensor's own oscillator is this true to its nominal rate; what says otherwise is not believed."""
READS_KEPT = 64
LEAST_SAMPLES = 8
"""The true period is reckoned over this many samples or more, without a hole."""


class IioTrack:
    """Follows one stream through recordings; `begin`, then `add`, then `end`.

    The bound of a block's fit adds up, in ns:

    * half the width of the paired clock readings, and what the kernel may slew its clock between them (none
      where the device stamps with MONOTONIC_RAW),
    * `latency_ns`: interrupt latency and whatever else the driver's stamp is known to be off by,
    * how far stamps contradicted one another in the last 64 reads: drivers with a hardware FIFO stamp only
      the interrupt and count back by the nominal period. It is the greatest departure of one read's last
      stamp from where the read before it and the true period would have it (late interrupts), and the
      greatest departure of a read's length from as many true periods (counting back),
    * by how much a stamp lies after the moment at which it was read, which cannot be.

    Args:
        info: The stream.
        domain: Host clock that the device stamps with.
        latency_ns: Declared latency of a stamp.
    """

    def __init__(self, info: StreamInfo, domain: Domain, latency_ns: int) -> None:
        self.info = info
        self.samples = 0
        self.backward = 0
        """Times at which the stamps did not rise; each starts a new epoch."""
        self.silent = False
        self.u_ns = 0
        self._domain = domain
        self._host = HostClock(domain)
        self._latency_ns = latency_ns
        self._nominal_ns = 1e9 / info.rate_hz_nominal
        self._period_ns = self._nominal_ns
        self._reads: deque[tuple[int, int]] = deque(maxlen=READS_KEPT)
        """Samples so far and last stamp, of each read since the last hole."""
        self._late: deque[int] = deque(maxlen=READS_KEPT)
        self._stretch: deque[int] = deque(maxlen=READS_KEPT)
        self._delays: deque[int] = deque(maxlen=READS_KEPT)
        self._epoch = 0
        self._next = 0
        self._last: tuple[int, ClockFit] | None = None
        self._since_ns = self._heard_ns = 0
        self._cause = ""

    @property
    def rate_hz(self) -> float:
        """As the stamps have it."""
        return 1e9 / self._period_ns

    def begin(self, t_ns: int) -> None:
        """The buffer is about to be enabled for a new recording."""
        self._next = 0
        self._last, self._cause, self.silent = None, "", False
        self._since_ns = self._heard_ns = t_ns

    def interrupt(self, cause: str) -> None:
        """The device went away: explains the next gap."""
        self._cause = self._cause or cause

    def check_silent(self, now_ns: int) -> bool:
        """True once per silence."""
        limit_ns = max(SILENT_NS, 10 * self._nominal_ns)
        if self.silent or self._cause or now_ns - self._heard_ns < limit_ns:
            return False
        self.silent = True
        return True

    def add(self, ticks: I64, values: NDArray[np.generic], arrival_ns: int, pair: ClockPair) -> list[Item]:
        """Take the samples of one read.

        Args:
            ticks: (n,) int64 kernel stamps in ns, n ≥ 1.
            values: (n, c) raw counts.
            arrival_ns: Rig time right after the read.
            pair: Reading of the host clocks, not earlier than `arrival_ns`.
        """
        self._host.note(pair)
        steps = np.empty(len(ticks), np.float64)
        np.subtract(ticks[1:], ticks[:-1], out=steps[1:], dtype=np.float64)
        fresh = self._last is None or bool(self._cause)
        steps[0] = self._period_ns if fresh else float(int(ticks[0]) - self._last[0])  # type: ignore[index]
        broken = (steps > LOSS_RATIO * self._period_ns) | (steps <= 0)
        self._learn(ticks, whole=not broken.any())
        cuts = [0, *(np.flatnonzero(broken[1:]) + 1).tolist()]
        items: list[Item] = []
        for at, stop in zip(cuts, [*cuts[1:], len(ticks)], strict=True):
            if steps[at] <= 0:
                self._epoch += 1
                self.backward += 1
            fit = self._fit(int(ticks[at]), int(ticks[stop - 1]), arrival_ns)
            gap = self._gap_before(float(steps[at]), int(ticks[at]), fit, hole=bool(broken[at]))
            if gap is not None:
                items.append(gap)
            items.append(
                SampleBlock(
                    stream=self.info.name,
                    index=self._next,
                    ticks=ticks[at:stop],
                    values=values[at:stop],
                    frame_n=np.array([stop - at], np.int32),
                    arrival_ns=np.array([arrival_ns], np.int64),
                    fit=fit,
                )
            )
            self._next += stop - at
            self._last = int(ticks[stop - 1]), fit
        self.samples += len(ticks)
        self._heard_ns = arrival_ns
        self.silent = False
        return items

    def end(self, t_ns: int) -> list[Item]:
        """The recording is over: what was under way is stated."""
        if not (self._cause or self.silent):
            return []
        return [Gap(self.info.name, min(self._last_ns(), t_ns), t_ns, -1, self._cause or "silent")]

    def _learn(self, ticks: I64, *, whole: bool) -> None:
        """Note the true period, over many reads, and how far the stamps depart from it."""
        first, last = int(ticks[0]), int(ticks[-1])
        if not whole or self._last is None or self._cause:
            self._reads.clear()
        else:
            n, before = len(ticks), self._last[0]
            self._reads.append((self.samples + n, last))
            samples0, last0 = self._reads[0]
            if self.samples + n - samples0 >= LEAST_SAMPLES:
                period_ns = (last - last0) / (self.samples + n - samples0)
                if abs(period_ns / self._nominal_ns - 1) < PERIOD_TOLERANCE:
                    self._period_ns = period_ns
            self._late.append(abs(round(last - before - n * self._period_ns)))
        if whole:
            self._stretch.append(abs(round(last - first - (len(ticks) - 1) * self._period_ns)))

    def _fit(self, first: int, last: int, arrival_ns: int) -> ClockFit:
        fit = self._host.fit(first)
        u_ns = fit.u_ns + self._latency_ns + max(self._late, default=0) + max(self._stretch, default=0)
        delay = arrival_ns - fit.rig_ns(last)
        self._delays.append(delay)
        self.u_ns = max(u_ns, -delay)
        delays = sorted(self._delays)
        return msgspec.structs.replace(
            fit,
            u_ns=self.u_ns,
            epoch=self._epoch,
            delay_p50_ns=delays[len(delays) // 2] - delays[0],
            delay_p99_ns=delays[-1] - delays[0],
        )

    def _gap_before(self, step: float, tick: int, fit: ClockFit, *, hole: bool) -> Gap | None:
        """The gap that ends with the sample at `tick`, if there is one; consumes what explains it."""
        cause, self._cause = self._cause, ""
        if cause:
            lost = -1
        elif hole and step > 0:
            lost = max(1, round(step / self._period_ns) - 1)
            cause = "silent" if self.silent else "overrun"
            self._next += lost
        else:
            return None
        t1_ns = fit.rig_ns(tick)
        return Gap(self.info.name, min(self._last_ns(), t1_ns), t1_ns, lost, cause)

    def _last_ns(self) -> int:
        """Rig time of the last sample, or of the start."""
        if self._last is None:
            return self._since_ns
        return self._last[1].rig_ns(self._last[0])
