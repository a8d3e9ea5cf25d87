"""The host's side of the talk with one device: numbers frames, awaits ACKs, asks who it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from edgecap.errors import SourceError
from edgecap.kernels import framing
from edgecap.source.deframer import Deframer
from edgecap.source.descriptors import DeviceInfo, HelloParts
from edgecap.source.frames import PROTOCOL_VERSION, Ack, AckStatus, Command, Frame, Hello, Op, seal

HELLO_AGAIN_S = 0.5
ACK_LIMIT_S = 0.3
ACK_TRIES = 3


class Conversation:
    """Sends through `write`, is told what came by `on_hello` and `on_ack`. Belongs to the event loop."""

    def __init__(self, where: str, write: Callable[[bytes], bool], deframer: Deframer) -> None:
        """Args:
        where: How to call the device in errors.
        write: Puts bytes on the line; False if it cannot now.
        deframer: Of the same line; its counts tell what came instead of an answer.
        """
        self._where, self._write, self._deframer = where, write, deframer
        self._hellos = HelloParts()
        self._greeted: asyncio.Future[DeviceInfo] | None = None
        self._acks: dict[int, tuple[asyncio.Future[Ack], Callable[[], None] | None]] = {}
        self._command_id = self._seq = 0

    @property
    def waiting(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._acks) or self._greeted is not None

    def send(self, frame: Frame) -> bool:
        """Put a frame on the line; False if it was not taken."""
        sent = self._write(seal(frame, self._seq))
        self._seq += sent
        return sent

    def post(self, op: Op, arguments: bytes = b"") -> int:
        """Send a command; returns its id. Its ACK is ignored unless awaited."""
        self._command_id = (self._command_id + 1) & 0xFFFF
        self.send(Command(self._command_id, op, arguments))
        return self._command_id

    async def command(
        self, op: Op, arguments: bytes = b"", *, on_ack: Callable[[], None] | None = None
    ) -> Ack:
        """Send until acknowledged; `on_ack` runs in order with the data. Raises `SourceError`."""
        for _ in range(ACK_TRIES):
            answer: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
            number = self.post(op, arguments)
            # Only the last attempt's answer counts: each START begins the count of samples anew.
            self._acks[number] = (answer, on_ack)
            try:
                async with asyncio.timeout(ACK_LIMIT_S):
                    ack = await answer
            except TimeoutError:
                # Where the loop was late, the answer may have come in the very turn in which patience ended.
                # It has had its effect: to send a START again would begin the count of samples anew.
                if answer.cancelled():
                    continue
                ack = answer.result()
            finally:
                del self._acks[number]
            if ack.status != AckStatus.OK:
                reason = ack.text or f"status {ack.status}"
                raise SourceError(
                    f"{self._where} refused {op.name.lower()}: {reason}",
                    fix="put right what it names, or reset the board",
                )
            return ack
        raise SourceError(
            f"{self._where} did not answer {op.name.lower()} ({ACK_TRIES} × {ACK_LIMIT_S * 1e3:.0f} ms)",
            fix="check its cable; of a new firmware, its ACK and the id in it (hw/PROTOCOL.md § 2)",
        )

    async def greet(self, limit_s: float) -> DeviceInfo:
        """Ask who the device is until all parts have come. Raises `SourceError` saying what came instead."""
        self._hellos.clear()
        greeted = self._greeted = asyncio.get_running_loop().create_future()
        before = self._deframer.counts.copy()
        heard_before = self._deframer.bytes
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    self.post(Op.HELLO)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(HELLO_AGAIN_S):
                            return await asyncio.shield(greeted)
        except TimeoutError:
            heard = self._deframer.bytes - heard_before
            raise self._silence(self._deframer.counts - before, heard, limit_s) from None
        finally:
            self._greeted = None

    def on_hello(self, hello: Hello) -> None:
        """Take a part of a HELLO."""
        device = self._hellos.add(hello)
        if device is not None and self._greeted is not None and not self._greeted.done():
            self._greeted.set_result(device)

    def on_ack(self, ack: Ack) -> None:
        """Take an ACK."""
        answer, on_ack = self._acks.get(ack.id, (None, None))
        if answer is None or answer.done():
            return
        if ack.status == AckStatus.OK and on_ack is not None:
            on_ack()
        answer.set_result(ack)

    def _silence(self, counts: framing.Counts, heard: int, limit_s: float) -> SourceError:
        """Why nobody said who it is, from what was heard instead."""
        where = self._where
        if counts[framing.N_BAD_VERSION] and not counts[framing.N_OK]:
            version = self._deframer.counts[framing.LAST_BAD_VERSION]
            return SourceError(
                f"{where} speaks version {version} of the protocol, edgecap speaks {PROTOCOL_VERSION}",
                fix="update its firmware or edgecap",
            )
        if counts[framing.N_OK]:
            came = f": {parts}" if (parts := self._hellos.missing()) else ""
            return SourceError(
                f"{where} does not say who it is within {limit_s:g} s{came}",
                fix="check its cable and firmware (HELLO in hw/PROTOCOL.md)",
            )
        if wrong := int(counts[framing.N_BAD_CRC]):
            return SourceError(
                f"{where} sends {heard} bytes without a frame that is whole: {wrong} have a wrong CRC",
                fix="check `port`, `baud` and cable; of a new firmware, its CRC-32 (hw/PROTOCOL.md § 1)",
            )
        if heard:
            return SourceError(
                f"{where} sends {heard} bytes that are no frames", fix="check `port` and `baud`"
            )
        return SourceError(
            f"{where} does not answer within {limit_s:g} s", fix="check `port`, its cable and its firmware"
        )
