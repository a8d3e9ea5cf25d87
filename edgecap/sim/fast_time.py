"""Whole programs in fast time: what is preloaded into them divides every wait and multiplies every clock."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from edgecap import clock
from edgecap.errors import SourceError
from edgecap.sim.firmware_build import default_build_dir, find_compiler

SOURCE = Path(__file__).with_name("fast_time.c")
_PACE = struct.Struct("<4q")
"""Writes so far, begin (real rig time), how far ahead then, speed: `struct pace` of the library."""


class FastTime:
    """A time of its own for the programs started with `environ`; a context manager. It begins at real speed.

    Args:
        directory: For the file through which the programs learn their pace.
        build_dir: Where the preloaded library is kept; beside the firmware's builds if None.
    """

    def __init__(self, directory: Path, build_dir: Path | None = None) -> None:
        self._library = build_fast_time(build_dir)
        self._path = directory / "pace"
        self._path.write_bytes(_PACE.pack(0, clock.now_ns(), 0, 1))
        with self._path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _PACE.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shared.close()

    @property
    def speed(self) -> int:
        """How many seconds pass for the programs in a real one."""
        return int(_PACE.unpack(self._shared)[3])

    @speed.setter
    def speed(self, value: int) -> None:
        writes, *_ = _PACE.unpack(self._shared)
        now_ns = clock.now_ns()
        ahead_ns = self.now_ns(now_ns) - now_ns
        # A reader takes nothing while the first number is odd; each number is written as a whole.
        for at, number in ((0, writes + 1), (1, now_ns), (2, ahead_ns), (3, value), (0, writes + 2)):
            self._shared[at * 8 : at * 8 + 8] = number.to_bytes(8, "little")

    def now_ns(self, real_ns: int | None = None) -> int:
        """The programs' rig clock, now or at a real rig time."""
        real_ns = clock.now_ns() if real_ns is None else real_ns
        _, since_ns, ahead_ns, speed = _PACE.unpack(self._shared)
        return int(real_ns + ahead_ns + (real_ns - since_ns) * (speed - 1))

    def environ(self) -> dict[str, str]:
        """The environment of programs that live in this time; they pass it on to their children."""
        return {**os.environ, "LD_PRELOAD": str(self._library), "FAST_TIME": str(self._path)}

    def starter(self, program: Path, at: Path) -> Path:
        """Write to `at` a script that is `program` in this time, for those who start programs by path."""
        settings = f"LD_PRELOAD='{self._library}' FAST_TIME='{self._path}'"
        at.write_text(f"#!/bin/sh\nexport {settings}\nexec '{program}' \"$@\"\n")
        at.chmod(0o755)
        return at


def build_fast_time(build_dir: Path | None = None) -> Path:
    """Compile the library unless it is there already. Raises `SourceError` with what the compiler said."""
    compiler = find_compiler()
    digest = hashlib.sha256(compiler.encode() + SOURCE.read_bytes()).hexdigest()[:16]
    library = (build_dir or default_build_dir()) / f"fast-time-{digest}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch) / library.name
        command = [*compiler.split(), "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        done = subprocess.run(
            [*command, "-o", str(made), str(SOURCE), "-ldl"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SourceError(
                f"{SOURCE.name} does not build with {compiler}: {done.stderr.strip()}",
                fix="it needs Linux and glibc 2.34 or newer",
            )
        made.replace(library)
    return library
