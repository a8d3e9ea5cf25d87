"""Sensor timestamps: which host clock they are in, how they map to rig time, what their jumps mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

from edgecap.errors import SourceError
from edgecap.model import ClockFit, ClockPair

Domain = Literal["monotonic", "boottime", "raw"]
DOMAINS: tuple[Domain, ...] = ("monotonic", "boottime", "raw")
"""In order of preference where they cannot be told apart: V4L2 stamps buffers with MONOTONIC, libcamera's
text says BOOTTIME (the same until the machine has slept), nobody is known to use RAW."""

MAX_DELAY_NS = 500_000_000
"""While a camera is opened, one of its frames at least comes no later than this, even on a busy machine …"""
LATE_NS = 5_000_000_000
"""… and every frame at most so late."""
PROBE_MOST = 40
"""Frames after which a clock that was not recognised is none of the host's."""
MAX_SLEW = 500e-6
"""The kernel speeds or slows MONOTONIC against RAW by no more than this (500 ppm)."""
LOSS_RATIO = 1.5
"""Timestamps further apart than this many frame durations have lost frames between them."""


def host_time(pair: ClockPair, domain: Domain) -> int:
    match domain:
        case "monotonic":
            return pair.monotonic_ns
        case "boottime":
            return pair.boottime_ns
        case "raw":
            return pair.raw_ns


def plausible_domains(
    samples: Sequence[tuple[int, ClockPair]], max_delay_ns: int = MAX_DELAY_NS
) -> list[Domain]:
    """Host clocks in which every timestamp lies before the moment at which its frame arrived, one shortly.

    Args:
        samples: (sensor timestamp in ns, reading of the host clocks when the frame arrived).
        max_delay_ns: How much older than its arrival the timestamp of the promptest frame may be.

    Returns:
        Those that fit, preferred one first.

    Raises:
        SourceError: None fits, or there are no samples.
    """
    delays = {d: [host_time(p, d) - ts for ts, p in samples] for d in DOMAINS}
    fitting = [d for d in DOMAINS if samples and 0 <= min(delays[d]) <= max_delay_ns]
    fitting = [d for d in fitting if max(delays[d]) <= LATE_NS]
    if fitting:
        return fitting
    raise SourceError(
        "the camera's timestamps are in none of the host's clocks",
        fix="report the camera's model and driver",
        delays_ns=delays,
    )


def find_domain(samples: Iterable[tuple[int, ClockPair]], least: int) -> Domain:
    """The host clock of a camera's timestamps, from as many of its frames as it takes on a busy machine.

    Args:
        samples: As they come, like those of `plausible_domains`.
        least: Frames to look at in any case.

    Raises:
        SourceError: It is none of the host's clocks.
    """
    seen = []
    for sample in samples:
        seen.append(sample)
        if len(seen) >= least:
            try:
                return plausible_domains(seen)[0]
            except SourceError:
                if len(seen) >= PROBE_MOST:
                    raise
    return plausible_domains(seen)[0]


class HostClock:
    """Maps timestamps of one host clock to rig time through readings of both, taken as frames arrive.

    Between two readings of both clocks the mapping is a straight line; the true one departs from it by at
    most `MAX_SLEW` × half the distance between them, whatever NTP does meanwhile.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._pairs: deque[ClockPair] = deque(maxlen=64)

    def note(self, pair: ClockPair) -> None:
        self._pairs.append(pair)

    def fit(self, tick: int) -> ClockFit:
        """The mapping around `tick`, a timestamp that is not later than the newest reading."""
        newest = self._pairs[-1]
        older = [p for p in self._pairs if host_time(p, self.domain) <= tick]
        reference = older[-1] if older else self._pairs[0]
        ref_tick, ref_ns = host_time(reference, self.domain), reference.raw_ns
        span = host_time(newest, self.domain) - ref_tick
        drift = (newest.raw_ns - ref_ns) / span - 1 if span else 0.0
        # readings are exact to half their width; a tick outside of the two extends the line
        outside = max(ref_tick - tick, tick - host_time(newest, self.domain), 0)
        u_ns = max(reference.width_ns, newest.width_ns) // 2 + 1
        if self.domain == "raw":
            drift = 0.0
        else:
            u_ns += round(MAX_SLEW * (abs(span) / 2 + 2 * outside))
        return ClockFit(
            ref_tick=ref_tick,
            ref_ns=ref_ns,
            drift_ppm=drift * 1e6,
            tick_ns=1,
            u_ns=u_ns,
            sigma_ns=0.0,
            epoch=0,
            locked=True,
        )


class FrameNumbers:
    """Numbers frames by their timestamps, for cameras that have no frame counter of their own.

    Args:
        duration_ns: Of one frame.
        next_index: Number that follows on `last_tick`.
        last_tick: Timestamp of the frame before; 0 when there was none.
    """

    def __init__(self, duration_ns: int, next_index: int = 0, last_tick: int = 0) -> None:
        self._duration_ns = duration_ns
        self.next_index = next_index
        self._last_tick = last_tick

    def number(self, tick: int) -> int:
        """The frame's number; it jumps where frames were lost."""
        elapsed = tick - self._last_tick
        if self._last_tick and elapsed > LOSS_RATIO * self._duration_ns:
            self.next_index += round(elapsed / self._duration_ns) - 1
        index = self.next_index
        self.next_index += 1
        self._last_tick = max(tick, self._last_tick)
        return index
