"""H.264 in Annex B, one access unit per frame, and the little parsing of it that a camera needs."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from edgecap.annexb import LONG_START_CODE, NAL_IDR, NAL_PPS, NAL_SLICE, NAL_SPS, START_CODE, nal_units
from edgecap.errors import SourceError

if TYPE_CHECKING:
    import av

GOP_NS = 1_000_000_000
"""A key frame at least this often: a lost chunk costs at most this much video."""


class Encoded(NamedTuple):
    """One access unit."""

    data: bytes
    key: bool


class ParameterSets:
    """Keeps the newest SPS and PPS, and puts them before an IDR that comes without them.

    Encoders differ: some send them once, some before every key frame, some in a packet of their own.
    """

    def __init__(self) -> None:
        self._sets = b""

    def complete(self, data: bytes) -> Encoded:
        """Return `data` as an access unit whose IDR, if it is one, starts with SPS and PPS."""
        head = data[: _first_slice(data)]
        units = list(nal_units(head))
        sets = [u for t, u in units if t in (NAL_SPS, NAL_PPS)]
        if {t for t, _ in units} >= {NAL_SPS, NAL_PPS}:
            self._sets = b"".join(LONG_START_CODE + u for u in sets)
        key = _slice_type(data) == NAL_IDR
        if key and not sets:
            data = self._sets + data
        return Encoded(data, key)


def has_picture(data: bytes) -> bool:
    """Whether there is a slice in it, or only parameter sets and the like."""
    return _first_slice(data) < len(data)


def _first_slice(data: bytes) -> int:
    """Where the first slice starts; the length of `data` if there is none."""
    for match in re.finditer(START_CODE, data):
        if match.end() < len(data) and data[match.end()] & 0x1F in (NAL_SLICE, NAL_IDR):
            return match.start()
    return len(data)


def _slice_type(data: bytes) -> int:
    at = _first_slice(data)
    return data[at + 3] & 0x1F if at < len(data) else 0


class H264Encoder:
    """libx264 through PyAV, set up for capture: a frame in, its access unit out, at once.

    No B-frames and no look-ahead, so that every packet is exactly one frame in order; SPS and PPS
    before every IDR; a key frame first and then every second *of capture time*, so that skipped frames
    do not stretch the group of pictures. The buffer model is one second of the bit rate.

    Args:
        width: Pixels, even.
        height: Pixels, even.
        rate_hz: Nominal frame rate, for rate control only.
        bitrate_kbps: Thousands of bits per second.
        full_range: Luma spans 0 to 255 (JPEG range), not 16 to 235.
    """

    def __init__(
        self, width: int, height: int, rate_hz: Fraction, bitrate_kbps: int, *, full_range: bool = False
    ) -> None:
        import av
        from av.video.frame import PictureType

        if width < 2 or height < 2 or width % 2 or height % 2:
            raise SourceError(f"H.264 cannot encode {width}×{height}", fix="use even width and height")
        if bitrate_kbps < 1:
            raise SourceError(f"a bit rate of {bitrate_kbps} kbit/s is not possible", fix="use 100 or more")
        self._types = PictureType
        try:
            context: Any = av.CodecContext.create("libx264", "w")
        except (av.FFmpegError, ValueError) as error:
            raise SourceError(
                "this PyAV has no libx264", fix="install PyAV from its wheel: pip install av"
            ) from error
        self.pixel_format = "yuvj420p" if full_range else "yuv420p"
        context.width, context.height, context.pix_fmt = width, height, self.pixel_format
        context.framerate = rate_hz
        context.time_base = 1 / rate_hz
        context.bit_rate = bitrate_kbps * 1000
        context.gop_size = 1 << 20  # key frames are asked for by time, below
        context.max_b_frames = 0
        context.thread_count = 1  # one core is enough for 1080p30, and the others belong to the daemon
        context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "forced-idr": "1",
            "x264-params": "repeat-headers=1:scenecut=0:open-gop=0:"
            f"vbv-maxrate={bitrate_kbps}:vbv-bufsize={bitrate_kbps}",
        }
        context.open()
        self._context: av.VideoCodecContext = context
        self._time_base = 1 / rate_hz
        self._n = 0
        self._key_tick = 0
        self.width, self.height = width, height

    def encode(self, frame: av.VideoFrame, tick_ns: int, *, key: bool = False) -> Encoded:
        """Encode one frame taken at `tick_ns`; `key` forces a key frame."""
        if (frame.width, frame.height, frame.format.name) != (self.width, self.height, self.pixel_format):
            frame = frame.reformat(width=self.width, height=self.height, format=self.pixel_format)
        key = key or self._n == 0 or tick_ns - self._key_tick >= GOP_NS
        frame.pts, frame.time_base = self._n, self._time_base
        frame.pict_type = self._types.I if key else self._types.NONE
        packets = self._context.encode(frame)
        if len(packets) != 1:
            raise SourceError(f"libx264 gave {len(packets)} packets for one frame")
        self._n += 1
        if key:
            self._key_tick = tick_ns
        return Encoded(bytes(packets[0]), bool(packets[0].is_keyframe))

    def close(self) -> int:
        """Flush; return how many frames had been held back (none, as it is set up)."""
        return len(self._context.encode(None))
