"""The durable, bounded log of sealed chunks between recording and delivery."""

from edgecap.spool.spool import Entry, OpenSession, Recovery, Spool, SpoolStats, StreamHead

__all__ = ["Entry", "OpenSession", "Recovery", "Spool", "SpoolStats", "StreamHead"]
