"""The sensor streams of many rigs on one ingest worker or several: rate, lag, losses, and who pays for it.

    python bench/ingest.py [--rigs 500] [--seconds 15] [--workers 1] [--flat-out] [--store DIR|s3://…]
    python bench/ingest.py --alone            the worker's verify and store only, from memory, one thread

Every rig has a connection of its own and sends what a real one sends: per second one chunk of each of two
9-channel IMUs and two 10-channel force boards at 1 kHz (real recordings through the codec), and one of its
session's records. Everything is sealed and framed before the clock starts, so the load generator only moves
bytes. It paces itself by the wall clock, or with `--flat-out` keeps `--ahead` chunks without receipt; then
the broker's queue is unlimited. Broker, generator and workers share the machine: read the MB/s per core of
the process you ask about. A chunk counts when its receipt has come; afterwards the store is read back.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from raw_mqtt import Ear, Wire

from edgecap import topics
from edgecap.codec.chunk import Chunk, StreamChain
from edgecap.codec.columns import ColumnEncoder
from edgecap.codec.receipt import decode_receipt
from edgecap.codec.records import seal_records
from edgecap.ingest.store import open_store
from edgecap.ingest.verify import verify_message
from edgecap.model import ClockFit
from edgecap.sim.broker import LoopbackBroker
from edgecap.sim.recordings import FOLDER

SITE, BOOT, SESSION = "bench", "0" * 36, "20260101-000000-abcd"
RATE_HZ = 1000
PATTERNS = 16
"""Different stretches of the recordings; rigs take turns."""
RESEND_S = 10.0
PUBACK_BYTES = 4


def recordings() -> dict[str, np.ndarray]:
    """Nine channels of motion and ten of force, real int16 samples, made as long as needed by repetition."""
    motion = [np.load(FOLDER / f"imu_gopro_karma_{name}.npy") for name in ("accl", "gyro")]
    n = min(len(a) for a in motion)
    imu = np.concatenate([a[:n] for a in motion] + [np.roll(motion[0][:n], n // 3, 0)], 1)
    force = np.load(FOLDER / "force_smartwheel.npy").astype(np.int16)
    many = np.concatenate(
        [np.roll(force, k * len(force) // 5, 0) for k in range(-(-10 // force.shape[1]))], 1
    )
    return {"imu": imu[:, :9].astype(np.int16), "force": many[:, :10]}


def payloads(seconds: int) -> dict[str, list[list[tuple[bytes, int]]]]:
    """Encoded seconds per stream and pattern, with their raw sizes; encoders run as a rig's do."""
    made: dict[str, list[list[tuple[bytes, int]]]] = {}
    for kind, values in recordings().items():
        for side in ("left", "right"):
            made[f"{side}-hand-{kind}"] = rows = []
            for pattern in range(PATTERNS):
                encoder, seconds_made = ColumnEncoder("stream"), []
                rng = np.random.default_rng(pattern)
                for second in range(seconds):
                    at = (pattern * 977 + second * RATE_HZ) % max(1, len(values) - RATE_HZ)
                    ticks = (second * RATE_HZ + np.arange(RATE_HZ, dtype=np.int64)) * 1000
                    columns = {
                        "tick": ticks,
                        "values": np.ascontiguousarray(values[at : at + RATE_HZ]),
                        "frame_n": np.full(RATE_HZ // 10, 10, np.int32),
                        "arrival_ns": ticks[9::10] * 1000 + rng.integers(200_000, 900_000, RATE_HZ // 10),
                        "index": np.array([second * RATE_HZ], np.int64),
                    }
                    raw = sum(a.nbytes for a in columns.values())
                    seconds_made.append((encoder.encode(columns), raw))
                rows.append(seconds_made)
    return made


def rig_chunks(
    number: int, made: dict[str, list[list[tuple[bytes, int]]]], seconds: int
) -> list[list[Chunk]]:
    """A session of one rig: its manifest, then what it sends in each second."""
    names = {"site": SITE, "rig": f"rig-{number:05}", "boot": BOOT, "session": SESSION}
    own = StreamChain(stream="session", **names)
    pair = {
        "type": "clock", "t_ns": 0, "raw_ns": 1 << 50, "monotonic_ns": 1 << 50, "boottime_ns": 1 << 50,
        "realtime_ns": 1 << 60, "width_ns": 400, "ntp_synced": True, "ntp_max_error_us": 1000,
        "ntp_est_error_us": 100, "ntp_freq_ppm": 1.5,
    }  # fmt: skip

    sent = [[seal_records(own, [{"type": "open", "t_ns": 0, "v": 1, **names, "streams": []}])]]
    chains = {stream: StreamChain(stream=stream, man=own.man, **names) for stream in made}
    fit = ClockFit(0, 0, 12.5, 1000, 90_000, 4000.0, 0, True)
    for second in range(seconds):
        t_ns = second * 1_000_000_000
        group = [seal_records(own, [{**pair, "t_ns": t_ns}])]
        for stream, patterns in made.items():
            payload, raw = patterns[number % PATTERNS][second]
            group.append(
                chains[stream].seal(
                    kind="samples",
                    codec="columns-1",
                    payload=payload,
                    t0_ns=t_ns,
                    t1_ns=t_ns + 999_000_000,
                    n=RATE_HZ,
                    raw_bytes=raw,
                    fit=fit,
                )
            )
        sent.append(group)
    totals = {
        name: {"chunks": c.seq, "last_hash": c.prev, "samples": c.seq * RATE_HZ, "device_sent": None}
        for name, c in chains.items()
    }
    closing = {"type": "close", "t_ns": seconds * 10**9, "outcome": "complete", "streams": totals}
    return [*sent, [seal_records(own, [closing])]]


class Load:
    """Sends every rig's chunks and waits for every receipt."""

    def __init__(self, port: int, rigs: Sequence[list[list[Chunk]]]) -> None:
        self._rigs = rigs
        self._waiting: dict[bytes, float] = {}
        """Hash of a chunk's header, and when the chunk was sent."""
        self._packed: dict[bytes, tuple[int, str, bytes]] = {}
        self.latencies: list[float] = []
        self.late_s = 0.0
        self.resent = 0
        self.n_bytes = 0
        self._wires = [Wire(port, f"rig-{k}") for k in range(len(rigs))]
        self._ear = Ear(port)
        self._selector = selectors.DefaultSelector()
        for k, wire in enumerate([*self._wires, self._ear]):
            wire.socket.setblocking(False)
            self._selector.register(wire.socket, selectors.EVENT_READ, k)

    def paced(self) -> float:
        """Every rig sends once per second, at a phase of its own; returns the seconds taken."""
        started = time.monotonic()
        n = len(self._rigs)
        for second in range(max(map(len, self._rigs))):
            for k in range(n):
                due = started + second + k / n
                while (wait := due - time.monotonic()) > 0:
                    self._turn(wait)
                self.late_s = max(self.late_s, -wait)
                self._send(k, second)
        return self._finish(started)

    def flat_out(self, ahead: int) -> float:
        """As fast as receipts come; returns the seconds taken."""
        started = time.monotonic()
        for second in range(max(map(len, self._rigs))):
            for k in range(len(self._rigs)):
                self._send(k, second)
                while len(self._waiting) > ahead:
                    self._turn(0.1)
        return self._finish(started)

    def _send(self, k: int, second: int) -> None:
        if second >= len(self._rigs[k]):
            return
        now = time.monotonic()
        for chunk in self._rigs[k][second]:
            h = chunk.header
            topic = topics.topic(SITE, h.rig, topics.UP, h.stream)
            self._waiting[chunk.hash] = now
            self._packed[chunk.hash] = (k, topic, chunk.packed)
            self.n_bytes += len(chunk.packed)
            self._wires[k].publish(topic, chunk.packed)
        self._wires[k].send()
        self._turn(0)

    def _finish(self, started: float) -> float:
        heard, last = len(self._waiting), time.monotonic()
        while self._waiting:
            self._turn(0.1)
            if len(self._waiting) != heard:
                heard, last = len(self._waiting), time.monotonic()
            elif time.monotonic() - last > RESEND_S:  # the broker dropped them; rigs do the same
                for hash_ in self._waiting:
                    k, topic, packed = self._packed[hash_]
                    self._wires[k].publish(topic, packed)
                    self.resent += 1
                last = time.monotonic()
        return time.monotonic() - started

    def _turn(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.data < len(self._wires):
                with contextlib.suppress(BlockingIOError):
                    got = self._wires[key.data].socket.recv(1 << 16)
                    assert got, "the broker closed a rig's connection"
                    self._wires[key.data].acknowledged += len(got) // PUBACK_BYTES
                continue
            now = time.monotonic()
            for _, payload in self._ear.receipts():
                for id_ in decode_receipt(payload).ids():
                    at = self._waiting.pop(id_.hash, None)
                    self._packed.pop(id_.hash, None)
                    if at is not None:
                        self.latencies.append(now - at)
        for wire in self._wires:
            if wire.out:
                wire.send()

    def close(self) -> None:
        for wire in (*self._wires, self._ear):
            wire.socket.close()
        self._selector.close()


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def ingest_workers(n: int, store: str, broker: str, more: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    share = ["--share"] if n > 1 else []
    workers: list[subprocess.Popen[str]] = []
    try:
        for k in range(n):
            command = [sys.executable, "-m", "edgecap", "ingest", "--store", store, "--broker", broker]
            command += [*share, "--worker", f"w{k}", *more]
            workers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
            assert workers[-1].stderr is not None
            for line in workers[-1].stderr:
                if "connected" in line:
                    break
        yield workers
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            assert worker.stderr is not None
            said = worker.stderr.read().strip().splitlines()
            worker.stderr.close()
            worker.wait()
            print("\n".join(said[-3:]), file=sys.stderr)


def run(args: argparse.Namespace, directory: Path, rigs: list[list[list[Chunk]]]) -> dict[str, object]:
    store = args.store or str(directory / "store")
    options = "max_queued_messages 0\n" if args.flat_out else ""
    more = ["--gather", str(args.gather)] if args.gather else []
    with (
        LoopbackBroker(directory / "broker", program="mosquitto", options=options) as broker,
        ingest_workers(args.workers, store, broker.url, more) as workers,
    ):
        load = Load(broker.port, rigs)
        before = [cpu_of(pid) for pid in (broker.pid, *(w.pid for w in workers))]
        own = own_cpu_s()
        seconds = load.flat_out(args.ahead) if args.flat_out else load.paced()
        used = [
            cpu_of(pid) - b for pid, b in zip((broker.pid, *(w.pid for w in workers)), before, strict=True)
        ]
        own = own_cpu_s() - own
        rss_mb = [int(Path(f"/proc/{w.pid}/statm").read_text().split()[1]) * 4096 / 1e6 for w in workers]
        load.close()
    n, lat = len(load.latencies), sorted(load.latencies)
    ingest_s = sum(used[1:])
    return {
        "what": "flat-out" if args.flat_out else "paced",
        "store": "bucket" if "://" in store else "directory",
        "workers": args.workers,
        "rigs": args.rigs,
        "seconds": round(seconds, 1),
        "chunks": n,
        "chunks_s": round(n / seconds),
        "mb_s": round(load.n_bytes / seconds / 1e6, 2),
        "mb_s_per_ingest_core": round(load.n_bytes / ingest_s / 1e6, 1),
        "ingest_us_per_chunk": round(ingest_s / n * 1e6),
        "receipt_ms": [round(lat[min(n - 1, int(n * q))] * 1e3) for q in (0.5, 0.99, 1.0)],
        "sender_late_ms": round(load.late_s * 1e3),
        "resent": load.resent,
        "cores": {
            "ingest": [round(s / seconds, 2) for s in used[1:]],
            "broker": round(used[0] / seconds, 2),
            "generator": round(own / seconds, 2),
        },
        "ingest_rss_mb": [round(mb) for mb in rss_mb],
        **read_back(store, rigs),
    }


def read_back(store_url: str, rigs: list[list[list[Chunk]]]) -> dict[str, object]:
    """Every chunk must be in the store, verified, as it was sent."""
    wanted = {hashlib.sha256(c.packed).digest() for rig in rigs for group in rig for c in group}
    started = time.perf_counter()
    store = open_store(store_url)
    found, n_bytes = set(), 0
    for key in store.sessions():
        for chunk in store.chunks(key):
            found.add(hashlib.sha256(chunk.packed).digest())
            n_bytes += len(chunk.packed)
    seconds = time.perf_counter() - started
    store.close()
    return {"lost": len(wanted - found), "read_back_mb_s": round(n_bytes / seconds / 1e6, 1)}


def alone(args: argparse.Namespace, directory: Path, rigs: list[list[list[Chunk]]]) -> dict[str, object]:
    """Verify, append and commit from memory, a second of every rig per commit."""
    groups = [
        [
            (topics.topic(SITE, c.header.rig, topics.UP, c.header.stream), c.packed)
            for rig in rigs
            for c in rig[second]
        ]
        for second in range(len(rigs[0]))
    ]
    store = open_store(args.store or str(directory / "store"), create=True, worker="alone")
    n, n_bytes = sum(map(len, groups)), sum(len(packed) for group in groups for _, packed in group)
    own, started = own_cpu_s(), time.perf_counter()
    for group in groups:
        store.append([verify_message(topic, packed) for topic, packed in group])
        store.commit()
    seconds, own = time.perf_counter() - started, own_cpu_s() - own
    store.close()
    return {
        "what": "alone",
        "store": "bucket" if args.store and "://" in args.store else "directory",
        "rigs": args.rigs,
        "chunks_s": round(n / seconds),
        "mb_s": round(n_bytes / seconds / 1e6, 1),
        "mb_s_per_core": round(n_bytes / own / 1e6, 1),
        "us_per_chunk": round(own / n * 1e6),
        "commits": len(groups),
        "commit_and_all_ms": round(seconds / len(groups) * 1e3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rigs", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--flat-out", action="store_true")
    parser.add_argument("--ahead", type=int, default=8000, help="chunks without receipt when flat out")
    parser.add_argument("--alone", action="store_true", help="no broker: verify and store from memory")
    parser.add_argument("--gather", type=float, help="as `edgecap ingest --gather`")
    parser.add_argument("--store", help="directory or s3://bucket/prefix; default: a temporary directory")
    parser.add_argument("--dir", type=Path, help="where the temporary directory goes")
    args = parser.parse_args()
    made = payloads(args.seconds)
    rigs = [rig_chunks(k, made, args.seconds) for k in range(args.rigs)]
    chunks = [c for rig in rigs for group in rig for c in group]
    sensors = [len(c.packed) for c in chunks if c.header.kind == "samples"]
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        result = (alone if args.alone else run)(args, Path(directory), rigs)
    result["bytes_per_sensor_chunk"] = round(sum(sensors) / len(sensors))
    result["kb_s_per_rig"] = round(sum(len(c.packed) for c in chunks) / len(rigs) / args.seconds / 1e3, 2)
    print(json.dumps(result))
    return 1 if result.get("lost") else 0


if __name__ == "__main__":
    sys.exit(main())
