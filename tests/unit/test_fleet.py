"""What the operator is told of each rig: reasons, their order, the table."""

from __future__ import annotations

import io
import random
from typing import Any

import msgspec
import pytest
from rich.console import Console

from edgecap import topics
from edgecap.fleet.attention import HOURS_LEFT, ORDER, OVERDUE_NS, reasons
from edgecap.fleet.details import rig_details
from edgecap.fleet.metrics import exposition
from edgecap.fleet.roster import REMEMBERED_EVENTS, Roster
from edgecap.fleet.table import NAMED, columns_for, roster_table, summary
from edgecap.model import Verdict
from edgecap.mqtt import Message
from edgecap.status import ClockStatus, SpoolStatus
from tests.fleet_status import CLOCK, S, status, told, uplink


def words(*args: Any, **kwargs: Any) -> list[tuple[str, str]]:
    return [tuple(r) for r in reasons(*args, **kwargs)]


def test_a_rig_that_is_well_gives_no_reason() -> None:
    assert words("recording", status(), 0) == []
    assert words("recording", status(uplink=uplink(paused=True, held="paused")), 0) == []
    assert words("offline", None, 10**15, was="idle") == []


@pytest.mark.parametrize(
    ("changes", "age_ns", "severity", "text"),
    [
        ({"fault": "no sensor"}, 0, "losing", "no sensor"),
        ({"state": "fault"}, 0, "losing", "fault"),
        ({"streams": [Verdict("cam", "silent", 0.0, 0)]}, 0, "losing", "cam: silent"),
        ({"streams": [Verdict("cam", "dark", 30.0, 9)]}, 0, "losing", "cam: dark"),
        ({"streams": [Verdict("cam", "silent", 0.0, 9, age_ms=12e3)]}, 0, "losing", "cam: silent for 12 s"),
        ({"streams": [Verdict("imu", "rate", 250.0, 9)]}, 0, "losing", "imu: rate, 250 Hz"),
        (
            {"streams": [Verdict("imu", "saturated", 1e3, 9, saturated=0.12)]},
            0,
            "losing",
            "imu: saturated, 12 % of its samples at full scale",
        ),
        (
            {"streams": [Verdict("imu", "clock", 1e3, 9, u_ns=4_200_000)]},
            0,
            "losing",
            "imu: clock, times known to ± 4.2 ms only",
        ),
        (
            {"streams": [Verdict("imu", "gaps", 1e3, 9, gaps=2, lost=290, gap_cause="overrun")]},
            0,
            "losing",
            "imu: gaps, 2 gaps, 290 samples lost (the last: the board had no room left for them)",
        ),
        (
            {"streams": [Verdict("imu", "ok", 1e3, 9, gaps=1, lost=1, gap_cause="line")]},
            0,
            "odd",
            "imu: earlier in this session 1 gap, 1 sample lost (lost on the line: check cable and hub)",
        ),
        (
            {"streams": [Verdict("imu", "ok", 1e3, 9, gaps=1, gap_cause="reset")]},
            0,
            "odd",
            "imu: earlier in this session 1 gap (the board was reset)",
        ),
        ({"streams": [Verdict("cam", "blurred", 30.0, 9)]}, 0, "odd", "cam: blurred, or a bare wall"),
        (
            {"streams": [Verdict("glove", "drift", 1e3, 9, drift=-0.5, drift_of="tare of thumb [N]")]},
            0,
            "odd",
            "glove: drifts, tare of thumb [N]: -0.5",
        ),
        ({"problems": {"glove": "glove: unplugged"}}, 0, "losing", "glove: unplugged"),
        ({"problems": {"cam": "cam: taken"}, "state": "idle"}, 0, "soon", "cam: taken"),
        ({"problems": {"cam": "taken"}, "fault": "none works: taken"}, 0, "losing", "none works: taken"),
        ({"desired_error": "task is too long"}, 0, "odd", "task is too long"),
        ({"spool": SpoolStatus(1, 1, 400, 400, None, 0.0)}, 0, "soon", "card is full: 0 MB free"),
        ({"spool": SpoolStatus(1, 1, 10**9, 1, HOURS_LEFT / 2, 0.0)}, 0, "soon", "card full in 30 min"),
        ({"battery_percent": 14.0}, 0, "soon", "battery at 14 %"),
        ({"uplink": uplink(quarantined=2)}, 0, "odd", "2 chunks cannot be delivered"),
        ({"uplink": uplink(held="broker refuses")}, 0, "odd", "delivery is held: broker refuses"),
        ({}, OVERDUE_NS + S, "odd", "no word for 36 s though connected"),
    ],
)  # fmt: skip
def test_each_trouble_is_said_in_words(
    changes: dict[str, Any], age_ns: int, severity: str, text: str
) -> None:
    body = status(**changes)
    assert words(body.state, body, age_ns) == [(severity, text)]


def test_a_device_that_is_gone_is_told_of_before_its_streams() -> None:
    body = status(streams=[Verdict("hand-imu", "silent", 0.0, 9)], problems={"hand": "hand is disconnected"})
    assert [r.text for r in reasons("recording", body, 0)] == ["hand is disconnected", "hand-imu: silent"]


