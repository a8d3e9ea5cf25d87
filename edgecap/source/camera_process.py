"""One camera's process as the daemon sees it: started, listened to, killed and reaped without blocking."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

import edgecap
from edgecap.clock import now_ns
from edgecap.errors import SourceError
from edgecap.source.camera_link import (
    FRAME,
    PICTURE,
    Command,
    LinkFrame,
    LinkPicture,
    Loaded,
    MessageBuffer,
    Reply,
    pack_word,
    unpack_frame,
    unpack_picture,
)

CHILD = (sys.executable, "-m", "edgecap.source.camera_child")
READ_BYTES = 1 << 18
END_GRACE_S = 0.5
"""For a process to leave by itself once its link is closed; then it is killed."""
EXIT_WAIT_S = 0.2
"""From the end of its link to its exit status."""
STDERR_TAIL_BYTES = 4096

_reply_decoder = msgspec.json.Decoder(Reply)


class Listener(Protocol):
    """Who hears what a camera's process says."""

    def take_word(self, word: Reply) -> None:
        """Hear a word."""

    def take_frame(self, frame: LinkFrame, arrival_ns: int) -> None:
        """Hear of a frame, and of the rig time at which it was read."""

    def take_picture(self, picture: LinkPicture) -> None:
        """Hear of a look at the picture."""

    def take_loss(self, reason: str) -> None:
        """Hear that nothing more will come, and why."""


class CameraProcess:
    """A child process that opens one camera, and the link to it.

    The listener is called on the event loop, in the order in which the child sent; `take_loss` is the last
    and comes once. Construct it inside a running loop, and `end()` it.

    Args:
        command: Program of the child; the link's file descriptor and our process id are appended.
        spec: The camera, as the child understands it; the child loads what it needs and waits for `Open`.
        listener: Hears what it says.
    """

    def __init__(self, command: Sequence[str], spec: msgspec.Struct, listener: Listener) -> None:
        self._loop = asyncio.get_running_loop()
        self.listener = listener
        self.loaded = False
        """Whether it has loaded all that it needs."""
        self._buffer = MessageBuffer()
        self._gone = False
        self._paused = False
        self._obituary: asyncio.TimerHandle | None = None
        self._reason = ""
        self._stderr = b""
        ours, theirs = socket.socketpair()
        errors_read, errors_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(errors_write, True)
        try:
            self._popen = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors_write,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
            )
        except OSError as error:
            ours.close()
            os.close(errors_read)
            raise SourceError(f"camera process {command[0]!r} cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(errors_write)
        ours.setblocking(False)
        self._sock, self._errors = ours, errors_read
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._exited = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._reap)
        self._loop.add_reader(self._errors, self._read_errors)
        self._loop.add_reader(self._sock, self._read)
        self.send(spec)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def gone(self) -> bool:
        return self._gone

    @property
    def stderr_tail(self) -> str:
        return self._stderr.decode(errors="replace")

    @property
    def last_words(self) -> str:
        """The last line it wrote to its standard error; after an exception, that exception."""
        self._read_errors()
        lines = [line for line in self.stderr_tail.splitlines() if line.strip()]
        return lines[-1].strip()[:200] if lines else ""

    def send(self, command: Command | msgspec.Struct) -> None:
        """Hand over a command; a child that does not take it any more is killed."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            message = pack_word(command)
            try:
                if self._sock.send(message) == len(message):
                    return
            except BlockingIOError:
                pass
            self.kill("it takes no commands any more")

    def pause(self) -> None:
        """Read no more for now: the child's outbox fills, and the camera skips frames and counts them."""
        if not self._gone and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._sock)

    def resume(self) -> None:
        if not self._gone and self._paused:
            self._paused = False
            self._loop.add_reader(self._sock, self._read)

    def has_unread(self) -> bool:
        """Whether the child has sent what we have not read yet (because the loop was busy)."""
        if self._gone:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self, reason: str) -> None:
        """SIGKILL, which also ends a stopped or hanging process; `take_loss` follows with `reason`."""
        self._reason = self._reason or reason
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.resume()

    async def end(self) -> bool:
        """Close the link and reap the process, by force if it lingers.

        Returns:
            Whether it is gone; `False` when the kernel cannot end it (a driver hangs in the kernel).
        """
        if not self._gone:
            self._gone = True
            self._loop.remove_reader(self._sock)
        if self._obituary is not None:
            self._obituary.cancel()
        self._sock.close()
        for grace_s in (END_GRACE_S, 1.0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await asyncio.shield(self._exited)
                break
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        for fd in (self._pidfd, self._errors):
            self._loop.remove_reader(fd)
            os.close(fd)
        return self._exited.done()

    def _read(self) -> None:
        arrival_ns = now_ns()
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            # it is about to exit; how, the kernel tells a moment later
            self._loop.remove_reader(self._sock)
            self._obituary = self._loop.call_later(EXIT_WAIT_S, self._lose)
            if self._exited.done():
                self._lose()
            return
        try:
            for kind, body in self._buffer.feed(data):
                if kind == FRAME:
                    self.listener.take_frame(unpack_frame(body), arrival_ns)
                elif kind == PICTURE:
                    self.listener.take_picture(unpack_picture(body))
                else:
                    word = _reply_decoder.decode(body)
                    self.loaded |= isinstance(word, Loaded)
                    self.listener.take_word(word)
        except (SourceError, msgspec.DecodeError, msgspec.ValidationError, struct.error) as error:
            self.kill(f"it sent what is not understood: {error}")
            self._lose()

    def _lose(self) -> None:
        if not self._gone:
            self._gone = True
            self._loop.remove_reader(self._sock)
            self.listener.take_loss(self._reason or self._describe_exit())

    def _reap(self) -> None:
        self._popen.poll()
        self._loop.remove_reader(self._pidfd)
        if not self._exited.done():
            self._exited.set_result(None)
        if self._obituary is not None:
            self._lose()

    def _read_errors(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._errors, STDERR_TAIL_BYTES)
            self._stderr = (self._stderr + data)[-STDERR_TAIL_BYTES:]
            if not data:
                self._loop.remove_reader(self._errors)

    def _describe_exit(self) -> str:
        code = self._popen.poll()
        if code is None:
            return "its process closed the link"
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with status {code}"


def _environment() -> dict[str, str]:
    """Ours, with the package importable wherever we were started from."""
    root = str(Path(edgecap.__file__).parent.parent)
    path = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
