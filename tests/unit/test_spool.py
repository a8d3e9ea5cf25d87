"""The spool on a real file system: order of delivery, release, heads, locks, long backlogs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from edgecap.codec.chunk import ChunkId
from edgecap.errors import SpoolError
from edgecap.spool import Spool
from tests.chunks import SessionMaker


def open_spool(path: Path, segment_bytes: int = 20_000) -> Spool:
    return Spool.open(path, segment_bytes=segment_bytes, reserve_bytes=0)


def test_delivery_order_and_release(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=30)
    with open_spool(tmp_path / "spool") as spool:
        for chunk in chunks:
            spool.append(chunk)
        spool.sync()
        entries = spool.pending(1000)
        streams = [e.id.stream for e in entries]
        assert streams == sorted(streams, key=["session", "left-imu", "head-cam"].index)
        assert [e.id for e in entries if e.id.stream == "head-cam"] == [
            c.id for c in chunks if c.header.stream == "head-cam"
        ]
        assert {e.id: spool.read(e.id) for e in entries} == {c.id: c.packed for c in chunks}
        assert entries[0].bytes == len(chunks[0].packed)
        assert (entries[0].site, entries[0].rig) == ("site-a", "rig-01")
        assert [e.id for e in spool.pending(5, exclude={entries[0].id})] == [e.id for e in entries[1:6]]
        before = spool.stats()
        assert (before.chunks, before.bytes) == (len(chunks), sum(len(c.packed) for c in chunks))
        assert before.segments > 3
        assert before.oldest_t_ns > 0
        ids = [e.id for e in entries]
        assert spool.release(ids[:40]) == 40
        assert spool.release(ids[:40]) == 0
        unknown = ChunkId("b", "s", "x", 3, bytes(32))
        assert spool.release([unknown]) == 0
        with pytest.raises(SpoolError, match="does not hold chunk s/x/3"):
            spool.read(unknown)
    with open_spool(tmp_path / "spool") as spool:
        assert [e.id for e in spool.pending(1000)] == ids[40:]
        spool.release(ids)
        after = spool.stats()
        assert (after.chunks, after.bytes, after.oldest_t_ns) == (0, 0, 0)
    assert not list((tmp_path / "spool").glob("*.seg"))


def test_previews_go_with_the_sensors_and_before_all_video(tmp_path: Path) -> None:
    streams = {"left-imu": "samples", "head-cam": "video", "head-cam-preview": "event"}
    chunks = SessionMaker(streams=streams).whole(rounds=6)
    with open_spool(tmp_path / "spool") as spool:
        for chunk in chunks:
            spool.append(chunk)
        spool.sync()
        order = [e.id.stream for e in spool.pending(1000)]
    assert order == ["session"] * 8 + ["left-imu", "head-cam-preview"] * 6 + ["head-cam"] * 6


def test_only_durable_chunks_are_offered(tmp_path: Path) -> None:
    with open_spool(tmp_path / "spool") as spool:
        first, second = SessionMaker().whole(rounds=1)[:2]
        spool.append(first)
        assert spool.pending(9) == []
        spool.sync()
        spool.append(second)
        assert [e.id for e in spool.pending(9)] == [first.id]


def test_an_interrupted_session_is_closed_with_its_chain_after_everything_was_delivered(
    tmp_path: Path,
) -> None:
    maker = SessionMaker()
    chunks = maker.whole(rounds=20)
    spool = open_spool(tmp_path / "spool")
    for chunk in chunks[:-1]:
        spool.append(chunk)
    spool.sync()
    spool.release([c.id for c in chunks[:-1]])
    spool.close()
    # Only what tells which streams there were stays, until the session is closed.
    assert [p.name for p in (tmp_path / "spool").glob("*.seg")] == ["00000001.seg"]
    with open_spool(tmp_path / "spool") as spool:
        (left,) = spool.open_sessions()
        assert (left.site, left.rig, left.man) == ("site-a", "rig-01", chunks[0].hash)
        assert left.streams["left-imu"].samples == maker.samples["left-imu"]
        heads = spool.heads(left.session)
        for stream, (seq, hash_) in heads.items():
            last = [c for c in chunks[:-1] if c.header.stream == stream][-1]
            assert (seq, hash_) == (last.header.seq, last.hash)
        assert heads["session"][1] == chunks[-1].header.prev
        spool.append(chunks[-1], closing=True)
        spool.sync()
        assert spool.open_sessions() == []
        spool.release([chunks[-1].id])
    assert not list((tmp_path / "spool").glob("*.seg"))
    with open_spool(tmp_path / "spool") as spool:
        assert spool.heads(left.session) == {}


def test_quarantine_unblocks_delivery(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=1)
    with open_spool(tmp_path / "spool") as spool:
        for chunk in chunks:
            spool.append(chunk)
        spool.sync()
        spool.quarantine(chunks[0].id, "ingest refuses it")
        assert chunks[0].id not in {e.id for e in spool.pending(100)}
        kept = sorted((tmp_path / "spool" / "quarantine").iterdir())
        assert [p.read_bytes() for p in kept] == [chunks[0].packed, b"ingest refuses it"]
    with open_spool(tmp_path / "spool") as spool:
        assert chunks[0].id not in {e.id for e in spool.pending(100)}


def test_two_processes_cannot_share_a_spool(tmp_path: Path) -> None:
    with (
        open_spool(tmp_path / "spool"),
        pytest.raises(SpoolError, match=rf"is in use by process {os.getpid()}; stop that process"),
    ):
        open_spool(tmp_path / "spool")


@pytest.mark.parametrize("place", ["file", "/proc/edgecap-spool"])
def test_unusable_directories_are_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / place if place == "file" else Path(place)
    with pytest.raises(SpoolError) as error:
        Spool.open(path / "spool")
    assert str(path / "spool") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_long_backlog_needs_little_memory(tmp_path: Path) -> None:
    """Rows leave memory when a segment is sealed: what is kept per chunk is a byte and a bit."""
    maker = SessionMaker()
    with open_spool(tmp_path / "spool", segment_bytes=64_000) as spool:
        spool.append(maker.open())
        tracemalloc.start()
        try:
            per_round = []
            for _ in range(2):
                before, _ = tracemalloc.get_traced_memory()
                for _ in range(6000):
                    spool.append(maker.data("left-imu", n_bytes=200))
                spool.sync()
                per_round.append(tracemalloc.get_traced_memory()[0] - before)
            found = spool.pending(20_000)
            assert len(found) == 12_001
            assert per_round[1] / 6000 < 50
            del found
            spool.pending(64, exclude=set())
            assert spool.stats().segments > 40
        finally:
            tracemalloc.stop()


CRASHING = """
import sys
from pathlib import Path
from edgecap.spool import Spool
from tests.chunks import SessionMaker
spool = Spool.open(Path(sys.argv[1]), segment_bytes=100_000, reserve_bytes=0)
maker = SessionMaker()
spool.append(maker.open())
for number in range(1_000_000):
    spool.append(maker.data("left-imu", n_bytes=3000))
    if number % 10 == 9:
        spool.sync()
        print(maker.chains["left-imu"].seq, flush=True)
"""


def test_kill_9_loses_nothing_that_was_synced(tmp_path: Path) -> None:
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", CRASHING, str(tmp_path / "spool")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        synced = int([line for line in lines if line.endswith("\n")][-1])
        with open_spool(tmp_path / "spool") as spool:
            seqs = sorted(e.id.seq for e in spool.pending(10**6) if e.id.stream == "left-imu")
            assert seqs == list(range(len(seqs)))
            assert len(seqs) >= synced >= 200
            spool.release([e.id for e in spool.pending(10**6)])
