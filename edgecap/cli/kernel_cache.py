"""Whether every kernel is in the cache, by times and sizes of files: loading numba to see takes a second."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import edgecap

log = logging.getLogger("edgecap.kernels")

KERNELS = Path(edgecap.__file__).parent / "kernels"
STAMP = "complete"
"""Written beside the compiled kernels once all of them are there: a digest of what they depend on."""
COMPILER_BYTES = 600 << 20
"""Two compilers' memory, with something to spare."""
PROCESSOR = ("model name", "flags", "Features", "CPU implementer", "CPU variant", "CPU part")
"""Lines of /proc/cpuinfo that tell for which processor code was generated."""


def is_complete() -> bool:
    """Whether `mark_complete` was called and nothing that compiled kernels depend on has changed since.

    A wrong answer costs time, nothing else: numba looks at each kernel once more when it is loaded.
    """
    for folder in _folders():
        with contextlib.suppress(OSError):
            if (folder / STAMP).read_text() == _digest(folder):
                return True
    return False


def mark_complete(folder: Path) -> None:
    """State that every kernel is in `folder`."""
    new = folder / f"{STAMP}.{os.getpid()}"
    with contextlib.suppress(OSError):  # then the next start looks again
        new.write_text(_digest(folder))
        new.replace(folder / STAMP)


def compile_missing() -> None:
    """Have missing kernels compiled in a process of its own: the compiler keeps a quarter of a GB for good.

    What it is at is logged and shown as the service's status. SIGTERM ends it, and this program.
    """
    if is_complete() or not _is_writable():
        return
    from edgecap.service import notify_systemd

    command = [sys.executable, "-m", "edgecap", "warmup"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            assert process.stderr is not None
            for line in process.stderr:
                log.info("%s", line.rstrip())
                notify_systemd(f"STATUS=loading kernels, compiling what is new: {line.rstrip()}")
        finally:
            signal.signal(signal.SIGTERM, before)
    if process.returncode == -signal.SIGTERM:
        raise SystemExit(0)
    if process.returncode:
        log.warning("`edgecap warmup` ended with %d: this start compiles by itself", process.returncode)


@contextlib.contextmanager
def compile_beside(module: str) -> Iterator[subprocess.Popen[bytes] | None]:
    """Have a second process compile a module's kernels meanwhile; None without a core and memory for it.

    It is a head start only: who needs the kernels compiles what is not cached. SIGTERM ends both.
    """
    if len(os.sched_getaffinity(0)) < 2 or not _is_writable() or _available_bytes() < COMPILER_BYTES:
        yield None
        return
    code = (
        f"import gc, importlib; kernels = importlib.import_module({module!r}); gc.freeze(); kernels.warm_up()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:

        def stop(*_: object) -> None:
            process.terminate()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield process
        except BaseException:
            process.terminate()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


def _available_bytes() -> int:
    """Memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _folders() -> Iterator[Path]:
    """Where compiled kernels may lie."""
    cache = os.environ.get("NUMBA_CACHE_DIR")
    if not cache:
        yield KERNELS / "__pycache__"
        return
    with contextlib.suppress(OSError):
        yield from sorted(Path(cache).iterdir())


def _is_writable() -> bool:
    """Whether what another process compiles would be found here afterwards."""
    cache = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(cache) if cache else KERNELS / "__pycache__"
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def _digest(folder: Path) -> str:
    """Of the interpreter, numba, the processor, the kernels' sources and what lies in `folder`."""
    told = [sys.version, platform.machine(), *map(importlib.metadata.version, ("numba", "llvmlite"))]
    told += [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("NUMBA_") and "CACHE" not in k]
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        told += [line for line in first.splitlines() if line.startswith(PROCESSOR)]
    for path in (*sorted(KERNELS.glob("*.py")), *sorted(folder.glob("*.nb[ic]"))):
        stat = path.stat()
        # sooner known than what the sources hold, which decides in the end (`kernels/compile.py`)
        told.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns if path.suffix == '.py' else ''}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
