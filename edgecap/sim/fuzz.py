"""Feeds spoiled bytes to everything that takes bytes in, and holds what is accepted against what is valid."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgecap.errors import EdgecapError
from edgecap.sim.fuzz_files import SegmentTarget, SpoolTarget
from edgecap.sim.fuzz_messages import ChunkTarget, CommandTarget, ReceiptTarget
from edgecap.sim.fuzz_payloads import ColumnsTarget, RecordsTarget, VideoTarget
from edgecap.sim.fuzz_serial import FrameTarget, LineTarget
from edgecap.sim.fuzz_target import FuzzError, Target

CPU_LIMIT_S = 1.0
"""Per input; the slowest valid chunk takes milliseconds."""
MEMORY_LIMIT_BYTES = 192 << 20
"""Per input, at its peak: the largest table that the columns format admits (2²² elements), and copies."""
MEASURED_EVERY = 256
"""Memory is traced for one input in so many: tracing is slow."""

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
