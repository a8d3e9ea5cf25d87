"""Commands over a line whose host is late."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from edgecap.errors import SourceError
from edgecap.source.conversation import ACK_LIMIT_S, ACK_TRIES, Conversation
from edgecap.source.deframer import Deframer
from edgecap.source.frames import Ack, AckStatus, Op


def acknowledged(number: int) -> Ack:
    return Ack(number, AckStatus.OK, "", ())


def test_an_ack_in_the_turn_of_the_timeout_is_not_asked_for_again() -> None:
    """The reader's callback runs before the timer's of the same turn, the waiting task after both."""
    sent: list[bytes] = []
    begun: list[int] = []

    def write(data: bytes) -> bool:
        sent.append(data)
        return True

    async def main() -> Ack:
        loop = asyncio.get_running_loop()
        talk = Conversation("glove", write, Deframer())
        readable, writable = os.pipe()

        def on_readable() -> None:
            os.read(readable, 1)
            talk.on_ack(acknowledged(1))

        loop.add_reader(readable, on_readable)
        try:
            asking = asyncio.create_task(talk.command(Op.START, on_ack=lambda: begun.append(1)))
            while not sent:
                await asyncio.sleep(0)
            os.write(writable, b"x")
            time.sleep(ACK_LIMIT_S + 0.1)  # noqa: ASYNC251 - the loop is held up, as by a starved machine
            return await asking
        finally:
            loop.remove_reader(readable)
            os.close(readable)
            os.close(writable)

    assert asyncio.run(main()) == acknowledged(1)
    assert (len(sent), begun) == (1, [1])


def test_a_device_that_never_answers_is_asked_again_and_named() -> None:
    sent: list[bytes] = []

    async def main() -> None:
        talk = Conversation("glove on /dev/x", lambda data: sent.append(data) is None, Deframer())
        with pytest.raises(SourceError, match="glove on /dev/x did not answer start"):
            await talk.command(Op.START)

    asyncio.run(main())
    assert len(sent) == ACK_TRIES
