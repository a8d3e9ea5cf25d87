"""A session whose end the spool could not take: it is closed as soon as the spool can."""

from __future__ import annotations

import asyncio
import logging

from edgecap.daemon.pulse import Pulse
from edgecap.daemon.recovery import close_interrupted
from edgecap.errors import SpoolError
from edgecap.spool import Spool

log = logging.getLogger("edgecap.unclosed")


class Unclosed:
    """At most one session: it has stopped, and the spool holds no close record of it."""

    def __init__(self, spool: Spool, pulse: Pulse) -> None:
        self._spool, self._pulse = spool, pulse
        self._stopped_ns = 0
        """When it stopped; 0 when there is none."""

    async def close(self, stopped_ns: int) -> None:
        """Close what the spool holds of the session that stopped then; on failure `close_any` tries again."""
        self._stopped_ns = stopped_ns
        try:
            closed = await asyncio.to_thread(
                close_interrupted, self._spool, self._pulse, stopped_ns=stopped_ns
            )
        except SpoolError as error:
            log.error("cannot close a session yet: %s", error)
            return
        self._stopped_ns = 0
        for session in closed:
            log.warning("closed %s, which the spool holds only in part", session)

    async def close_any(self) -> None:
        """Close the session that is left, if there is one; called before the next session begins."""
        if self._stopped_ns:
            await self.close(self._stopped_ns)
