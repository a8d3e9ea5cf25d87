"""From a board's button events, as bytes, to gestures: whatever becomes of the board, no press is lost."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from edgecap.daemon.buttons import Buttons
from edgecap.model import DeviceEvent
from edgecap.source.deframer import Deframer
from edgecap.source.descriptors import DeviceInfo
from edgecap.source.frames import Ack, Channel, Descriptor, Event, EventCode, Hello, Kind, Log
from edgecap.source.gestures import Gesture, Gestures
from edgecap.source.intake import Intake
from edgecap.source.item_queue import ItemQueue
from tests.reference import framing as reference

MS = 1_000_000
SECOND = 1_000_000_000
IMU = Descriptor(0, 1, 1, 1_000_000, 0, "imu", (Channel("x", "g", 0.5, 1.0),))


@dataclass
class Board:
    """What a board puts on the line; its counter and its frame numbers start at `power_up_ns`."""

    boot_id: int
    power_up_ns: int
    seq: int = 0
    done_us: int | None = None

    def counter(self, t_ns: int) -> int:
        return (t_ns - self.power_up_ns) // 1000 & 0xFFFFFFFF

    def frame(self, kind: int, payload: bytes, sent_ns: int) -> bytes:
        data = reference.wire(kind, payload, seq=self.seq, prev_tx_done_us=self.done_us)
        self.seq, self.done_us = self.seq + 1, self.counter(sent_ns)
        return data

    def hello(self, t_ns: int) -> bytes:
        return self.frame(Kind.HELLO, Hello(self.boot_id, 0, 1, "fw", f"sn-{self.boot_id}", IMU).pack(), t_ns)

    def log(self, t_ns: int) -> bytes:
        return self.frame(Kind.LOG, Log(20, self.counter(t_ns), "x").pack(), t_ns)

    def pong(self, ping_id: int, t_ns: int) -> bytes:
        return self.frame(Kind.PONG, struct.pack("<III", ping_id, *[self.counter(t_ns)] * 2), t_ns)

    def edge(self, down: bool, t_ns: int, sent_ns: int = 0) -> bytes:
        code = EventCode.BUTTON_DOWN if down else EventCode.BUTTON_UP
        event = Event(code, 0xFF, self.counter(t_ns))
        return self.frame(Kind.EVENT, event.pack(), sent_ns or t_ns + 5 * MS)


class Hand:
    """The intake of one line, and the gestures that its button events make."""

    def __init__(self) -> None:
        self.queue, self.deframer, self.gestures = ItemQueue(), Deframer(), Gestures()
        self.intake = Intake("hand", self.queue, self.deframer, self)
        self.intake.describe(DeviceInfo(1, "fw", "sn", (IMU,)), "hand on port")
        self.found: list[tuple[str, int]] = []
        self.edges = self.suspected = 0

    def on_hello(self, hello: Hello) -> None: ...

    def on_ack(self, ack: Ack) -> None: ...

    def on_restart_suspected(self) -> None:
        self.suspected += 1

    def read(self, data: bytes, arrival_ns: int) -> None:
        """One read, and what the daemon makes of it."""
        self.deframer.space()[: len(data)] = data
        self.deframer.filled(len(data), arrival_ns)
        self.intake.process(self.deframer.take())
        while self.queue:
            item = self.queue._items.popleft()
            if isinstance(item, DeviceEvent) and item.kind.startswith("button"):
                self.edges += 1
                self.gestures.feed(item.kind == "button-down", item.t_ns)
        self.found += [(g.kind, g.t_ns) for g in self.gestures.poll(self.intake.said_ns)]

    def later(self, t_ns: int) -> list[tuple[str, int]]:
        self.found += [(g.kind, g.t_ns) for g in self.gestures.poll(t_ns)]
        return self.found


@pytest.mark.parametrize("frames_before", range(12))
@pytest.mark.parametrize("older_ms", [-3_600_000, -100, 80, 100, 5_000, 3_600_000])
def test_a_board_that_is_back_after_another_was_in_its_place(older_ms: int, frames_before: int) -> None:
    """Its first frames are not late ones of a boot that has ended: its HELLO came after the other's."""
    now = 10_000 * SECOND
    mine, other = Board(1, now - 7200 * SECOND - older_ms * MS), Board(2, now - 7200 * SECOND)
    hand = Hand()
    for board in (mine, other, mine):
        hand.read(board.hello(now), now + MS)
        for k in range(20 if board is other or now == 10_000 * SECOND else frames_before):
            hand.read(board.log(now + k * 10 * MS), now + k * 10 * MS + MS)
        now += SECOND
    for down, t_ns in ((True, now), (False, now + 80 * MS)):
        hand.read(mine.edge(down, t_ns), t_ns + 6 * MS)
    ((kind, t_ns),) = hand.later(now + SECOND)
    assert kind == "press"
    assert abs(t_ns - now) < 20 * MS


