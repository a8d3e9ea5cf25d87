"""The fleet's page and live table with a real broker, and their addresses."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from edgecap import topics
from edgecap.cli.fleet import _live as fleet_live
from edgecap.cli.fleet import address
from edgecap.cli.main import main
from edgecap.errors import BrokerError, UsageError
from edgecap.fleet import attention
from edgecap.fleet.server import MAX_ROWS, FleetServer
from edgecap.model import Verdict
from edgecap.mqtt import Broker, connect, parse_broker
from edgecap.sim.broker import LoopbackBroker
from tests.fleet_status import CLOCK, status, told
from tests.waiting import until


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


async def fetch(url: str) -> tuple[int, dict[str, str], bytes]:
    return await asyncio.to_thread(get, url)


async def rows_of(url: str, query: str = "") -> Any:
    return json.loads((await fetch(f"{url}/rigs.json{query}"))[2])


async def fleet(broker: Broker, *args: str) -> tuple[int, str]:
    return await asyncio.to_thread(cli, "fleet", "--broker", broker.url, *args)


async def speak(broker: Broker) -> None:
    """More rigs than the page shows, one of which is in trouble."""
    silent = status(
        streams=[Verdict("head-cam", "silent", 0.0, 5)],
        task="<b>fold</b>",
        devices={"glove": {"clock": CLOCK}},
    )
    gap = b'{"kind":"gap","session":"s","text":"head-cam: camera"}'
    async with connect(broker, client_id="rigs") as rigs:

        async def publish(channel: topics.Channel, rig: str, payload: bytes) -> None:
            await rigs.publish(topics.topic("lab", rig, channel), payload, qos=1, retain=channel.retain)

        for k in range(MAX_ROWS + 20):
            await publish(topics.STATUS, f"rig-{k:03}", msgspec.json.encode(status()))
        await publish(topics.STATUS, "rig-007", msgspec.json.encode(silent))
        await publish(topics.EVENT, "rig-007", gap)


async def check_rows(url: str) -> None:
    shown = await rows_of(url)
    assert shown["connected"]
    assert [(r["rig"], r["reasons"][0]["text"], r["task"]) for r in shown["rows"]] == [
        ("rig-007", "head-cam: silent", "<b>fold</b>")
    ]
    assert shown["states"] == {"recording": MAX_ROWS + 20}
    assert shown["severities"] == {"losing": 1}
    assert shown["events"][0]["text"] == "head-cam: camera"
    everything = await rows_of(url, "?all=1")
    assert (everything["matching"], len(everything["rows"])) == (MAX_ROWS + 20, MAX_ROWS)
    assert everything["rows"][0]["rig"] == "rig-007"
    assert [r["rig"] for r in (await rows_of(url, "?q=RIG-019"))["rows"]] == ["rig-019"]


async def check_one_rig(url: str, broker: Broker) -> None:
    one = json.loads((await fetch(f"{url}/rig.json?site=lab&rig=rig-007"))[2])
    assert one["reasons"] == [{"severity": "losing", "text": "head-cam: silent"}]
    assert one["streams"][0] == {"stream": "head-cam", "state": "silent", "rate_hz": 0.0, "n": 5}
    assert one["clocks"]["glove"]["rtt_p99_ns"] == 900_000
    assert (await fetch(f"{url}/rig.json?rig=rig-007"))[0] == 404
    code, printed = await fleet(broker, "--json", "rig-007")
    (row,) = json.loads(printed)
    assert (code, row["rig"]) == (1, "rig-007")
    assert row["reasons"] == one["reasons"]
    assert row["status"]["devices"]["glove"]["clock"]["rtt_p99_ns"] == 900_000


async def check_command(broker: Broker) -> None:
    code, printed = await fleet(broker, "rig-007")
    assert code == 1
    for said in ("● head-cam: silent", "task: <b>fold</b>", "410, 900", "-31.50"):
        assert said in printed
    for named, said in (
        ("rigg-007", "no rig rigg-007 has spoken to this broker; did you mean rig-007?"),
        ("lab/rig-999x", "no rig lab/rig-999x has spoken"),
        ("other/rig-007", "no rig other/rig-007 has spoken"),
    ):
        code, printed = await fleet(broker, named, "--json")
        assert (code, said in printed) == (1, True), printed
    assert (await fleet(broker, "lab/rig-007"))[1].startswith("lab/rig-007")
    assert (await fleet(broker, "--site", "lob", "a/b"))[0] == 2
    nobody = "no rig of site lob has spoken to this broker yet\n"
    assert await fleet(broker, "--once", "--site", "lob") == (0, nobody)


async def check_files(url: str) -> None:
    for path, start in {"/": b"<!doctype html>", "/page.js": b'"use strict"', "/page.css": b":root"}.items():
        code, headers, text = await fetch(url + path)
        assert (code, text.startswith(start)) == (200, True)
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    code, _, text = await fetch(f"{url}/metrics")
    assert (code, f"edgecap_fleet_rigs {MAX_ROWS + 20}.0".encode() in text) == (200, True)


def test_the_page_shows_what_a_real_broker_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "OVERDUE_NS", 10**15)  # all rigs speak once, here, however long this takes

    async def body() -> None:
        with LoopbackBroker(tmp_path, program="mosquitto") as running:
            broker = parse_broker(running.url)
            server = FleetServer(broker, client_id="fleet")
            async with server.serve("127.0.0.1", 0) as url:
                await speak(broker)
                async with asyncio.timeout(60):
                    shown = await rows_of(url)
                    while shown["rigs"] < MAX_ROWS + 20 or not shown["rows"] or not shown["events"]:
                        await asyncio.sleep(0.05)
                        shown = await rows_of(url)
                await check_rows(url)
                await check_one_rig(url, broker)
                await check_command(broker)
                await check_files(url)
                assert (await fetch(f"{url}/healthz"))[0] == 200
                await asyncio.to_thread(running.kill)
                await until(lambda: not server.connected)
                assert (await fetch(f"{url}/healthz"))[0] == 503
                assert not (await rows_of(url))["connected"]

    asyncio.run(body())


def test_the_live_table_outlives_its_broker(tmp_path: Path) -> None:
    screen = io.StringIO()

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
                await until(lambda: "The broker is not heard: " in screen.getvalue())
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
