"""A drawn camera: a moving seeded scene whose frames carry their own number."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.errors import SourceError
from edgecap.source.camera_feed import CameraFeed, open_camera
from edgecap.source.camera_link import Opened, Start
from edgecap.source.camera_outbox import Outbox
from edgecap.source.camera_playback import play
from edgecap.topics import check_name

if TYPE_CHECKING:
    import av

INDEX_BITS = 24
CHECK_BITS = 8
CELLS = INDEX_BITS + CHECK_BITS
MIN_WIDTH, MIN_HEIGHT = 4 * CELLS, 32
BLACK, WHITE = 16, 235


class SyntheticCamera:
    """Draws a panning texture with a moving square; the top rows of each frame carry its index.

    Args:
        name: Stream and device name.
        width: Pixels, even, at least `MIN_WIDTH`.
        height: Pixels, even, at least `MIN_HEIGHT`.
        fps: Frames per second.
        seed: Of the texture and of the motion.
        bitrate_kbps: Of the H.264 it is encoded to.
        preview_s: Seconds between small pictures; 0 for none.
    """

    def __init__(
        self,
        name: str,
        width: int = 640,
        height: int = 480,
        fps: float = 30.0,
        seed: int = 0,
        *,
        bitrate_kbps: int = 2000,
        preview_s: float = 0.0,
    ) -> None:
        self.name = check_name("camera", name)
        self.spec = SyntheticSpec(name, width, height, fps, seed, bitrate_kbps, preview_s)

    def open(self) -> AbstractAsyncContextManager[CameraFeed]:
        return open_camera(self.name, self.spec, preview_s=self.spec.preview_s)


class SyntheticSpec(msgspec.Struct, frozen=True, tag="synthetic"):
    """What the camera's process is told."""

    name: str
    width: int
    height: int
    fps: float
    seed: int
    bitrate_kbps: int
    preview_s: float = 0.0

    def worker(self) -> SyntheticWorker:
        return SyntheticWorker(self)


class SyntheticWorker:
    """The drawn scene, inside the camera's process."""

    def __init__(self, spec: SyntheticSpec) -> None:
        self._spec = spec

    def prepare(self) -> None:
        import av  # noqa: F401 - it stays loaded

    def open(self, clock: str = "") -> Opened:
        s = self._spec
        if s.width < MIN_WIDTH or s.height < MIN_HEIGHT or s.width % 2 or s.height % 2:
            raise SourceError(
                f"camera {s.name}: a synthetic picture of {s.width}×{s.height} cannot carry its index",
                fix=f"use even sizes of at least {MIN_WIDTH}×{MIN_HEIGHT}",
            )
        if not 0.1 <= s.fps <= 1000:
            raise SourceError(
                f"camera {s.name}: {s.fps} frames per second is not possible", fix="use 1 to 120"
            )
        return Opened(s.width, s.height, s.fps, firmware=f"synthetic seed {s.seed}")

    def run(self, start: Start, outbox: Outbox, stop: threading.Event) -> tuple[int, bool]:
        s = self._spec
        scene = DrawnScene(s.width, s.height, Fraction(s.fps).limit_denominator(100_000), s.seed)
        return play(scene, s.bitrate_kbps, start, outbox, stop, preview_s=s.preview_s)


class DrawnScene:
    """The frames, as a `Scene`."""

    full_range = False

    def __init__(self, width: int, height: int, rate_hz: Fraction, seed: int) -> None:
        self.width, self.height, self.rate_hz = width, height, rate_hz
        rng = np.random.default_rng(seed)
        coarse = rng.integers(40, 200, size=(height // 16 + 3, width // 8 + 3), dtype=np.uint8)
        self._texture = np.kron(coarse, np.ones((16, 16), np.uint8))
        self._pan_hz, self._tilt_hz, self._square_hz = rng.uniform(0.1, 0.5, size=3)
        self._chroma = np.repeat(rng.integers(96, 160, size=(2, 1, 1), dtype=np.uint8), height // 2, axis=1)

    def offset_ns(self, index: int) -> int:
        return round(index * 1_000_000_000 / self.rate_hz)

    def first_after(self, offset_ns: int) -> int:
        index = max(int(offset_ns * self.rate_hz // 1_000_000_000), 0)
        while self.offset_ns(index) <= offset_ns:
            index += 1
        return index

    def frames(self, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
        index = first
        while True:
            yield index, self._frame(index)
            index += 1

    def luma(self, index: int) -> NDArray[np.uint8]:
        """(height, width) uint8, limited range."""
        t_s = float(index / self.rate_hz)
        h, w = self.height, self.width
        x = round((0.5 + 0.5 * np.sin(2 * np.pi * self._pan_hz * t_s)) * (self._texture.shape[1] - w))
        y = round((0.5 + 0.5 * np.sin(2 * np.pi * self._tilt_hz * t_s)) * (self._texture.shape[0] - h))
        picture = self._texture[y : y + h, x : x + w].copy()
        side = h // 4
        left = round((0.5 + 0.5 * np.cos(2 * np.pi * self._square_hz * t_s)) * (w - side))
        picture[h // 2 : h // 2 + side, left : left + side] = WHITE
        draw_index(picture, index)
        return picture

    def _frame(self, index: int) -> av.VideoFrame:
        import av

        frame: Any = av.VideoFrame(self.width, self.height, "yuv420p")
        _fill(frame.planes[0], self.luma(index))
        for plane, chroma in zip(frame.planes[1:], self._chroma, strict=True):
            _fill(plane, np.broadcast_to(chroma, (self.height // 2, self.width // 2)))
        return frame  # type: ignore[no-any-return]


def _fill(plane: Any, values: NDArray[np.uint8]) -> None:
    """Copy (h, w) values into a plane whose rows may be padded."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    rows[:, : values.shape[1]] = values


def _check(index: int) -> int:
    return zlib.crc32(index.to_bytes(4, "little")) & ((1 << CHECK_BITS) - 1)


def _strip(width: int, height: int) -> tuple[int, int]:
    """Width of one cell and height of the strip, in pixels."""
    return width // CELLS, max(height // 16, 8)


def draw_index(luma: NDArray[np.uint8], index: int) -> None:
    """Write `index` modulo 2^24 and its check bits as a row of black and white cells along the top.

    Args:
        luma: (height, width) uint8, written in place.
        index: Frame number.
    """
    number = index % (1 << INDEX_BITS)
    bits = number << CHECK_BITS | _check(number)
    cell, strip = _strip(luma.shape[1], luma.shape[0])
    levels = np.array([WHITE if bits >> (CELLS - 1 - k) & 1 else BLACK for k in range(CELLS)], np.uint8)
    luma[:strip, : cell * CELLS] = np.repeat(levels, cell)


def read_index(luma: NDArray[np.uint8]) -> int | None:
    """The index that `draw_index` wrote, or `None` when the check bits disagree.

    Args:
        luma: (height, width) uint8 of a decoded frame, unscaled.
    """
    cell, strip = _strip(luma.shape[1], luma.shape[0])
    cells = luma[: strip - 2, : cell * CELLS].reshape(strip - 2, CELLS, cell)
    inner = cells[:, :, cell // 4 : cell - cell // 4]
    bits = 0
    for level in inner.mean(axis=(0, 2)):
        bits = bits << 1 | int(level > (BLACK + WHITE) / 2)
    index = bits >> CHECK_BITS
    return index if bits & ((1 << CHECK_BITS) - 1) == _check(index) else None
