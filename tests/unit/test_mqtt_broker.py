"""Broker URLs, credentials, and the patience of reconnecting."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from edgecap.errors import BrokerError, ConfigError
from edgecap.mqtt import Backoff, Broker, find_broker, keep_connected, parse_broker
from edgecap.sim.broker import HeldPort


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "username"),
    [
        ("mqtt://broker.example", "broker.example", 1883, False, None),
        ("mqtts://broker.example", "broker.example", 8883, True, None),
        ("mqtt://rig-1@10.0.0.7:2883/", "10.0.0.7", 2883, False, "rig-1"),
        ("mqtt://[fe80::1]:1884", "fe80::1", 1884, False, None),
        ("broker.example:1885", "broker.example", 1885, False, None),
        ("mqtts://rig%401@broker.example", "broker.example", 8883, True, "rig@1"),
    ],
)
def test_urls(url: str, host: str, port: int, tls: bool, username: str | None) -> None:
    broker = parse_broker(url, environ={})
    assert (broker.host, broker.port, broker.tls, broker.username) == (host, port, tls, username)
    assert parse_broker(broker.url.replace("rig@1", "rig%401"), environ={}) == broker


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://broker.example", "scheme 'http'"),
        ("mqtt://", "names no host or port"),
        ("mqtt://h:0", "names no host or port"),
        ("mqtt://h:99999", "is not a URL"),
        ("mqtt://h/topic", "more than user, host and port"),
        ("mqtt://user:secret@h", "carries a password"),
        ("mqtts://user:secret@h:x", "is not a URL"),
    ],
)
def test_urls_refused_without_repeating_a_password(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse_broker(url, environ={})
    assert "secret" not in str(caught.value)
    assert caught.value.fix


def test_a_password_comes_from_file_credential_or_environment_only(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from file\n")
    assert parse_broker("mqtt://u@h", password_file=file).password == "from file"
    (tmp_path / "broker-password").write_text("from systemd")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert parse_broker("mqtt://u@h", environ=environ).password == "from systemd"
    assert parse_broker("mqtt://h", environ=environ).password is None
    found = find_broker(None, config_url="mqtt://c", environ={"EDGECAP_BROKER": "mqtt://u:p%20w@h"})
    assert (found.host, found.password) == ("h", "p w")
    assert "p w" not in repr(found)
    assert "p%20w" not in found.url
    with pytest.raises(ConfigError, match=r"EDGECAP_BROKER.*password_file.*systemd"):
        find_broker("mqtt://u:p@h", environ={})
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_broker("mqtt://u@h", password_file=tmp_path / "none")
    with pytest.raises(ConfigError, match="a password but no user"):
        parse_broker("mqtt://h", password_file=file)


def test_which_broker() -> None:
    assert find_broker("mqtt://a", config_url="mqtt://c", environ={"EDGECAP_BROKER": "mqtt://b"}).host == "a"
    assert find_broker(None, config_url="mqtt://c", environ={"EDGECAP_BROKER": "mqtt://b"}).host == "b"
    assert find_broker(None, config_url="mqtt://c", environ={}).host == "c"
    with pytest.raises(ConfigError, match="no MQTT broker is named; give --broker"):
        find_broker(None, environ={})


def test_certificate_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both its certificate and its key"):
        parse_broker("mqtts://h", cert_file=tmp_path / "c", environ={})
    with pytest.raises(ConfigError, match="write mqtts://"):
        parse_broker("mqtt://h", ca_file=tmp_path / "c", environ={})
    missing = parse_broker("mqtts://h", ca_file=tmp_path / "none.pem", environ={})
    with pytest.raises(ConfigError, match=r"none\.pem cannot be read"):
        missing.tls_context()
    (tmp_path / "bad.pem").write_text("not a certificate")
    bad = parse_broker("mqtts://h", ca_file=tmp_path / "bad.pem", environ={})
    with pytest.raises(ConfigError, match=r"bad\.pem cannot be used"):
        bad.tls_context()
    context = parse_broker("mqtts://h", environ={}).tls_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_backoff_doubles_its_ceiling_with_full_jitter() -> None:
    seed = 7
    waits = [[Backoff(1, 60, seed=seed + k).next_s() for k in range(400)]]
    backoff = Backoff(1, 60, seed=seed)
    assert max(waits[0]) <= 1
    ceilings = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert all(0 <= backoff.next_s() <= ceiling for ceiling in ceilings)
    many = [Backoff(1, 60, seed=seed + k) for k in range(400)]
    for backoff in many:
        backoff.failures = 6
    drawn = [backoff.next_s() for backoff in many]
    assert min(drawn) < 3 < 57 < max(drawn)
    for _ in range(2000):
        backoff.next_s()  # no overflow after years of failing
    backoff.reset()
    assert backoff.next_s() <= 1
    assert [Backoff(seed=3).next_s() for _ in range(2)] == [Backoff(seed=3).next_s() for _ in range(2)]


def test_reconnecting_waits_tells_why_and_can_give_up() -> None:
    waits: list[float] = []
    states: list[tuple[bool, str]] = []

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        await asyncio.sleep(0)

    async def body() -> None:
        held = HeldPort()
        broker = Broker("127.0.0.1", held.number)
        with pytest.raises(BrokerError, match="refused the connection"):
            await keep_connected(
                broker,
                client_id="a",
                backoff=Backoff(1, 4, seed=5, sleep=sleep),
                on_state=lambda connected, reason: states.append((connected, reason)),
                give_up=lambda error: len(waits) == 5,
            )

    asyncio.run(body())
    same = Backoff(1, 4, seed=5)
    assert waits == [same.next_s() for _ in range(5)]
    assert not any(connected for connected, _ in states)
    assert f"next attempt in {waits[0]:.1f} s" in states[0][1]


def test_a_link_without_its_ca_file_tries_on_and_names_it(tmp_path: Path) -> None:
    told: list[str] = []

    async def main() -> None:
        broker = parse_broker("mqtts://127.0.0.1:1", ca_file=tmp_path / "none.pem", environ={})
        tries_ended = asyncio.Event()

        async def wait(seconds: float) -> None:
            if len(told) == 3:
                tries_ended.set()
            await asyncio.sleep(0)

        link = asyncio.create_task(
            keep_connected(
                broker,
                client_id="x",
                backoff=Backoff(sleep=wait),
                on_state=lambda connected, reason: told.append(reason),
            )
        )
        await tries_ended.wait()
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)

    asyncio.run(main())
    assert all("none.pem cannot be read" in reason for reason in told)
