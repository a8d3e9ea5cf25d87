"""The frames that a camera gives between its start and its stop, counted across restarts of its process."""

from __future__ import annotations

from edgecap.model import ClockFit, FramePacket, Gap, PictureReport
from edgecap.source.camera_link import LinkFrame, LinkPicture, Start


class CameraTake:
    """Turns what crosses the link into frames on the rig's clock, and what is missing into gaps.

    Args:
        name: Of the video stream.

    Attributes:
        anchor_ns: Rig time of frame 0; 0 until the camera has told it.
        next_index: Of the frame that is expected next.
    """

    def __init__(self, name: str) -> None:
        self.anchor_ns = 0
        self.next_index = 0
        self._name = name
        self._last_tick = 0
        self._last_ns = 0
        self._last_fit: ClockFit | None = None

    def start_word(self) -> Start:
        """What a process is told, so that it begins, or goes on counting where the one before it was lost."""
        return Start(self.anchor_ns, self.next_index, self._last_tick)

    def gap_before(self, frame: LinkFrame) -> Gap:
        """The frames that are missing before this one, which was not `add`ed yet."""
        lost = frame.index - self.next_index
        return Gap(
            self._name, self._last_ns or self.anchor_ns, frame.fit.rig_ns(frame.tick), lost, frame.cause
        )

    def gap_at_end(self, produced: int | None, now_ns: int) -> Gap:
        """The frames that are missing at the stop; `produced` is None when the process cannot say."""
        lost = -1 if produced is None else produced - self.next_index
        return Gap(self._name, self._last_ns or self.anchor_ns or now_ns, now_ns, lost, "camera")

    def add(self, frame: LinkFrame, arrival_ns: int) -> FramePacket:
        """Count a frame that came at rig time `arrival_ns`."""
        self.next_index, self._last_tick, self._last_ns = (
            frame.index + 1,
            frame.tick,
            frame.fit.rig_ns(frame.tick),
        )
        self._last_fit = frame.fit
        return FramePacket(
            stream=self._name,
            index=frame.index,
            data=frame.data,
            key=frame.key,
            tick=frame.tick,
            arrival_ns=arrival_ns,
            exposure_ns=frame.exposure_ns,
            line_ns=frame.line_ns,
            fit=frame.fit,
            metadata=frame.metadata,
        )

    def report(self, p: LinkPicture) -> PictureReport | None:
        """A look at a frame that has come already, so that its fit or a newer one is known; else None."""
        if self._last_fit is None:
            return None
        looks = (p.sharpness, p.brightness, p.crushed, p.clipped)
        return PictureReport(self._name, self._last_fit.rig_ns(p.tick), *looks, jpeg=p.jpeg)
