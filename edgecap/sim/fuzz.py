"""Feeds spoiled bytes to everything that takes bytes in, and holds what is accepted against what is valid."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecap.codec import wire
from edgecap.codec.chunk import MAX_CHUNK_BYTES, unpack_chunk
from edgecap.codec.columns import ColumnDecoder, ColumnEncoder
from edgecap.codec.receipt import decode_receipt, encode_receipts
from edgecap.codec.records import decode_records, encode_records
from edgecap.codec.video import decode_units, encode_units, join_units
from edgecap.errors import EdgecapError
from edgecap.ingest.verify import verify_message
from edgecap.model import Gap, Item, SampleBlock
from edgecap.sim import mutants
from edgecap.source.deframer import Deframer
from edgecap.source.descriptors import DeviceInfo
from edgecap.source.frames import Ack, Hello, parse_frame
from edgecap.source.intake import Intake
from edgecap.source.item_queue import ItemQueue
from edgecap.spool import Spool
from edgecap.spool.segment import Damage, Record, record_header, scan
from edgecap.status import CommandInbox

CPU_LIMIT_S = 1.0
"""Per input; the slowest valid chunk takes milliseconds."""
MEMORY_LIMIT_BYTES = 192 << 20
"""Per input, at its peak: the largest table that the columns format admits (2²² elements), and copies."""
MEASURED_EVERY = 256
"""Memory is traced for one input in so many: tracing is slow."""


class FuzzError(AssertionError):
    """Bytes were treated wrongly; names target, seed and number, which make the input again."""


class Target(ABC):
    """Something that takes bytes in."""

    name = ""

    @abstractmethod
    def make(self, rng: random.Random) -> bytes:
        """A spoiled input."""

    @abstractmethod
    def feed(self, data: bytes) -> bool:
        """Whether `data` was accepted; `EdgecapError` is a refusal, an AssertionError a wrong acceptance."""

    def close(self) -> None:
        """Clear away what it has made."""
        return


class ChunkTarget(Target):
    """Messages on `up/{stream}`: verified as ingest does."""

    name = "chunk"

    def __init__(self) -> None:
        self._chunks = mutants.sealed_chunks()
        self._packed = [c.packed for c in self._chunks]
        self._payloads = {c.payload for c in self._chunks}
        self._fields = [wire.unpack(c.header_bytes, what="", max_bytes=1 << 20) for c in self._chunks]
        self._topic = ""

    def make(self, rng: random.Random) -> bytes:
        number = rng.randrange(len(self._chunks))
        chunk = self._chunks[number]
        self._topic = f"edgecap/v1/{mutants.SITE}/{mutants.RIG}/up/{chunk.header.stream}"
        if rng.random() < 0.35:
            return mutants.reheaded(chunk, mutants.respell(rng, self._fields[number]))
        return mutants.spoil(rng, chunk.packed, self._packed)

    def feed(self, data: bytes) -> bool:
        chunk = verify_message(self._topic, data)
        assert len(data) <= MAX_CHUNK_BYTES
        assert chunk.packed == data
        # A payload can only be one that was sealed; a header may differ, but then its hash does too.
        assert chunk.payload in self._payloads
        again = wire.pack(msgspec.to_builtins(chunk.header, builtin_types=(bytes,)))
        repacked = unpack_chunk(wire.pack([1, again, chunk.payload, chunk.signature]))
        assert repr(repacked.header) == repr(chunk.header)
        return True


class ReceiptTarget(Target):
    """What lets the spool release chunks."""

    name = "receipt"

    def __init__(self) -> None:
        self._valid = mutants.receipts()
        self._trees = [wire.unpack(r, what="", max_bytes=1 << 20) for r in self._valid]

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return wire.pack(mutants.respell(rng, rng.choice(self._trees)))
        return mutants.spoil(rng, rng.choice(self._valid), self._valid)

    def feed(self, data: bytes) -> bool:
        receipt = decode_receipt(data)
        ids = set(receipt.ids())
        assert all(len(i.hash) == 32 and i.seq >= 0 for i in ids)
        again = encode_receipts(ids, worker="w", t_utc_ns=1)
        assert {i for part in again for i in decode_receipt(part).ids()} == ids
        return True


class CommandTarget(Target):
    """Commands over MQTT."""

    name = "command"

    def __init__(self) -> None:
        self._valid = mutants.commands()
        self._trees = [json.loads(c) for c in self._valid]

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            tree = mutants.respell(rng, rng.choice(self._trees))
            return json.dumps(tree, default=str).encode()
        return mutants.spoil(rng, rng.choice(self._valid), self._valid)

    def feed(self, data: bytes) -> bool:
        inbox = CommandInbox()
        command = inbox.accept(data, utc_s=1e9)
        assert 0 < len(command.id) <= 64
        assert all(isinstance(k, str) and isinstance(v, str) for k, v in command.args.items())
        try:
            inbox.accept(data, utc_s=1e9)
        except EdgecapError:
            return True
        raise AssertionError("a command was obeyed twice")


class _Items(ItemQueue):
    """Keeps what is put in for the target to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Item] = []

    def put(self, item: Item) -> None:
        self.found.append(item)


