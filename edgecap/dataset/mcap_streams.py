"""A session's streams as topics of ROS 2 messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.cdr import CdrLayout
from edgecap.dataset.merge import Batch
from edgecap.dataset.physical import REST, Quantity, quantities, valid_values
from edgecap.dataset.recorded import SampleChunk
from edgecap.dataset.session import RecordedSession
from edgecap.dataset.utc import UtcMap
from edgecap.model import I64, ClockFit, Gap, StreamInfo

Encode = Callable[[SampleChunk, I64], NDArray[np.uint8]]
_NO_COVARIANCE = [0.0] * 9
_ABSENT = [-1.0] + [0.0] * 8
"""ROS 2: a first element of −1 says that the message carries no such measurement."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic to be registered before its first message."""

    name: str
    type: str
    metadata: dict[str, str] = field(default_factory=dict)


GAPS = Topic("/gaps", "edgecap_msgs/msg/Gap")


@dataclass(frozen=True, slots=True)
class Producer:
    """One stream's topics and their messages, in groups that follow one another in time."""

    topics: list[Topic]
    groups: Callable[[], Iterable[list[Batch]]]


def topic_base(stream: str) -> str:
    """The ROS 2 name of a stream: `left-hand-imu` → `/left_hand_imu`."""
    name = re.sub("-+", "_", stream).strip("_") or "stream"
    return f"/stream_{name}" if name[0].isdigit() else f"/{name}"


def sample_producer(session: RecordedSession, info: StreamInfo, base: str) -> Producer:
    """Topics of a stream of samples: SI values per sample, raw counts and clock fit per chunk."""
    facts = facts_of(info)
    encoders: list[tuple[Topic, Encode]] = []
    found = quantities(info, {})
    if "accel" in found or "gyro" in found:
        encoders.append((Topic(f"{base}/imu", "sensor_msgs/msg/Imu", facts), imu_encoder(info, found)))
    if "mag" in found:
        magnetic = Topic(f"{base}/magnetic", "sensor_msgs/msg/MagneticField", facts)
        encoders.append((magnetic, _magnetic(info, found["mag"])))
    if REST in found:
        rest = found[REST]
        units = {"units": ",".join(rest.units)}
        channels = Topic(f"{base}/channels", "edgecap_msgs/msg/ChannelArray", {**facts, **units})
        encoders.append((channels, array_encoder(info, rest)))
    raw = Topic(f"{base}/raw", "edgecap_msgs/msg/RawBlock", facts)
    clock = Topic(f"{base}/clock", "edgecap_msgs/msg/ClockFit", facts)

    def groups() -> Iterator[list[Batch]]:
        for chunk in session.sample_chunks(info.name):
            log_ns = session.utc.to_utc_ns(chunk.t_ns)
            publish_ns = session.utc.to_utc_ns(chunk.sample_arrival_ns())
            sequence = (chunk.index + np.arange(len(log_ns), dtype=np.int64)) & 0xFFFFFFFF
            group = [
                Batch(topic.name, log_ns, publish_ns, sequence, encode(chunk, log_ns))
                for topic, encode in encoders
            ]
            first, arrived = int(log_ns[0]), int(publish_ns[-1])
            group.append(single(raw.name, first, arrived, chunk.seq, raw_block(info, chunk, first)))
            fit = clock_fit(info.name, chunk.seq, chunk.fit, first)
            group.append(single(clock.name, first, arrived, chunk.seq, fit))
            yield [*group, *found_gaps(session, chunk.gaps)]

    return Producer([*(topic for topic, _ in encoders), raw, clock], groups)


def raw_block(info: StreamInfo, chunk: SampleChunk, stamp_ns: int) -> bytes:
    """A chunk's numbers exactly as recorded, as `edgecap_msgs/msg/RawBlock`."""
    values = np.ascontiguousarray(chunk.values).reshape(-1)
    is_float = values.dtype.kind == "f"
    nothing = values[:0]
    layout = (
        CdrLayout()
        .header(info.name)
        .constant("<u4", chunk.seq)
        .string(chunk.hash.hex())
        .constant("<u8", chunk.index)
        .constant("<u4", chunk.values.shape[1])
        .string(info.dtype)
        .constant("<i4", chunk.fit.epoch)
        .constant("<i8", chunk.u_ns)
        .filled("<i8", chunk.t_ns)
        .filled("<i8", chunk.ticks)
        .filled("<i4", chunk.frame_n)
        .filled("<i8", chunk.arrival_ns)
        .filled("<i4", nothing if is_float else values)
        .filled("<f4", values if is_float else nothing)
    )
    return layout.message(stamp_ns)


