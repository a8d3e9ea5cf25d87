"""A camera's streams as topics of ROS 2 messages: frames, their numbers, small pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator

from edgecap.codec.video import decode_metadata
from edgecap.dataset.cdr import CdrLayout
from edgecap.dataset.h264 import ParameterSets
from edgecap.dataset.mcap_streams import Producer, Topic, facts_of, found_gaps, single
from edgecap.dataset.merge import Batch
from edgecap.dataset.recorded import VideoFrame
from edgecap.dataset.session import RecordedSession
from edgecap.errors import ExportError
from edgecap.model import H264, MJPEG, StreamInfo

VIDEO_TYPE = {H264: "foxglove_msgs/msg/CompressedVideo", MJPEG: "sensor_msgs/msg/CompressedImage"}
NO_GAIN = float("nan")


def video_producer(session: RecordedSession, info: StreamInfo, base: str) -> Producer:
    """Topics of a camera: one access unit or picture per message, its numbers beside it."""
    if info.codec not in VIDEO_TYPE:
        raise ExportError(
            f"stream {info.name} is encoded as {info.codec!r}, which no message can carry",
            fix=f"it can carry {', '.join(VIDEO_TYPE)}",
        )
    facts = facts_of(info)
    video = Topic(f"{base}/video", VIDEO_TYPE[info.codec], facts)
    numbers = Topic(f"{base}/frame", "edgecap_msgs/msg/FrameInfo", facts)

    def groups() -> Iterator[list[Batch]]:
        sets = ParameterSets()
        for frame in session.frames(info.name):
            data = frame.data if info.codec == MJPEG else sets.complete(frame.data, key=frame.key)
            if data is None:
                continue
            log = session.utc.utc_ns(frame.t_ns)
            arrived = session.utc.utc_ns(frame.arrival_ns)
            sequence = frame.index & 0xFFFFFFFF
            if info.codec == MJPEG:
                message = compressed_image(info.name, data, log)
            else:
                message = CdrLayout().stamp().string(info.name).blob(data).string("h264").message(log)
            yield [
                single(video.name, log, arrived, sequence, message),
                single(numbers.name, log, arrived, sequence, frame_info(info.name, frame, log)),
                *found_gaps(session, frame.gaps),
            ]

    return Producer([video, numbers], groups)


def preview_producer(session: RecordedSession, info: StreamInfo, base: str) -> Producer:
    """Topics of a camera's small pictures."""
    topic = Topic(f"{base}/picture", "sensor_msgs/msg/CompressedImage", facts_of(info))

    def groups() -> Iterator[list[Batch]]:
        for picture in session.previews(info.name):
            log = session.utc.utc_ns(picture.t_ns)
            message = compressed_image(info.name, picture.jpeg, log)
            yield [single(topic.name, log, log, picture.seq & 0xFFFFFFFF, message)]

    return Producer([topic], groups)


def compressed_image(stream: str, jpeg: bytes, stamp_ns: int) -> bytes:
    """A JPEG picture, as `sensor_msgs/msg/CompressedImage`."""
    return CdrLayout().header(stream).string("jpeg").blob(jpeg).message(stamp_ns)


def frame_info(stream: str, frame: VideoFrame, stamp_ns: int) -> bytes:
    """A frame's numbers, as `edgecap_msgs/msg/FrameInfo`."""
    told = decode_metadata(frame.metadata)
    layout = CdrLayout().header(stream).constant("<u8", frame.index).constant("?", frame.key)
    layout.constant("<u4", len(frame.data)).constant("<i8", frame.tick).constant("<i8", frame.t_ns)
    layout.constant("<i8", frame.u_ns).constant("<i4", frame.epoch).constant("<i8", frame.arrival_ns)
    layout.constant("<i8", frame.exposure_ns).constant("<i8", frame.line_ns)
    for name in ("AnalogueGain", "DigitalGain"):
        value = told.get(name)
        layout.constant("<f8", value if isinstance(value, int | float) else NO_GAIN)
    return layout.string(json.dumps(told, sort_keys=True, default=str) if told else "").message(stamp_ns)
