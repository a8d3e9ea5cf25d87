"""A session's own records as topics, and its manifest as metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from edgecap.dataset.cdr import CdrLayout
from edgecap.dataset.mcap_streams import GAPS, Producer, Topic, gap_message
from edgecap.dataset.merge import Batch
from edgecap.dataset.session import RecordedSession
from edgecap.model import ClockPair, Gap, Mark

MARKS = Topic("/marks", "edgecap_msgs/msg/Mark")
LOG = Topic("/log", "foxglove_msgs/msg/Log")
PAIRS = Topic("/clock/pairs", "edgecap_msgs/msg/ClockPair")
VERDICTS = Topic("/verdicts", "edgecap_msgs/msg/Verdict")
_VERDICT_NUMBERS = (
    ("rate_hz", "<f8"),
    ("n", "<i8"),
    ("gaps", "<i8"),
    ("lost", "<i8"),
    ("saturated", "<f8"),
    ("u_ns", "<i8"),
    ("age_ms", "<f8"),
)
_PICTURE_NUMBERS = ("sharpness", "brightness", "crushed", "clipped")
INFO, WARNING = 2, 3
GROUP = 512
TIME_LAW = (
    "log_time is UTC of the sample: rig time CLOCK_MONOTONIC_RAW mapped through the recorded clock pairs. "
    "For video it is mid-exposure of the middle row: sensor timestamp - exposure / 2 + height / 2 * line "
    "time. publish_time is UTC of the arrival on the rig. Known lags (lag_ns) are recorded, not applied. "
    "The truth of a sample lies within u_ns of its rig time; utc_u_ns_max bounds rig time against UTC."
)


def record_producers(session: RecordedSession) -> list[Producer]:
    """Marks, gaps and device events; clock pairs; verdicts."""
    return [
        _producer(session, MARKS, [(m.t_ns, _mark(m)) for m in session.marks]),
        _producer(session, GAPS, [(g.t0_ns, _gap(session, g)) for g in session.gaps]),
        _producer(session, LOG, _log(session)),
        _producer(session, PAIRS, [(p.raw_ns, _pair(p)) for p in session.pairs]),
        _producer(session, VERDICTS, _verdicts(session)),
    ]


def _uses(manifest: Mapping[str, Any]) -> str:
    """What the consent allows, as far as it was told."""
    found = manifest.get("consent_scope")
    return "; ".join(map(str, found)) if isinstance(found, list) else ""


def metadata(session: RecordedSession) -> dict[str, dict[str, str]]:
    """The MCAP metadata records by name; every value is a string, structures are JSON."""
    manifest, utc = session.manifest, session.utc
    ends = np.array([session.t0_ns, session.t1_ns], np.int64)
    plain = ("site", "rig", "session", "boot", "task", "operator", "consent")
    return {
        "edgecap.manifest": {
            **{name: str(manifest.get(name, "")) for name in plain},
            "consent_scope": _uses(manifest),
            "outcome": session.outcome,
            "manifest_json": as_json(manifest),
        },
        "edgecap.time": {
            "law": TIME_LAW,
            "utc_trusted": _yes(utc.trusted),
            "utc_u_ns_max": str(int(utc.u_ns(ends).max())),
            "wall_clock_steps": str(utc.steps),
            "wall_clock_synced_share": f"{utc.synced_share:.3f}",
            "t0_rig_ns": str(session.t0_ns),
            "t1_rig_ns": str(session.t1_ns),
            "t0_utc_ns": str(utc.utc_ns(session.t0_ns)),
            "t1_utc_ns": str(utc.utc_ns(session.t1_ns)),
        },
        "edgecap.completeness": {
            "complete": _yes(session.report.complete),
            "report_json": as_json(msgspec.to_builtins(session.report)),
        },
        "edgecap.close": {"close_json": as_json(session.close)},
    }


def as_json(value: object) -> str:
    """JSON in which bytes are hexadecimal."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=_plain)


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _yes(value: bool) -> str:
    return "true" if value else "false"


Encode = Callable[[int], bytes]


