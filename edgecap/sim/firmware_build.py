"""Builds the host program of the device firmware from hw/firmware; keeps it until the sources change."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from edgecap.errors import SourceError

SOURCES = Path(__file__).parents[2] / "hw" / "firmware"
COMPILERS = ("cc", "gcc", "clang")
_BUILD_TIMEOUT_S = 120.0


def find_compiler() -> str:
    """The C compiler: $CC, cc, gcc or clang. Raises `SourceError` if there is none."""
    for name in (os.environ.get("CC", ""), *COMPILERS):
        if name and shutil.which(name.split()[0]):
            return name
    raise SourceError(
        "no C compiler: looked for $CC, " + ", ".join(COMPILERS),
        fix="install one (Debian: apt install gcc) or set CC",
    )


def default_build_dir() -> Path:
    """Where binaries are kept between runs: `edgecap/firmware` under $XDG_CACHE_HOME or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "edgecap" / "firmware"


def _source_hash(sources: Path, compiler: str) -> str:
    digest = hashlib.sha256(compiler.encode())
    for path in sorted([sources / "Makefile", *sources.glob("core/*.[ch]"), *sources.glob("host/*.[ch]")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build_firmware(build_dir: Path | None = None, *, sanitize: bool = False, sources: Path = SOURCES) -> Path:
    """Build the host firmware unless a binary of exactly these sources is there already.

    Args:
        build_dir: Where to keep it; `default_build_dir()` if None.
        sanitize: Build with the address and undefined-behaviour sanitizers.
        sources: The folder with the Makefile.

    Returns:
        Path of the program. Safe against other processes that build the same at the same time.

    Raises:
        SourceError: No sources, no compiler, no make, or the compiler fails.
    """
    if not (sources / "Makefile").is_file():
        raise SourceError(
            f"the firmware's sources are not at {sources}",
            fix="run edgecap from a checkout of its repository",
        )
    compiler = find_compiler()
    target = "sanitize" if sanitize else "host"
    name = "edgecap-fw-host-sanitize" if sanitize else "edgecap-fw-host"
    folder = (build_dir or default_build_dir()) / _source_hash(sources, compiler)
    binary = folder / name
    if binary.is_file():
        return binary
    make = shutil.which("make")
    if make is None:
        raise SourceError("`make` is not installed", fix="install it (Debian: apt install make)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:  # not in `folder`: make cannot cope with spaces
            command = [make, "-s", "-C", str(sources), target, f"BUILD={scratch}", f"CC={compiler}"]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=_BUILD_TIMEOUT_S,
                env=_make_env(),
            )
            if done.returncode != 0:
                raise SourceError(
                    f"the firmware does not build with {compiler}: {telling_line(done.stderr)}",
                    fix=f"run `make -C {sources}` to see why, or choose a compiler with CC",
                    stderr=done.stderr,
                )
            finished = folder / f".{name}-{os.getpid()}-{threading.get_ident()}"
            shutil.copy2(Path(scratch) / name, finished)
            finished.replace(binary)
    except OSError as error:
        raise SourceError(
            f"cannot build the firmware in {folder}: {error.strerror}", fix="free or choose a folder"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"building the firmware took more than {_BUILD_TIMEOUT_S:.0f} s") from error
    return binary


def _make_env() -> dict[str, str]:
    """Without the flags of a `make` that may be running us."""
    return {
        key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    }


def telling_line(text: str) -> str:
    """The line of what a program printed that tells best what went wrong: its first with `error`."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line]
    return (errors or lines or ["no message"])[0].strip()
