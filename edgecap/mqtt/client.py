"""The aiomqtt client, made to tell the truth: reason codes, lost connections, and nothing left behind.

Measured on aiomqtt 2.5.1: a publish that the broker refuses returns success; pending publishes outlive
the broker until their timeout; a cancelled connect leaks its socket. The class below overrides exactly
the places where that happens; tests/system/test_mqtt_*.py would notice if a release moved them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any, Self

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgecap.errors import BrokerError
from edgecap.mqtt.broker import Broker
from edgecap.mqtt.reasons import disconnect_error


@dataclass(frozen=True, slots=True)
class Message:
    """One message received."""

    topic: str
    payload: bytes
    retain: bool = False
    qos: int = 0
    packet_id: int = 0


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when this client vanishes."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """What the broker's CONNACK granted."""

    receive_maximum: int = 65535
    max_packet_bytes: int = 268_435_455
    session_present: bool = False


INBOX_BYTES = 32 << 20
_UNLIMITED = BrokerLimits()


class _LastLine(logging.Handler):
    """Keeps the library's last complaint, which names the cause of a lost connection, and prints none."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage().removeprefix("failed to receive on socket: ")


class WireClient(aiomqtt.Client):
    """One connection's client; never used for a second one.

    Args:
        broker: Where `sock` leads.
        sock: Connected, non-blocking socket; owned by the client from here on.
        client_id: Name towards the broker.
        version_5: Speak MQTT 5, else 3.1.1.
        keepalive_s: Longest silence before a ping.
        will: Published by the broker when the connection breaks.
        inbox: Messages held for the reader; beyond it, or beyond `INBOX_BYTES`, the socket is not read and
            TCP holds the broker up.
        receive_maximum: Most unacknowledged messages the broker may have on the way to us (MQTT 5);
            None leaves it to the broker (mosquitto: 20).
        max_packet_bytes: Largest packet that the broker may send us (MQTT 5).
        timeout_s: How long CONNACK and SUBACK may take.
    """

    def __init__(
        self,
        broker: Broker,
        sock: socket.socket,
        *,
        client_id: str,
        version_5: bool,
        keepalive_s: int,
        will: Will | None,
        inbox: int,
        receive_maximum: int | None,
        max_packet_bytes: int | None,
        timeout_s: float,
    ) -> None:
        self._complaint = _LastLine()
        logger = logging.Logger("edgecap.mqtt.wire", logging.WARNING)
        logger.addHandler(self._complaint)
        properties = None
        if version_5 and (receive_maximum is not None or max_packet_bytes is not None):
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            if receive_maximum is not None:
                properties.ReceiveMaximum = receive_maximum
            if max_packet_bytes is not None:
                properties.MaximumPacketSize = max_packet_bytes
        super().__init__(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if version_5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if version_5 else True,
            clean_start=True if version_5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            keepalive=keepalive_s,
            timeout=timeout_s,
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, will.qos, will.retain),
            properties=properties,
            max_inflight_messages=65535,  # Connection keeps the window
            logger=logger,
        )
        self.pending_calls_threshold = 1 << 30
        self.broker = broker
        self.limits = _UNLIMITED
        self.answers: dict[int, asyncio.Future[int]] = {}
        """Futures of the reason codes of publishes under way, by packet id."""
        self.inbox: deque[Message] = deque()
        self.inbox_bytes = 0
        self._inbox_limit = inbox
        self._reading = False
        self.acknowledged = 0
        self.lost: BrokerError | None = None
        """Why the connection ended; None while it stands."""
        self._lost = asyncio.Event()
        self._arrived = asyncio.Event()
        self._socket = sock
        self._client.manual_ack_set(True)
        # paho would connect by itself, and block: it gets the socket that is connected already.
        self._client._create_socket = lambda: sock  # type: ignore[method-assign]

    async def __aenter__(self) -> Self:
        """Send CONNECT on the ready socket and await CONNACK; no thread is involved."""
        self._client_connect()
        await self._wait_for(self._connected, timeout=None)
        return self

    async def wait_lost(self) -> None:
        """Return when the connection has ended."""
        await self._lost.wait()

    async def wait_message(self) -> Message | None:
        """The next message, not yet acknowledged; None once the connection has ended."""
        while not self.inbox:
            if self.lost is not None:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        message = self.inbox.popleft()
        self.inbox_bytes -= len(message.payload)
        if (
            not self._reading
            and len(self.inbox) <= self._inbox_limit // 2
            and self.inbox_bytes <= INBOX_BYTES // 2
        ):
            self._resume()
        return message

    def send(
        self, topic: str, payload: bytes, qos: int, retain: bool, content_type: str | None
    ) -> paho.MQTTMessageInfo:
        """Queue one PUBLISH; `info.rc` is not 0 when the connection is gone."""
        properties = None
        if content_type is not None and self.version_5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = content_type
        return self._client.publish(topic, payload, qos, retain, properties)

    def acknowledge(self, message: Message) -> None:
        """Send PUBACK; without one the broker keeps the message in its window."""
        if message.qos and self.lost is None:
            self._client.ack(message.packet_id, message.qos)

    @property
    def version_5(self) -> bool:
        return self._client.protocol == paho.MQTTv5

    @property
    def socket(self) -> socket.socket:
        return self._socket

    def fail(self, reason: BrokerError) -> None:
        """Note why the connection ended and wake everyone who waits on it; the first reason stays."""
        if self.lost is not None:
            return
        self.lost = reason
        self._lost.set()
        self._arrived.set()
        for answer in self.answers.values():
            if not answer.done():
                answer.cancel()
        if not self._connected.done():
            self._connected.set_exception(reason)

    async def close(self, *, grace_s: float) -> None:
        """Say goodbye if the line still stands, then release socket and task whatever happened."""
        if self.lost is None and self._client.disconnect() == paho.MQTT_ERR_SUCCESS:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._lost.wait()
        self.fail(BrokerError(f"connection to broker {self.broker.name} has been closed by this side"))
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
        self._client._sock_close()
        self._socket.close()
        if self._misc_task is not None:
            self._misc_task.cancel()
            await asyncio.wait([self._misc_task])
        for future in (self._connected, self._disconnected):
            if future.done() and not future.cancelled():
                future.exception()  # marks it as retrieved

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._misc_task = self._loop.create_task(self._misc_loop(), name="mqtt-keepalive")
        self._resume()

    def _resume(self) -> None:
        if self.lost is None:
            self._reading = True
            self._loop.add_reader(self._socket, self._read)
            self._loop.call_soon(self._read)  # a TLS socket may hold decoded bytes that wake nobody

    def _read(self) -> None:
        """Read what has arrived; stop reading when the inbox is full."""
        while self.lost is None:
            if len(self.inbox) >= self._inbox_limit or self.inbox_bytes >= INBOX_BYTES:
                self._reading = False
                self._loop.remove_reader(self._socket)
                return
            try:
                self._client.loop_read()
            except (OSError, ValueError, struct.error) as error:
                # Whatever the library cannot read as MQTT ends the connection, not the program.
                self.fail(BrokerError(f"broker {self.broker.name} does not speak MQTT: {error}"))
                return
            if not isinstance(self._socket, ssl.SSLSocket) or self._socket.pending() == 0:
                return

    def _on_socket_register_write(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        """At once, not in the loop's next turn: by then the descriptor may be closed, or somebody else's."""
        self._loop.add_writer(sock, self._write)

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except (OSError, ValueError, struct.error) as error:
            self.fail(BrokerError(f"cannot write to broker {self.broker.name}: {error}"))

    def _on_connect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.limits = BrokerLimits(
            receive_maximum=getattr(properties, "ReceiveMaximum", _UNLIMITED.receive_maximum),
            max_packet_bytes=getattr(properties, "MaximumPacketSize", _UNLIMITED.max_packet_bytes),
            session_present=flags.session_present,
        )
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        code = reason_code.value if flags.is_disconnect_packet_from_server else 0
        detail = self._complaint.text
        if not detail and not flags.is_disconnect_packet_from_server:
            detail = _own_words(str(reason_code))
        with contextlib.suppress(asyncio.CancelledError):  # raised where nobody waits for CONNACK any more
            super()._on_disconnect(client, userdata, flags, reason_code, properties)
        self.fail(disconnect_error(self.broker.name, code, detail))

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        self.acknowledged += 1
        answer = self.answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code.value)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # belongs to nobody; its reader refuses it by name
        self.inbox_bytes += len(message.payload)
        self.inbox.append(Message(topic, bytes(message.payload), message.retain, message.qos, message.mid))
        self._arrived.set()


def _own_words(reason: str) -> str:
    """What our side noticed, in place of the library's wording."""
    words = {
        "Keep alive timeout": "no answer to a ping",
        "Unspecified error": "the other side hung up",
        "Normal disconnection": "closed by this side",
    }
    return words.get(reason, reason.lower())
