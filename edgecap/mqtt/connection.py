"""One connection: publish with a window and true results, receive with backpressure, end at once."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn

import aiomqtt
import paho.mqtt.client as paho
from aiomqtt.exceptions import MqttConnectError

from edgecap.errors import BrokerError
from edgecap.mqtt.broker import Broker
from edgecap.mqtt.client import BrokerLimits, Message, Will, WireClient
from edgecap.mqtt.dial import dial
from edgecap.mqtt.reasons import (
    REFUSED,
    TOO_LARGE,
    UNSUPPORTED_PROTOCOL,
    connect_error,
    publish_error,
    subscribe_error,
)

WINDOW = 8
KEEPALIVE_S = 15
TIMEOUT_S = 10.0
STALL_S = 20.0
"""A publish fails when for so long neither an acknowledgement came nor a byte left the socket's queue."""
OVERTAKEN = 256
INBOX = 256
SILENCE_S = 3.0
"""A broker that does not answer a CONNECT of MQTT 5 for so long is tried with 3.1.1."""
GRACE_S = 1.0
_PUBLISH_OVERHEAD = 64
"""More than fixed header, packet id and properties add to topic and payload."""


class Connection:
    """A connection that stands until it raises; made by `connect`."""

    def __init__(self, client: WireClient, *, client_id: str, window: int, manual_ack: bool) -> None:
        self._client = client
        self._manual_ack = manual_ack
        self._window = asyncio.Semaphore(max(1, min(window, client.limits.receive_maximum)))
        self.client_id = client_id

    @property
    def broker(self) -> Broker:
        return self._client.broker

    @property
    def limits(self) -> BrokerLimits:
        """What the broker granted; under MQTT 3.1.1 nothing is known."""
        return self._client.limits

    @property
    def mqtt_version(self) -> str:
        return "5" if self._client.version_5 else "3.1.1"

    @property
    def lost(self) -> BrokerError | None:
        """Why the connection ended; its evidence has `peer_closed` when the broker did it."""
        return self._client.lost

    @property
    def waiting(self) -> int:
        """Messages received and not yet read."""
        return len(self._client.inbox)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool = False,
        timeout_s: float = STALL_S,
        content_type: str | None = None,
    ) -> int:
        """Publish and, for QoS 1, await the broker's acknowledgement; returns its reason code.

        A code below 0x80 is a success: 0, or 0x10 when nobody is subscribed (MQTT 5).

        Raises:
            PublishRefusedError: the broker answered with a failure; the connection goes on.
            BrokerError: the connection has ended, or was ended here because nothing moved for `timeout_s`.
        """
        self._check()
        if len(payload) + len(topic) + _PUBLISH_OVERHEAD > self.limits.max_packet_bytes:
            raise publish_error(self.broker.name, topic, TOO_LARGE, len(payload))
        if qos == 0:
            self._send(topic, payload, 0, retain, content_type)
            return 0
        async with self._window:
            self._check()
            packet_id = self._send(topic, payload, qos, retain, content_type)
            answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._client.answers[packet_id] = answer
            try:
                code = await self._answer(answer, topic, timeout_s)
            finally:
                self._client.answers.pop(packet_id, None)
        if code >= REFUSED:
            raise publish_error(self.broker.name, topic, code, len(payload))
        return code

    async def subscribe(self, filters: Sequence[str], *, qos: int = 1) -> None:
        """Subscribe; raises `BrokerError` when the broker refuses any of the filters."""
        for filter_ in filters:
            try:
                codes = await self._client.subscribe(filter_, qos=qos)
            except aiomqtt.MqttError as error:
                self._check()
                self.drop(f"does not answer the subscription {filter_!r}")
                raise self._ended() from error
            for code in codes:
                value = code if isinstance(code, int) else code.value
                if value >= REFUSED:
                    raise subscribe_error(self.broker.name, filter_, value)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Ask for no more; what is on its way still arrives."""
        for filter_ in filters:
            try:
                await self._client.unsubscribe(filter_)
            except aiomqtt.MqttError as error:
                self._check()
                self.drop(f"does not answer the end of the subscription {filter_!r}")
                raise self._ended() from error

    async def messages(self) -> AsyncIterator[Message]:
        """Messages in order of arrival; raises `BrokerError` as soon as the connection ends.

        QoS 1 messages are acknowledged as they are handed over, or by `acknowledge` under `manual_ack`.
        """
        while True:
            yield await self.receive()

    async def receive(self) -> Message:
        """The next message; may be cancelled without losing one."""
        message = await self._client.wait_message()
        if message is None:
            raise self._ended()
        if not self._manual_ack:
            self._client.acknowledge(message)
        return message

    def acknowledge(self, message: Message) -> None:
        """Under `manual_ack`: tell the broker that the message is dealt with."""
        self._client.acknowledge(message)

    async def wait_lost(self) -> NoReturn:
        """Raise `BrokerError` when the connection ends."""
        await self._client.wait_lost()
        raise self._ended()

    def drop(self, why: str) -> None:
        """End the connection from this side, without goodbye, so that the broker publishes the will."""
        self._client.fail(BrokerError(f"broker {self.broker.name} {why}"))

    def _send(self, topic: str, payload: bytes, qos: int, retain: bool, content_type: str | None) -> int:
        info = self._client.send(topic, payload, qos, retain, content_type)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            self.drop(f"takes no more: {paho.error_string(info.rc)}")
            raise self._ended()
        return info.mid

    async def _answer(self, answer: asyncio.Future[int], topic: str, timeout_s: float) -> int:
        """Await one acknowledgement for as long as anything moves; a slow link is not a dead one."""
        before, first = None, self._client.acknowledged
        while True:
            done, _ = await asyncio.wait([answer], timeout=timeout_s)
            if answer.cancelled():
                raise self._ended()
            if done:
                return answer.result()
            now = (self._client.acknowledged, _unsent_bytes(self._client))
            overtaken = now[0] - first > OVERTAKEN  # MQTT answers in order: ours will not come any more
            if now == before or now[1] == 0 or overtaken:
                # The library would send it again on this connection's next life: there is none.
                self.drop(f"did not acknowledge {topic!r} within {timeout_s:g} s")
                raise self._ended()
            before = now

    def _check(self) -> None:
        if self._client.lost is not None:
            raise self._ended()

    def _ended(self) -> BrokerError:
        """The reason the connection ended, as a fresh exception (one is raised in many tasks)."""
        lost = self._client.lost
        assert lost is not None
        return BrokerError(lost.what, fix=lost.fix, **lost.evidence)


def _unsent_bytes(client: WireClient) -> int:
    """Bytes in the kernel's send queue that the peer has not acknowledged."""
    if client.socket.fileno() < 0:
        return 0
    return int(struct.unpack("i", fcntl.ioctl(client.socket, termios.TIOCOUTQ, bytes(4)))[0])