def clock_fit(stream: str, seq: int, fit: ClockFit, stamp_ns: int) -> bytes:
    """A chunk's clock fit, as `edgecap_msgs/msg/ClockFit`."""
    layout = CdrLayout().header(stream).string(stream).constant("<u4", seq)
    layout.constant("<i8", fit.ref_tick).constant("<i8", fit.ref_ns).constant("<f8", fit.drift_ppm)
    layout.constant("<i8", fit.tick_ns).constant("<i8", fit.u_ns).constant("<f8", fit.sigma_ns)
    layout.constant("<i4", fit.epoch).constant("?", fit.locked).constant("<i8", fit.device_boot)
    layout.constant("<i8", fit.delay_p50_ns).constant("<i8", fit.delay_p99_ns)
    return layout.message(stamp_ns)


def gap_message(utc: UtcMap, gap: Gap) -> bytes:
    """A stated loss, as `edgecap_msgs/msg/Gap`."""
    start, end = utc.utc_ns(gap.t0_ns), utc.utc_ns(gap.t1_ns)
    layout = CdrLayout().header(gap.stream).string(gap.stream)
    layout.constant("<i8", gap.t0_ns).constant("<i8", gap.t1_ns)
    layout.constant("<i4", end // 1_000_000_000).constant("<u4", end % 1_000_000_000)
    layout.constant("<i8", gap.lost).string(gap.cause)
    return layout.message(start)


def found_gaps(session: RecordedSession, gaps: tuple[Gap, ...]) -> list[Batch]:
    """Losses that the session's own records do not tell: found while reading, or from before a crash."""
    return [
        single(GAPS.name, start, start, 0, gap_message(session.utc, gap))
        for gap in gaps
        if gap not in session.gaps
        for start in (session.utc.utc_ns(gap.t0_ns),)
    ]


def imu_encoder(info: StreamInfo, found: Mapping[str, Quantity]) -> Encode:
    """`sensor_msgs/Imu` of the quantities `gyro` and `accel`, as far as the stream has them."""
    layout = CdrLayout().header(info.name).constant("<f8", [0.0, 0.0, 0.0, 1.0]).constant("<f8", _ABSENT)
    for sensor in ("gyro", "accel"):
        layout.value(sensor, "<f8", (3,))
        layout.constant("<f8", _NO_COVARIANCE if sensor in found else _ABSENT)

    def encode(chunk: SampleChunk, stamp_ns: I64) -> NDArray[np.uint8]:
        columns = {s: found[s].values(chunk.values) for s in ("gyro", "accel") if s in found}
        return layout.encode(len(stamp_ns), stamp_ns, **columns)

    return encode


def _magnetic(info: StreamInfo, mag: Quantity) -> Encode:
    layout = CdrLayout().header(info.name).value("mag", "<f8", (3,)).constant("<f8", _NO_COVARIANCE)

    def encode(chunk: SampleChunk, stamp_ns: I64) -> NDArray[np.uint8]:
        return layout.encode(len(stamp_ns), stamp_ns, mag=mag.values(chunk.values))

    return encode


def array_encoder(info: StreamInfo, quantity: Quantity) -> Encode:
    """`edgecap_msgs/ChannelArray` of any channels; not valid at full scale or where there is no number."""
    layout = CdrLayout().header(info.name).strings(quantity.names)
    layout.sequence("value", "<f4", len(quantity.names)).sequence("valid", "?", len(quantity.names))

    def encode(chunk: SampleChunk, stamp_ns: I64) -> NDArray[np.uint8]:
        with np.errstate(over="ignore"):  # beyond all scales it is infinite, and not valid
            value = quantity.values(chunk.values).astype(np.float32)
            valid = valid_values(info, chunk.values, quantity.columns) & np.isfinite(value)
        return layout.encode(len(stamp_ns), stamp_ns, value=value, valid=valid)

    return encode


def single(topic: str, log_ns: int, publish_ns: int, sequence: int, data: bytes) -> Batch:
    """One message."""
    one = np.array([log_ns, publish_ns, sequence & 0xFFFFFFFF], np.int64)
    return Batch(topic, one[:1], one[1:2], one[2:], [data])


def facts_of(info: StreamInfo) -> dict[str, str]:
    """What a reader of one topic must know, as the channel's metadata."""
    fields = msgspec.to_builtins(info)
    channels = fields.pop("channels", [])
    facts = {key: str(value) for key, value in fields.items()}
    facts["stream"] = facts.pop("name")
    facts["lag_ns"] = str(info.lag_ns)
    facts["channels"] = json.dumps(channels, ensure_ascii=False)
    return facts
