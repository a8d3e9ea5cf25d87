"""A look at a camera's picture a few times a second: sharp, dark, burnt out? Small pictures for people."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecap.source.camera_jpeg import JpegEncoder
from edgecap.source.camera_link import LinkPicture, Note
from edgecap.source.camera_outbox import Outbox

if TYPE_CHECKING:
    import av

ACROSS = 320
"""Pixels of the longer side of what is looked at: sharpness depends on it."""
LOOK_NS = 500_000_000
BLACK, WHITE = 3, 252
"""Grey values up to, and from, which a pixel holds no detail."""
PREVIEW_QUANTISERS = (6, 12, 24)
MAX_PREVIEW_BYTES = 24 * 1024
"""A picture that is larger even at the coarsest is not sent."""
CLOSE_LIMIT_S = 1.0


class Look(NamedTuple):
    """Numbers as in `model.PictureReport`."""

    sharpness: float
    brightness: float
    crushed: float
    clipped: float


def look_at(grey: NDArray[np.uint8]) -> Look:
    """Measure a picture.

    Args:
        grey: (h, w) uint8, full range, at least 3×3.

    Source: variance of the Laplacian as a focus measure: Pech-Pacheco et al., ICPR 2000.
    """
    fine = grey.astype(np.int16)
    middle = fine[1:-1, 1:-1]
    laplacian = fine[:-2, 1:-1] + fine[2:, 1:-1] + fine[1:-1, :-2] + fine[1:-1, 2:] - 4 * middle
    return Look(
        sharpness=float(laplacian.var()),
        brightness=float(grey.mean()) / 255,
        crushed=float((grey <= BLACK).mean()),
        clipped=float((grey >= WHITE).mean()),
    )


def reduced_size(width: int, height: int) -> tuple[int, int]:
    """Even size of a picture reduced to `ACROSS` on its longer side; never enlarged."""
    scale = min(1.0, ACROSS / max(width, height))
    return max(round(width * scale / 2) * 2, 4), max(round(height * scale / 2) * 2, 4)


class PictureWatch:
    """Looks at a frame every `LOOK_NS`, in a thread of its own, and sends what it sees.

    One frame at a time: while it is busy, nothing is due.

    Args:
        outbox: Takes the looks.
        preview_s: Every so often the reduced picture goes with them; 0 for never.
    """

    def __init__(self, outbox: Outbox, preview_s: float) -> None:
        self._outbox = outbox
        self._preview_ns = round(preview_s * 1e9)
        self._next_ns = self._next_preview_ns = 0
        self._work: tuple[int, av.VideoFrame] | None = None
        self._closed = False
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)
        self._thread.start()

    def due(self, tick_ns: int) -> bool:
        """Whether the frame taken at `tick_ns` should be offered."""
        return tick_ns >= self._next_ns and self._work is None

    def offer(self, tick_ns: int, frame: av.VideoFrame) -> None:
        """Hand over a frame whose memory nobody changes any more."""
        with self._more:
            if self._work is None:
                self._next_ns = tick_ns + LOOK_NS
                self._work = tick_ns, frame
                self._more.notify_all()

    def close(self) -> None:
        """End the thread; nothing is sent afterwards."""
        with self._more:
            self._closed = True
            self._more.notify_all()
        self._thread.join(CLOSE_LIMIT_S)

    def _run(self) -> None:
        """The thread's boundary: a picture that cannot be looked at must not cost the recording."""
        while True:
            with self._more:
                self._more.wait_for(lambda: self._work is not None or self._closed)
                if self._work is None or self._closed:
                    return
                tick_ns, frame = self._work
            try:
                self._send(tick_ns, frame)
            except Exception as error:  # noqa: BLE001 - see above
                self._outbox.put_word(Note(f"no looks at the picture: {type(error).__name__}: {error}"))
                return
            with self._more:
                self._work = None

    def _send(self, tick_ns: int, frame: av.VideoFrame) -> None:
        width, height = reduced_size(frame.width, frame.height)
        grey = frame.reformat(width=width, height=height, format="gray", interpolation="AREA")
        look = look_at(np.asarray(grey.to_ndarray(), np.uint8))
        jpeg = b""
        if self._preview_ns and tick_ns >= self._next_preview_ns:
            self._next_preview_ns = tick_ns + self._preview_ns
            jpeg = preview_of(frame, width, height)
        if not self._closed:
            self._outbox.put_picture(LinkPicture(tick_ns, *look, jpeg))


def preview_of(frame: av.VideoFrame, width: int, height: int) -> bytes:
    """A JPEG of at most `MAX_PREVIEW_BYTES`; empty when even the coarsest is larger."""
    for quantiser in PREVIEW_QUANTISERS:
        jpeg = JpegEncoder(width, height, quantiser=quantiser).encode(frame).data
        if len(jpeg) <= MAX_PREVIEW_BYTES:
            return jpeg
    return b""
