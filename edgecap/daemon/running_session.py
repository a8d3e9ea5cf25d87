"""The session that a rig records, from its manifest to its close."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from edgecap import clock
from edgecap.codec.chunk import Chunk
from edgecap.config import Config, load_calibration
from edgecap.daemon.pulse import Pulse
from edgecap.daemon.shift import Shift
from edgecap.daemon.unclosed import Unclosed
from edgecap.errors import EdgecapError, SpoolError
from edgecap.model import ClockPair, StreamInfo, Verdict
from edgecap.session.manifest import Continued, Outcome, Provenance, new_session_id, open_record
from edgecap.session.recorder import Recorder
from edgecap.spool.writer import SpoolWriter

log = logging.getLogger("edgecap.rig")


class RunningSession:
    """Recorder and spool of the session that runs; there is at most one.

    Args:
        config: Names, chunking, calibration.
        writer: The spool.
        pulse: Told which session runs.

    Attributes:
        recorder: Takes in what comes; None when no session runs.
        verdicts: On its streams, of the last second.
        last: Id of the newest session.
        provenance: Of the same.
        hurried: Chunks of all sessions that were compressed less, because too many waited.
    """

    def __init__(self, config: Config, writer: SpoolWriter, pulse: Pulse) -> None:
        self.recorder: Recorder | None = None
        self.verdicts: list[Verdict] = []
        self.last = ""
        self.provenance: Provenance | None = None
        self._hurried = 0
        self._config, self._writer, self._pulse = config, writer, pulse
        self._calibration = load_calibration(config.calibration.file)
        self._pool = ThreadPoolExecutor(1, "seal")
        self._unclosed = Unclosed(writer.spool, pulse)
        self._shift = Shift(pulse)

    @property
    def running(self) -> str:
        """Id of the session that takes in what comes; empty when none does."""
        return self.last if self.recorder is not None else ""

    @property
    def hurried(self) -> int:
        return self._hurried + (self.recorder.hurried if self.recorder is not None else 0)

    def shut_down(self) -> None:
        """Let go of the thread that seals."""
        self._pool.shutdown()

    async def open(
        self,
        pair: ClockPair,
        provenance: Provenance,
        streams: Sequence[StreamInfo],
        continued: Continued | None = None,
    ) -> Recorder:
        """Begin a session; its manifest is on the medium when this returns.

        Whatever then befalls the daemon, the session is known, and what it may have cost can be stated.
        """
        config, session = self._config, new_session_id(pair.realtime_ns)
        self.provenance = provenance
        recorder = Recorder(
            site=config.site,
            rig=config.rig,
            session=session,
            put=self._put,
            pool=self._pool,
            chunk_ns=round(config.capture.chunk_seconds * 1e9),
            level=config.capture.codec_level,
        )
        await recorder.open(
            open_record(
                site=config.site,
                rig=config.rig,
                session=session,
                provenance=provenance,
                pair=pair,
                streams=streams,
                calibration=self._calibration,
                config=msgspec.to_builtins(config.capture),
                continued=continued,
            ),
            streams,
        )
        self.last, self.recorder, self._pulse.session = session, recorder, session
        self._shift.begin(session, provenance, continued)
        await self._writer.flush()
        return recorder

    async def tick(self, pair: ClockPair) -> None:
        """Once a second: the verdicts, and what is due of chunks."""
        if self.recorder is not None:
            self.verdicts = self.recorder.verdicts(pair.raw_ns)
            await self.recorder.tick(pair, self.verdicts)

    async def close(
        self, pair: ClockPair, outcome: Outcome, sent: Mapping[str, int], reason: str
    ) -> tuple[Recorder, Outcome]:
        """End it in order; the recorder's `failure` says what the spool could not take.

        Returns:
            The recorder, and what became of the session.
        """
        recorder = self.recorder
        assert recorder is not None
        outcome = await recorder.close(pair, outcome, sent, reason)
        self.let_go()
        try:
            await self._writer.flush()
        except SpoolError as error:
            recorder.failure = recorder.failure or error
        self._pulse.session = ""
        if recorder.failure is not None:
            outcome = "interrupted" if outcome == "complete" else outcome
            await self._unclosed.close(pair.raw_ns)
        return recorder, outcome

    def ending(self) -> None:
        """It was told to end: should the daemon hang from here on, it is not gone on with."""
        self._shift.end()

    def let_go(self) -> Recorder | None:
        """Take in nothing more."""
        self.ending()
        self._hurried = self.hurried
        recorder, self.recorder, self.verdicts = self.recorder, None, []
        return recorder

    async def give_up(self, recorder: Recorder | None, sent: Mapping[str, int], reason: str) -> None:
        """End one that was let go of as well as can be; its chunks stay in the spool."""
        if recorder is not None:
            try:
                await recorder.close(clock.read_pair(), "interrupted", sent, reason)
                await self._writer.flush()
            except EdgecapError as error:
                log.error("cannot close %s: %s", self.last, error)
            await self._unclosed.close(clock.now_ns())
        self._pulse.session = ""

    async def close_earlier(self) -> None:
        """Close the session before, if that could not be done when it ended."""
        await self._unclosed.close_any()

    async def _put(self, chunk: Chunk) -> None:
        """A running session may use the reserve: the rig closes it long before that is gone."""
        await self._writer.put(chunk, closing=True)
