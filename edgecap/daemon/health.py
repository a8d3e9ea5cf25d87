"""How promptly the event loop answers."""

from __future__ import annotations

import asyncio
from collections import deque

from edgecap.clock import now_ns

PERIOD_S = 0.02
KEPT = 3000
"""One minute of measurements."""


class LoopLag:
    """Measures by how much a short sleep overruns; what delays the loop delays every time stamp."""

    def __init__(self) -> None:
        self._lags_ns: deque[int] = deque(maxlen=KEPT)

    async def run(self) -> None:
        """Measure for ever."""
        loop = asyncio.get_running_loop()
        before_ns = now_ns()
        timer: asyncio.TimerHandle

        def wake() -> None:  # a timer of its own: to wake a task each time would cost twice as much
            nonlocal before_ns, timer
            self._lags_ns.append(max(0, now_ns() - before_ns - round(PERIOD_S * 1e9)))
            before_ns = now_ns()
            timer = loop.call_later(PERIOD_S, wake)

        timer = loop.call_later(PERIOD_S, wake)
        try:
            await loop.create_future()
        finally:
            timer.cancel()

    def quantiles_ms(self) -> dict[str, float]:
        """p50, p99 and the largest of the last minute."""
        lags = sorted(self._lags_ns)
        if not lags:
            return {}
        at = {"p50": len(lags) // 2, "p99": min(len(lags) - 1, len(lags) * 99 // 100), "max": len(lags) - 1}
        return {f"loop_lag_{name}_ms": round(lags[i] / 1e6, 2) for name, i in at.items()}
