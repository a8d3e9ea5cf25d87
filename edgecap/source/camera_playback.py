"""Inside a camera's process: the outbox, and the loop that plays frames when they are due."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import msgspec

from edgecap.clock import now_ns, read_pair
from edgecap.model import ClockFit
from edgecap.source.camera_encoder import H264Encoder
from edgecap.source.camera_link import Alive, LinkFrame, Opened, Start, Started, frame_head, pack_word

if TYPE_CHECKING:
    import av

OUTBOX_FRAMES = 64
OUTBOX_BYTES = 8 << 20
"""What may wait for the daemon; beyond it the camera skips frames and counts them."""
LATE_LIMIT_NS = 500_000_000
"""A frame that could not be encoded for so long after it was due is skipped and counted."""

ALIVE_NS = 400_000_000
"""A scene with a longer pause says meanwhile that it is only waiting."""


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


class Worker(Protocol):
    """A camera inside its process."""

    def open(self) -> Opened:
        """Check that it can produce; raises `SourceError`."""

    def run(self, start: Start, outbox: Outbox, stop: threading.Event) -> tuple[int, bool]:
        """Produce until `stop` is set or nothing more will come.

        Returns:
            How many frames the camera counts since its start, skipped ones included, and whether it
            ended by itself.
        """


class Scene(Protocol):
    """Frames at known times, for cameras that are played, not exposed."""

    rate_hz: Fraction
    width: int
    height: int
    full_range: bool

    def offset_ns(self, index: int) -> int:
        """Nanoseconds from frame 0 to frame `index`."""

    def first_after(self, offset_ns: int) -> int:
        """The first frame whose offset is above `offset_ns`."""

    def frames(self, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames in order from `first`; an index may be missing when it cannot be decoded."""


def play(
    scene: Scene,
    bitrate_kbps: int,
    start: Start,
    outbox: Outbox,
    stop: threading.Event,
    *,
    clock: Callable[[], int] = now_ns,
) -> tuple[int, bool]:
    """Encode each frame of `scene` at the moment it is due, and put it into the outbox.

    A frame's tick is its due time, `anchor + scene.offset_ns(index)`, however late it was encoded.
    Frames are skipped *before* the encoder, so that what is sent always decodes.

    Returns:
        As `Worker.run`.
    """
    encoder = H264Encoder(scene.width, scene.height, scene.rate_hz, bitrate_kbps, full_range=scene.full_range)
    resumed = start.anchor_ns != 0
    first = max(start.next_index, scene.first_after(clock() - start.anchor_ns)) if resumed else 0
    frames = scene.frames(first)
    ahead = next(frames, None)  # decoded before the clock starts
    anchor_ns = start.anchor_ns if resumed else clock()
    fit = ClockFit(
        ref_tick=anchor_ns,
        ref_ns=anchor_ns,
        drift_ppm=0.0,
        tick_ns=1,
        u_ns=read_pair().width_ns,
        sigma_ns=0.0,
        epoch=0,
        locked=True,
    )
    outbox.put_word(Started(anchor_ns))
    produced, cause = first, "camera"
    while ahead is not None:
        index, frame = ahead
        tick = anchor_ns + scene.offset_ns(index)
        while (wait_ns := tick - clock()) > 0 and not stop.wait(min(wait_ns, ALIVE_NS) * 1e-9):
            if wait_ns > ALIVE_NS:
                outbox.put_word(Alive())
        if stop.is_set():
            break
        produced = index + 1
        late = clock() - tick > LATE_LIMIT_NS
        if late or not outbox.has_room():
            cause = "camera" if late else "queue"
        else:
            data, key = encoder.encode(frame, tick)
            outbox.put_frame(LinkFrame(index, tick, 0, 0, fit, key, data, cause))
            cause = "camera"
        ahead = next(frames, None)
    encoder.close()
    return produced, ahead is None
