"""What a camera's process and the daemon say to each other over a socket pair.

A message is one byte of type, four bytes of length (little-endian) and a body: JSON for words; for frames
`FRAME_HEADER`, metadata and the access unit; for looks at the picture `PICTURE` and perhaps a JPEG.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from edgecap.errors import SourceError
from edgecap.model import H264, MJPEG, PREVIEW_SUFFIX, ClockFit, StreamInfo

HEADER = struct.Struct("<BI")
FRAME_HEADER = struct.Struct("<qqqqqqdqBBH")
"""index, tick, exposure_ns, line_ns, fit.ref_tick, fit.ref_ns, fit.drift_ppm, fit.u_ns, key, cause, bytes of
metadata."""
PICTURE_HEADER = struct.Struct("<qdddd")
"""tick, sharpness, brightness, crushed, clipped."""
WORD, FRAME, PICTURE = 1, 2, 3
MAX_BODY_BYTES = 16 << 20
"""Longer than any access unit; a length above it means the two sides have lost each other."""

CAUSES = ("camera", "queue")
"""Why frames before this one are missing, as in `Gap.cause`."""


class Open(msgspec.Struct, frozen=True, tag="open"):
    """Open the camera."""

    clock: str = ""
    """In which its time stamps have been found to be; empty to find out, which takes some frames."""


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Produce frames. After a restart the camera goes on counting where it would be by now."""

    anchor_ns: int = 0
    """Rig time of frame 0; 0 to begin now."""
    next_index: int = 0
    last_tick: int = 0
    """Tick of frame `next_index` − 1, when there was one."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Stop producing and say how many frames there were."""


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """All that the camera needs has been loaded; from here on it is the camera that takes its time."""


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The camera is there, and this is what it gives."""

    width: int
    height: int
    rate_hz: float
    clock: str = "raw"
    serial_number: str = ""
    firmware: str = ""
    codec: str = H264

    def streams(self, name: str, preview_s: float) -> tuple[StreamInfo, ...]:
        """The camera's streams: its video, and small pictures every `preview_s` if that is not 0."""
        video = StreamInfo(
            name=name,
            kind="video",
            device=name,
            rate_hz_nominal=self.rate_hz,
            clock=self.clock,
            serial_number=self.serial_number,
            firmware=self.firmware,
            width=self.width,
            height=self.height,
            codec=self.codec,
        )
        if preview_s <= 0:
            return (video,)
        preview = StreamInfo(name + PREVIEW_SUFFIX, "preview", name, 1 / preview_s, clock="raw", codec=MJPEG)
        return video, preview


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The camera cannot be opened, started or go on, and why."""

    what: str
    fix: str = ""


class Started(msgspec.Struct, frozen=True, tag="started"):
    """Frames follow; frame 0 is, or was, at `anchor_ns`."""

    anchor_ns: int


class Note(msgspec.Struct, frozen=True, tag="note"):
    """Something to be logged."""

    text: str


class Alive(msgspec.Struct, frozen=True, tag="alive"):
    """Nothing to send yet, and nothing wrong: the next frame is not due."""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """No more frames will come until the next start: the clip is over."""


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """Everything produced since the start has been sent."""

    produced: int


Command = Open | Start | Stop
Reply = Loaded | Opened | Refused | Started | Note | Alive | Ended | Stopped


@dataclass(frozen=True, slots=True)
class LinkFrame:
    """One frame as it crosses the link."""

    index: int
    tick: int
    exposure_ns: int
    line_ns: int
    fit: ClockFit
    key: bool
    data: bytes
    cause: str = "camera"
    metadata: bytes = b""


@dataclass(frozen=True, slots=True)
class LinkPicture:
    """A look at the picture as it crosses the link; numbers as in `model.PictureReport`."""

    tick: int
    sharpness: float
    brightness: float
    crushed: float
    clipped: float
    jpeg: bytes = b""


def pack_word(word: msgspec.Struct) -> bytes:
    body = msgspec.json.encode(word)
    return HEADER.pack(WORD, len(body)) + body


def frame_head(frame: LinkFrame) -> bytes:
    """All of a frame's message that comes before `frame.data`."""
    fit, metadata = frame.fit, frame.metadata
    head = FRAME_HEADER.pack(
        frame.index,
        frame.tick,
        frame.exposure_ns,
        frame.line_ns,
        fit.ref_tick,
        fit.ref_ns,
        fit.drift_ppm,
        fit.u_ns,
        frame.key,
        CAUSES.index(frame.cause),
        len(metadata),
    )
    return HEADER.pack(FRAME, len(head) + len(metadata) + len(frame.data)) + head + metadata


def pack_picture(picture: LinkPicture) -> bytes:
    p = picture
    head = PICTURE_HEADER.pack(p.tick, p.sharpness, p.brightness, p.crushed, p.clipped)
    return HEADER.pack(PICTURE, len(head) + len(p.jpeg)) + head + p.jpeg


def unpack_picture(body: bytes) -> LinkPicture:
    tick, sharpness, brightness, crushed, clipped = PICTURE_HEADER.unpack_from(body)
    return LinkPicture(tick, sharpness, brightness, crushed, clipped, body[PICTURE_HEADER.size :])


def unpack_frame(body: bytes) -> LinkFrame:
    index, tick, exposure_ns, line_ns, ref_tick, ref_ns, drift, u_ns, key, cause, extra = (
        FRAME_HEADER.unpack_from(body)
    )
    fit = ClockFit(
        ref_tick=ref_tick,
        ref_ns=ref_ns,
        drift_ppm=drift,
        tick_ns=1,
        u_ns=u_ns,
        sigma_ns=0.0,
        epoch=0,
        locked=True,
    )
    start = FRAME_HEADER.size + extra
    data, metadata = body[start:], body[FRAME_HEADER.size : start]
    return LinkFrame(index, tick, exposure_ns, line_ns, fit, bool(key), data, CAUSES[cause], metadata)


class MessageBuffer:
    """Cuts received bytes into messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Add bytes; yield each message that is now whole as (type, body)."""
        self._bytes += data
        at = 0
        try:
            while len(self._bytes) - at >= HEADER.size:
                kind, length = HEADER.unpack_from(self._bytes, at)
                if kind not in (WORD, FRAME, PICTURE) or length > MAX_BODY_BYTES:
                    raise SourceError(f"camera process sent a message of type {kind}, {length} bytes")
                end = at + HEADER.size + length
                if len(self._bytes) < end:
                    return
                body = bytes(memoryview(self._bytes)[at + HEADER.size : end])
                at = end
                yield kind, body
        finally:
            del self._bytes[:at]
