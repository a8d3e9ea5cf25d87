"""What a spool counts about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """What it holds now, and (`_total`) what has happened since it was opened."""

    chunks: int
    """Chunks without a receipt."""
    bytes: int
    """Their bytes."""
    segments: int
    disk_bytes: int
    """Bytes of all segment files."""
    free_bytes: int
    reserve_bytes: int
    oldest_t_ns: int
    """When the oldest chunk without a receipt was appended, in this boot's rig time; 0 when there is none."""
    appended_bytes_total: int
    quarantined_total: int
    rescues_total: int
    """Times that a failed write or sync made the spool move to a new segment."""
