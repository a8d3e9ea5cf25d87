"""Whole programs in fast time: what is preloaded into them divides every wait and multiplies every clock."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

from edgecap.errors import SourceError
from edgecap.sim.firmware import default_build_dir, find_compiler

SOURCE = Path(__file__).with_name("fast_time.c")


class FastTime:
    """Time that runs `speed` times as fast for the programs started with `environ`.

    Args:
        speed: A whole number; what takes a machine 1/`speed` of a second takes the programs a second.
        build_dir: Where the preloaded library is kept; beside the firmware's builds if None.
    """

    def __init__(self, speed: int, build_dir: Path | None = None) -> None:
        self.speed = speed
        self._library = build_fast_time(build_dir)
        self._origin_s = int(time.time())

    def environ(self) -> dict[str, str]:
        """The environment of programs that live in this time; they pass it on to their children."""
        fast = {
            "LD_PRELOAD": str(self._library),
            "FAST_TIME": str(self.speed),
            "FAST_TIME_ORIGIN": str(self._origin_s),
        }
        return {**os.environ, **fast}

    def starter(self, program: Path, at: Path) -> Path:
        """A script at `at` that is `program` in fast time, for those who start programs by their path."""
        lines = [f"export {name}='{value}'" for name, value in self.environ().items() if name in _OURS]
        at.write_text("\n".join(["#!/bin/sh", *lines, f"exec '{program}' \"$@\"", ""]))
        at.chmod(0o755)
        return at

    def now_s(self) -> float:
        """The programs' monotonic clock."""
        return time.monotonic() * self.speed


_OURS = ("LD_PRELOAD", "FAST_TIME", "FAST_TIME_ORIGIN")


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
