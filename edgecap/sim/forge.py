"""Starts `edgecap` programs by forking a process that has everything imported: a start costs milliseconds.

Only the start differs from `python -m edgecap …`: each program is a process of its own, killed and awaited
like any other. With `fresh=True` it is executed anew, imports and all.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgecap.errors import EdgecapError

READY_S = 300.0
"""Kernels that nobody has compiled yet take their time."""
STOP_S = 20.0
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000
_PRELOADED = (
    "edgecap.daemon.recovery",
    "edgecap.daemon.reporting",
    "edgecap.daemon.rig",
    "edgecap.ingest.local_store",
    "edgecap.ingest.worker",
    "edgecap.mqtt",
    "edgecap.source.serial_mcu",
    "edgecap.spool.writer",
    "edgecap.status",
    "edgecap.uplink",
)


class ForgeError(EdgecapError):
    """A program could not be started."""


class ForgedProcess:
    """A running program, started by a `Forge`."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid, self.log = pid, log
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already
            self._fd = -1

    @property
    def is_alive(self) -> bool:
        if self._fd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._fd, 0)
        except ProcessLookupError:
            self._close()
            return False
        return True

    def send(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    async def wait(self) -> None:
        """Until it has ended."""
        if not self.is_alive:
            return
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._fd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._fd)
        self._close()

    async def stop(self, at_most_s: float = STOP_S) -> bool:
        """Ask it to end, and make it end; whether it did by itself."""
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(at_most_s):
                await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.wait()
            return False
        return True

    def last_words(self) -> str:
        """The end of its log, as one line."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return " | ".join(lines[-6:]) or "it said nothing"

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Forge:
    """A context manager around the process that forks; its children end with it.

    Args:
        environ: What it and its programs find as their environment; by default ours.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgecap.sim.forge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C ends the harness, which ends its programs in order
            # OpenBLAS starts threads on import, which a fork would not take along.
            env={**self._environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(READY_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def start(
        self, args: Sequence[str], log: Path, *, namespace: Path | None = None, fresh: bool = False
    ) -> ForgedProcess:
        """Run `edgecap ARGS`, its words added to `log`, in a network namespace if one is named."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        order = {
            "args": list(args),
            "log": str(log),
            "namespace": str(namespace) if namespace else "",
            "fresh": fresh,
        }
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise ForgeError(f"the process that starts programs has ended with code {process.wait()}")
        return ForgedProcess(json.loads(line)["pid"], log)


def _become(order: dict[str, Any]) -> None:
    """In the child: be the program; never returns."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # it died before we could ask to be told
        os._exit(1)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if order["namespace"]:
        fd = os.open(order["namespace"], os.O_RDONLY)
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            sys.stderr.write(f"cannot enter {order['namespace']}: {os.strerror(ctypes.get_errno())}\n")
            os._exit(1)
        os.close(fd)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if order["fresh"]:
        os.closerange(3, 256)
        os.execv(sys.executable, [sys.executable, "-m", "edgecap", *order["args"]])  # noqa: S606 - no shell wanted
    gc.unfreeze()
    code = 0
    sys.argv = ["edgecap", *order["args"]]
    try:
        runpy.run_module("edgecap", run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the process boundary: say why, as an interpreter would
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main() -> int:
    """Serve orders on stdin until it is closed: a JSON object per line, answered with the child's pid."""
    import importlib

    from edgecap.kernels.compile import warm_up

    for name in _PRELOADED:
        importlib.import_module(name)
    list(warm_up())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the children
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line))
        sys.stdout.write(json.dumps({"pid": pid}) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
