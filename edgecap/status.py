"""What the fleet sees of a rig, and the commands that a rig obeys."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Annotated, Any, Literal, get_args

import msgspec

from edgecap.errors import EdgecapError
from edgecap.model import Verdict

Commands = Literal["start", "stop", "mark", "discard", "task", "status", "pause", "resume", "limit", "blink"]
MAX_COMMAND_BYTES = 16 * 1024
REMEMBERED_IDS = 1024
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not the JSON they should be: text that is not UTF-8 and nesting
without end are not among msgspec's own errors."""
OFFLINE = b'{"state":"offline"}'
"""Last will, published by the broker when the rig is gone."""


class SpoolStatus(msgspec.Struct, frozen=True):
    """How much waits for delivery and how long the card lasts."""

    chunks: int
    bytes: int
    free_bytes: int
    reserve_bytes: int
    hours_left: float | None
    """Of recording, at the rate last measured, should nothing be delivered; None before the first session."""
    durable_age_p99_ms: float
    """From a chunk's first sample to the disk's word that it holds the chunk."""


class UplinkStatus(msgspec.Struct, frozen=True):
    """Delivery since the daemon started."""

    connected: bool
    paused: bool
    sent: int
    receipted: int
    resent: int
    refused: int
    quarantined: int
    """Chunks set aside because they cannot be delivered."""
    held: str
    """Why nothing is sent; empty while it is."""
    receipt_p50_ms: float
    receipt_p99_ms: float
    max_kbit_s: int = 0
    """Bandwidth cap, 0 for none."""


class ClockStatus(msgspec.Struct, frozen=True):
    """How far wall-clock times of this rig can be trusted."""

    trusted: bool
    max_error_us: int


_STATISTICS = msgspec.Meta(
    extra_json_schema={
        "additionalProperties": {
            "anyOf": [
                {"$ref": f"#/components/schemas/{kind}Statistics"} for kind in ("Serial", "Camera", "Iio")
            ]
        }
    }
)


class RigStatus(msgspec.Struct, frozen=True, omit_defaults=False):
    """The retained `status` message."""

    state: str
    led: str
    fault: str
    session: str
    session_s: float
    task: str
    operator: str
    boot: str
    seq: int
    """Counts status messages since the daemon started; a jump tells of lost ones."""
    t_ns: int
    utc_ns: int
    streams: list[Verdict]
    devices: Annotated[dict[str, dict[str, Any]], _STATISTICS]
    """Per source: what it counts about its link and clock."""
    spool: SpoolStatus
    uplink: UplinkStatus
    clock: ClockStatus
    battery_percent: float | None
    temperature_c: float | None
    versions: dict[str, str]
    counters: dict[str, int]
    """Everything that was refused, dropped or restarted since the daemon started."""
    desired_version: str = ""
    """Of the desired state that the rig follows."""
    desired_error: str = ""
    """Why it does not follow the newest one; empty while it does."""
    problems: dict[str, str] = {}
    """What is wrong now beyond the verdicts on streams: by device or part, one line that names the fix."""
    loop: dict[str, float] = {}
    """How promptly the daemon's event loop answers, in ms."""


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message on `cmd`."""

    id: str
    cmd: Commands
    args: dict[str, str] = {}
    expires_utc_s: float = 0.0
    """Refused after this time by the rig's wall clock, where that is trusted; 0 never expires."""


class CommandResult(msgspec.Struct, frozen=True):
    """The answer on `cmd/res`."""

    id: str
    ok: bool
    message: str
    status: RigStatus | None = None


class CommandRefused(EdgecapError):
    """A command that is malformed, expired or was seen before."""


class CommandInbox:
    """Validates commands and refuses to obey one twice."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()
        self.refused = 0

    def accept(self, payload: bytes, *, utc_s: float | None, busy: bool = False) -> Command:
        """Decode a command; `utc_s` is None while the wall clock is not trusted.

        One that comes while the rig is `busy` with too many others is refused, and may come again.

        Raises:
            CommandRefused: the message names the reason; `evidence["id"]` is the command's id, if it has one.
        """
        try:
            if len(payload) > MAX_COMMAND_BYTES:
                raise CommandRefused(
                    f"command has {len(payload)} bytes, the limit is {MAX_COMMAND_BYTES}", id=""
                )
            command = self._decode(payload)
            if not 0 < len(command.id) <= 64:
                raise CommandRefused("command id must have 1 to 64 characters", id=command.id[:64])
            if command.id in self._seen:
                raise CommandRefused(f"command {command.id} was already answered", id=command.id)
            if command.expires_utc_s and utc_s is not None and utc_s > command.expires_utc_s:
                late = utc_s - command.expires_utc_s
                raise CommandRefused(f"command {command.id} expired {late:.0f} s ago", id=command.id)
            if busy:
                raise CommandRefused(
                    f"command {command.id} came while too many others were under way",
                    fix="send it again when they are answered",
                    id=command.id,
                )
        except CommandRefused:
            self.refused += 1
            raise
        self._seen[command.id] = None
        if len(self._seen) > REMEMBERED_IDS:
            self._seen.popitem(last=False)
        return command

    @staticmethod
    def _decode(payload: bytes) -> Command:
        try:
            return msgspec.json.decode(payload, type=Command)
        except NOT_JSON as error:
            found, why, fix = "", str(error), ""
            try:
                tree = msgspec.json.decode(payload)
                if isinstance(tree, dict):
                    found = str(tree.get("id", ""))[:64]
                    if isinstance(wanted := tree.get("cmd"), str) and wanted not in get_args(Commands):
                        why = f"there is no command {wanted[:64]!r}"
                        fix = f"one of {', '.join(get_args(Commands))}"
            except NOT_JSON:
                pass
            raise CommandRefused(f"malformed command: {why}", fix=fix, id=found) from error


def telemetry(status: RigStatus) -> bytes:
    """The flat JSON numbers that stock tools read as they are."""
    flat: dict[str, float | int] = {
        "t_utc_s": round(status.utc_ns / 1e9, 3),
        "recording": int(status.state == "recording"),
        "session_s": status.session_s,
        "spool_chunks": status.spool.chunks,
        "spool_bytes": status.spool.bytes,
        "durable_age_p99_ms": status.spool.durable_age_p99_ms,
        "disk_free_bytes": status.spool.free_bytes,
        "uplink_connected": int(status.uplink.connected),
        "uplink_sent": status.uplink.sent,
        "uplink_receipted": status.uplink.receipted,
        "uplink_resent": status.uplink.resent,
        "receipt_p99_ms": status.uplink.receipt_p99_ms,
        "clock_trusted": int(status.clock.trusted),
        "problems": len(status.problems),
        "streams_bad": sum(v.state not in ("ok", "waiting") for v in status.streams),
    }
    if status.battery_percent is not None:
        flat["battery_percent"] = status.battery_percent
    if status.temperature_c is not None:
        flat["temperature_c"] = status.temperature_c
    for v in status.streams:
        key = v.stream.replace("-", "_")
        flat[f"{key}_n"] = v.n
        flat[f"{key}_rate_hz"] = v.rate_hz
        flat[f"{key}_lost"] = v.lost
        flat[f"{key}_u_us"] = v.u_ns / 1000
        for name in ("sharpness", "brightness", "crushed", "clipped"):
            if (value := getattr(v, name)) is not None:
                flat[f"{key}_{name}"] = value
    flat.update(status.counters)
    flat.update(status.loop)
    return msgspec.json.encode(flat)


def trusted_utc_s(clock: ClockStatus) -> float | None:
    """Wall-clock seconds, or None while the clock is not trusted."""
    return time.time() if clock.trusted else None
