"""JPEG: encoding frames one by one, and making what cameras call JPEG whole."""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from edgecap.errors import SourceError
from edgecap.source.camera_encoder import Encoded

if TYPE_CHECKING:
    import av

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
DHT, SOS = 0xC4, 0xDA
PIXEL_FORMAT = "yuvj420p"
COARSEST, FINEST = 31, 2
"""FFmpeg's quantiser scale for JPEG."""


class JpegEncoder:
    """MJPEG through PyAV: a frame in, a whole JPEG picture out, at once.

    The tables are the standard's own, so that a picture is also what other MJPEG tools expect.

    Args:
        width: Pixels.
        height: Pixels.
        rate_hz: Nominal frame rate, for rate control only.
        bitrate_kbps: Thousands of bits per second; the quantiser follows it between its limits.
        quantiser: A fixed one from 2 (finest) to 31 instead.
    """

    def __init__(
        self,
        width: int,
        height: int,
        rate_hz: Fraction = Fraction(1),
        bitrate_kbps: int = 0,
        *,
        quantiser: int = 0,
    ) -> None:
        import av

        if width < 2 or height < 2:
            raise SourceError(f"JPEG cannot encode {width}×{height}", fix="use a larger size")
        context: Any = av.CodecContext.create("mjpeg", "w")
        context.width, context.height, context.pix_fmt = width, height, PIXEL_FORMAT
        context.framerate, context.time_base = rate_hz, 1 / rate_hz
        context.thread_count = 1
        context.qmin, context.qmax = quantiser or FINEST, quantiser or COARSEST
        if bitrate_kbps:
            context.bit_rate = bitrate_kbps * 1000
        context.options = {"huffman": "default"}
        context.open()
        self._context: av.VideoCodecContext = context
        self._time_base = 1 / rate_hz
        self._n = 0
        self.width, self.height = width, height

    def encode(self, frame: av.VideoFrame, tick_ns: int = 0, *, key: bool = True) -> Encoded:
        """Encode one frame; every one is a key frame."""
        if (frame.width, frame.height, frame.format.name) != (self.width, self.height, PIXEL_FORMAT):
            frame = frame.reformat(width=self.width, height=self.height, format=PIXEL_FORMAT)
        frame.pts, frame.time_base = self._n, self._time_base
        packets = self._context.encode(frame)
        if len(packets) != 1:
            raise SourceError(f"the JPEG encoder gave {len(packets)} packets for one frame")
        self._n += 1
        return Encoded(bytes(packets[0]), True)

    def close(self) -> int:
        """Flush; return how many frames had been held back (none)."""
        return len(self._context.encode(None))


def complete_jpeg(data: bytes) -> bytes:
    """A camera's JPEG made whole: padding cut off, the standard's Huffman tables put in where it has none.

    Returns:
        The picture; empty when `data` does not begin as a JPEG or its end is missing, as after a lost
        USB packet.

    Source: ITU-T T.81 B.1 and B.2; USB Video Class MJPEG payload 1.1, which lets cameras leave tables out.
    """
    end = data.rfind(EOI)
    if not data.startswith(SOI) or end < 0:
        return b""
    at = len(SOI)
    while at + 4 <= end:
        if data[at] != 0xFF:
            return b""
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == DHT:
            return data[: end + 2]
        if marker == SOS:
            return SOI + standard_tables() + data[len(SOI) : end + 2]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return b""


@functools.cache
def standard_tables() -> bytes:
    """The DHT segments of ITU-T T.81 K.3, as FFmpeg's encoder writes them."""
    import av

    sample = JpegEncoder(16, 16, quantiser=5).encode(av.VideoFrame(16, 16, PIXEL_FORMAT)).data
    at, tables = len(SOI), b""
    while sample[at + 1] != SOS:
        length = 2 + int.from_bytes(sample[at + 2 : at + 4], "big")
        if sample[at + 1] == DHT:
            tables += sample[at : at + length]
        at += length
    return tables
