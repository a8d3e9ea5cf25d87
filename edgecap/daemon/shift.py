"""A daemon that hung is ended by systemd: what it recorded goes on as a new session of the same shift."""

from __future__ import annotations

import contextlib

import msgspec

from edgecap import clock
from edgecap.daemon.pulse import Pulse
from edgecap.session.manifest import Continued, Provenance

NAME = "shift"
ENDED = "ended"
"""Written by systemd when the daemon has ended (ExecStopPost of edgecap.service): its `SERVICE_RESULT`."""
HUNG = "watchdog"
LATEST_NS = 300_000_000_000
"""After this long whoever was recorded has gone, or has pressed the button again."""


class Note(msgspec.Struct, frozen=True):
    """What is being recorded, for the daemon that starts in place of this one."""

    boot: str
    session: str
    shift: str
    """The first session of the shift."""
    provenance: Provenance


class Shift:
    """The note on the running session, beside the sign of life: it outlives the daemon, not the kernel.

    Args:
        pulse: In whose directory it lies.
    """

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse
        self._path, self._ended = pulse.path.with_name(NAME), pulse.path.with_name(ENDED)

    def begin(self, session: str, provenance: Provenance, continued: Continued | None) -> None:
        """A session runs from here on."""
        note = Note(clock.boot_id(), session, continued.shift if continued else session, provenance)
        fresh = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):  # without it a hung daemon's session is not continued
            fresh.write_bytes(msgspec.json.encode(note))
            fresh.chmod(0o640)
            fresh.replace(self._path)

    def end(self) -> None:
        """The session has ended: nothing is to be continued."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def cut_off(self) -> tuple[Provenance, Continued] | None:
        """Who was recorded when the daemon hung, and the session to continue; None if it did not hang."""
        try:
            ended = self._ended.read_text().strip()
            self._ended.unlink()
            note = msgspec.json.decode(self._path.read_bytes(), type=Note)
        except (OSError, UnicodeDecodeError, msgspec.DecodeError):
            return None
        self.end()
        seen_ns = self._pulse.last_ns(note.boot, note.session)
        if ended != HUNG or seen_ns is None or clock.now_ns() - seen_ns > LATEST_NS:
            return None
        return note.provenance, Continued(note.session, note.shift)
