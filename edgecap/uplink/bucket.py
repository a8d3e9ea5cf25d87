"""A token bucket: how long the next bytes must wait so that the average stays below a rate."""

from __future__ import annotations

BURST_S = 1.0


class TokenBucket:
    """Lets `rate_bytes_s` through on average, with a burst of one second of it.

    A message larger than the burst passes once the bucket is full, and its debt delays the next.

    Args:
        rate_bytes_s: None or 0 for no limit; may be changed at any time.
    """

    def __init__(self, rate_bytes_s: float | None = None) -> None:
        self.rate_bytes_s = rate_bytes_s
        self._tokens: float | None = None
        self._at_ns = 0

    def wait_s(self, n_bytes: int, now_ns: int) -> float:
        """0 when the bytes may go now, in which case they are taken; else the time to wait."""
        rate = self.rate_bytes_s
        if not rate:
            self._tokens = None
            return 0.0
        burst = rate * BURST_S
        if self._tokens is None:
            self._tokens = burst
        else:
            self._tokens = min(burst, self._tokens + rate * (now_ns - self._at_ns) / 1e9)
        self._at_ns = now_ns
        need = min(float(n_bytes), burst)
        if self._tokens + 1e-6 >= need:
            self._tokens -= n_bytes
            return 0.0
        return (need - self._tokens) / rate
