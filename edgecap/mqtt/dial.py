"""From a broker's name to a connected, TLS-wrapped, non-blocking socket; every failure names its fix."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

from edgecap.errors import BrokerError, ConfigError
from edgecap.mqtt.broker import Broker

USER_TIMEOUT_MS = 10_000
"""TCP gives a peer up that has not acknowledged sent bytes for so long (a half-open link)."""

_Found = Sequence[tuple[int, int, int, str, tuple[Any, ...]]]

_CONNECT_ERRORS = {
    errno.ECONNREFUSED: ("refused the connection", "check that a broker runs and listens there"),
    errno.EHOSTUNREACH: ("cannot be reached", "check the network and the address"),
    errno.ENETUNREACH: ("cannot be reached: there is no network", "check that this machine is online"),
    errno.ETIMEDOUT: ("does not answer", "check the address and any firewall between"),
    errno.ECONNRESET: ("closed the connection at once", "check that it speaks MQTT on this port"),
}


async def dial(broker: Broker, *, timeout_s: float) -> socket.socket:
    """Resolve, connect and, for `mqtts`, shake hands, without ever blocking the event loop.

    Raises:
        BrokerError: names host:port, or a certificate file that cannot be used, and what to do.
    """
    try:
        context = broker.tls_context() if broker.tls else None
    except ConfigError as error:
        # The rig records on, and tries the file again at its next attempt: somebody may have put it right.
        raise BrokerError(f"broker {broker.name}: {error.what}", fix=error.fix) from error
    try:
        async with asyncio.timeout(timeout_s):
            found = await _resolve(broker)
            plain = await _connect(broker, found)
            if context is None:
                return plain
            return await _wrap(broker, plain, context)
    except TimeoutError:
        raise BrokerError(
            f"broker {broker.name} does not answer within {timeout_s:g} s",
            fix="check the address, the port (plain or TLS) and any firewall between",
        ) from None


async def _resolve(broker: Broker) -> _Found:
    """Look the host up in a daemon thread: a resolver that hangs must not hold up the program's end."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(
            broker.host, broker.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    answer: asyncio.Future[_Found | OSError] = loop.create_future()

    def settle(value: _Found | OSError) -> None:
        if not answer.done():
            answer.set_result(value)

    def look_up() -> None:
        value: _Found | OSError
        try:
            value = socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            value = error if isinstance(error, OSError) else OSError(str(error))
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, value)

    threading.Thread(target=look_up, name="mqtt-resolve", daemon=True).start()
    found = await answer
    if isinstance(found, OSError):
        raise BrokerError(
            f"broker {broker.name}: the name {broker.host!r} cannot be resolved ({found.strerror or found})",
            fix="check the spelling, and that this machine has DNS",
        ) from found
    return found


async def _connect(broker: Broker, found: _Found) -> socket.socket:
    loop = asyncio.get_running_loop()
    problem: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    assert problem is not None
    what, fix = _CONNECT_ERRORS.get(
        problem.errno or 0, (f"cannot be reached ({problem.strerror or problem})", "check the network")
    )
    raise BrokerError(f"broker {broker.name} {what}", fix=fix, errno=problem.errno) from problem


async def _wrap(broker: Broker, plain: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    loop = asyncio.get_running_loop()
    sock: ssl.SSLSocket | None = None
    try:
        sock = context.wrap_socket(plain, server_hostname=broker.host, do_handshake_on_connect=False)
        while True:
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                await _ready(sock, loop.add_reader, loop.remove_reader)
            except ssl.SSLWantWriteError:
                await _ready(sock, loop.add_writer, loop.remove_writer)
            else:
                return sock
    except (OSError, ValueError) as error:
        (sock or plain).close()
        raise _tls_error(broker, error) from error
    except BaseException:
        (sock or plain).close()
        raise


async def _ready(
    sock: socket.socket, add: Callable[..., None], remove: Callable[[socket.socket], bool]
) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(sock, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(sock)


def _tls_error(broker: Broker, error: OSError | ValueError) -> BrokerError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerError(
            f"broker {broker.name}: its certificate is not accepted ({error.verify_message})",
            fix="give the CA that signed it as `ca_file`, and connect to the name that it was issued for",
            permanent=True,
        )
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    return BrokerError(
        f"broker {broker.name}: the TLS handshake failed ({reason or error})",
        fix="check that this port speaks TLS (8883 by custom), and the certificates on both sides",
        permanent=isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError),
    )
