"""A connected microcontroller: its life (hw/PROTOCOL.md § 3), followed and put right from the host."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

from edgecap.clock import now_ns
from edgecap.errors import SourceError
from edgecap.kernels import align, framing, resample
from edgecap.model import Item, StreamInfo
from edgecap.source.conversation import Conversation
from edgecap.source.deframer import Deframer
from edgecap.source.descriptors import DeviceInfo
from edgecap.source.frames import Ack, Hello, Op, Ping
from edgecap.source.intake import Intake, SerialStatistics
from edgecap.source.item_queue import ItemQueue
from edgecap.source.serial_port import SerialPort, wire_byte_ns

DARK = bytes(4)
"""A light that is off."""
FLUSH_S = 0.06
"""While sampling, reads are collected for this long and then deframed together: each time costs as much as
some fifty reads, but it also delays when a sample is durable."""
FLUSH_BYTES = 32768
HELLO_LIMIT_S = 3.0
HELLO_REOPENED_S = 1.0
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 2.0
LAST_WORDS_S = 0.2
"""What is said before the port is closed may take this long to leave."""
WATCH_S = 0.25
MUTE_NS = 3_000_000_000
"""A device that answers nothing for this long is gone."""
QUIET_NS = 1_000_000_000
"""A device that says nothing for this long is asked who it is, in case its HELLO after a reset was lost."""


class SerialFeed:
    """An opened device; see `edgecap.source.protocol.Feed`."""

    def __init__(self, name: str, port: str, baud: int, queue: ItemQueue) -> None:
        self.name = name
        self._path, self._baud = port, baud
        self._where = f"{name} on {port}"
        self._loop = asyncio.get_running_loop()
        self._port: SerialPort | None = None
        self._deframer = Deframer()
        self._queue = queue
        self._intake = Intake(name, queue, self._deframer, self, wire_byte_ns=wire_byte_ns(port, baud))
        self._talk = Conversation(self._where, self._write, self._deframer)
        self._device: DeviceInfo | None = None
        self._running = False
        self._stale = False
        """The device has restarted, or was away: it must be set up again."""
        self._down = False
        self._suspected = False
        """It may have restarted, or be another one: it is asked until it has said who it is."""
        self._led: bytes | None = None
        self._rates: dict[int, int] = {}
        self._control = asyncio.Lock()
        self._attention = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._pinger: asyncio.TimerHandle | None = None
        self._watcher: asyncio.TimerHandle | None = None
        self._asked_ns = self._told_ns = 0
        self._reconnects = self._refused = 0
        self._stray = 0
        """SAMPLES frames outside of a recording, when last looked at."""

    @property
    def info(self) -> tuple[StreamInfo, ...]:
        return self._intake.infos

    @property
    def told_ns(self) -> int:
        """When the device sent the newest frame before which nothing waits to be taken from the iteration."""
        if not len(self._queue):
            self._told_ns = self._intake.said_ns
        return self._told_ns

    def __aiter__(self) -> AsyncIterator[Item]:
        return self._queue.__aiter__()

    async def connect(self) -> None:
        """Open for the first time; afterwards a supervisor keeps the device connected and set up."""
        await asyncio.to_thread(_warm_up)
        await self._attach()
        device = await self._talk.greet(HELLO_LIMIT_S)
        self._intake.describe(device, self._where)
        self._device = device
        # It may still be sampling for a program that ended without a word.
        await self._talk.command(Op.STOP)
        self._ping()
        self._watch()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"serial {self.name}")

    async def close(self) -> None:
        """Let go of the port, whatever state it is in, and end the iteration."""
        for timer in (self._pinger, self._watcher):
            if timer is not None:
                timer.cancel()
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        if self._running:
            self._running = False
            self._talk.post(Op.STOP)
        if self._led is not None:  # else it would say for 3 s that all is well, and then that it is not
            self._talk.post(Op.LED, DARK)
        if self._port is not None:
            await self._port.sent(LAST_WORDS_S)
        self._detach()
        self._queue.close()

    # ── commands ────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        async with self._control:
            self._require_port()
            if self._running:
                raise SourceError(f"{self._where} is already sampling", fix="stop it first")

            def begin() -> None:
                self._running = True
                self._intake.begin(now_ns())

            try:
                await self._talk.command(Op.START, on_ack=begin)
            finally:
                if not self._running:  # nobody heard its answer: it may obey all the same
                    self._talk.post(Op.STOP)

    async def stop(self) -> dict[str, int]:
        running, self._running = self._running, False
        if not running:
            self._intake.tell("stopped", now_ns())
            return {}
        totals: tuple[int, ...] | None = None
        sent: dict[str, int] = {}
        try:
            async with self._control:
                if self._intake.sampling and self._port is not None:
                    with contextlib.suppress(SourceError):  # gone: nobody can say how many there were
                        totals = (await self._talk.command(Op.STOP)).numbers
        finally:  # also when nobody waits for it any more
            self._take_waiting()
            sent = self._intake.end(totals, now_ns())
            self._intake.tell("stopped", now_ns())
        return sent

    def set_led(
        self, rgb: tuple[int, int, int], pattern: int = 0, rhythm: tuple[int, int, int] | None = None
    ) -> None:
        """Show a colour. Does not wait.

        Args:
            rgb: 0 to 255 each.
            pattern: 0 steady, 1 blinking slowly, 2 fast, 3 breathing.
            rhythm: `on_ms`, `off_ms` and `flashes`, which hold instead on a device that knows them.
        """
        self._led = bytes((*rgb, pattern)) + (struct.pack("<HHB", *rhythm) if rhythm is not None else b"")
        if not self._stale:
            self._talk.post(Op.LED, self._led)

    async def set_rate(self, stream: str, rate_hz: float) -> None:
        """Sample a stream at another rate from the next start on. Raises `SourceError`."""
        number, rate_mhz = self._number(stream), round(rate_hz * 1e3)
        async with self._control:
            self._require_port()
            await self._talk.command(Op.SET_RATE, struct.pack("<BI", number, rate_mhz))
            self._rates[number] = rate_mhz
            self._device = await self._talk.greet(HELLO_LIMIT_S)
            self._intake.describe(self._device, self._where)

    def statistics(self) -> SerialStatistics:
        """Every count, and the quality of the device's clock."""
        return self._intake.statistics(
            reconnects=self._reconnects,
            not_sent=self._refused + (self._port.refused if self._port is not None else 0),
        )

    def _require_port(self) -> None:
        if self._port is None:
            raise SourceError(f"{self._where} is disconnected", fix="plug it in again")

    def _number(self, stream: str) -> int:
        for number, info in enumerate(self.info):
            if stream == info.name:
                return number
        known = ", ".join(i.name for i in self.info) or "none"
        raise SourceError(f"{self._where} has no stream {stream!r}", fix=f"its streams are: {known}")

    # ── conversation, in order with the data (called by the intake) ─────────────────────────────────

    def on_hello(self, hello: Hello) -> None:
        self._suspected = False
        if self._device is not None and hello.boot_id != self._device.boot_id and not self._stale:
            self._stale = True
            self._attention.set()
        self._talk.on_hello(hello)

    def on_ack(self, ack: Ack) -> None:
        self._talk.on_ack(ack)

    def on_restart_suspected(self) -> None:
        self._suspected = True
        self._ask()

    # ── the line ────────────────────────────────────────────────────────────────────────────────────

    async def _attach(self) -> None:
        self._port = await SerialPort.open(self.name, self._path, self._baud)
        self._deframer.clear()
        self._loop.add_reader(self._port.fd, self._on_readable)
        with contextlib.suppress(OSError):
            self._port.write(b"\0")  # ends whatever an earlier program left unfinished on the line
        self._intake.clock.burst()

    def _detach(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        port, self._port = self._port, None
        if port is not None:
            self._refused += port.refused
            port.close()

    def _on_readable(self) -> None:
        port = self._port
        if port is None:
            return
        try:
            n = port.read_into(self._deframer.space())
        except OSError as error:
            self._lose(error)
            return
        # Right after the read, not before it: were we preempted in between, bytes that came meanwhile would
        # bear a time before their arrival, and the clock's hard bound would be false.
        arrival_ns = now_ns()
        if n == 0:
            return
        self._deframer.filled(n, arrival_ns)
        if not self._intake.sampling or self._talk.waiting or self._deframer.waiting > FLUSH_BYTES:
            self._take_waiting()
        elif self._flush is None:
            self._flush = self._loop.call_later(FLUSH_S, self._take_waiting)

    def _take_waiting(self) -> None:
        """Deframe and understand all that was read."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._intake.process(self._deframer.take())
        if self._pinger is not None:
            due_s = self._loop.time() + (self._intake.clock.next_ping_due_ns() - now_ns()) / 1e9
            if due_s < self._pinger.when() - 0.001:  # the clock wants a burst
                self._pinger.cancel()
                self._pinger = self._loop.call_at(due_s, self._ping)

    def _lose(self, error: OSError) -> None:
        """The device is gone: end what was under way and have the supervisor reopen it."""
        self._take_waiting()
        self._detach()
        self._stale = self._down = True
        self._intake.interrupt("unplugged")
        self._intake.tell("disconnected", now_ns(), f"{self._path}: {error.strerror or error}")
        self._attention.set()

    def _write(self, data: bytes) -> bool:
        port = self._port
        if port is None:
            return False
        try:
            return port.write(data)
        except OSError as error:
            self._loop.call_soon(self._lose_if, port, error)
            return False

    def _lose_if(self, port: SerialPort, error: OSError) -> None:
        if self._port is port:
            self._lose(error)

    # ── what happens by itself ──────────────────────────────────────────────────────────────────────

    def _ping(self) -> None:
        """Send a ping if the line is free, and arrange for the next."""
        clock = self._intake.clock
        due_ns = clock.next_ping_due_ns()
        if self._port is None or self._stale or not self._port.is_clear:
            due_ns = now_ns() + 50_000_000
        elif now_ns() >= due_ns - 200_000:
            sent_ns = now_ns()
            self._talk.send(Ping(clock.new_ping(sent_ns)))
            due_ns = clock.next_ping_due_ns()
        self._pinger = self._loop.call_later(max(0.0, (due_ns - now_ns()) / 1e9), self._ping)

    def _note_line(self, t_ns: int) -> None:
        """A UART does not tell that the other end has gone, or is back: whether anybody answers does."""
        quiet_ns = t_ns - self._intake.heard_ns
        if quiet_ns > MUTE_NS and not self._down:
            self._down = True
            self._intake.tell("disconnected", t_ns, f"{self._path}: no answer for {MUTE_NS / 1e9:g} s")
        elif quiet_ns < QUIET_NS and self._down and not self._stale:
            self._down = False
            self._intake.tell("connected", t_ns, f"{self._path} answers again")
            if self._led is not None:  # what was sent meanwhile, nobody heard
                self._talk.post(Op.LED, self._led)

    def _watch(self) -> None:
        """Look for silence a few times a second."""
        t_ns = now_ns()
        silent = self._intake.check_silent(t_ns) or t_ns - self._intake.heard_ns > QUIET_NS
        if silent or self._suspected:
            self._ask()
        self._stop_unasked()
        if self._port is not None:
            self._note_line(t_ns)
        self._watcher = self._loop.call_later(WATCH_S, self._watch)

    def _ask(self) -> None:
        """Ask who the device is, at most once a second: its answer tells whether it was reset."""
        t_ns = now_ns()
        if t_ns - self._asked_ns > QUIET_NS:
            self._asked_ns = t_ns
            self._talk.post(Op.HELLO)

    def _stop_unasked(self) -> None:
        """End sampling that nobody wants: a STOP was lost, or a START obeyed later than anybody waited."""
        stray, self._stray = self._stray, self._intake.stray
        if self._stray > stray and not self._running and not self._control.locked():
            self._talk.post(Op.STOP)

    async def _supervise(self) -> None:
        """Reopen the port and set the device up again whenever either is needed."""
        while True:
            await self._attention.wait()
            self._attention.clear()
            wait_s, told = BACKOFF_FIRST_S, ""
            while self._stale:
                try:
                    if self._port is None:
                        await self._attach()
                    await self._set_up()
                except SourceError as error:
                    # It is another device now: its port was let go.
                    kind = "disconnected" if self._port is None and not self._down else "fault"
                    self._down |= self._port is None
                    # A port that cannot be opened is no news: it was said to be disconnected.
                    if "errno" not in error.evidence and str(error) != told:
                        told = str(error)
                        self._intake.tell(kind, now_ns(), told)
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, BACKOFF_LAST_S)

    async def _set_up(self) -> None:
        """Bring a device that was reset or away to where it should be; raises `SourceError`."""
        known = self._device
        assert known is not None
        async with self._control:
            device = await self._talk.greet(HELLO_REOPENED_S)
            if not device.is_same_device(known):
                self._detach()
                raise SourceError(
                    f"{self._where} is another device now: {device.serial_number or 'no serial number'}, "
                    f"it was {known.serial_number or 'without one'}",
                    fix="plug the old one in, or restart the daemon to use the new one",
                )
            if self._led is not None:
                self._talk.post(Op.LED, self._led)
            if device.boot_id != known.boot_id:
                for number, rate_mhz in self._rates.items():
                    await self._talk.command(Op.SET_RATE, struct.pack("<BI", number, rate_mhz))
            if self._running and not self._intake.sampling:
                await self._talk.command(Op.START, on_ack=lambda: self._intake.restart(now_ns()))
            self._device, self._stale = device, device.boot_id != self._intake.boot_id
        if self._stale:
            return  # it has been reset once more
        if self._down:
            self._down = False
            self._reconnects += 1
            self._intake.tell("connected", now_ns(), f"{self._path} is back")
        self._intake.clock.burst()
        if self._pinger is not None:
            self._pinger.cancel()
        self._ping()


def _warm_up() -> None:
    """Have every kernel ready before the first byte: compiling one in the read callback takes seconds."""
    for kernels in (framing, align, resample):
        kernels.warm_up()
