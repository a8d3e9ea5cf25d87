"""What brokers refuse, and the words in which it is told."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from edgecap.errors import BrokerError
from edgecap.mqtt import (
    Broker,
    PublishRefusedError,
    connect,
    is_permanent,
    parse_broker,
    refused_for_good,
)
from edgecap.sim.broker import HeldPort, LoopbackBroker, TlsFiles
from tests.system.certificates import make_certificates
from tests.system.own_broker import on_running_broker


def test_a_denied_publish_or_subscription_is_an_error(tmp_path: Path) -> None:
    async def body(broker: Broker, _: LoopbackBroker) -> None:
        async with connect(broker, client_id="a") as connection:
            await connection.publish("allowed/x", b"1", qos=1)
            with pytest.raises(
                PublishRefusedError, match=r"'other/x': not authorised \(0x87\); allow"
            ) as caught:
                await connection.publish("other/x", b"1", qos=1)
            assert not refused_for_good(caught.value)
            await connection.publish("allowed/x", b"2", qos=1)  # the connection goes on

    # mosquitto answers a denied subscription with success; a shared one that it cannot parse, with an error
    on_running_broker(tmp_path, body, acl="topic readwrite allowed/#\n")


def test_a_message_too_large_is_refused_for_good(tmp_path: Path) -> None:
    async def body(broker: Broker, _: LoopbackBroker) -> None:
        async with connect(broker, client_id="a") as connection:
            with pytest.raises(PublishRefusedError, match="packet too large") as caught:
                await connection.publish("x/1", bytes(3000), qos=1)
            assert refused_for_good(caught.value)
            await connection.publish("x/1", bytes(900), qos=1)

    on_running_broker(tmp_path, body, options="max_packet_size 2000")  # announced in CONNACK


def test_a_second_client_of_the_same_name_is_told_apart() -> None:
    """mosquitto before 2.0.12 only hangs up on the first; others send a DISCONNECT with reason 0x8E."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(bytes.fromhex("2003000000 e0028e00"))  # CONNACK, DISCONNECT
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def body() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            broker = parse_broker(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            async with connect(broker, client_id="twin") as connection:
                with pytest.raises(BrokerError, match="another client uses the same client id; give every"):
                    await connection.wait_lost()

    asyncio.run(body())


def test_errors_name_the_broker_and_the_fix(tmp_path: Path) -> None:
    async def failing(broker: Broker, match: str) -> BrokerError:
        with pytest.raises(BrokerError, match=match) as caught:
            async with connect(broker, client_id="a", timeout_s=5):
                pass
        assert "\n" not in str(caught.value)
        return caught.value

    async def body(broker: Broker, running: LoopbackBroker) -> None:
        secret = tmp_path / "secret"
        secret.write_text("wrong\n")
        wrong = parse_broker(f"mqtt://rig@127.0.0.1:{running.port}", password_file=secret)
        error = await failing(wrong, r"127\.0\.0\.1:\d+ refused the user name or password; check")
        assert is_permanent(error)
        assert "wrong" not in repr(wrong)
        assert is_permanent(await failing(broker, "did not authorise this client; give a user"))
        secret.write_text("right\n")
        right = parse_broker(f"mqtt://rig@127.0.0.1:{running.port}", password_file=secret)
        async with connect(right, client_id="a") as connection:
            await connection.publish("x", b"", qos=1)
        tls = parse_broker(f"mqtts://rig@127.0.0.1:{running.port}", password_file=secret)
        await failing(tls, "TLS handshake failed.*check that this port speaks TLS")

    on_running_broker(tmp_path / "broker", body, users={"rig": "right"})

    async def unreachable() -> None:
        held = HeldPort()
        closed = Broker("127.0.0.1", held.number)
        error = await failing(
            closed, rf"127\.0\.0\.1:{closed.port} refused the connection; check that a broker"
        )
        assert not is_permanent(error)
        await failing(Broker("no-such-host.invalid", 1883), "'no-such-host.invalid' cannot be resolved")

    asyncio.run(unreachable())


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    pem = make_certificates(tmp_path / "pem")
    other = make_certificates(tmp_path / "other")
    with LoopbackBroker(
        tmp_path / "broker",
        tls=TlsFiles(pem.server_cert, pem.server_key, pem.ca),
        acl="pattern readwrite %u/#\n",
    ) as running:

        async def body() -> None:
            good = parse_broker(
                running.url, ca_file=pem.ca, cert_file=pem.client_cert, key_file=pem.client_key
            )
            async with connect(good, client_id="a", subscribe=["rig-1/x"]) as connection:
                await connection.publish("rig-1/x", bytes(100_000), qos=1)
                assert len((await connection.receive()).payload) == 100_000
                with pytest.raises(PublishRefusedError, match="not authorised"):
                    await connection.publish("rig-2/x", b"", qos=1)
            for broker, match in (
                (parse_broker(running.url, ca_file=other.ca), r"its certificate is not accepted .*`ca_file`"),
                (parse_broker(running.url), "its certificate is not accepted"),
                (parse_broker(running.url, ca_file=pem.ca), "ended the TLS session.*client certificate"),
            ):
                with pytest.raises(BrokerError, match=match) as caught:
                    async with connect(broker, client_id="a", timeout_s=5) as connection:
                        await connection.receive()
                assert is_permanent(caught.value)

        asyncio.run(body())


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for program in ("mosquitto", "amqtt"):
            with pytest.raises(BrokerError, match=rf"port {port} on 127\.0\.0\.1 is taken"):
                LoopbackBroker(tmp_path, program=program, port=port).start()  # type: ignore[arg-type]


def test_a_broker_that_cannot_start_quotes_its_log(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"ended at once .*nonsense"):
        LoopbackBroker(tmp_path, program="mosquitto", options="nonsense true").start()
