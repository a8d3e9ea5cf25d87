"""Counts of a delivery, for status pages and measurements."""

from __future__ import annotations

from collections import deque

import msgspec


class UplinkStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Delivery since the daemon started."""

    sent: int
    """Publishes that the broker acknowledged, resends included."""
    receipted: int
    """Chunks that ingest proved to hold."""
    resent: int
    refused: int
    """Publishes that the broker answered with a failure."""
    quarantined: int
    """Chunks set aside with their reason because they cannot be delivered."""
    bad_receipts: int
    nobody: int
    """Publishes that the broker acknowledged although nobody was subscribed (MQTT 5)."""
    in_flight: int
    """Published, not yet acknowledged by the broker."""
    awaiting: int
    """Acknowledged by the broker, not yet receipted by ingest."""
    awaiting_bytes: int
    window: int
    """Publishes allowed in flight at present; below the configured one on a slow link."""
    receipt_p50_ms: float
    receipt_p99_ms: float
    held: str
    """Why nothing is being sent: `paused`, `nobody listens`, `no receipts`, `refused`; empty when it is."""


class Latencies:
    """Quantiles over the most recent values."""

    def __init__(self, keep: int = 2048) -> None:
        self._values_ns: deque[int] = deque(maxlen=keep)

    def add(self, value_ns: int) -> None:
        self._values_ns.append(value_ns)

    def quantile_ms(self, q: float) -> float:
        """Nearest-rank quantile; 0 while there is no value."""
        if not self._values_ns:
            return 0.0
        ordered = sorted(self._values_ns)
        return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] / 1e6, 1)
