"""The recorder: items in, an unbroken chain of chunks out, with a manifest before and a close after."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgecap import clock
from edgecap.codec.chunk import Chunk, unpack_chunk
from edgecap.codec.columns import ColumnDecoder
from edgecap.codec.records import decode_records
from edgecap.codec.video import decode_units, join_units
from edgecap.errors import SessionError, SpoolError
from edgecap.model import (
    SESSION_STREAM,
    ChannelInfo,
    ClockFit,
    FramePacket,
    Gap,
    Mark,
    SampleBlock,
    StreamInfo,
)
from edgecap.session.manifest import Provenance, open_record
from edgecap.session.recorder import BUSY_DRAFTS, Recorder

FIT = ClockFit(0, 0, 0.0, 1000, 5000, 100.0, 0, True)
IMU = StreamInfo("hand-imu", "imu", "hand", 1000.0, "int16", (ChannelInfo("gyro_x", "rad/s", 0.001),))
CAMERA = StreamInfo("head-cam", "video", "head-cam", 30.0, codec="h264-annexb", clock="raw")


def block(index: int, n: int = 50) -> SampleBlock:
    ticks = np.arange(index, index + n, dtype=np.int64) * 1000
    values = (ticks[:, None] % 1000).astype(np.int16)
    return SampleBlock("hand-imu", index, ticks, values, np.array([n], np.int32), ticks[-1:] * 1000, FIT)


def frame(index: int) -> FramePacket:
    data = bytes([index]) * 300_000 if index == 3 else bytes([index]) * 500
    return FramePacket("head-cam", index, data, index % 10 == 0, index * 33_000_000, 0, 0, 0, FIT)


class Sink:
    """Where chunks go: the seam at which the spool would stand."""

    def __init__(self, refuse: set[int] | None = None) -> None:
        self.chunks: list[Chunk] = []
        self.refuse = refuse or set()
        self.puts = 0

    async def put(self, chunk: Chunk) -> None:
        self.puts += 1
        if self.puts in self.refuse:
            raise SpoolError("the spool is full")
        self.chunks.append(chunk)


def record(sink: Sink, body: Callable[[Recorder], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            recorder = Recorder(
                site="lab",
                rig="rig-01",
                session="s-1",
                put=sink.put,
                pool=pool,
                chunk_ns=200_000_000,
                level="stream",
            )
            pair = clock.read_pair()
            manifest = open_record(
                site="lab",
                rig="rig-01",
                session="s-1",
                provenance=Provenance("fold", "op-1", "c-1"),
                pair=pair,
                streams=[IMU, CAMERA],
                calibration={},
                config={},
            )
            await recorder.open(manifest, [IMU, CAMERA])
            await body(recorder)
            await recorder.close(clock.read_pair(), "complete", {"hand-imu": 950})

    asyncio.run(run())


async def usual(recorder: Recorder) -> None:
    for index in range(0, 1000, 50):
        if index == 500:
            await recorder.add(Gap("hand-imu", 500_000_000, 550_000_000, 50, "line"))
            continue
        await recorder.add(block(index))
    for index in range(30):
        await recorder.add(frame(index))
    recorder.mark(Mark(7, "went-wrong"))
    pair = clock.read_pair()
    await recorder.tick(pair, recorder.verdicts(pair.raw_ns))


def test_what_went_in_comes_out_of_an_unbroken_chain() -> None:
    sink = Sink()
    record(sink, usual)
    streams: dict[str, list[Chunk]] = defaultdict(list)
    for chunk in sink.chunks:
        streams[chunk.header.stream].append(unpack_chunk(chunk.packed))
    opening = streams[SESSION_STREAM][0]
    man = hashlib.sha256(opening.header_bytes).digest()
    for name, chunks in streams.items():
        assert [c.header.seq for c in chunks] == list(range(len(chunks)))
        previous = bytes(32) if name == SESSION_STREAM else man
        for chunk in chunks:
            assert chunk.header.prev == previous
            assert chunk.header.man == (bytes(32) if chunk is opening else man)
            previous = chunk.hash
    records = [r for c in streams[SESSION_STREAM] for r in decode_records(c.payload)]
    told = [r["type"] for r in records if r["type"] not in ("verdict", "clock")]
    assert told == ["open", "gap", "mark", "close"]
    close = records[-1]["streams"]
    assert close["hand-imu"] == {
        "chunks": len(streams["hand-imu"]),
        "last_hash": streams["hand-imu"][-1].hash,
        "samples": 950,
        "device_sent": 950,
    }
    assert close["head-cam"]["samples"] == 30
    decoder = ColumnDecoder()
    tables = [decoder.decode(c.payload) for c in streams["hand-imu"]]
    ticks = np.concatenate([t["tick"] for t in tables])
    np.testing.assert_array_equal(ticks // 1000, [i for i in range(1000) if not 500 <= i < 550])
    np.testing.assert_array_equal(np.concatenate([t["values"] for t in tables])[:, 0], ticks % 1000)
    (gap,) = [g for c in streams["hand-imu"] for g in c.header.gaps]
    assert (gap.t0_ns, gap.lost) == (500_000_000, 50)
    units = list(join_units(u for c in streams["head-cam"] for u in decode_units(c.payload)))
    assert [u.data for u in units] == [frame(i).data for i in range(30)]


def test_a_refusal_is_raised_to_whoever_records_and_the_session_still_closes() -> None:
    sink = Sink(refuse={3})

    async def body(recorder: Recorder) -> None:
        raised = False
        for index in range(0, 3000, 50):
            try:
                await recorder.add(block(index))
                await asyncio.sleep(0)
            except SpoolError:
                raised = True
                break
        while not recorder.failure:
            await asyncio.sleep(0)
        assert raised or recorder.failure

    record(sink, body)
    records = [r for c in sink.chunks if c.header.stream == SESSION_STREAM for r in decode_records(c.payload)]
    assert records[-1]["type"] == "close"
    # The refused put told of an earlier chunk; the one in hand was tried again and is there.
    seqs = [c.header.seq for c in sink.chunks if c.header.stream == "hand-imu"]
    assert seqs == list(range(len(seqs)))


def test_what_cannot_be_sealed_becomes_a_stated_gap_and_holds_nothing_up() -> None:
    sink = Sink()

    async def body(recorder: Recorder) -> None:
        await recorder.add(block(0, 250))
        impossible = block(250, 250)
        await recorder.add(replace(impossible, frame_n=impossible.frame_n.astype(np.complex64)))
        async with asyncio.timeout(60):
            while not recorder.failure:
                await asyncio.sleep(0)
        with pytest.raises(SessionError, match="hand-imu: 250 samples could not be sealed"):
            await recorder.add(block(500, 250))
        recorder.failure = None  # even then, what follows must be decodable
        await recorder.add(block(750, 250))

    record(sink, body)
    records = [r for c in sink.chunks if c.header.stream == SESSION_STREAM for r in decode_records(c.payload)]
    assert [(r["lost"], r["cause"]) for r in records if r["type"] == "gap"] == [(250, "codec")]
    found = [c for c in sink.chunks if c.header.stream == "hand-imu"]
    assert [c.header.seq for c in found] == [0, 1]
    decoder = ColumnDecoder()
    decoder.decode(found[0].payload)
    np.testing.assert_array_equal(decoder.decode(found[1].payload)["tick"], block(750, 250).ticks)
    assert records[-1]["streams"]["hand-imu"]["samples"] == 500


class Slow(Sink):
    """A spool that takes no samples before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def put(self, chunk: Chunk) -> None:
        if chunk.header.stream == "hand-imu":
            await self.go.wait()
        await super().put(chunk)


def test_a_backlog_is_compressed_less_which_is_counted() -> None:
    sink, counts = Slow(), []

    async def body(recorder: Recorder) -> None:
        for index in range(0, 25 * 250, 250):  # a chunk each
            await recorder.add(block(index, 250))
        counts.append(recorder.hurried)
        sink.go.set()
        async with asyncio.timeout(60):
            while len(sink.chunks) < 26:
                await asyncio.sleep(0)
        counts.append(recorder.hurried)
        await recorder.add(block(25 * 250, 250))  # the backlog is gone

    record(sink, body)
    assert counts == [0, 25 - 1 - BUSY_DRAFTS], "others wait behind it; the last are no backlog"
    decoder = ColumnDecoder()
    tables = [decoder.decode(c.payload) for c in sink.chunks if c.header.stream == "hand-imu"]
    np.testing.assert_array_equal(np.concatenate([t["tick"] for t in tables]) // 1000, np.arange(26 * 250))