def _producer(session: RecordedSession, topic: Topic, records: Sequence[tuple[int, Encode]]) -> Producer:
    """A topic of records; each is encoded with its UTC only when its turn comes."""

    def groups() -> Iterable[list[Batch]]:
        ordered = sorted(enumerate(records), key=lambda item: item[1][0])
        for start in range(0, len(ordered), GROUP):
            part = ordered[start : start + GROUP]
            log_ns = session.utc.to_utc_ns(np.array([t for _, (t, _) in part], np.int64))
            rows = [encode(stamp) for stamp, (_, (_, encode)) in zip(log_ns.tolist(), part, strict=True)]
            yield [Batch(topic.name, log_ns, log_ns, np.array([i for i, _ in part], np.int64), rows)]

    return Producer([topic], groups)


def _mark(mark: Mark) -> Encode:
    layout = CdrLayout().header("rig").constant("<i8", mark.t_ns)
    layout.string(mark.kind).string(mark.text).string(mark.by)
    return layout.message


def _gap(session: RecordedSession, gap: Gap) -> Encode:
    return lambda _: gap_message(session.utc, gap)


def _pair(pair: ClockPair) -> Encode:
    layout = CdrLayout().header("rig").constant("<i8", pair.raw_ns).constant("<i8", pair.monotonic_ns)
    layout.constant("<i8", pair.boottime_ns).constant("<i8", pair.realtime_ns)
    layout.constant("<i8", pair.width_ns).constant("?", pair.ntp_synced)
    layout.constant("<i8", pair.ntp_max_error_us).constant("<i8", pair.ntp_est_error_us)
    layout.constant("<f8", pair.ntp_freq_ppm)
    return layout.message


def _verdicts(session: RecordedSession) -> list[tuple[int, Encode]]:
    return [
        (int(record["t_ns"]), _verdict(verdict))
        for record in session.verdicts
        for verdict in record.get("streams", ())
    ]


def _verdict(verdict: dict[str, Any]) -> Encode:
    """Taken as it was recorded: a newer rig may know states that this program does not."""

    def encode(stamp_ns: int) -> bytes:
        stream = str(verdict.get("stream", ""))
        layout = CdrLayout().header(stream).string(stream).string(str(verdict.get("state", "")))
        for name, dtype in _VERDICT_NUMBERS:
            layout.constant(dtype, verdict.get(name, 0))
        for name in _PICTURE_NUMBERS:
            layout.constant("<f8", verdict.get(name, float("nan")))
        layout.constant("<f8", verdict.get("drift", float("nan"))).string(str(verdict.get("drift_of", "")))
        return layout.message(stamp_ns)

    return encode


def _log(session: RecordedSession) -> list[tuple[int, Encode]]:
    """Everything that happened, in words, for a viewer's log panel."""
    lines: list[tuple[int, int, str, str]] = [(session.t0_ns, INFO, "session", _opening(session.manifest))]
    lines += [
        (m.t_ns, WARNING if m.kind == "went-wrong" else INFO, m.by, f"{m.kind} {m.text}".strip())
        for m in session.marks
    ]
    for gap in session.gaps:
        lost = "" if gap.lost < 0 else f", {gap.lost} lost"
        length = (gap.t1_ns - gap.t0_ns) / 1e6
        lines.append((gap.t0_ns, WARNING, gap.stream, f"gap of {length:.1f} ms ({gap.cause}{lost})"))
    for event in session.events:
        level = WARNING if event.get("kind") in ("disconnected", "reset", "fault") else INFO
        text = f"{event.get('kind', '')} {event.get('text', '')}".strip()
        lines.append((int(event["t_ns"]), level, str(event.get("device", "")), text))
    return [(t_ns, _log_line(level, name, text)) for t_ns, level, name, text in lines]


def _opening(manifest: dict[str, Any]) -> str:
    return f"session {manifest.get('session', '')}: {manifest.get('task', '')}"


def _log_line(level: int, name: str, text: str) -> Encode:
    layout = CdrLayout().stamp().constant("u1", level).string(text).string(name).string("")
    return layout.constant("<u4", 0).message
