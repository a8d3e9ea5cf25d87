"""Durable appends: the spool beside SQLite WAL, LMDB, a file per chunk and the mcap writer, in one run.

    python bench/spool.py [--mb 200] [--chunk-kb 100] [--rounds 3] [--dir DIR] [--json]

Contenders take turns, and of each figure the median of the rounds is told: a machine is not the same from
one minute to the next. Every contender stores the same chunks and makes them durable after each
`--sync-kb`. A latency is the time of one append, the sync included where one falls due. What was written is
read from /proc/self/io.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from edgecap.codec.chunk import Chunk, StreamChain
from edgecap.ingest.local_store import LocalStore
from edgecap.spool import Spool

Store = Callable[[Chunk, bool], None]
"""Stores a chunk; makes everything durable when the flag says so."""


def make_chunks(n: int, size: int) -> list[Chunk]:
    source = random.Random(1)
    chain = StreamChain(
        site="bench", rig="rig-01", boot="b", session="s", stream="head-cam", man=bytes(31) + b"m"
    )
    return [
        chain.seal(
            kind="video",
            codec="h264-annexb",
            payload=source.randbytes(size),
            t0_ns=0,
            t1_ns=1,
            n=3,
            raw_bytes=size,
        )
        for _ in range(n)
    ]


@contextmanager
def spool(path: Path) -> Iterator[Store]:
    with Spool.open(path, reserve_bytes=0) as target:

        def store(chunk: Chunk, sync: bool) -> None:
            target.append(chunk)
            if sync:
                target.sync()

        yield store


@contextmanager
def local_store(path: Path) -> Iterator[Store]:
    with LocalStore.open(path, create=True) as target:

        def store(chunk: Chunk, sync: bool) -> None:
            target.append([chunk])
            if sync:
                target.commit()

        yield store


@contextmanager
def sqlite_wal(path: Path) -> Iterator[Store]:
    path.mkdir()
    db = sqlite3.connect(path / "spool.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE chunk (id INTEGER PRIMARY KEY, stream TEXT, seq INTEGER, data BLOB)")
    db.execute("BEGIN")

    def store(chunk: Chunk, sync: bool) -> None:
        h = chunk.header
        db.execute("INSERT INTO chunk (stream, seq, data) VALUES (?, ?, ?)", (h.stream, h.seq, chunk.packed))
        if sync:
            db.execute("COMMIT")
            db.execute("BEGIN")

    yield store
    db.execute("COMMIT")
    db.close()


@contextmanager
def lmdb_sync(path: Path) -> Iterator[Store]:
    import lmdb

    env = lmdb.open(str(path), map_size=16 << 30)
    txn = [env.begin(write=True)]

    def store(chunk: Chunk, sync: bool) -> None:
        txn[0].put(f"{chunk.header.stream}/{chunk.header.seq:012d}".encode(), chunk.packed)
        if sync:
            txn[0].commit()
            txn[0] = env.begin(write=True)

    yield store
    txn[0].commit()
    env.close()


@contextmanager
def file_per_chunk(path: Path) -> Iterator[Store]:
    path.mkdir()
    unsynced: list[int] = []
    directory = os.open(path, os.O_RDONLY)

    def store(chunk: Chunk, sync: bool) -> None:
        h = chunk.header
        fd = os.open(path / f"{h.stream}-{h.seq:09d}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, chunk.packed)
        unsynced.append(fd)
        if sync:
            for one in unsynced:
                os.fsync(one)
                os.close(one)
            unsynced.clear()
            os.fsync(directory)

    yield store
    for one in unsynced:
        os.close(one)
    os.close(directory)


@contextmanager
def mcap_writer(path: Path) -> Iterator[Store]:
    from mcap.writer import CompressionType, Writer

    path.mkdir()
    with (path / "spool.mcap").open("wb") as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start()
        channel = writer.register_channel("head-cam", "raw", 0)

        def store(chunk: Chunk, sync: bool) -> None:
            h = chunk.header
            writer.add_message(channel, h.t0_ns, chunk.packed, h.t1_ns, h.seq)
            if sync:
                # Its own chunk buffer is not on the file yet: of what is synced, up to 1 MiB is missing.
                file.flush()
                os.fdatasync(file.fileno())

        yield store
        writer.finish()


CONTENDERS = {
    "edgecap spool": spool,
    "edgecap store": local_store,
    "sqlite wal full": sqlite_wal,
    "lmdb sync": lmdb_sync,
    "file per chunk + fsync": file_per_chunk,
    "mcap writer (not whole after a cut)": mcap_writer,
}


def written_bytes() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


def measure(
    contender: Callable[[Path], AbstractContextManager[Store]],
    path: Path,
    chunks: list[Chunk],
    sync_bytes: int,
) -> dict[str, float]:
    latencies, due = [], 0
    os.sync()
    written, usage = written_bytes(), resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    with contender(path) as store:
        for chunk in chunks:
            due += len(chunk.packed)
            start = time.perf_counter()
            store(chunk, due >= sync_bytes)
            latencies.append(time.perf_counter() - start)
            due = 0 if due >= sync_bytes else due
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF)
    payload = sum(len(c.packed) for c in chunks)
    cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    return {
        "mb_s": payload / seconds / 1e6,
        "p50_ms": float(np.percentile(latencies, 50)) * 1e3,
        "p99_ms": float(np.percentile(latencies, 99)) * 1e3,
        "max_ms": max(latencies) * 1e3,
        "cpu_s_per_gb": cpu / payload * 1e9,
        "written_per_payload": (written_bytes() - written) / payload,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--chunk-kb", type=int, default=100)
    parser.add_argument("--sync-kb", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    chunks = make_chunks(args.mb * 1000 // args.chunk_kb, args.chunk_kb * 1000)
    root = Path(tempfile.mkdtemp(prefix="edgecap-bench-", dir=args.dir))
    results: dict[str, list[dict[str, float]]] = {}
    try:
        for _ in range(args.rounds):
            for name, contender in CONTENDERS.items():
                try:
                    result = measure(contender, root / "run", chunks, args.sync_kb << 10)
                except ImportError as missing:
                    print(f"{name:36} not installed ({missing.name})", file=sys.stderr)
                    continue
                finally:
                    shutil.rmtree(root / "run", ignore_errors=True)
                results.setdefault(name, []).append(result)
    finally:
        shutil.rmtree(root)
    for name, rounds in results.items():
        middle = {key: float(np.median([r[key] for r in rounds])) for key in rounds[0]}
        if args.json:
            print(json.dumps({"name": name, "chunk_kb": args.chunk_kb, "sync_kb": args.sync_kb, **middle}))
        else:
            print(f"{name:36}" + "".join(f"  {key} {value:8.2f}" for key, value in middle.items()))


if __name__ == "__main__":
    main()
