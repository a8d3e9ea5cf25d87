"""Records one session: items in, sealed chunks out, in order, with the session's own records beside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from edgecap.clock import boot_id
from edgecap.codec.chunk import Chunk, StreamChain
from edgecap.codec.columns import ColumnEncoder
from edgecap.codec.records import CODEC as RECORDS_CODEC
from edgecap.codec.records import encode_records, seal_records
from edgecap.codec.video import encode_units
from edgecap.drift import DriftWatch
from edgecap.errors import EdgecapError, SessionError, SpoolError
from edgecap.model import (
    MJPEG,
    PREVIEW_SUFFIX,
    SESSION_STREAM,
    ChunkKind,
    ClockPair,
    DeviceEvent,
    FramePacket,
    Gap,
    Mark,
    PictureReport,
    SampleBlock,
    StreamInfo,
    Verdict,
)
from edgecap.quality import StreamQuality
from edgecap.session import manifest
from edgecap.session.chunker import Draft, PreviewChunker, SampleChunker, VideoChunker
from edgecap.session.manifest import Outcome, Record

log = logging.getLogger("edgecap.recorder")

SAMPLES_CODEC = "columns-1"
QUEUE_DRAFTS = 64
"""Drafts waiting to be compressed; when full, `add` waits and the source's own bounded queue takes over."""
BUSY_DRAFTS = 8
"""With more than this waiting, sensors are compressed at level `fast` until the backlog is gone."""
RECORDS_PER_CHUNK = 200


@dataclass(slots=True)
class _Stream:
    info: StreamInfo
    chain: StreamChain
    chunker: SampleChunker | VideoChunker | PreviewChunker
    quality: StreamQuality
    encoder: ColumnEncoder
    samples: int = 0
    torn: bool = False
    """A chunk could not be sealed: the next must not depend on it."""


