"""What the operator is told: reasons, order, metrics, page data."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import random
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from edgecap import clock, topics
from edgecap.cli.fleet import _live as fleet_live
from edgecap.cli.fleet import address
from edgecap.cli.main import main
from edgecap.errors import BrokerError, UsageError
from edgecap.fleet import attention
from edgecap.fleet.attention import HOURS_LEFT, ORDER, OVERDUE_NS, reasons
from edgecap.fleet.details import rig_details
from edgecap.fleet.metrics import exposition
from edgecap.fleet.roster import REMEMBERED_EVENTS, Roster
from edgecap.fleet.server import MAX_ROWS, FleetServer
from edgecap.fleet.table import NAMED, columns_for, roster_table, summary
from edgecap.model import Verdict
from edgecap.mqtt import Message, connect, parse_broker
from edgecap.sim.broker import LoopbackBroker
from edgecap.status import ClockStatus, RigStatus, SpoolStatus, UplinkStatus

S = 1_000_000_000


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


def test_prometheus_reads_every_rig_and_stream() -> None:
    roster = Roster()
    roster.see(told("a", status(task='a "quoted"\ntask')), clock.now_ns())
    roster.see(told("b", b'{"state":"offline"}'), clock.now_ns())
    found = {
        (s.name, *(v for _, v in sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(exposition(roster)[0].decode())
        for s in family.samples
    }
    assert found["edgecap_rig_up", "a", "lab"] == 1
    assert found["edgecap_rig_up", "b", "lab"] == 0
    assert found["edgecap_stream_rate_hertz", "a", "lab", "glove-imu"] == 1000.0
    assert found["edgecap_stream_clock_bound_seconds", "a", "lab", "glove-imu"] == pytest.approx(60e-6)
    assert found["edgecap_battery_ratio", "a", "lab"] == 0.8
    assert found["edgecap_rig_count_total", "a", "lab", "gaps"] == 0
    assert found["edgecap_disk_left_seconds", "a", "lab"] == status().spool.hours_left * 3600
    assert found["edgecap_fleet_rigs",] == 2
    assert ("edgecap_battery_ratio", "b", "lab") not in found


def test_metrics_are_named_as_prometheus_and_the_document_have_them() -> None:
    roster = Roster()
    roster.see(told("a", status(devices={"glove": {"clock": CLOCK}})), clock.now_ns())
    families = list(text_string_to_metric_families(exposition(roster)[0].decode()))
    for family in families:  # what `promtool check metrics` complains of
        assert not re.search("hours|minutes|_ms|_us|_ns|percent|hz$", family.name), family.name
        assert not {label for s in family.samples for label in s.labels} & {"quantile", "le"}, family.name
        assert family.documentation
    names = {s.name for family in families for s in family.samples}
    text = (Path(__file__).parents[2] / "docs/FLEET.md").read_text()
    for name in re.findall(r"edgecap_[a-z0-9_]+[a-z0-9]\b", text):  # of its alert rules
        assert name in names, f"docs/FLEET.md speaks of {name}"
    for name in names:
        assert not name.startswith("edgecap_clock_") or f"`{name[14:]}`" in text, name


CLOCK = {
    "locked": True, "u_ns": 60_000, "sigma_ns": 900.0, "skew_ppm": -31.5, "slew_ns": -250.0,
    "rtt_p50_ns": 410_000, "rtt_p99_ns": 900_000, "delay_p50_ns": 20_000, "delay_p99_ns": 300_000,
    "rejected_unknown": 1, "rejected_stale": 2, "rejected_duplicate": 3, "rejected_impossible": 4,
    "restarts": 5, "resets": 6, "seq_lost": 7, "of_a_later_version": [],
}  # fmt: skip


def test_prometheus_reads_how_well_the_clocks_of_boards_are_known() -> None:
    roster = Roster()
    devices: dict[str, Any] = {"glove": {"clock": CLOCK}, "camera": {"frames": 3}}
    devices |= {"odd": {"clock": {"u_ns": "x"}}, "worse": {"clock": 7}, "worst": {}}
    roster.see(told("a", status(devices=devices)), clock.now_ns())
    text = exposition(roster)[0].decode()
    found = {
        s.name.removeprefix("edgecap_clock_"): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.name.startswith("edgecap_clock_") and s.labels["device"] == "glove"
    }
    assert found == {
        "locked": 1.0,
        "bound_seconds": pytest.approx(60e-6),
        "sigma_seconds": pytest.approx(0.9e-6),
        "skew_ratio": pytest.approx(-31.5e-6),
        "slew_seconds": pytest.approx(-0.25e-6),
        "round_trip_p50_seconds": pytest.approx(410e-6),
        "round_trip_p99_seconds": pytest.approx(900e-6),
        "excess_delay_p50_seconds": pytest.approx(20e-6),
        "excess_delay_p99_seconds": pytest.approx(300e-6),
        "rejects_total": 10.0,
        "restarts_total": 5.0,
        "resets_total": 6.0,
        "lost_frames_total": 7.0,
    }
    assert not any(f'device="{name}"' in text for name in devices if name != "glove")
    # Whoever asks for OpenMetrics gets what its own, stricter parser takes.
    strict, media_type = exposition(roster, "application/openmetrics-text; version=1.0.0, text/plain; q=0.5")
    assert media_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert {s.name for f in openmetrics(strict.decode()) for s in f.samples} == {
        s.name for f in text_string_to_metric_families(text) for s in f.samples
    }


def test_board_clocks_are_what_the_daemon_tells() -> None:
    from edgecap.fleet.board_clock import BoardClock
    from edgecap.timeline.quality import ClockQuality

    told_by_rigs = {f.name: f.type for f in msgspec.structs.fields(ClockQuality)}
    for field in msgspec.structs.fields(BoardClock):
        assert told_by_rigs[field.name] == field.type, field.name


@pytest.mark.parametrize("text", ["localhost", "h:x", "h:70000", ""])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="HOST:PORT"):
        address(text)


def test_addresses() -> None:
    assert address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert address("8080") == ("127.0.0.1", 8080)
    assert address(":8080") == ("127.0.0.1", 8080)
    assert address("[::1]:8080") == ("::1", 8080)


def cli(*args: str) -> tuple[int, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        code = main(list(args))
    return code, out.getvalue()


def get(url: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_the_page_shows_what_a_real_broker_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "OVERDUE_NS", 10**15)  # all rigs speak once, here, however long this takes

    async def body() -> None:
        with LoopbackBroker(tmp_path, program="mosquitto") as broker:
            server = FleetServer(parse_broker(broker.url), client_id="fleet")
            async with (
                server.serve("127.0.0.1", 0) as url,
                connect(parse_broker(broker.url), client_id="rigs") as rigs,
            ):

                async def publish(channel: topics.Channel, rig: str, payload: bytes) -> None:
                    await rigs.publish(
                        topics.topic("lab", rig, channel), payload, qos=1, retain=channel.retain
                    )

                async def ask(query: str = "") -> Any:
                    _, _, text = await asyncio.to_thread(get, f"{url}/rigs.json{query}")
                    return json.loads(text)

                for k in range(MAX_ROWS + 20):
                    await publish(topics.STATUS, f"rig-{k:03}", msgspec.json.encode(status()))
                silent = status(
                    streams=[Verdict("head-cam", "silent", 0.0, 5)],
                    task="<b>fold</b>",
                    devices={"glove": {"clock": CLOCK}},
                )
                await publish(topics.STATUS, "rig-007", msgspec.json.encode(silent))
                await publish(
                    topics.EVENT, "rig-007", b'{"kind":"gap","session":"s","text":"head-cam: camera"}'
                )
                async with asyncio.timeout(60):
                    fleet = await ask()
                    while fleet["rigs"] < MAX_ROWS + 20 or not fleet["rows"] or not fleet["events"]:
                        await asyncio.sleep(0.05)
                        fleet = await ask()
                assert fleet["connected"]
                assert [(r["rig"], r["reasons"][0]["text"], r["task"]) for r in fleet["rows"]] == [
                    ("rig-007", "head-cam: silent", "<b>fold</b>")
                ]
                assert fleet["states"] == {"recording": MAX_ROWS + 20}
                assert fleet["severities"] == {"losing": 1}
                assert fleet["events"][0]["text"] == "head-cam: camera"
                everything = await ask("?all=1")
                assert (everything["matching"], len(everything["rows"])) == (MAX_ROWS + 20, MAX_ROWS)
                assert everything["rows"][0]["rig"] == "rig-007"
                assert [r["rig"] for r in (await ask("?q=RIG-019"))["rows"]] == ["rig-019"]
                one = json.loads((await asyncio.to_thread(get, f"{url}/rig.json?site=lab&rig=rig-007"))[2])
                assert one["reasons"] == [{"severity": "losing", "text": "head-cam: silent"}]
                assert one["streams"][0] == {"stream": "head-cam", "state": "silent", "rate_hz": 0.0, "n": 5}
                assert one["clocks"]["glove"]["rtt_p99_ns"] == 900_000
                assert (await asyncio.to_thread(get, f"{url}/rig.json?rig=rig-007"))[0] == 404
                args = ["fleet", "--broker", broker.url]
                code, printed = await asyncio.to_thread(cli, *args, "--json", "rig-007")
                (row,) = json.loads(printed)
                assert (code, row["rig"]) == (1, "rig-007")
                assert row["reasons"] == one["reasons"]
                assert row["status"]["devices"]["glove"]["clock"]["rtt_p99_ns"] == 900_000
                code, printed = await asyncio.to_thread(cli, *args, "rig-007")
                assert code == 1
                for said in ("● head-cam: silent", "task: <b>fold</b>", "410, 900", "-31.50"):
                    assert said in printed
                for named, said in (
                    ("rigg-007", "no rig rigg-007 has spoken to this broker; did you mean rig-007?"),
                    ("lab/rig-999x", "no rig lab/rig-999x has spoken"),
                    ("other/rig-007", "no rig other/rig-007 has spoken"),
                ):
                    code, printed = await asyncio.to_thread(cli, *args, named, "--json")
                    assert (code, said in printed) == (1, True), printed
                assert (await asyncio.to_thread(cli, *args, "lab/rig-007"))[1].startswith("lab/rig-007")
                assert (await asyncio.to_thread(cli, *args, "--site", "lob", "a/b"))[0] == 2
                assert await asyncio.to_thread(cli, *args, "--once", "--site", "lob") == (
                    0, "no rig of site lob has spoken to this broker yet\n"
                )  # fmt: skip
                for path, start in {
                    "/": b"<!doctype html>",
                    "/page.js": b'"use strict"',
                    "/page.css": b":root",
                }.items():
                    code, headers, text = await asyncio.to_thread(get, url + path)
                    assert (code, text.startswith(start)) == (200, True)
                    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
                code, _, text = await asyncio.to_thread(get, f"{url}/metrics")
                assert (code, f"edgecap_fleet_rigs {MAX_ROWS + 20}.0".encode() in text) == (200, True)
                assert (await asyncio.to_thread(get, f"{url}/healthz"))[0] == 200
                await asyncio.to_thread(broker.kill)
                async with asyncio.timeout(30):
                    while server.connected:
                        await asyncio.sleep(0.05)
                assert (await asyncio.to_thread(get, f"{url}/healthz"))[0] == 503
                assert not (await ask())["connected"]

    asyncio.run(body())


def test_the_live_table_outlives_its_broker(tmp_path: Path) -> None:
    screen = io.StringIO()

    async def until(said: str) -> None:
        async with asyncio.timeout(60):
            while said not in screen.getvalue():
                await asyncio.sleep(0.05)

    async def tell(url: str, rig: str) -> None:
        async with connect(parse_broker(url), client_id=rig) as connection:
            await connection.publish(
                topics.topic("lab", rig, topics.STATUS), told(rig, status()).payload, qos=1
            )

    async def body() -> None:
        with LoopbackBroker(tmp_path, program="mosquitto") as broker:
            live = asyncio.create_task(
                fleet_live(
                    parse_broker(broker.url), "+", Console(file=screen, force_terminal=True, width=150)
                )
            )
            try:
                async with asyncio.timeout(60):
                    while "lab/before" not in screen.getvalue():
                        await tell(broker.url, "before")  # again, should the table have subscribed after it
                await asyncio.to_thread(broker.kill)
                await until("The broker is not heard: ")
                await asyncio.to_thread(broker.start)
                async with asyncio.timeout(60):
                    while "lab/after" not in screen.getvalue():
                        await tell(broker.url, "after")
                assert not live.done()
            finally:
                live.cancel()
                await asyncio.wait([live])
        with pytest.raises(BrokerError, match="refused the connection"):
            await fleet_live(parse_broker(broker.url), "+", Console(file=screen, width=150))

    asyncio.run(body())


def test_a_taken_port_is_one_line() -> None:
    async def body() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}.*choose another"):
                async with FleetServer(parse_broker("mqtt://127.0.0.1:1"), client_id="x").serve(
                    "127.0.0.1", port
                ):
                    pass

    asyncio.run(body())
