"""How long `edgecap demo` waits: for ever on a machine that gets on, not much longer than nothing moves."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgecap import topics
from edgecap.cli.demo import _streams_on_page, as_called
from edgecap.cli.demo_view import DemoView
from edgecap.cli.demo_wait import MOST_S, PATIENCE_S, SAID_EVERY_S, Patience
from edgecap.model import Verdict
from edgecap.mqtt import Message, connect, parse_broker
from edgecap.sim.broker import LoopbackBroker
from edgecap.sim.demo import DemoSite, run_part
from tests.fleet_status import status


@given(st.lists(st.tuples(st.floats(0.01, PATIENCE_S * 0.9), st.booleans()), max_size=60))
def test_patience_lasts_as_long_as_something_moves(steps: list[tuple[float, bool]]) -> None:
    now_s = 1000.0
    patience = Patience(lambda: now_s)
    seen, moved_s = 0, now_s
    assert patience.lasts(seen)
    for step_s, moves in steps:
        now_s += step_s
        if moves:
            seen, moved_s = seen + 1, now_s
        assert patience.lasts(seen) == (now_s - moved_s < PATIENCE_S and now_s - 1000.0 < MOST_S)


def test_a_word_is_said_now_and_then() -> None:
    now_s = 0.0
    patience = Patience(lambda: now_s)
    said = []
    for k in range(41):
        now_s = k * SAID_EVERY_S / 4
        if patience.should_say():
            said.append(k)
    assert said == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]


def test_the_view_tells_progress_and_where_the_rig_stands() -> None:
    out = io.StringIO()
    view = DemoView(Console(file=out, width=200), 10.0)
    assert view.standing() == "it has not spoken yet"
    before = view.progress_made()
    for _ in range(2):
        view.see(
            Message(
                topics.topic("demo", "rig-01", topics.TELEMETRY), msgspec.json.encode({"spool_chunks": 7})
            )
        )
    after = view.progress_made()
    assert before != after
    view.see(Message(topics.topic("demo", "rig-01", topics.TELEMETRY), b'{"spool_chunks":7,"t_utc_s":2}'))
    assert view.progress_made() == after  # that time passes is no progress
    view.wait_for("waiting until the rig is idle (6 s)")
    assert "waiting until the rig is idle (6 s)" in out.getvalue()


def test_a_sites_broker_in_the_environment_is_not_the_demos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon takes EDGECAP_BROKER before its configuration: the demo would have delivered to the site."""
    monkeypatch.setenv("EDGECAP_BROKER", "mqtt://127.0.0.1:1")

    async def body() -> None:
        log = tmp_path / "log"
        async with run_part("fleet", ["fleet", "--once"], log) as part, asyncio.timeout(60):
            assert await part.process.wait() == 2
        assert log.read_text() == "edgecap: no MQTT broker is named; give --broker, or set EDGECAP_BROKER\n"

    asyncio.run(body())


def test_what_is_to_be_typed_next_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "edgecap"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert as_called() == str(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert as_called() == "edgecap"
    monkeypatch.setattr(sys, "argv", ["/x/edgecap/__main__.py"])
    assert as_called().endswith(" -m edgecap")


def test_the_demos_fleet_page_shows_what_is_recorded(tmp_path: Path) -> None:
    seen = Verdict("glove-imu", "ok", 1000.0, 9)
    site = DemoSite(tmp_path, tmp_path)

    async def body(broker: LoopbackBroker) -> None:
        args = ["fleet", "--listen", "127.0.0.1:0", "--broker", broker.url]
        async with run_part("fleet", args, tmp_path / "log") as part, asyncio.timeout(60):
            site.parts.append(part)
            while not (url := site.fleet_url()):
                part.check()
                await asyncio.sleep(0.05)
            async with connect(parse_broker(broker.url), client_id="rig") as connection:
                for state, shown in (("idle", []), ("recording", ["glove-imu"])):
                    body = msgspec.json.encode(status(state=state, streams=[seen]))
                    await connection.publish(topics.topic("demo", "rig-01", topics.STATUS), body, qos=1)
                    while await asyncio.to_thread(_streams_on_page, url) != shown:
                        await asyncio.sleep(0.05)
        assert await asyncio.to_thread(_streams_on_page, url) == []

    with LoopbackBroker(tmp_path) as broker:
        asyncio.run(body(broker))
