"""The process that holds one camera: `python -m edgecap.source.camera_child FD PARENT_PID`.

It lives exactly as long as the daemon wants it: it ends when the link is closed, and the kernel kills it
when the daemon dies. It never blocks on the daemon, and the daemon never blocks on it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from typing import NoReturn

import msgspec

from edgecap.errors import EdgecapError
from edgecap.source.camera_file import FileSpec
from edgecap.source.camera_link import (
    Command,
    Ended,
    Loaded,
    MessageBuffer,
    Open,
    Refused,
    Start,
    Stopped,
)
from edgecap.source.camera_outbox import Outbox
from edgecap.source.camera_pi import PiSpec
from edgecap.source.camera_playback import Worker
from edgecap.source.camera_synthetic import SyntheticSpec
from edgecap.source.camera_uvc import UvcSpec

Spec = FileSpec | SyntheticSpec | PiSpec | UvcSpec
"""Every camera that can be opened."""

_PR_SET_PDEATHSIG = 1
_spec_decoder = msgspec.json.Decoder(Spec)
_command_decoder = msgspec.json.Decoder(Command)


def main() -> NoReturn:
    """Serve the link until it is closed; leaves without waiting for any thread."""
    fd, parent = int(sys.argv[1]), int(sys.argv[2])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which then stops us in order
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sock = socket.socket(fileno=fd)
    os._exit(_Service(sock).serve())


class _Service:
    """Carries out commands one after the other; frames are produced by a thread of their own."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._outbox = Outbox(sock)
        self._worker: Worker | None = None
        self._stop = threading.Event()
        self._run: threading.Thread | None = None
        self._produced = 0

    def serve(self) -> int:
        buffer = MessageBuffer()
        try:
            while data := self._sock.recv(1 << 16):
                for _, body in buffer.feed(data):
                    self._obey(body)
        except EdgecapError as error:
            self._refuse(error)
            return 1
        except ConnectionError:
            pass
        return 0

    def _obey(self, body: bytes) -> None:
        if self._worker is None:
            self._worker = _spec_decoder.decode(body).worker()
            self._worker.prepare()
            self._outbox.put_word(Loaded())
            return
        command = _command_decoder.decode(body)
        if isinstance(command, Open):
            self._outbox.put_word(self._worker.open(command.clock))
        elif isinstance(command, Start):
            self._stop.clear()
            self._run = threading.Thread(target=self._produce, args=(self._worker, command), daemon=True)
            self._run.start()
        elif self._run is not None:
            self._stop.set()
            self._run.join()
            self._run = None
            self._outbox.put_word(Stopped(self._produced))

    def _produce(self, worker: Worker, start: Start) -> None:
        """The thread's boundary: whatever a camera raises ends this process, and the daemon hears why."""
        try:
            self._produced, ended = worker.run(start, self._outbox, self._stop)
            if ended:
                self._outbox.put_word(Ended())
        except EdgecapError as error:
            self._refuse(error)
            os._exit(1)
        except BaseException as error:  # noqa: BLE001 - nothing may die in silence here
            self._refuse(EdgecapError(f"camera failed: {type(error).__name__}: {error}"))
            os._exit(1)

    def _refuse(self, error: EdgecapError) -> None:
        self._outbox.put_word(Refused(error.what, error.fix))
        self._outbox.drain(timeout_s=1.0)


if __name__ == "__main__":
    main()