class _Listener:
    """What the intake tells of, ignored."""

    def on_hello(self, hello: Hello) -> None: ...

    def on_ack(self, ack: Ack) -> None: ...

    def on_restart_suspected(self) -> None: ...


class _Line:
    """A deframer and an intake as the serial source has them."""

    def __init__(self) -> None:
        self.queue, self.deframer = _Items(), Deframer()
        self.intake = Intake("hand", self.queue, self.deframer, _Listener())
        self.intake.describe(DeviceInfo(7, "fw", "sn", (mutants.IMU, mutants.LOAD)), "hand")
        self.now_ns = 10**12
        self.begin()

    def begin(self) -> None:
        self.deframer.clear()
        self.intake.begin(self.now_ns)

    def read(self, data: bytes) -> list[Item]:
        for at in range(0, len(data), 700):
            part = data[at : at + 700]
            self.deframer.space()[: len(part)] = part
            self.now_ns += 1_000_000
            self.deframer.filled(len(part), self.now_ns)
            self.intake.process(self.deframer.take())
        found, self.queue.found = self.queue.found, []
        return found


class LineTarget(Target):
    """Raw bytes of a serial line: no CRC survives by chance, so what comes through was sent."""

    name = "serial line"

    def __init__(self) -> None:
        self._frames = [mutants.device_frame(k, p, seq) for seq, (k, p) in enumerate(mutants.device_bodies())]
        self._line = _Line()
        self._fed = 0

    def make(self, rng: random.Random) -> bytes:
        frames = [
            f if rng.random() < 0.7 else mutants.spoil(rng, f, self._frames, 3000) for f in self._frames
        ]
        data = b"".join(frames)
        return mutants.spoil(rng, data, self._frames, 6000) if rng.random() < 0.3 else data

    def feed(self, data: bytes) -> bool:
        self._fed += 1
        if self._fed % 500 == 0:
            self._line = _Line()
        self._line.begin()
        # Delimiters end whatever the last input left unfinished.
        accepted = False
        for item in self._line.read(data + b"\0"):
            if isinstance(item, SampleBlock):
                accepted = True
                n = len(item.ticks)
                expected = np.arange(item.index, item.index + n) % 30_000
                assert item.stream == "hand-imu"
                assert np.array_equal(item.values[:, 0], expected)
                assert np.array_equal(item.values[:, 1], expected)
                assert int(item.frame_n.sum()) == n
            elif isinstance(item, Gap):
                assert item.t0_ns <= item.t1_ns
        return accepted


class FrameTarget(Target):
    """Frames whose content is spoiled and whose CRC is right: a faulty or hostile device."""

    name = "serial frame"

    def __init__(self) -> None:
        self._bodies = mutants.device_bodies()
        self._payloads = [p for _, p in self._bodies]
        self._line = _Line()
        self._fed = 0
        self._parts: list[tuple[int, bytes]] = []

    def make(self, rng: random.Random) -> bytes:
        self._parts = []
        out = bytearray()
        for seq in range(3):
            kind, payload = rng.choice(self._bodies)
            payload = mutants.spoil(rng, payload, self._payloads, 1000)
            if rng.random() < 0.1:
                kind = rng.randrange(256)
            self._parts.append((kind, payload))
            out += mutants.device_frame(kind, payload, rng.choice((seq, rng.getrandbits(32))))
        return bytes(out)

    def feed(self, data: bytes) -> bool:
        self._fed += 1
        if self._fed % 500 == 0:
            self._line = _Line()
        self._line.begin()
        accepted = False
        for item in self._line.read(data):
            if isinstance(item, SampleBlock):
                accepted = True
                assert len(item.ticks) == len(item.values) == int(item.frame_n.sum())
        for kind, payload in self._parts:
            try:
                frame = parse_frame(kind, payload)
            except EdgecapError:
                continue
            if frame is not None:
                # Later versions append fields: what is understood is the front of what was said.
                assert type(frame).parse(frame.pack()) == frame or b"\x7f" in payload or b"\xff" in payload
        return accepted