@pytest.mark.parametrize("older_ms", [-3_600_000, -20, 20, 3_600_000])
def test_a_board_that_takes_anothers_place_in_silence_is_asked_who_it_is(older_ms: int) -> None:
    """Its first HELLO came to nobody, and its frame numbers are no further than frames get lost."""
    now = 10_000 * SECOND
    mine, other = Board(1, now - 7200 * SECOND), Board(2, now - 7200 * SECOND - older_ms * MS, seq=30)
    other.done_us = other.counter(now)
    hand = Hand()
    hand.read(mine.hello(now), now + MS)
    for board in (mine, other):
        for _ in range(40):
            now += 20 * MS
            ping_id = hand.intake.clock.new_ping(now)
            hand.read(board.pong(ping_id, now + MS), now + 2 * MS)
        assert (hand.suspected > 0) is (board is other)


@pytest.mark.parametrize("late_ms", [1, 60, 75, 90, 400, 4000])
@pytest.mark.parametrize("idle_s", [0.05, 600])
def test_a_press_while_nothing_is_known_of_the_clock(late_ms: int, idle_s: float) -> None:
    """The first frames of a board come late, to a busy host: each says more of when the others were sent."""
    now = 10_000 * SECOND
    board, hand = Board(1, now - 7200 * SECOND), Hand()
    hand.read(board.hello(now - round(idle_s * 1e9)), now - MS)
    down, up = board.edge(True, now), board.edge(False, now + 80 * MS)
    hand.read(down, now + (10 + late_ms) * MS)
    hand.read(up, now + (90 + max(0, late_ms - 79)) * MS)
    ((kind, t_ns),) = hand.later(now + 10 * SECOND)
    assert kind == "press"
    assert 0 <= t_ns - now <= (10 + late_ms) * MS


def test_a_press_across_a_turn_of_the_counter_and_one_a_turn_later() -> None:
    now = 10_000 * SECOND
    board, hand = Board(1, now - (1 << 32) * 1000 + 40 * MS), Hand()
    hand.read(board.hello(now - SECOND), now - SECOND)
    for start in (now, now + (1 << 32) * 1000 + 300 * MS):
        for before_s in (3000, 2000, 1000, 1) if start > now else ():
            hand.read(board.log(start - before_s * SECOND), start - before_s * SECOND)
        for down, t_ns in ((True, start), (False, start + 80 * MS)):
            hand.read(board.edge(down, t_ns), t_ns + 6 * MS)
        hand.read(board.log(start + SECOND), start + SECOND)
        kind, t_ns = hand.later(start + SECOND)[-1]
        assert kind == "press"
        assert abs(t_ns - start) < 20 * MS
    assert len(hand.found) == 2


