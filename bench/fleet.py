"""What a fleet of many rigs costs the operator's page.

    python bench/fleet.py                 14,000 rigs of five streams and two boards
    python bench/fleet.py --rigs 1000 --json

Feeds one status message per rig through the roster, then asks for the rows and for one Prometheus scrape;
checks that every rig and stream is in both before a figure is printed. CPU time of this process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import msgspec

from edgecap import clock, topics
from edgecap.fleet.metrics import exposition
from edgecap.fleet.roster import Roster
from edgecap.model import Verdict
from edgecap.mqtt import Message
from edgecap.status import ClockStatus, RigStatus, SpoolStatus, UplinkStatus

CLOCK = {
    "locked": True, "u_ns": 60_123, "sigma_ns": 912.0, "skew_ppm": -31.52, "slew_ns": -251.0,
    "rtt_p50_ns": 410_123, "rtt_p99_ns": 901_234, "delay_p50_ns": 20_123, "delay_p99_ns": 301_234,
}  # fmt: skip
BOARDS = {"left-hand": {"clock": CLOCK}, "right-hand": {"clock": CLOCK}}
STREAMS = ("left-hand-imu", "left-hand-force", "right-hand-imu", "right-hand-force", "head-cam")


def status(k: int) -> bytes:
    """A recording rig; one in a hundred has a silent stream."""
    state = "silent" if k % 100 == 0 else "ok"
    verdicts = [Verdict(s, "ok", 1000.0, 60_000, u_ns=60_000) for s in STREAMS[1:]]
    return msgspec.json.encode(
        RigStatus(
            "recording", "recording", "", f"s-{k}", 60.0, "fold a towel", "op", "boot", 1, 0, 0,
            [Verdict(STREAMS[0], state, 1000.0, 60_000, u_ns=60_000), *verdicts], BOARDS,
            SpoolStatus(3, 300_000, 20 * 10**9, 5 * 10**8, 30.0, 1500.0),
            UplinkStatus(True, False, 9, 9, 0, 0, 0, "", 900.0, 2000.0), ClockStatus(True, 100),
            80.0, 51.5, {}, {"gaps": 0, "source_faults": 0},
        )
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rigs", type=int, default=14_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    messages = [
        Message(topics.topic("lab", f"rig-{k:05}", topics.STATUS), status(k)) for k in range(args.rigs)
    ]
    roster = Roster()
    t0 = time.process_time()
    for message in messages:
        roster.see(message, clock.now_ns())
    t1 = time.process_time()
    rows = roster.rows(clock.now_ns())
    t2 = time.process_time()
    text, _ = exposition(roster)
    t3 = time.process_time()
    bad = sum(row.needs_attention for row in rows)
    assert len(rows) == args.rigs
    assert bad == sum(k % 100 == 0 for k in range(args.rigs))
    assert all(row.needs_attention for row in rows[:bad])
    assert text.count(b"\nedgecap_stream_ok{") == args.rigs * len(STREAMS)
    assert text.count(b"\nedgecap_clock_locked{") == args.rigs * len(BOARDS)
    found = {
        "rigs": args.rigs,
        "message_us": round((t1 - t0) / args.rigs * 1e6, 1),
        "rows_ms": round((t2 - t1) * 1e3, 1),
        "scrape_s": round(t3 - t2, 2),
        "scrape_mb": round(len(text) / 1e6, 1),
    }
    print(json.dumps(found) if args.json else "\n".join(f"{k:12} {v}" for k, v in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