def test_the_worst_comes_first_and_a_rig_that_vanished_while_recording_is_named() -> None:
    body = status(fault="broken", spool=SpoolStatus(1, 1, 400, 400, None, 0.0))
    assert [r.severity for r in reasons("fault", body, 10 * OVERDUE_NS)] == list(ORDER)
    roster = Roster()
    roster.see(told("a", status()), 1 * S)
    roster.see(told("a", b'{"state":"offline"}'), 5 * S)
    roster.see(told("b", status(fault="x")), 6 * S)
    roster.see(told("c", b"\xff"), 6 * S)
    rows = {r.rig: r for r in roster.rows(9 * S)}
    assert list(rows) == ["b", "a", "c"]
    assert rows["a"].since_ns == 5 * S
    assert rows["a"].was == "recording"
    assert rows["a"].reasons(9 * S) == [("odd", "went offline while recording")]
    assert rows["c"].state == "unreadable"
    roster.see(told("a", b'{"state":"offline"}'), 30 * S)
    assert {r.rig: r.since_ns for r in roster.rows()}["a"] == 5 * S


@pytest.mark.parametrize("width", [60, 80, 100, 120, 140, 200])
def test_which_rig_and_what_is_wrong_fit_any_terminal(width: int) -> None:
    roster = Roster()
    roster.see(told("rig-01", status(problems={"hand": "hand is disconnected: plug it in again"})), 1 * S)
    rows = roster.rows(2 * S)
    columns = columns_for(rows, width)
    assert columns[:3] == ["rig", "state", "needs attention"]
    assert ("free" in columns, "task" in columns) == (width >= 80, width >= 140)
    console = Console(width=width, file=io.StringIO())
    console.print(roster_table(rows, width))
    out = console.file.getvalue()
    assert "lab/rig-01" in out
    assert "hand is disconnected" in " ".join(out.split())


def test_a_long_table_names_the_bad_rigs_where_they_are_still_seen() -> None:
    roster = Roster()
    for k in range(200):
        bad = Verdict("cam", "silent", 0.0, 5)
        roster.see(told(f"rig-{k:03}", status(streams=[bad]) if k in (7, 120) else status()))
    roster.see(told("rig-300", status(battery_percent=3.0)))
    assert summary(roster.rows()) == "201 rigs; ● losing data: lab/rig-007, lab/rig-120; ▲ soon: lab/rig-300"
    for k in range(NAMED + 2):
        roster.see(told(f"rig-{k:03}", status(fault="x")))
    assert "lab/rig-004 and 4 more; ▲" in summary(roster.rows())


def test_what_a_rig_says_is_no_markup() -> None:
    roster = Roster()
    clocks = {"glove": {"clock": CLOCK}}
    roster.see(told("a", status(state="[/x]", session="[/y]", task="[/z]", devices=clocks)), 1 * S)
    console = Console(width=200, file=io.StringIO())
    console.print(roster_table(roster.rows(), 200), rig_details(roster.rows()[0]))
    for said in ("[/x]", "[/y]", "[/z]", "skew [ppm]", "bound [µs]", "rate [Hz]"):
        assert said in console.file.getvalue()


def test_two_rigs_under_one_name_are_found_out_and_a_restart_is_not() -> None:
    roster = Roster()

    def heard(boot: str, now_ns: int) -> list[str]:
        roster.see(told("rig-1", status(boot=boot)), now_ns)
        roster.see(told("rig-1", b'{"state":"offline"}'), now_ns)
        roster.see(told("rig-1", status(boot=boot)), now_ns)
        return [reason.text for row in roster.rows(now_ns) for reason in row.reasons(now_ns)]

    assert [heard(boot, n * S) for n, boot in enumerate(("a", "a", "b", "b", "c"), 1)] == [[]] * 5
    assert heard("b", 6 * S) == ["two rigs use this name: give one another"]
    assert heard("b", 60 * S) == ["two rigs use this name: give one another"]
    assert heard("b", 700 * S) == []
    assert words("idle", status(clock=ClockStatus(False, 0)), 0) == [
        ("odd", "its wall clock was never set: its sessions are dated wrong")
    ]


def test_hostile_messages_are_counted_and_change_nothing() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    roster = Roster()
    roster.see(Message("edgecap/v1/../x/status", b"{}"))
    assert (roster.refused, len(roster)) == (1, 0)
    body = msgspec.json.encode(status())
    for _ in range(500):
        cut = bytearray(body)
        for _ in range(rng.randint(1, 5)):
            cut[rng.randrange(len(cut))] = rng.randrange(256)
        roster.see(told("a", bytes(cut[: rng.randrange(len(cut) + 1)])), S)
        topic = topics.topic("lab", "a", topics.EVENT)
        roster.see(Message(topic, bytes(cut[: rng.randrange(len(cut))])), S)
        for row in roster.rows(2 * S):
            row.reasons(2 * S)
        exposition(roster)
    assert len(roster) == 1
    assert len(roster.events) <= REMEMBERED_EVENTS
