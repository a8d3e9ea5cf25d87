"""A session's streams after calibration, as topics beside those of the raw numbers, which stay as they are.

Per stream `s` for which the session's manifest carries a calibration record:

    /s/force            edgecap_msgs/ChannelArray         newtons (`force:STREAM`)
    /s/imu_calibrated   sensor_msgs/Imu                   bias, scale, misalignment taken out
                                                          (`accel:STREAM`, `gyro:STREAM`)
    /s/camera_info      foxglove_msgs/CameraCalibration   once, at the start (`camera:STREAM`)

Each channel's metadata names the records that were applied, with version and date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.axes import triads
from edgecap.calibration import AccelRecord, CameraRecord, ForceRecord, GyroRecord, Record, find
from edgecap.dataset.cdr import CdrLayout
from edgecap.dataset.mcap_streams import (
    Producer,
    Topic,
    facts_of,
    imu_layout,
    si_values,
    single,
    valid_values,
)
from edgecap.dataset.merge import Batch
from edgecap.dataset.session import RecordedSession, SampleChunk
from edgecap.errors import ConfigError, ExportError
from edgecap.model import I64, StreamInfo

Encode = Callable[[SampleChunk, I64], NDArray[np.uint8]]
FOXGLOVE_MODEL = {"radtan": "plumb_bob", "equidistant": "kannala_brandt"}


def calibration_producers(session: RecordedSession, info: StreamInfo, base: str) -> list[Producer]:
    """Topics of what the manifest's calibration makes of a stream; none where it says nothing of it.

    Raises:
        ExportError: a record is damaged; names it.
    """
    calibration: Mapping[str, Any] = session.manifest.get("calibration") or {}
    try:
        if info.kind in ("video", "preview"):
            camera = find(calibration, CameraRecord, info.name)
            return [_camera(session, info, base, camera)] if camera and info.kind == "video" else []
        encoders = [*_force(info, base, calibration), *_imu(info, base, calibration)]
    except ConfigError as error:
        raise ExportError(f"session {session.key.session}: {error.what}", fix="report it") from error
    return [_samples(session, info, topic, encode) for topic, encode in encoders]


def _samples(session: RecordedSession, info: StreamInfo, topic: Topic, encode: Encode) -> Producer:
    def groups() -> Iterator[list[Batch]]:
        for chunk in session.sample_chunks(info.name):
            log_ns = session.utc.to_utc_ns(chunk.t_ns)
            publish_ns = session.utc.to_utc_ns(chunk.sample_arrival_ns())
            sequence = (chunk.index + np.arange(len(log_ns), dtype=np.int64)) & 0xFFFFFFFF
            yield [Batch(topic.name, log_ns, publish_ns, sequence, encode(chunk, log_ns))]

    return Producer([topic], groups)


def _force(info: StreamInfo, base: str, calibration: Mapping[str, Any]) -> list[tuple[Topic, Encode]]:
    record = find(calibration, ForceRecord, info.name)
    names = [c.name for c in info.channels]
    channels = [c for c in record.channels if c.name in names] if record else []
    if record is None or not channels:
        return []
    columns = [names.index(c.name) for c in channels]
    layout = CdrLayout().header(info.name).strings([c.name for c in channels])
    layout.sequence("value", "<f4", len(channels)).sequence("valid", "?", len(channels))

    def encode(chunk: SampleChunk, stamp_ns: I64) -> NDArray[np.uint8]:
        raw = chunk.values[:, columns]
        newton = np.stack([c.newtons(raw[:, k]) for k, c in enumerate(channels)], 1)
        valid = valid_values(chunk, info, columns) & np.isfinite(newton)
        return layout.encode(len(stamp_ns), stamp_ns, value=newton, valid=valid)

    facts = {**facts_of(info), "units": ",".join(["N"] * len(channels)), **_applied(record)}
    return [(Topic(f"{base}/force", "edgecap_msgs/msg/ChannelArray", facts), encode)]


def _imu(info: StreamInfo, base: str, calibration: Mapping[str, Any]) -> list[tuple[Topic, Encode]]:
    found = triads(info)
    accel, gyro = find(calibration, AccelRecord, info.name), find(calibration, GyroRecord, info.name)
    records: list[Record] = [r for r in (accel, gyro) if r is not None and r.kind in found]
    if not records:
        return []
    layout = imu_layout(info, found)

    def encode(chunk: SampleChunk, stamp_ns: I64) -> NDArray[np.uint8]:
        columns = {s: si_values(info, chunk, *found[s]) for s in ("gyro", "accel") if s in found}
        if accel is not None and "accel" in columns:
            columns["accel"] = accel.apply(columns["accel"])
        if gyro is not None and "gyro" in columns:
            columns["gyro"] = gyro.apply(columns["gyro"])
        return layout.encode(len(stamp_ns), stamp_ns, **columns)

    facts = {**facts_of(info), **_applied(*records)}
    return [(Topic(f"{base}/imu_calibrated", "sensor_msgs/msg/Imu", facts), encode)]


def _camera(session: RecordedSession, info: StreamInfo, base: str, record: CameraRecord) -> Producer:
    fu, fv, pu, pv = record.intrinsics
    matrix = [fu, 0.0, pu, 0.0, fv, pv, 0.0, 0.0, 1.0]
    terms = [*record.distortion_coeffs, *([0.0] if record.distortion_model == "radtan" else [])]
    layout = CdrLayout().stamp().string(info.name)
    layout.constant("<u4", record.resolution[0]).constant("<u4", record.resolution[1])
    layout.string(FOXGLOVE_MODEL[record.distortion_model]).filled("<f8", np.array(terms))
    layout.constant("<f8", matrix).constant("<f8", np.eye(3).ravel())
    layout.constant("<f8", np.pad(np.reshape(matrix, (3, 3)), ((0, 0), (0, 1))).ravel())
    facts = {**facts_of(info), **_applied(record)}
    topic = Topic(f"{base}/camera_info", "foxglove_msgs/msg/CameraCalibration", facts)
    start_ns = session.utc.utc_ns(session.t0_ns)

    def groups() -> Iterator[list[Batch]]:
        yield [single(topic.name, start_ns, start_ns, 0, layout.message(start_ns))]

    return Producer([topic], groups)


def _applied(*records: Record) -> dict[str, str]:
    return {"calibration": ", ".join(f"{r.key} version {r.version} of {r.date}" for r in records)}
