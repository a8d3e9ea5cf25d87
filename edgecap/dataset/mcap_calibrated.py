"""A session's streams after calibration, as topics beside those of the raw numbers, which stay as they are.

Per stream `s` for which the session's manifest carries a calibration record:

    /s/force            edgecap_msgs/ChannelArray         newtons (`force:STREAM`)
    /s/imu_calibrated   sensor_msgs/Imu                   bias, scale, misalignment taken out
                                                          (`accel:STREAM`, `gyro:STREAM`)
    /s/camera_info      foxglove_msgs/CameraCalibration   once, at the start (`camera:STREAM`)

Each channel's metadata names the records that were applied, with version and date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgecap.calibration import CameraRecord, Record, find
from edgecap.dataset.cdr import CdrLayout
from edgecap.dataset.mcap_streams import (
    Encode,
    Producer,
    Topic,
    array_encoder,
    facts_of,
    imu_encoder,
    single,
)
from edgecap.dataset.merge import Batch
from edgecap.dataset.physical import quantities
from edgecap.dataset.session import RecordedSession
from edgecap.errors import ConfigError, ExportError
from edgecap.model import StreamInfo

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
        found = quantities(info, calibration)
    except ConfigError as error:
        raise ExportError(f"session {session.key.session}: {error.what}", fix="report it") from error
    facts = facts_of(info)
    producers = []
    force = found.get("force")
    if force is not None and force.record is not None:
        told = {**facts, "units": ",".join(force.units), **_applied(force.record)}
        topic = Topic(f"{base}/force", "edgecap_msgs/msg/ChannelArray", told)
        producers.append(_samples(session, info, topic, array_encoder(info, force)))
    motion = [found[s].record for s in ("accel", "gyro") if s in found]
    records = [record for record in motion if record is not None]
    if records:
        topic = Topic(f"{base}/imu_calibrated", "sensor_msgs/msg/Imu", {**facts, **_applied(*records)})
        producers.append(_samples(session, info, topic, imu_encoder(info, found)))
    return producers


def _samples(session: RecordedSession, info: StreamInfo, topic: Topic, encode: Encode) -> Producer:
    def groups() -> Iterator[list[Batch]]:
        for chunk in session.sample_chunks(info.name):
            log_ns = session.utc.to_utc_ns(chunk.t_ns)
            publish_ns = session.utc.to_utc_ns(chunk.sample_arrival_ns())
            sequence = (chunk.index + np.arange(len(log_ns), dtype=np.int64)) & 0xFFFFFFFF
            yield [Batch(topic.name, log_ns, publish_ns, sequence, encode(chunk, log_ns))]

    return Producer([topic], groups)


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
