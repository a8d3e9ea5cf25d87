"""The live verdict on each stream: what is wrong with it now."""

from __future__ import annotations

from collections import deque

import numpy as np

from edgecap.drift import Drift, DriftWatch
from edgecap.kernels.statistics import count_saturated
from edgecap.model import (
    FramePacket,
    Gap,
    PictureReport,
    SampleBlock,
    StreamInfo,
    StreamState,
    Verdict,
)

WINDOW_NS = 3_000_000_000
STARTUP_NS = 1_000_000_000
"""A rate measured over less than this says nothing."""
RATE_TOLERANCE = 0.05
SATURATED_SHARE = 0.01
U_LIMIT_NS = 1_000_000
"""A bound wider than this is not alignment far below a millisecond."""

DARK_BRIGHTNESS = 0.08
OVEREXPOSED_SHARE = 0.25
BLURRED_SHARPNESS = 10.0
"""Nobody has a standard for these: the values are published beside the verdict (docs/CAMERA.md says how they
were chosen). A picture counts as bad when every look at it within `WINDOW_NS` was."""
LOOKS = 3


class StreamQuality:
    """Watches one stream while it records; cheap enough to call for every block.

    Args:
        info: The stream's descriptor: nominal rate and full scales come from it.
        started_ns: Rig time from which silence counts.
        drift: Compares it with its calibration.
    """

    def __init__(self, info: StreamInfo, started_ns: int, drift: DriftWatch | None = None) -> None:
        self.info = info
        self._drift = drift
        self.n = 0
        self.gaps = 0
        self.lost = 0
        self.gap_cause = ""
        self.u_ns = 0
        self._started_ns = started_ns
        self._last_ns = started_ns
        self._locked = False
        self._window: deque[tuple[int, int, int]] = deque()
        self._window_ns = max(WINDOW_NS, 2 * info.silent_after_ns)
        self._gap_times: deque[int] = deque(maxlen=64)
        self._looks: deque[PictureReport] = deque(maxlen=64)
        self._limits = np.array(
            [c.full_scale / abs(c.scale) if c.full_scale and c.scale else np.inf for c in info.channels]
        )
        if info.dtype.startswith("int"):
            # Full scale of an n-bit converter is one count above what it can report.
            self._limits = self._limits - 1.5

    def see(self, item: SampleBlock | FramePacket) -> None:
        """Take a block or frame into account."""
        if isinstance(item, SampleBlock):
            count = len(item.ticks)
            arrival_ns = int(item.arrival_ns[-1])
            saturated = int(count_saturated(item.values.astype(np.float64, "C"), self._limits))
            if self._drift is not None:
                self._drift.see(item)
        else:
            count, arrival_ns, saturated = 1, item.arrival_ns, 0
        self.n += count
        self._last_ns = arrival_ns
        self.u_ns = item.fit.u_ns
        self._locked = item.fit.locked
        self._window.append((arrival_ns, count, saturated))

    def see_picture(self, report: PictureReport) -> None:
        """Take a look at a camera's picture into account."""
        self._looks.append(report)

    def picture(self) -> dict[str, float]:
        """Numbers of the last look; empty before the first."""
        if not self._looks:
            return {}
        look = self._looks[-1]
        return {
            "sharpness": round(look.sharpness, 1),
            "brightness": round(look.brightness, 3),
            "crushed": round(look.crushed, 3),
            "clipped": round(look.clipped, 3),
        }

    def see_gap(self, gap: Gap) -> None:
        """Take a stated loss into account."""
        self.gaps += 1
        self.lost += max(gap.lost, 0)
        self.gap_cause = gap.cause
        self._gap_times.append(gap.t1_ns)

    def verdict(self, now_ns: int) -> Verdict:
        """What holds at `now_ns`; the worst comes first."""
        window = self._window
        while window and window[0][0] < now_ns - self._window_ns:
            window.popleft()
        age_ns = max(0, now_ns - self._last_ns)
        rate_hz = self._rate_hz()
        seen = sum(c for _, c, _ in window)
        saturated = sum(s for *_, s in window) / seen if seen else 0.0
        worst = self._drift.worst() if self._drift is not None else None
        return Verdict(
            stream=self.info.name,
            state=self._state(now_ns, age_ns, rate_hz, saturated, worst),
            rate_hz=round(rate_hz, 2),
            n=self.n,
            gaps=self.gaps,
            lost=self.lost,
            saturated=round(saturated, 4),
            u_ns=self.u_ns,
            age_ms=round(age_ns / 1e6, 1),
            **self.picture(),
            drift=float(f"{worst.value:.4g}") if worst else None,
            drift_of=f"{worst.of}, limit {worst.limit:.3g}" if worst else "",
            gap_cause=self.gap_cause,
        )

    def _rate_hz(self) -> float:
        if len(self._window) < 2:
            return 0.0
        # The first block's own samples were taken before its arrival: they open the interval.
        span_ns = self._window[-1][0] - self._window[0][0]
        return sum(c for _, c, _ in list(self._window)[1:]) * 1e9 / span_ns if span_ns > 0 else 0.0

    def _state(
        self, now_ns: int, age_ns: int, rate_hz: float, saturated: float, drift: Drift | None
    ) -> StreamState:
        if age_ns > self.info.silent_after_ns:
            return "silent"
        if self.n == 0:
            return "waiting"
        if self._gap_times and self._gap_times[-1] > now_ns - WINDOW_NS:
            return "gaps"
        if not self._locked or self.u_ns > U_LIMIT_NS:
            return "clock" if now_ns - self._started_ns > STARTUP_NS else "waiting"
        nominal = self.info.rate_hz_nominal
        span_ns = self._window[-1][0] - self._window[0][0] if self._window else 0
        if nominal > 0 and span_ns > STARTUP_NS and abs(rate_hz / nominal - 1) > RATE_TOLERANCE:
            return "rate"
        if saturated > SATURATED_SHARE:
            return "saturated"
        if drift is not None and drift.ratio > 1:
            return "drift"
        return self.picture_state(now_ns) or "ok"

    def picture_state(self, now_ns: int) -> StreamState | None:
        """What is wrong with every look at the picture of late, `ok` if nothing; None for too few looks."""
        looks = [look for look in self._looks if look.t_ns > now_ns - WINDOW_NS]
        if len(looks) < LOOKS:
            return None
        if all(look.brightness < DARK_BRIGHTNESS for look in looks):
            return "dark"
        if all(look.clipped > OVEREXPOSED_SHARE for look in looks):
            return "overexposed"
        if all(look.sharpness < BLURRED_SHARPNESS for look in looks):
            return "blurred"
        return "ok"
