"""A session as one MCAP file of ROS 2 messages that common tools open.

Per stream `s` (its name with `-` written as `_`):

    /s/imu       sensor_msgs/Imu               accel_* and gyro_* of an IMU, SI units
    /s/magnetic  sensor_msgs/MagneticField     mag_* of an IMU, tesla
    /s/channels  edgecap_msgs/ChannelArray     all other channels, in their own units
    /s/raw       edgecap_msgs/RawBlock         one per chunk: every number as it was recorded
    /s/clock     edgecap_msgs/ClockFit         one per chunk
    /s/video     foxglove_msgs/CompressedVideo one access unit per message
    /s/frame     edgecap_msgs/FrameInfo        its numbers as they were recorded

and `/marks`, `/gaps`, `/log`, `/verdicts`, `/clock/pairs` of the session. An Imu without gyro or without
accel says so by −1 in that covariance. Manifest, time law and completeness are MCAP metadata records;
calibration, if any, is an attachment, and what it makes of a stream stands beside (`mcap_calibrated.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import msgspec
from mcap.well_known import MessageEncoding, Profile, SchemaEncoding
from mcap.writer import Writer

from edgecap import __version__
from edgecap.dataset import ros2_schemas
from edgecap.dataset.exportable import Progress, require_exportable, whole_file
from edgecap.dataset.mcap_calibrated import calibration_producers
from edgecap.dataset.mcap_records import as_json, metadata, record_producers
from edgecap.dataset.mcap_streams import Producer, Topic, sample_producer, topic_base
from edgecap.dataset.mcap_video import preview_producer, video_producer
from edgecap.dataset.merge import merged
from edgecap.dataset.session import RecordedSession

CHUNK_BYTES = 1 << 20


class McapExport(msgspec.Struct, frozen=True):
    """What an export has written."""

    path: str
    session: str
    complete: bool
    outcome: str
    bytes: int
    messages: dict[str, int]
    start_utc_ns: int
    end_utc_ns: int
    utc_trusted: bool
    utc_u_ns_max: int


def export_mcap(
    session: RecordedSession,
    out_dir: Path,
    *,
    allow_incomplete: bool = False,
    progress: Progress | None = None,
) -> McapExport:
    """Write `out_dir/SESSION.mcap`; the name appears only when the file is whole and on disk.

    Raises:
        ExportError: the session must not be exported (see `require_exportable`), or the disk refuses.
    """
    require_exportable(session, allow_incomplete=allow_incomplete)
    target = out_dir / f"{session.key.session}.mcap"
    with whole_file(target) as partial, partial.open("wb") as file:
        messages, span = _write(session, file, progress)
    facts = metadata(session)["edgecap.time"]
    return McapExport(
        path=str(target),
        session=session.key.session,
        complete=session.report.complete,
        outcome=session.outcome,
        bytes=target.stat().st_size,
        messages=messages,
        start_utc_ns=span[0],
        end_utc_ns=span[1],
        utc_trusted=session.utc.trusted,
        utc_u_ns_max=int(facts["utc_u_ns_max"]),
    )


def _write(
    session: RecordedSession, file: IO[bytes], progress: Progress | None
) -> tuple[dict[str, int], tuple[int, int]]:
    producers = [*_stream_producers(session), *record_producers(session)]
    writer = Writer(file, chunk_size=CHUNK_BYTES)
    writer.start(profile=Profile.ROS2, library=f"edgecap {__version__}")
    channels = _register(writer, (topic for p in producers for topic in p.topics))
    start_ns = session.utc.utc_ns(session.t0_ns)
    for name, fields in metadata(session).items():
        writer.add_metadata(name, fields)
    calibration = session.manifest.get("calibration")
    if calibration:
        data = as_json(calibration).encode()
        writer.add_attachment(start_ns, start_ns, "calibration.json", "application/json", data)
    counts: Counter[str] = Counter(dict.fromkeys(channels, 0))
    total_ns = max(session.t1_ns - session.t0_ns, 1)
    first_ns, last_ns = 0, 0
    for window in merged(p.groups() for p in producers):
        for m in window:
            writer.add_message(channels[m.topic], m.log_ns, m.data, m.publish_ns, m.sequence)
        counts.update(m.topic for m in window)
        first_ns = min(first_ns or window[0].log_ns, window[0].log_ns)
        last_ns = max(last_ns, window[-1].log_ns)
        if progress is not None:
            progress(min(max(last_ns - start_ns, 0), total_ns), total_ns)
    writer.finish()  # type: ignore[no-untyped-call]
    if progress is not None:
        progress(total_ns, total_ns)
    return dict(counts), (first_ns, last_ns)


def _stream_producers(session: RecordedSession) -> list[Producer]:
    producers = []
    taken: set[str] = set()
    for info in session.infos.values():
        base = topic_base(info.name)
        while base in taken:
            base += "_x"
        taken.add(base)
        make = {"video": video_producer, "preview": preview_producer}.get(info.kind, sample_producer)
        producers.append(make(session, info, base))
        producers += calibration_producers(session, info, base)
    return producers


def _register(writer: Writer, topics: Iterable[Topic]) -> dict[str, int]:
    schemas: dict[str, int] = {}
    channels = {}
    for topic in topics:
        if topic.type not in schemas:
            schemas[topic.type] = writer.register_schema(
                topic.type, SchemaEncoding.ROS2, ros2_schemas.definition(topic.type)
            )
        channels[topic.name] = writer.register_channel(
            topic.name, MessageEncoding.CDR, schemas[topic.type], topic.metadata
        )
    return channels
