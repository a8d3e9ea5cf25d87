"""The MQTT link against real brokers that die, freeze and lie."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from edgecap.errors import BrokerError
from edgecap.mqtt import (
    Backoff,
    Broker,
    Connection,
    Will,
    connect,
    keep_connected,
    parse_broker,
)
from edgecap.sim.broker import LoopbackBroker
from tests.system.own_broker import on_running_broker
from tests.waiting import until


@pytest.mark.parametrize(("program", "version"), [("mosquitto", "5"), ("amqtt", "3.1.1")])
def test_publishes_and_receives(tmp_path: Path, program: str, version: str) -> None:
    async def body(broker: Broker, _: LoopbackBroker) -> None:
        async with connect(broker, client_id="a", subscribe=["x/+"]) as connection:
            assert connection.mqtt_version == version
            for k in range(20):
                await connection.publish(f"x/{k}", bytes([k]) * 1000, qos=1, content_type="text/plain")
            got = [await connection.receive() for _ in range(20)]
            assert sorted((m.topic, m.payload) for m in got) == sorted(
                (f"x/{k}", bytes([k]) * 1000) for k in range(20)
            )

    on_running_broker(tmp_path, body, program=program)


def test_amqtt_is_found_out_even_when_it_stays_silent(tmp_path: Path) -> None:
    """Properties in CONNECT make amqtt wait for bytes that never come."""

    async def body(broker: Broker, _: LoopbackBroker) -> None:
        async with connect(broker, client_id="a", receive_maximum=100) as connection:
            assert connection.mqtt_version == "3.1.1"

    on_running_broker(tmp_path, body, program="amqtt")


def test_a_publish_to_nobody_says_so(tmp_path: Path) -> None:
    async def body(broker: Broker, _: LoopbackBroker) -> None:
        async with connect(broker, client_id="a") as connection:
            assert await connection.publish("x/1", b"", qos=1) == 0x10

    on_running_broker(tmp_path, body)


def test_a_dead_broker_is_noticed_at_once(tmp_path: Path) -> None:
    async def body(broker: Broker, running: LoopbackBroker) -> None:
        published = 0

        async def publish_for_ever(connection: Connection) -> None:
            nonlocal published
            while True:
                await connection.publish("x", bytes(1000), qos=1)
                published += 1

        async with connect(broker, client_id="a", subscribe=["y"]) as connection:
            tasks = [asyncio.create_task(publish_for_ever(connection)) for _ in range(8)]
            tasks.append(asyncio.create_task(connection.wait_lost()))
            tasks.append(asyncio.create_task(connection.receive()))
            await until(lambda: published >= 100)
            running.kill()
            async with asyncio.timeout(60):
                await asyncio.wait(tasks)
            for task in tasks:  # not one waited until its own patience ended, which would say so
                assert "was closed" in str(task.exception())

    on_running_broker(tmp_path, body)


def test_keep_connected_survives_restarts_with_fresh_clients(tmp_path: Path) -> None:
    states: list[tuple[bool, str]] = []
    received: list[bytes] = []

    async def body(broker: Broker, running: LoopbackBroker) -> None:
        connections: list[Connection] = []

        async def serve(connection: Connection) -> None:
            connections.append(connection)
            await connection.publish("x/here", str(len(connections)).encode(), qos=1)
            async for message in connection.messages():
                received.append(message.payload)

        link = asyncio.create_task(
            keep_connected(
                broker,
                serve,
                client_id="a",
                subscribe=["x/#"],
                backoff=Backoff(0.01, 0.05, seed=1),
                on_state=lambda connected, reason: states.append((connected, reason)),
            )
        )
        for k in range(1, 4):
            await until(lambda k=k: len(received) == k)  # type: ignore[misc]
            running.kill()
            await until(lambda: not states[-1][0])
            assert "closed" in states[-1][1] or "refused" in states[-1][1]
            await asyncio.to_thread(running.start)
        await until(lambda: len(received) == 4)
        link.cancel()
        await asyncio.wait([link])
        assert link.cancelled()
        assert len({id(c) for c in connections}) == 4

    on_running_broker(tmp_path, body)
    assert received == [b"1", b"2", b"3", b"4"]


def test_keep_connected_returns_with_its_bodies_and_raises_what_is_not_the_brokers(tmp_path: Path) -> None:
    async def body(broker: Broker, _: LoopbackBroker) -> None:
        async def one(connection: Connection) -> None:
            await connection.publish("x", b"1", qos=1)

        await keep_connected(broker, one, one, client_id="a")

        async def wrong(connection: Connection) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await keep_connected(broker, wrong, one, client_id="a")

    on_running_broker(tmp_path, body)


def test_a_frozen_broker_makes_the_publish_drop_the_connection(tmp_path: Path) -> None:
    async def body(broker: Broker, running: LoopbackBroker) -> None:
        async with connect(broker, client_id="a") as connection:
            running.freeze()
            try:
                with pytest.raises(BrokerError, match=r"did not acknowledge 'x' within 0.3 s"):
                    await connection.publish("x", bytes(100), qos=1, timeout_s=0.3)
                assert connection.lost is not None
                with pytest.raises(BrokerError, match="did not acknowledge"):
                    await connection.publish("x", bytes(100), qos=1)
                with pytest.raises(BrokerError):
                    await connection.receive()
            finally:
                running.thaw()

    on_running_broker(tmp_path, body)


def test_a_connection_that_ends_while_it_has_something_to_send_leaves_its_descriptor_alone(
    tmp_path: Path,
) -> None:
    """A descriptor watched after its end is an error, or another one's that was given the same number."""

    async def body(broker: Broker, _: LoopbackBroker) -> None:
        async def end_in_the_middle() -> None:
            async with connect(broker, client_id="a") as connection:
                await connection.publish("x", bytes(1000), qos=0)
                connection.drop("is not wanted any more")
                await connection.publish("x", b"", qos=0)

        complaints: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        with pytest.raises(BrokerError, match="is not wanted"):
            await end_in_the_middle()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not complaints

    on_running_broker(tmp_path, body)


