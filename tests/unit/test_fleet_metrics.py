"""What Prometheus reads of a fleet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from edgecap import clock
from edgecap.fleet.metrics import exposition
from edgecap.fleet.roster import Roster
from tests.fleet_status import CLOCK, status, told


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
