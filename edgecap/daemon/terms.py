"""Under what a session may begin: who records what, by which consent, and what was withdrawn."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import SessionError
from edgecap.session.manifest import Provenance

NAME = "withdrawn.json"


class Terms:
    """The provenance of the sessions to come. Withdrawals outlive the daemon and need no network.

    Args:
        provenance: As configured.
        directory: Where withdrawals are kept.

    Attributes:
        withdrawn: References of consents, and pseudonyms of workers, for whom nothing may be recorded.
    """

    def __init__(self, provenance: Provenance, directory: Path) -> None:
        self.provenance = provenance
        self.withdrawn: frozenset[str] = frozenset()
        self._path = directory / NAME
        self._damage = ""
        self._writing = threading.Lock()
        try:
            self.withdrawn = frozenset(msgspec.json.decode(self._path.read_bytes(), type=list[str]))
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            self._damage = (
                f"{self._path}, which says whose consent was withdrawn, cannot be read: {error}; "
                "send `withdrawn` in `desired` again, or remove the file if nothing was withdrawn"
            )

    def provide(self, **parts: Any) -> None:
        """Replace parts of the provenance; raises `SessionError` if one is too long."""
        if parts.get("consent", self.provenance.consent) != self.provenance.consent:
            parts.setdefault("consent_scope", ())  # what one consent allows, another need not
        provenance = msgspec.structs.replace(self.provenance, **parts)
        provenance.check_lengths()
        self.provenance = provenance

    async def withdraw(self, names: Sequence[str]) -> bool:
        """Take these, and no others, as withdrawn, at once and then durably; returns whether that is new.

        Raises:
            SessionError: it holds from now on, but could not be written.
        """
        wanted = frozenset(filter(None, (name.strip() for name in names)))
        if wanted == self.withdrawn and not self._damage:
            return False
        self.withdrawn, self._damage = wanted, ""
        try:
            await asyncio.to_thread(self._write)
        except OSError as error:
            raise SessionError(
                f"what was withdrawn is known until the daemon ends: {self._path}: {error.strerror}",
                fix="free the card, then send `desired` again",
            ) from error
        return True

    def problem(self, provenance: Provenance | None = None) -> str:
        """Why nothing may be recorded under this, by default the next session's; empty if it may."""
        for what in ("consent", "operator"):
            name = getattr(provenance or self.provenance, what).strip()
            if name in self.withdrawn:
                return f"{what} {name!r} was withdrawn; set another in the configuration or in `desired`"
        return self._damage

    def problems(self) -> dict[str, str]:
        """The same for status, in a line that names the fix."""
        return {"consent": problem} if (problem := self.problem()) else {}

    @property
    def allow(self) -> bool:
        """Whether there is a consent to record under."""
        return bool(self.provenance.consent.strip()) and not self.problem()

    def require(self) -> None:
        """Raise `SessionError` if a session may not begin."""
        self.provenance.require()
        if problem := self.problem():
            raise SessionError(f"refused start: {problem}")

    def _write(self) -> None:
        """Runs in a thread, which may outlive whoever waited for it: the last to write writes what holds."""
        with self._writing:
            fresh = self._path.with_suffix(".new")
            with fresh.open("wb") as file:
                file.write(msgspec.json.encode(sorted(self.withdrawn)))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
