"""A process that works on a spool until it is killed: `python -m tests.fault.power_writer DIR SEED WHAT`.

It says what it does on stdout: `put K T` when chunk K was handed over at rig time T, `durable N T` when the
first N chunks are promised to survive. WHAT is `honest`; or `lying`: fdatasync is left out, so the promises
are false; or `recovery`: it opens the spool, says `recovering` and `recovered` with its chunks, and idles.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from edgecap import clock
from edgecap.codec.chunk import Chunk
from edgecap.spool import Spool
from edgecap.spool.files import OsFile, OsFiles
from edgecap.spool.writer import SpoolWriter
from tests.chunks import SessionMaker

CHUNK_BYTES = (300, 40_000)
PAUSE_S = 0.01


class LyingFile(OsFile):
    """A file whose data stays in the page cache."""

    def sync(self) -> None:
        pass


class LyingFiles(OsFiles):
    """The operating system's files without fdatasync."""

    def create(self, path: Path) -> OsFile:
        return LyingFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))

    def open(self, path: Path, *, write: bool = False) -> OsFile:
        return LyingFile(os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC))


def chunks(seed: int) -> Iterator[Chunk]:
    """The same chunks for the same seed, without end, so that another process knows what to find."""
    maker, sizes = SessionMaker(seed=seed), random.Random(seed)
    yield maker.open()
    while True:
        yield maker.data(sizes.choice(("left-imu", "head-cam")), sizes.randint(*CHUNK_BYTES))


async def record(path: Path, seed: int, *, lying: bool) -> None:
    durable = 0

    def on_durable(n: int) -> None:
        nonlocal durable
        durable += n
        say("durable", durable)

    files = LyingFiles() if lying else OsFiles()
    with Spool.open(path, reserve_bytes=0, segment_bytes=8 << 20, files=files) as spool:
        async with SpoolWriter(spool, durable=on_durable) as writer:
            for k, chunk in enumerate(chunks(seed)):
                await writer.put(chunk)
                say("put", k)
                await asyncio.sleep(PAUSE_S)


def recover(path: Path) -> None:
    say("recovering", 0)
    with Spool.open(path, reserve_bytes=0, segment_bytes=8 << 20) as spool:
        say("recovered", spool.recovery.chunks)
        signal.pause()


def say(what: str, n: int) -> None:
    os.write(1, f"{what} {n} {clock.now_ns()}\n".encode())


if __name__ == "__main__":
    if sys.argv[3] == "recovery":
        recover(Path(sys.argv[1]))
    asyncio.run(record(Path(sys.argv[1]), int(sys.argv[2]), lying=sys.argv[3] == "lying"))