def test_a_silent_listener_is_given_up(tmp_path: Path) -> None:
    """A port that accepts and never answers, as a wrong service or a hung broker does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = parse_broker(f"mqtt://127.0.0.1:{server.getsockname()[1]}")

        async def body() -> None:
            with pytest.raises(BrokerError, match="accepts the connection but does not answer; check that"):
                async with connect(broker, client_id="a", timeout_s=0.2):
                    pass

        asyncio.run(body())


def test_garbage_from_the_other_side_is_an_error_not_a_crash(tmp_path: Path) -> None:
    async def body() -> None:
        for garbage in (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x20\x02\x00\x00\xff\xff\xff\xff\xff",
            b"\x20\x00",
            bytes(50),
        ):

            async def answer(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, garbage: bytes = garbage
            ) -> None:
                await reader.read(10)
                writer.write(garbage)
                await writer.drain()
                writer.close()
                await writer.wait_closed()

            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            async with server:
                broker = parse_broker(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}")
                with pytest.raises(BrokerError):
                    async with connect(broker, client_id="a", timeout_s=0.5) as connection:
                        await connection.receive()

    asyncio.run(body())


def test_cancelling_while_connecting_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = parse_broker(f"mqtt://127.0.0.1:{server.getsockname()[1]}")

        async def body() -> None:
            async def use() -> None:
                async with connect(broker, client_id="a"):
                    pass

            task = asyncio.create_task(use())
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

        asyncio.run(body())


def test_the_will_is_published_on_a_drop_and_not_on_a_goodbye(tmp_path: Path) -> None:
    async def body(broker: Broker, _: LoopbackBroker) -> None:
        will = Will("status", b"offline", 1, True)
        async with connect(broker, client_id="watcher", subscribe=["status"]) as watcher:
            async with connect(broker, client_id="rig", will=will):
                pass
            async with connect(broker, client_id="rig", will=will) as rig:
                rig.drop("is dropped by a test")
            assert (await watcher.receive()).payload == b"offline"
            assert watcher.waiting == 0

    on_running_broker(tmp_path, body)


def test_a_slow_reader_holds_the_broker_up_and_loses_nothing(tmp_path: Path) -> None:
    async def body(broker: Broker, _: LoopbackBroker) -> None:
        async with (
            connect(broker, client_id="r", subscribe=["x"], inbox=4, receive_maximum=50) as reader,
            connect(broker, client_id="w") as writer,
        ):
            for k in range(300):
                await writer.publish("x", k.to_bytes(2, "big") + bytes(5000), qos=1)
            assert reader.waiting <= 4
            got = [int.from_bytes((await reader.receive()).payload[:2], "big") for _ in range(300)]
            assert got == list(range(300))

    on_running_broker(tmp_path, body)


def test_a_link_that_is_told_to_end_ends_though_a_body_fails_on_the_way(tmp_path: Path) -> None:
    """A cancelled task group whose child raises tells of the child's error alone (CPython 3.11)."""

    async def run(broker: Broker) -> None:
        at_work = asyncio.Event()

        async def body(connection: Connection) -> None:
            try:
                at_work.set()
                await connection.wait_lost()
            finally:
                raise BrokerError("failed while it was being ended")

        link = asyncio.create_task(keep_connected(broker, body, client_id="ends"))
        await at_work.wait()
        link.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait([link])
        assert link.cancelled()

    with LoopbackBroker(tmp_path) as running:
        asyncio.run(run(parse_broker(running.url)))