class Recorder:
    """One session from its opening record to its closing one.

    Args:
        site, rig, session: Names for every header.
        put: Hands a sealed chunk to the spool; may wait, and raises what befell earlier ones.
        pool: The one worker thread that compresses and hashes.
        chunk_ns: Length of a sensor chunk.
        level: Compression level while there is no backlog.
    """

    def __init__(
        self,
        *,
        site: str,
        rig: str,
        session: str,
        put: Callable[[Chunk], Awaitable[None]],
        pool: ThreadPoolExecutor,
        chunk_ns: int,
        level: str,
    ) -> None:
        self.site, self.rig, self.session = site, rig, session
        self.hurried = 0
        """Chunks that were compressed at level `fast`, because too many waited."""
        self.opened_ns = 0
        self.failure: EdgecapError | None = None
        """The spool's first refusal, or a chunk that could not be sealed; `add` and `tick` raise it, `close`
        does what still can be done."""
        self._put, self._pool = put, pool
        self._chunk_ns, self._level = chunk_ns, level
        self._chain = StreamChain(site=site, rig=rig, boot=boot_id(), session=session, stream=SESSION_STREAM)
        self._streams: dict[str, _Stream] = {}
        self._records: list[Record] = []
        self._calibration: Mapping[str, Any] = {}
        self._queue: asyncio.Queue[tuple[_Stream, Draft]] = asyncio.Queue(QUEUE_DRAFTS)
        self._sealer: asyncio.Task[None] | None = None

    async def open(self, record: Record, streams: Sequence[StreamInfo]) -> None:
        """Write the manifest as the session's first chunk and begin to take items."""
        self.opened_ns = int(record["t_ns"])
        self._calibration = record.get("calibration", {})
        await self._put_records([record])
        self._raise_failure()
        for info in streams:
            self._add_stream(info)
        self._sealer = asyncio.create_task(self._seal_all(), name=f"seal {self.session}")

    async def add(self, item: SampleBlock | FramePacket | PictureReport | Gap) -> None:
        """Take what came of a stream that the manifest names: samples, a frame, a look at it, a loss."""
        self._raise_failure()
        stream = self._streams.get(item.stream)
        if stream is None:
            return
        if isinstance(item, PictureReport):
            stream.quality.see_picture(item)
            preview = self._streams.get(item.stream + PREVIEW_SUFFIX)
            if preview is None or not item.jpeg:
                return
            # mypy cannot know: a stream's kind chose its chunker (`_add_stream`), here and below.
            stream, drafts = preview, preview.chunker.add(item)  # type: ignore[arg-type]
            stream.quality.n += 1
        elif isinstance(item, Gap):
            stream.quality.see_gap(item)
            self._records.append(manifest.gap_record(item))
            drafts = stream.chunker.add_gap(item)
        else:
            stream.quality.see(item)
            drafts = stream.chunker.add(item)  # type: ignore[arg-type]
        for draft in drafts:
            await self._enqueue(stream, draft)

    def add_stream(self, t_ns: int, info: StreamInfo) -> None:
        """Accept a stream that appeared after the session had opened."""
        if info.name not in self._streams:
            self._add_stream(info)
            self._records.append(manifest.stream_record(t_ns, info))

    def mark(self, mark: Mark) -> None:
        """Note a timed event from the worker or operator."""
        self._records.append(manifest.mark_record(mark))

    def event(self, event: DeviceEvent) -> None:
        """Note what a device reported."""
        self._records.append(manifest.event_record(event.t_ns, event.device, event.kind, event.text))

    async def tick(self, pair: ClockPair, verdicts: Sequence[Verdict]) -> None:
        """Once a second: clock pair, verdicts, and the records so far become a chunk."""
        self._raise_failure()
        self._records.append(manifest.clock_record(pair))
        self._records.append(manifest.verdict_record(pair.raw_ns, verdicts))
        await self._put_records(self._take_records())

    def verdicts(self, now_ns: int) -> list[Verdict]:
        """What holds for each stream now."""
        return [s.quality.verdict(now_ns) for s in self._streams.values() if s.info.kind != "preview"]

    def samples(self) -> dict[str, int]:
        """Samples or frames taken so far, by stream."""
        return {name: s.quality.n for name, s in self._streams.items()}

    async def close(
        self, pair: ClockPair, outcome: Outcome, device_sent: Mapping[str, int], reason: str = ""
    ) -> Outcome:
        """Seal everything that is left, then write the closing record; call after all sources stopped.

        Returns:
            The outcome as recorded: what failed is not `complete`.
        """
        assert self._sealer is not None
        for stream in self._streams.values():
            for draft in stream.chunker.flush():
                await self._enqueue(stream, draft)
        await self._queue.join()
        self._sealer.cancel()
        await asyncio.gather(self._sealer, return_exceptions=True)
        self._records.append(manifest.clock_record(pair))
        await self._put_records(self._take_records())
        totals = {
            name: {
                "chunks": s.chain.seq,
                "last_hash": s.chain.prev,
                "samples": s.samples,
                "device_sent": device_sent.get(name),
            }
            for name, s in self._streams.items()
        }
        if self.failure is not None:
            outcome = "interrupted" if outcome == "complete" else outcome
            reason = reason or str(self.failure)
        await self._put_records([manifest.close_record(pair.raw_ns, outcome, totals, reason)])
        return outcome

    def _add_stream(self, info: StreamInfo) -> None:
        chain = StreamChain(
            site=self.site,
            rig=self.rig,
            boot=boot_id(),
            session=self.session,
            stream=info.name,
            man=self._chain.man,
        )
        chunker: SampleChunker | VideoChunker | PreviewChunker
        if info.kind == "video":
            chunker = VideoChunker(intra=info.codec == MJPEG)
        else:
            chunker = PreviewChunker() if info.kind == "preview" else SampleChunker(self._chunk_ns)
        self._streams[info.name] = _Stream(
            info,
            chain,
            chunker,
            StreamQuality(info, self.opened_ns, DriftWatch(info, self._calibration)),
            ColumnEncoder(self._level),
        )

    def _take_records(self) -> list[Record]:
        records, self._records = self._records, []
        return records

    async def _put_records(self, records: list[Record]) -> None:
        """Seal records into chunks of the session stream; there are few, so the loop does it itself."""
        for start in range(0, len(records), RECORDS_PER_CHUNK):
            await self._hand_over(seal_records(self._chain, records[start : start + RECORDS_PER_CHUNK]))

    async def _enqueue(self, stream: _Stream, draft: Draft) -> None:
        await self._queue.put((stream, draft))

    async def _seal_all(self) -> None:
        """Compress, hash and hand over drafts, strictly in order."""
        loop = asyncio.get_running_loop()
        while True:
            stream, draft = await self._queue.get()
            try:
                busy = self._queue.qsize() > BUSY_DRAFTS
                stream.encoder.level = "fast" if busy else self._level
                self.hurried += busy
                chunk = await loop.run_in_executor(self._pool, _seal, stream, draft)
            except Exception as error:  # noqa: BLE001 - the boundary of one draft: it must not end all sealing
                self._give_up(stream, draft, error)
            else:
                await self._hand_over(chunk)
            finally:
                self._queue.task_done()

    def _give_up(self, stream: _Stream, draft: Draft, error: Exception) -> None:
        """State what a draft that cannot be sealed has cost, and keep the reason."""
        stream.torn = True
        gap = Gap(stream.info.name, draft.t0_ns, draft.t1_ns, draft.n, "codec")
        stream.quality.see_gap(gap)
        self._records.append(manifest.gap_record(gap))
        if self.failure is None:
            self.failure = SessionError(
                f"{stream.info.name}: {draft.n} samples could not be sealed: {type(error).__name__}: {error}",
                fix="keep the log; the device's data, or this program, is at fault",
            )
            log.error("%s", self.failure, exc_info=error)

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def _hand_over(self, chunk: Chunk) -> None:
        """Give a chunk to the spool; a refusal is kept for whoever records, later chunks are still tried."""
        for _ in range(2):
            try:
                await self._put(chunk)
                break
            except SpoolError as error:
                # It tells of an earlier chunk, and this one was not taken: once more.
                if self.failure is None:
                    self.failure = error


def _seal(stream: _Stream, draft: Draft) -> Chunk:
    """Runs in the worker thread; the kernels inside release the GIL."""
    kind: ChunkKind
    if draft.columns is not None:
        kind, codec = "samples", SAMPLES_CODEC
        payload = stream.encoder.encode(draft.columns, key=stream.torn)
    elif draft.records:
        kind, codec, payload = "event", RECORDS_CODEC, encode_records(draft.records)
    else:
        kind, codec, payload = "video", stream.info.codec, encode_units(draft.units)
    chunk = stream.chain.seal(
        kind=kind,
        codec=codec,
        payload=payload,
        t0_ns=draft.t0_ns,
        t1_ns=draft.t1_ns,
        n=draft.n,
        raw_bytes=draft.raw_bytes,
        fit=draft.fit,
        gaps=draft.gaps,
        quality={"gaps": stream.quality.gaps, "lost": stream.quality.lost, **stream.quality.picture()},
    )
    stream.samples += draft.n
    stream.torn = False
    return chunk
