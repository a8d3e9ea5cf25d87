"""Counts of an ingest worker."""

from __future__ import annotations

import msgspec


class IngestMetrics(msgspec.Struct):
    """What a worker has done since it started."""

    received: int = 0
    received_bytes: int = 0
    stored: int = 0
    duplicates: int = 0
    """Chunks that were there already; acknowledged again."""
    conflicts: int = 0
    """Chunks with the number of a stored one and other contents; never acknowledged."""
    erased: int = 0
    """Chunks of sessions that were erased: acknowledged, and not stored."""
    invalid: int = 0
    """Messages that are no valid chunk of their topic; never acknowledged."""
    receipts: int = 0
    receipted: int = 0
    """Chunks named in receipts that the broker took."""
    receipts_forgotten: int = 0
    """Stored chunks that fell out of a full book before their rigs were told: they come again."""
    commits: int = 0
    commit_s: float = 0.0
    """Time spent verifying, appending and committing."""
    connections: int = 0

    def line(self, before: IngestMetrics, seconds: float) -> str:
        """One log line about the time since `before`."""
        chunks, size = self.received - before.received, self.received_bytes - before.received_bytes
        busy = (self.commit_s - before.commit_s) / seconds
        return (
            f"{chunks / seconds:.1f} chunks/s, {size / seconds / 1e6:.2f} MB/s, busy {busy:.0%}: "
            f"stored {self.stored} duplicate {self.duplicates} conflict {self.conflicts} "
            f"erased {self.erased} invalid {self.invalid} receipted {self.receipted} "
            f"forgotten {self.receipts_forgotten} commits {self.commits}"
        )
