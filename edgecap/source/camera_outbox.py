"""Inside a camera's process: what waits for the daemon."""

from __future__ import annotations

import socket
import threading
from collections import deque

import msgspec

from edgecap.source.camera_link import LinkFrame, LinkPicture, frame_head, pack_picture, pack_word

OUTBOX_FRAMES = 64
OUTBOX_BYTES = 8 << 20
"""What may wait for the daemon; beyond it the camera skips frames and counts them."""


class Outbox:
    """Bounded queue to the daemon, written by a thread of its own so that capture never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._parts: deque[tuple[bytes, bytes]] = deque()
        self._bytes = 0
        self._closed = False
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._send, name="outbox", daemon=True)
        self._thread.start()

    def has_room(self) -> bool:
        with self._more:
            return len(self._parts) < OUTBOX_FRAMES and self._bytes < OUTBOX_BYTES

    def put_frame(self, frame: LinkFrame) -> None:
        self._put(frame_head(frame), frame.data)

    def put_picture(self, picture: LinkPicture) -> None:
        """A look at the picture, unless the daemon is behind."""
        if self.has_room():
            self._put(pack_picture(picture), b"")

    def put_word(self, word: msgspec.Struct) -> None:
        """Words are few and always taken."""
        self._put(pack_word(word), b"")

    def drain(self, timeout_s: float) -> None:
        """Wait until everything has been written, or `timeout_s` has passed."""
        with self._more:
            self._more.wait_for(lambda: not self._parts, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Drain, then end the thread."""
        self.drain(timeout_s)
        with self._more:
            self._closed = True
            self._more.notify_all()
        self._thread.join(timeout_s)

    def _put(self, head: bytes, data: bytes) -> None:
        with self._more:
            self._parts.append((head, data))
            self._bytes += len(data)
            self._more.notify_all()

    def _send(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: bool(self._parts) or self._closed)
                if not self._parts:
                    return
                head, data = self._parts[0]
            try:
                self._sock.sendall(head)
                if data:
                    self._sock.sendall(data)
            except OSError:
                return  # the daemon has closed the link; the main thread sees it too and ends the process
            with self._more:
                self._parts.popleft()
                self._bytes -= len(data)
                self._more.notify_all()
