"""Inside a camera's process: what a camera is, and the loop that plays frames when they are due."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from edgecap.clock import now_ns, read_pair
from edgecap.model import ClockFit
from edgecap.source.camera_encoder import H264Encoder
from edgecap.source.camera_link import Alive, LinkFrame, Opened, Start, Started
from edgecap.source.camera_outbox import Outbox
from edgecap.source.camera_picture import PictureWatch

if TYPE_CHECKING:
    import av

LATE_LIMIT_NS = 500_000_000
"""A frame that could not be encoded for so long after it was due is skipped and counted."""

ALIVE_NS = 200_000_000
"""A scene with a longer pause says meanwhile that it is only waiting."""


class Worker(Protocol):
    """A camera inside its process."""

    def prepare(self) -> None:
        """Load what takes time, and touch no camera yet; raises `SourceError`."""

    def open(self, clock: str = "") -> Opened:
        """Check that it can produce; raises `SourceError`.

        Args:
            clock: In which its time stamps are, where that is known; it need not be found out again.
        """

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
    preview_s: float = 0.0,
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
    watch = PictureWatch(outbox, preview_s)
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
        if not outbox.has_room():
            cause = "queue"  # also of those that are late because of it
        elif clock() - tick <= LATE_LIMIT_NS:
            data, key = encoder.encode(frame, tick)
            outbox.put_frame(LinkFrame(index, tick, 0, 0, fit, key, data, cause))
            cause = "camera"
            if watch.due(tick):
                watch.offer(tick, frame)
        ahead = next(frames, None)
    watch.close()
    encoder.close()
    return produced, ahead is None
