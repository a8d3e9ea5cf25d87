"""The daemon's status for programs on the same machine: an abstract Unix socket, named by the spool."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from edgecap.status import NOT_JSON, RigStatus

ANSWER_S = 3.0
_UCRED = struct.Struct("3i")


def address_of(spool_dir: str) -> str:
    """Where the daemon of this spool answers (unix(7), abstract)."""
    digest = hashlib.sha256(str(Path(spool_dir).absolute()).encode()).hexdigest()
    return f"\0edgecap-status-{digest[:32]}"


@contextlib.asynccontextmanager
async def tell_neighbours(spool_dir: str, status: Callable[[], RigStatus]) -> AsyncIterator[None]:
    """Answer each connection of root or of this user with the status as it is then."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer: socket.socket = writer.get_extra_info("socket")
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        with contextlib.suppress(OSError):
            if _UCRED.unpack(raw)[1] in (0, os.geteuid()):
                writer.write(msgspec.json.encode(status()))
                await writer.drain()
            writer.close()
            await writer.wait_closed()

    try:
        server = await asyncio.start_unix_server(answer, address_of(spool_dir))
    except OSError:
        # Another daemon has this spool, and that is told elsewhere.
        yield
        return
    try:
        yield
    finally:
        server.close()


async def ask_neighbour(spool_dir: str) -> RigStatus | str | None:
    """The status of this spool's daemon; None when none runs; a text that says why it gives us none."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(address_of(spool_dir))
            try:
                data = await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        return f"the daemon does not answer within {ANSWER_S:g} s"
    except OSError:
        return None
    if not data:
        return "the daemon belongs to another user: run this with sudo"
    try:
        return msgspec.json.decode(data, type=RigStatus)
    except NOT_JSON:
        return "the daemon is of another version of edgecap"
