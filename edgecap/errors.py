"""Errors that carry evidence: what happened, to which thing, and how to fix it."""

from __future__ import annotations


class EdgecapError(Exception):
    """Base of every error that edgecap raises on purpose.

    Args:
        what: One sentence that names the thing that is wrong.
        fix: What the reader can do about it, as an instruction; may be empty.
        evidence: Further facts (offending bytes, offsets, sizes), kept for logs and `--debug`.
    """

    exit_code = 1

    def __init__(self, what: str, *, fix: str = "", **evidence: object) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.evidence = evidence

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}" if self.fix else self.what


class UsageError(EdgecapError):
    """A command line that cannot be carried out as written."""

    exit_code = 2


class ConfigError(EdgecapError):
    """A configuration that cannot be accepted; names the key."""

    exit_code = 2


class NameRefused(EdgecapError):
    """A site, rig, session or stream name outside `[a-z0-9-]{1,64}`."""

    exit_code = 2


class FrameError(EdgecapError):
    """A serial frame that violates hw/PROTOCOL.md."""


class ChunkError(EdgecapError):
    """Bytes that are not a valid chunk; the message says which rule they break."""


class NeedsChunk(ChunkError):
    """A chunk that can only be decoded after an earlier one of its stream."""


class SourceError(EdgecapError):
    """A sensor or camera that cannot be opened or has failed."""


class SpoolError(EdgecapError):
    """The spool cannot store or read; carries path and free bytes."""


class BrokerError(EdgecapError):
    """The MQTT broker cannot be reached, or refuses."""


class StoreError(EdgecapError):
    """The ingest store cannot be written or read."""


class SessionError(EdgecapError):
    """A session that does not exist, or a transition that its state does not allow."""


class ExportError(EdgecapError):
    """A dataset that cannot be produced."""


class CalibrationError(EdgecapError):
    """Data from which the wanted parameter cannot be estimated."""