class _Bytes:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, offset: int, n: int) -> bytes:
        return self.data[offset : offset + n]

    def size(self) -> int:
        return len(self.data)

    def write_at(self, offset: int, parts: Sequence[bytes]) -> None:
        raise OSError("read only")

    def truncate(self, size: int) -> None:
        raise OSError("read only")

    def sync(self) -> None: ...

    def close(self) -> None: ...


class SegmentTarget(Target):
    """Segment files of spool and store: every record found was written, whole."""

    name = "segment"

    def __init__(self) -> None:
        self._file, bodies = mutants.segment_file()
        self._bodies = set(bodies)
        self._list = bodies
        self._sealed: set[bytes] = set()

    def make(self, rng: random.Random) -> bytes:
        self._sealed = set()
        if rng.random() < 0.2:  # a record whose CRC is right, whatever it says
            body = mutants.spoil(rng, rng.choice(self._list), self._list)[:5000] or b"x"
            self._sealed = {body}
            at = len(self._file)
            head = record_header(rng.choice((0, 1, 2, 255)), rng.getrandbits(63), 5, at, body)
            return self._file + head + body
        return mutants.spoil(rng, self._file, self._list)

    def feed(self, data: bytes) -> bool:
        records, covered = 0, 0
        for part in scan(_Bytes(data)):
            if isinstance(part, Record):
                records += 1
                assert part.body in self._bodies or part.body in self._sealed
                assert part.offset >= covered
                covered = part.end
            elif isinstance(part, Damage):
                assert part.offset >= covered
                covered = part.offset + part.length
        assert covered <= len(data)
        return records == len(self._list)


class SpoolTarget(Target):
    """A whole spool as a damaged card may give it back: it opens, and gives out only what was put in."""

    name = "spool"

    def __init__(self) -> None:
        self._chunks = mutants.sealed_chunks()
        self._packed = {c.packed for c in self._chunks}
        shm = Path("/dev/shm")  # noqa: S108 - a private directory is made in it
        self._scratch = tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None)
        self._dir = Path(self._scratch.name)
        with Spool.open(self._dir / "whole", reserve_bytes=1) as spool:
            for chunk in self._chunks:
                spool.append(chunk)
            spool.sync()
            spool.release([self._chunks[2].id])
        self._files = {p.name: p.read_bytes() for p in (self._dir / "whole").iterdir() if p.is_file()}
        self._names = [n for n in self._files if not n.startswith("lock")]
        self._victim = ""

    def close(self) -> None:
        self._scratch.cleanup()

    def make(self, rng: random.Random) -> bytes:
        self._victim = rng.choice(self._names)
        return mutants.spoil(rng, self._files[self._victim], list(self._files.values()))

    def feed(self, data: bytes) -> bool:
        path = self._dir / "damaged"
        path.mkdir()
        try:
            for name, content in self._files.items():
                (path / name).write_bytes(data if name == self._victim else content)
            try:
                spool = Spool.open(path, reserve_bytes=1)
            except EdgecapError as error:
                raise AssertionError(f"damage keeps the daemon from starting: {error}") from error
            with spool:
                found = spool.pending(100)
                assert all(spool.read(entry.id) in self._packed for entry in found)
                spool.append(self._chunks[0])
                spool.sync()
                assert {e.id for e in spool.pending(100)} >= {e.id for e in found}
                return len(found) >= len(self._chunks) - 1
        finally:
            shutil.rmtree(path)