@asynccontextmanager
async def connect(
    broker: Broker,
    *,
    client_id: str,
    will: Will | None = None,
    subscribe: Sequence[str] = (),
    window: int = WINDOW,
    inbox: int = INBOX,
    receive_maximum: int | None = None,
    max_packet_bytes: int | None = None,
    manual_ack: bool = False,
    keepalive_s: int = KEEPALIVE_S,
    timeout_s: float = TIMEOUT_S,
) -> AsyncIterator[Connection]:
    """Connect with a clean session, subscribe, and hand out the connection; disconnect at the end.

    Args:
        broker: Where to connect.
        client_id: Unique among the broker's clients.
        will: Published by the broker when the connection breaks rather than ends.
        subscribe: Topic filters, QoS 1.
        window: Most QoS 1 publishes unacknowledged at a time.
        inbox: Received messages held for the reader; beyond it the broker is held up through TCP.
        receive_maximum: Most messages on their way to us unacknowledged (MQTT 5); None is the broker's.
        max_packet_bytes: Largest packet that the broker may send us (MQTT 5).
        manual_ack: The reader calls `acknowledge` itself.
        keepalive_s: Longest silence on the line before a ping.
        timeout_s: Longest wait for dialling, CONNACK and each SUBACK.

    Raises:
        BrokerError: names host:port, what went wrong and what to do.
    """
    client = await _enter(
        broker,
        client_id=client_id,
        will=will,
        inbox=inbox,
        receive_maximum=receive_maximum,
        max_packet_bytes=max_packet_bytes,
        keepalive_s=keepalive_s,
        timeout_s=timeout_s,
    )
    try:
        connection = Connection(client, client_id=client_id, window=window, manual_ack=manual_ack)
        await connection.subscribe(subscribe)
        yield connection
    finally:
        await client.close(grace_s=GRACE_S)


async def _enter(
    broker: Broker,
    *,
    client_id: str,
    will: Will | None,
    inbox: int,
    receive_maximum: int | None,
    max_packet_bytes: int | None,
    keepalive_s: int,
    timeout_s: float,
) -> WireClient:
    """Connect under MQTT 5, or 3.1.1 where the broker knows no 5.

    Such a broker says so by code 132 or 1, hangs up, or (amqtt, when CONNECT has properties) is silent.
    """
    for version_5 in (True, False):
        sock = await dial(broker, timeout_s=timeout_s)
        client = WireClient(
            broker,
            sock,
            client_id=client_id,
            version_5=version_5,
            keepalive_s=keepalive_s,
            will=will,
            inbox=inbox,
            receive_maximum=receive_maximum,
            max_packet_bytes=max_packet_bytes,
            timeout_s=min(SILENCE_S, timeout_s) if version_5 else timeout_s,
        )
        try:
            await client.__aenter__()
        except BaseException as error:
            lost = client.lost
            await client.close(grace_s=0)
            if isinstance(error, MqttConnectError):
                code = error.rc if isinstance(error.rc, int) else error.rc.value if error.rc else 0
                if version_5 and code == UNSUPPORTED_PROTOCOL:
                    continue
                raise connect_error(broker.name, code, named=broker.username is not None) from error
            if isinstance(error, aiomqtt.MqttError):
                if version_5:
                    continue
                raise BrokerError(
                    f"broker {broker.name} accepts the connection but does not answer",
                    fix="check that this port speaks MQTT, and TLS or plain as the URL says",
                ) from error
            if isinstance(error, BrokerError) and version_5 and lost is not None and not lost.fix:
                continue
            raise
        client.timeout = timeout_s
        return client
    raise AssertionError("the second version either returns or raises")
