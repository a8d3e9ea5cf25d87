"""How fast chunks go from spool to store, and how fast ingest verifies and stores, on loopback.

    python bench/uplink.py [--megabytes 1000] [--chunk-bytes 100000] [--program mosquitto|amqtt] [--json]

`publish` is raw aiomqtt-class publishing through our connection (QoS 1, window 8) to nobody, `fan-out` the
same to one subscriber that only reads, `uplink` the whole way: spool read, publish, broker, ingest in its
own process, verify, append, fdatasync, receipt, release. `ingest` feeds the worker's own verify and store
from memory, one thread. `mosquitto_pub`, where it is installed (mosquitto-clients), is the C client that
publishes as many bytes in as many messages with the same window, to nobody. `--trace` prints the memory of
spool and uplink at every tenth of the drain: `--megabytes 10000 --trace` is a 10 GB backlog. Check the
numbers against `nproc`: uplink, broker and ingest share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edgecap import topics
from edgecap.codec.chunk import Chunk, StreamChain
from edgecap.codec.records import encode_records
from edgecap.ingest.store import open_store
from edgecap.ingest.verify import verify_message
from edgecap.memory import give_back, share_one_heap
from edgecap.mqtt import Connection, connect, keep_connected, parse_broker
from edgecap.sim.broker import LoopbackBroker
from edgecap.spool import Spool
from edgecap.uplink import Uplink

IN_MEMORY_MB = 300
SITE, RIG, SESSION, BOOT = "bench", "rig-1", "20260101-000000-abcd", "0" * 36


def make_chunks(total_bytes: int, chunk_bytes: int) -> Iterator[Chunk]:
    """A session of video chunks, made one by one so that memory can be measured."""
    opening = StreamChain(site=SITE, rig=RIG, boot=BOOT, session=SESSION, stream="session")
    record = encode_records([{"type": "open", "t_ns": 0}])
    yield opening.seal(kind="event", codec="msgpack", payload=record, t0_ns=0, t1_ns=0, n=1, raw_bytes=0)
    chain = StreamChain(site=SITE, rig=RIG, boot=BOOT, session=SESSION, stream="head-cam", man=opening.man)
    for k in range(max(1, total_bytes // chunk_bytes)):
        payload = hashlib.shake_128(k.to_bytes(8, "big")).digest(64) * (chunk_bytes // 64 + 1)
        yield chain.seal(
            kind="video", codec="h264-annexb", payload=payload[:chunk_bytes], t0_ns=k, t1_ns=k, n=1,
            raw_bytes=chunk_bytes,
        )  # fmt: skip


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def publish(url: str, chunks: list[Chunk], *, listener: bool) -> None:
    async with connect(parse_broker(url), client_id="pub") as connection:
        todo = iter(chunks)

        async def one() -> None:
            for chunk in todo:
                await connection.publish("bench/x", chunk.packed, qos=1)

        async def read() -> None:
            async with connect(
                parse_broker(url), client_id="sub", subscribe=["bench/x"], receive_maximum=512
            ) as ear:
                ready.set()
                for _ in chunks:
                    await ear.receive()

        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            if listener:
                group.create_task(read())
                await ready.wait()
            for _ in range(8):
                group.create_task(one())


def publish_in_c(port: int, chunks: list[Chunk], directory: Path) -> tuple[float, float]:
    """Publish messages of the chunks' sizes with mosquitto_pub; returns seconds and its own CPU seconds."""
    lines = directory / "lines"
    with lines.open("wb") as file:
        for chunk in chunks:  # one message per line, so text of the same length stands for the chunk
            file.write(chunk.packed.hex()[: len(chunk.packed)].encode() + b"\n")
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-V", "5", "-q", "1"]
    used, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with lines.open("rb") as file:
        subprocess.run([*command, "-M", "8", "-t", "bench/x", "-l"], stdin=file, check=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    lines.unlink()
    return seconds, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


async def drain(url: str, spool: Spool, n: int, *, resend_s: float, trace: bool = False) -> Uplink:
    uplink = Uplink(spool, SITE, RIG, resend_s=resend_s)
    done = asyncio.Event()
    tenths, started = 0, time.perf_counter()

    async def body(connection: Connection) -> None:
        nonlocal tenths
        async with asyncio.TaskGroup() as group:
            running = group.create_task(uplink.run(connection))
            async for message in connection.messages():
                await uplink.on_receipt(message.payload)
                if trace and uplink.statistics().receipted * 10 // n >= tenths:
                    seconds = time.perf_counter() - started
                    print(f"{tenths * 10:3} % after {seconds:6.1f} s: RSS {rss_mb():.1f} MB", flush=True)
                    tenths = uplink.statistics().receipted * 10 // n + 1
                if uplink.statistics().receipted >= n:
                    running.cancel()
                    done.set()
                    return

    link = asyncio.create_task(
        keep_connected(
            parse_broker(url), body, client_id="rig", subscribe=[topics.topic(SITE, RIG, topics.RECEIPT)]
        )
    )
    finished = asyncio.create_task(done.wait())
    await asyncio.wait([link, finished], return_when=asyncio.FIRST_COMPLETED)
    for task in (link, finished):
        task.cancel()
    await asyncio.wait([link, finished])
    if not link.cancelled() and (error := link.exception()) is not None:
        raise error
    return uplink


def run(args: argparse.Namespace, directory: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    chunks = list(make_chunks(min(args.megabytes, IN_MEMORY_MB) * 1_000_000, args.chunk_bytes))
    size = sum(len(c.packed) for c in chunks)

    def row(name: str, seconds: float, **more: object) -> None:
        rows.append(
            {"what": name, "mb_s": round(size / 1e6 / seconds, 1), "seconds": round(seconds, 2), **more}
        )
        print(json.dumps(rows[-1]) if args.json else f"{name:10} {rows[-1]}", flush=True)

    # ingest alone: verify, append, commit in groups as the worker makes them
    store = open_store(str(directory / "store-alone"), create=True)
    topic = topics.topic(SITE, RIG, topics.UP, "head-cam")
    cpu, started = cpu_s(), time.perf_counter()
    group: list[Chunk] = []
    for chunk in chunks[1:]:
        group.append(verify_message(topic, chunk.packed))
        if len(group) * args.chunk_bytes >= 8 << 20:
            store.append(group)
            store.commit()
            group.clear()
    store.append(group)
    store.commit()
    seconds = time.perf_counter() - started
    row("ingest", seconds, cpu_s_per_gb=round((cpu_s() - cpu) / size * 1e9, 2))
    store.close()

    with LoopbackBroker(directory / "broker", program=args.program) as running:
        for name, listener in (("publish", False), ("fan-out", True)):
            cpu, broker_cpu, started = cpu_s(), cpu_of(running.pid), time.perf_counter()
            asyncio.run(publish(running.url, chunks, listener=listener))
            seconds = time.perf_counter() - started
            row(
                name, seconds, cpu_s_per_gb=round((cpu_s() - cpu) / size * 1e9, 2),
                broker_cpu_s_per_gb=round((cpu_of(running.pid) - broker_cpu) / size * 1e9, 2),
            )  # fmt: skip

        if shutil.which("mosquitto_pub") is None:
            print("mosquitto_pub is not installed (apt-get install mosquitto-clients)", file=sys.stderr)
        else:
            broker_cpu = cpu_of(running.pid)
            seconds, cpu = publish_in_c(running.port, chunks, directory)
            row(
                "mosquitto_pub", seconds, cpu_s_per_gb=round(cpu / size * 1e9, 2),
                broker_cpu_s_per_gb=round((cpu_of(running.pid) - broker_cpu) / size * 1e9, 2),
            )  # fmt: skip

        spool = Spool.open(directory / "spool", reserve_bytes=0)
        chunks.clear()
        n = size = 0
        for chunk in make_chunks(args.megabytes * 1_000_000, args.chunk_bytes):
            spool.append(chunk)
            n, size = n + 1, size + len(chunk.packed)
        spool.sync()
        give_back()  # the other rows' chunks: a drain that needs memory shall show
        command = [sys.executable, "-m", "edgecap", "ingest", "--store", str(directory / "store")]
        with subprocess.Popen(
            [*command, "--broker", running.url], stderr=subprocess.PIPE, text=True
        ) as ingest:
            assert ingest.stderr is not None
            for line in ingest.stderr:
                if "connected" in line:
                    break
            cpu, ingest_cpu, broker_cpu = cpu_s(), cpu_of(ingest.pid), cpu_of(running.pid)
            before_mb, started = rss_mb(), time.perf_counter()
            uplink = asyncio.run(drain(running.url, spool, n, resend_s=args.resend_seconds, trace=args.trace))
            seconds = time.perf_counter() - started
            found = uplink.statistics()
            row(
                "uplink", seconds,
                cpu_s_per_gb=round((cpu_s() - cpu) / size * 1e9, 2),
                ingest_cpu_s_per_gb=round((cpu_of(ingest.pid) - ingest_cpu) / size * 1e9, 2),
                broker_cpu_s_per_gb=round((cpu_of(running.pid) - broker_cpu) / size * 1e9, 2),
                receipt_p50_ms=found.receipt_p50_ms, receipt_p99_ms=found.receipt_p99_ms,
                resent=found.resent, left=spool.stats().chunks,
                rss_growth_mb=round(rss_mb() - before_mb, 1),
            )  # fmt: skip
            ingest.terminate()
            ingest.stderr.read()
        spool.close()
    store = open_store(str(directory / "store"))
    held = sum(1 for key in store.sessions() for _ in store.chunks(key))
    store.close()
    assert held == n, f"{held} of {n} chunks are in the store"
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--chunk-bytes", type=int, default=100_000)
    parser.add_argument("--program", choices=["mosquitto", "amqtt"])
    parser.add_argument("--resend-seconds", type=float, default=60.0)
    parser.add_argument("--dir", type=Path, help="where spool and store go; default: a temporary directory")
    parser.add_argument("--trace", action="store_true", help="print the memory during the drain")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    share_one_heap()  # as the daemon does
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        run(args, Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