@pytest.mark.parametrize("lost", range(8))
def test_each_edge_is_told_again_in_case_its_frame_is_lost(lost: int) -> None:
    """A release that is not heard would be a hold, and discard a session."""
    now = 10_000 * SECOND
    board, hand = Board(1, now - 7200 * SECOND), Hand()
    hand.read(board.hello(now - SECOND), now - SECOND)
    for bit, down in enumerate((True, False)):
        t_ns = now + (0 if down else 500 * MS)
        for number, late_ms in enumerate((5, 25, 105)):
            frame = board.edge(down, t_ns, t_ns + late_ms * MS)
            if lost & 1 << bit and number < 1 + (lost >> 2):
                continue
            hand.read(frame, t_ns + (late_ms + 1) * MS)
    ((kind, t_ns),) = hand.later(now + 10 * SECOND)
    assert kind == "press"
    assert 0 <= t_ns - now < 110 * MS  # without a ping the clock knows no more than arrivals
    assert hand.edges == 2


class Listener:
    """Buttons at work, in rig time of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = self.told_ns = SECOND
        monkeypatch.setattr("edgecap.daemon.buttons.now_ns", lambda: self.now_ns)
        monkeypatch.setattr("edgecap.daemon.buttons.LOOK_AGAIN_S", 0.001)
        self.buttons = Buttons()
        self.found: list[tuple[str, int]] = []
        self.polled = asyncio.Event()
        poll = self.buttons._gestures.poll

        def count(now_ns: int) -> list[Gesture]:
            self.polled.set()
            return poll(now_ns)

        monkeypatch.setattr(self.buttons._gestures, "poll", count)

    async def gesture(self, kind: str, t_ns: int) -> None:
        self.found.append((kind, t_ns))

    def edge(self, down: bool, t_ns: int) -> None:
        self.buttons.edge(down=down, t_ns=t_ns, by=self, told_ns=lambda: self.told_ns)

    async def turns(self, n: int) -> None:
        """Until the buttons have been looked at so often."""
        async with asyncio.timeout(30):
            for _ in range(n):
                self.polled.clear()
                self.buttons._fed.set()
                await self.polled.wait()


def listen(monkeypatch: pytest.MonkeyPatch, story: Callable[[Listener], Awaitable[None]]) -> None:
    async def run() -> None:
        listener = Listener(monkeypatch)
        task = asyncio.create_task(listener.buttons.run(listener.gesture))
        try:
            await story(listener)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_a_board_that_says_nothing_does_not_hold_its_button(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its release may wait in the board, in the cable, or behind samples that a slow card holds up."""

    async def story(at: Listener) -> None:
        at.edge(True, 2 * SECOND)
        at.now_ns, at.told_ns = 30 * SECOND, 4 * SECOND
        await at.turns(3)
        assert at.found == []
        at.edge(False, 2 * SECOND + 80 * MS)
        await at.turns(3)
        assert at.found == [("press", 2 * SECOND)]

    listen(monkeypatch, story)


def test_a_button_that_is_known_to_be_down_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(at: Listener) -> None:
        at.edge(True, 2 * SECOND)
        at.now_ns, at.told_ns = 6 * SECOND, 5 * SECOND
        await at.turns(3)
        assert at.found == [("hold", 2 * SECOND)]

    listen(monkeypatch, story)


def test_a_press_that_its_board_does_not_outlast_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one, of whatever button, counts."""

    async def story(at: Listener) -> None:
        at.edge(True, 2 * SECOND)
        at.now_ns = at.told_ns = 3 * SECOND
        await at.turns(2)
        assert not at.buttons.gone("another board")
        assert at.buttons.gone(at)
        assert not at.buttons.gone(at)
        at.now_ns = at.told_ns = 20 * SECOND
        await at.turns(2)
        for down, t_ns in ((True, 20 * SECOND), (False, 20 * SECOND + 80 * MS)):
            at.buttons.edge(down=down, t_ns=t_ns)
        at.now_ns = 30 * SECOND
        await at.turns(3)
        assert at.found == [("press", 20 * SECOND)]

    listen(monkeypatch, story)
