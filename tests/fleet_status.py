"""What rigs say of themselves to a fleet, made up for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from edgecap import topics
from edgecap.model import Verdict
from edgecap.mqtt import Message
from edgecap.status import ClockStatus, RigStatus, SpoolStatus, UplinkStatus

S = 1_000_000_000
"""A second, in ns."""

CLOCK = {
    "locked": True, "u_ns": 60_000, "sigma_ns": 900.0, "skew_ppm": -31.5, "slew_ns": -250.0,
    "rtt_p50_ns": 410_000, "rtt_p99_ns": 900_000, "delay_p50_ns": 20_000, "delay_p99_ns": 300_000,
    "rejected_unknown": 1, "rejected_stale": 2, "rejected_duplicate": 3, "rejected_impossible": 4,
    "restarts": 5, "resets": 6, "seq_lost": 7, "of_a_later_version": [],
}  # fmt: skip
"""What a daemon tells of a board's clock."""


def status(**changes: Any) -> RigStatus:
    return msgspec.structs.replace(
        RigStatus(
            state="recording",
            led="recording",
            fault="",
            session="s-1",
            session_s=12.0,
            task="fold a towel",
            operator="op-1",
            boot="b",
            seq=1,
            t_ns=0,
            utc_ns=0,
            streams=[Verdict("glove-imu", "ok", 1000.0, 12000, u_ns=60_000)],
            devices={},
            spool=SpoolStatus(3, 300_000, 20_000_000_000, 500_000_000, 30.0, 1500.0),
            uplink=UplinkStatus(True, False, 9, 9, 0, 0, 0, "", 900.0, 2000.0),
            clock=ClockStatus(True, 100),
            battery_percent=80.0,
            temperature_c=51.5,
            versions={},
            counters={"gaps": 0},
        ),
        **changes,
    )


def uplink(**changes: Any) -> UplinkStatus:
    return msgspec.structs.replace(status().uplink, **changes)


def told(rig: str, body: RigStatus | bytes, site: str = "lab") -> Message:
    payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Message(topics.topic(site, rig, topics.STATUS), payload, retain=True, qos=1)