class ColumnsTarget(Target):
    """Payloads of samples, in order and out of it."""

    name = "columns"

    def __init__(self) -> None:
        self._streams = mutants.column_payloads()
        self._all = [p for stream in self._streams for p in stream]
        self._before: list[bytes] = []

    def make(self, rng: random.Random) -> bytes:
        stream = rng.choice(self._streams)
        number = rng.randrange(len(stream))
        self._before = stream[:number]
        return mutants.spoil(rng, stream[number], self._all)

    def feed(self, data: bytes) -> bool:
        decoder = ColumnDecoder()
        for payload in self._before:
            decoder.decode(payload)
        tables = decoder.decode(data)
        # No checksum is in the payload (the chunk has a hash): what decodes must be sound, and encode again.
        encoder = ColumnEncoder("fast")
        again = ColumnDecoder().decode(encoder.encode(tables))
        assert list(again) == list(tables)
        for name, column in tables.items():
            assert column.dtype == again[name].dtype
            assert column.tobytes() == again[name].tobytes()
        return True


class RecordsTarget(Target):
    """Payloads of the session's own stream."""

    name = "records"

    def __init__(self) -> None:
        self._maps = mutants.record_maps()
        self._valid = encode_records(self._maps)

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return wire.pack(mutants.respell(rng, self._maps))
        return mutants.spoil(rng, self._valid, [self._valid])

    def feed(self, data: bytes) -> bool:
        records = decode_records(data)
        assert repr(decode_records(encode_records(records))) == repr(records)
        return True


class VideoTarget(Target):
    """Payloads of cameras."""

    name = "video"

    def __init__(self) -> None:
        self._valid = encode_units(mutants.video_units())
        self._tree = wire.unpack(self._valid, what="", max_bytes=1 << 20)

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return wire.pack(mutants.respell(rng, self._tree))
        return mutants.spoil(rng, self._valid, [self._valid])

    def feed(self, data: bytes) -> bool:
        units = decode_units(data)
        assert decode_units(encode_units(units)) == units
        assert sum(len(u.data) for u in join_units(units)) <= len(data)
        return True


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "chunk": (ChunkTarget, 26),
    "receipt": (ReceiptTarget, 14),
    "command": (CommandTarget, 14),
    "serial line": (LineTarget, 8),
    "serial frame": (FrameTarget, 10),
    "segment": (SegmentTarget, 10),
    "columns": (ColumnsTarget, 8),
    "spool": (SpoolTarget, 1),
    "records": (RecordsTarget, 5),
    "video": (VideoTarget, 5),
}
"""Every target, with its share of about a hundred inputs."""


@dataclass(slots=True)
class Tally:
    """What a run of inputs came to."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    cpu_s: float = 0.0
    slowest_ms: float = 0.0
    peak_bytes: int = 0
    """Most memory that a measured input took."""

    def join(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.accepted += other.accepted
        self.refused += other.refused
        self.cpu_s += other.cpu_s
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)


def run_inputs(target: Target, seed: int, first: int, count: int) -> Tally:
    """Make and feed inputs number `first` onwards; each is made anew from seed, target and its number.

    Raises:
        FuzzError: an input was treated wrongly, took too long or too much memory.
    """
    tally = Tally()
    rng = random.Random()
    for number in range(first, first + count):
        rng.seed(f"{seed}/{target.name}/{number}")
        data = target.make(rng)
        measured = number % MEASURED_EVERY == 0
        if measured:
            tracemalloc.start(1)
        started = time.thread_time()
        try:
            accepted = target.feed(data)
        except EdgecapError:
            accepted = False
        except Exception as error:
            raise _fault(target, seed, number, data, f"{type(error).__name__}: {error}") from error
        finally:
            took_s = time.thread_time() - started
            if measured:
                tally.peak_bytes = max(tally.peak_bytes, tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
        if took_s > CPU_LIMIT_S and not measured:
            raise _fault(target, seed, number, data, f"took {took_s:.1f} s of CPU")
        if tally.peak_bytes > MEMORY_LIMIT_BYTES:
            raise _fault(target, seed, number, data, f"took {tally.peak_bytes / 1e6:.0f} MB")
        tally.inputs += 1
        tally.accepted += accepted
        tally.refused += not accepted
        tally.cpu_s += took_s
        tally.slowest_ms = max(tally.slowest_ms, 1e3 * took_s)
    return tally


def _fault(target: Target, seed: int, number: int, data: bytes, what: Any) -> FuzzError:
    return FuzzError(
        f"{target.name}, seed {seed}, input {number} ({len(data)} bytes {data[:80].hex()}…): {what}"
    )
