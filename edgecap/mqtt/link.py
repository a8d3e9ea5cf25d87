"""Stay connected: a fresh client each time, one task group per connection, patience that grows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from edgecap import clock
from edgecap.errors import BrokerError
from edgecap.mqtt import connection as mqtt_connection
from edgecap.mqtt.broker import Broker
from edgecap.mqtt.client import Will
from edgecap.mqtt.connection import Connection, connect

Body = Callable[[Connection], Coroutine[Any, Any, None]]
_STABLE_NS = 30_000_000_000


class Backoff:
    """Waits of full jitter: uniform between 0 and a ceiling that doubles from `first_s` to `most_s`.

    Args:
        first_s: First ceiling.
        most_s: Last ceiling.
        seed: Makes the waits repeatable.
        sleep: What waits; replaced in tests.
    """

    def __init__(
        self,
        first_s: float = 1.0,
        most_s: float = 60.0,
        *,
        seed: int | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.first_s, self.most_s = first_s, most_s
        self.failures = 0
        self.sleep = sleep
        self._random = random.Random(seed)

    def next_s(self) -> float:
        """The next wait; each call counts one more failure."""
        ceiling_s = min(self.most_s, self.first_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return self._random.uniform(0.0, ceiling_s)

    def reset(self) -> None:
        self.failures = 0


async def keep_connected(
    broker: Broker,
    *bodies: Body,
    client_id: str,
    will: Will | None = None,
    subscribe: Sequence[str] = (),
    window: int = mqtt_connection.WINDOW,
    inbox: int = mqtt_connection.INBOX,
    receive_maximum: int | None = None,
    max_packet_bytes: int | None = None,
    manual_ack: bool = False,
    keepalive_s: int = mqtt_connection.KEEPALIVE_S,
    timeout_s: float = mqtt_connection.TIMEOUT_S,
    backoff: Backoff | None = None,
    on_state: Callable[[bool, str], None] | None = None,
    give_up: Callable[[BrokerError], bool] | None = None,
) -> None:
    """Connect, run every body, and start over whenever the connection ends.

    The bodies run in one task group with a watcher that raises the moment the line is lost, so that
    none of them waits for an answer that cannot come. Returns when all bodies have returned. A body's
    `BrokerError` ends the connection; any other exception ends the link and is raised as it is.

    Args:
        broker: Where to connect.
        bodies: What runs on each connection.
        client_id: Unique among the broker's clients.
        will: Published by the broker when the connection breaks.
        subscribe: Topic filters.
        window: Most QoS 1 publishes unacknowledged at a time.
        inbox: Received messages held for the readers.
        receive_maximum: Most messages on their way to us unacknowledged (MQTT 5).
        max_packet_bytes: Largest packet that the broker may send us (MQTT 5).
        manual_ack: The bodies call `Connection.acknowledge` themselves.
        keepalive_s: Longest silence on the line before a ping.
        timeout_s: Longest wait for dialling, CONNACK and each SUBACK.
        backoff: How long to wait between attempts.
        on_state: Called with True when connected, and with False and the reason whenever it is not.
        give_up: Says which errors are raised instead of retried; none by default.
    """
    backoff = backoff or Backoff()
    tell = on_state or (lambda connected, reason: None)
    while True:
        since_ns: int | None = None
        try:
            async with connect(
                broker,
                client_id=client_id,
                will=will,
                subscribe=subscribe,
                window=window,
                inbox=inbox,
                receive_maximum=receive_maximum,
                max_packet_bytes=max_packet_bytes,
                manual_ack=manual_ack,
                keepalive_s=keepalive_s,
                timeout_s=timeout_s,
            ) as connection:
                since_ns = clock.now_ns()
                tell(True, "")
                await _run(connection, bodies)
                return
        except BrokerError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # We are to end, and a body failed on its way out: its task group tells of the failure alone.
                raise asyncio.CancelledError from error
            if since_ns is not None and clock.now_ns() - since_ns > _STABLE_NS:
                backoff.reset()  # only a link that held: a broker that kicks us at once gets no storm
            if give_up is not None and give_up(error):
                tell(False, str(error))
                raise
            wait_s = backoff.next_s()
            tell(False, f"{error} (next attempt in {wait_s:.1f} s)")
        await backoff.sleep(wait_s)


async def _run(connection: Connection, bodies: Sequence[Body]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(connection.wait_lost(), name="mqtt-watcher")
            tasks = [
                group.create_task(body(connection), name=f"mqtt-{getattr(body, '__name__', 'body')}")
                for body in bodies
            ]
            await asyncio.wait(tasks)
            watcher.cancel()
    except BaseExceptionGroup as errors:
        broker_errors, others = errors.split(BrokerError)
        raise _first(others or broker_errors or errors) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The only exception in a group, or the group itself when they differ in kind."""
    leaves: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(error.exceptions)
        else:
            leaves.append(error)
    return leaves[-1] if all(isinstance(leaf, BrokerError) for leaf in leaves) or len(leaves) == 1 else group
