"""The delivery of a spool over whatever connection there is at the moment."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from edgecap import clock, topics
from edgecap.codec.chunk import ChunkId
from edgecap.codec.receipt import decode_receipt
from edgecap.errors import ChunkError, NameRefused, SpoolError
from edgecap.mqtt import Connection, PublishRefusedError, refused_for_good
from edgecap.spool import Entry, Spool
from edgecap.uplink.book import Delivery, DeliveryBook
from edgecap.uplink.bucket import TokenBucket
from edgecap.uplink.statistics import Latencies, UplinkStatistics

log = logging.getLogger("edgecap.uplink")

POLL_S = 0.25
"""How often an idle uplink looks into the spool; `notify` is faster."""
REFILL = 64
AHEAD_BYTES = 1 << 20
"""Read along with a look into the spool: a thread's turn for each chunk costs more than reading it."""
REMEMBERED = 20_000
"""Receipted chunks that a look into the spool begun earlier could still name."""
NO_SUBSCRIBERS = 0x10
SLOW_S, QUICK_S = 5.0, 2.0
"""A publish slower than the one halves the window, quicker than the other lets it grow again."""


class Uplink:
    """Publishes pending chunks, awaits ingest's receipts, and only then lets the spool release them.

    Use `run` as a body of the rig's connection and hand every message on `receipt` to `on_receipt`.

    Args:
        spool: What to deliver.
        site, rig: Own names; chunks recorded under others are delivered too.
        window: Most publishes in flight.
        resend_s: Wait for a receipt before the first resend; doubles with each further one.
        resend_most_s: Longest wait between resends.
        max_bytes_s: Bandwidth cap; None for none.
        budget_bytes: Most bytes sent within `resend_s` and not yet receipted.
        most_open: Most chunks sent and not yet receipted, 0.7 kB of memory each.
        on_event: Called with a kind (`poison`, `unreadable`, `refused`, `no-receipts`, `nobody-listens`) and
            a sentence.
    """

    def __init__(
        self,
        spool: Spool,
        site: str,
        rig: str,
        *,
        window: int = 8,
        resend_s: float = 60.0,
        resend_most_s: float = 3600.0,
        max_bytes_s: float | None = None,
        budget_bytes: int = 64 << 20,
        most_open: int = 4096,
        on_event: Callable[[str, str], None] | None = None,
    ) -> None:
        self._spool = spool
        self._own = (site, rig)
        self._window = window
        self._window_now = float(window)
        self._bucket = TokenBucket(max_bytes_s)
        self._book = DeliveryBook(
            resend_s=resend_s, resend_most_s=resend_most_s, budget_bytes=budget_bytes, most=most_open
        )
        self._on_event = on_event
        self._told = ""
        self._paused = False
        self._ready: deque[Entry] = deque()
        self._news, self._looked_ns = True, 0
        """Whether the spool may hold something that the last look did not find; when that was."""
        self._ahead: dict[ChunkId, bytes | SpoolError] = {}
        """What the last look has read, or why it could not be, of what has not been sent since."""
        self._done: OrderedDict[ChunkId, None] = OrderedDict()
        """Receipted since the last look into the spool began, or not released yet."""
        self._releasing: set[ChunkId] = set()
        self._choosing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._alone = False
        self._listening: set[tuple[str, str]] = set()
        self._latency = Latencies()
        self._sent = self._resent = self._refused = 0
        self._receipted = self._quarantined = 0
        self._bad_receipts = self._nobody = 0

    @property
    def paused(self) -> bool:
        """Whether sending is stopped by config or command; receipts are still taken."""
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        self._paused = value
        self._wake.set()

    @property
    def max_bytes_s(self) -> float | None:
        """Bandwidth cap; may be changed at any time."""
        return self._bucket.rate_bytes_s

    @max_bytes_s.setter
    def max_bytes_s(self, value: float | None) -> None:
        self._bucket.rate_bytes_s = value
        self._wake.set()

    def notify(self) -> None:
        """Say that the spool has something new, so that it goes at once."""
        self._news = True
        self._wake.set()

    async def run(self, connection: Connection) -> None:
        """Deliver for as long as the connection stands; it is cancelled or raises `BrokerError`."""
        self._listening = {self._own}
        self._alone = False
        try:
            async with asyncio.TaskGroup() as group:
                for k in range(self._window):
                    group.create_task(self._deliver_all(connection), name=f"uplink-{k}")
        finally:
            lost = connection.lost
            closed = lost is not None and bool(lost.evidence.get("peer_closed"))
            why = "" if lost is None else lost.what
            for delivery in self._book.crashed(clock.now_ns(), peer_closed=closed):
                await self._poison(delivery, f"the broker hung up whenever only this chunk was sent: {why}")

    async def on_receipt(self, payload: bytes) -> None:
        """Release exactly the chunks that the receipt names by hash; nonsense is counted and ignored."""
        now_ns = clock.now_ns()
        try:
            ids = list(decode_receipt(payload).ids())
        except (ChunkError, NameRefused) as error:
            self._bad_receipts += 1
            log.warning("ignored a receipt: %s", error)
            return
        for id_ in ids:
            latency_ns = self._book.receipted(id_, now_ns)
            if latency_ns is not None:
                self._latency.add(latency_ns)
                self._told = ""
        self._remember(ids)
        self._releasing.update(ids)
        try:
            released = await asyncio.to_thread(self._spool.release, ids)
        finally:
            self._releasing.difference_update(ids)
        self._receipted += released
        self._wake.set()

    def _remember(self, ids: Iterable[ChunkId]) -> None:
        """A look into the spool that ran beside the release may still name these: they are not to be sent."""
        for id_ in ids:
            self._done[id_] = None
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)

    def statistics(self) -> UplinkStatistics:
        """Counts as of now."""
        book = self._book
        return UplinkStatistics(
            sent=self._sent,
            receipted=self._receipted,
            resent=self._resent,
            refused=self._refused,
            quarantined=self._quarantined,
            bad_receipts=self._bad_receipts,
            nobody=self._nobody,
            in_flight=len(book.flying),
            awaiting=len(book.open) - len(book.flying),
            awaiting_bytes=sum(d.entry.bytes for d in book.open.values()) - book.flying_bytes,
            window=int(self._window_now),
            receipt_p50_ms=self._latency.quantile_ms(0.5),
            receipt_p99_ms=self._latency.quantile_ms(0.99),
            held="paused" if self._paused else book.hold,
        )

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────

    async def _deliver_all(self, connection: Connection) -> None:
        while True:
            async with self._choosing:
                delivery = await self._choose()
            try:
                await self._deliver(connection, delivery)
            finally:
                self._alone = False
                self._wake.set()

    async def _choose(self) -> Delivery:
        """The next chunk to send, marked as flying; waits until there is one and it may go."""
        book = self._book
        while True:
            self._wake.clear()
            now_ns = clock.now_ns()
            book.age(now_ns)
            self._tell_hold()
            wait_s = self._blocked_s(now_ns)
            if wait_s == 0.0:
                entry = await self._candidate()
                if entry is not None:
                    now_ns = clock.now_ns()
                    wait_s = self._bucket.wait_s(entry.bytes, now_ns)
                    if wait_s == 0.0:
                        return self._take_off(entry, now_ns)
                    self._ready.appendleft(entry)
                else:
                    wait_s = self._idle_s(now_ns)
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _blocked_s(self, now_ns: int) -> float:
        """How long nothing may be sent at all; 0 when something may."""
        book = self._book
        if self._paused or self._alone or len(book.flying) >= int(self._window_now):
            return POLL_S
        if book.hold and book.hold_until_ns > now_ns:
            return (book.hold_until_ns - now_ns) / 1e9
        if book.hold and book.flying:
            return POLL_S  # one probe at a time
        return 0.0

    def _idle_s(self, now_ns: int) -> float:
        event_ns = self._book.next_event_ns()
        until_s = POLL_S if event_ns is None else max(0.001, (event_ns - now_ns) / 1e9)
        return min(POLL_S, until_s)

    async def _candidate(self) -> Entry | None:
        """A chunk that is due again, or the first of those that the spool wants delivered."""
        book = self._book
        due = book.due(clock.now_ns())
        if due is not None and (book.hold or book.suspicious(due) or book.resend_turn()):
            return self._unless_crowded(due)
        if not self._ready and (self._news or clock.now_ns() - self._looked_ns >= POLL_S * 1e9):
            # Nothing that was found earlier is left: only a receipt that comes from now on can overtake us.
            self._done = OrderedDict.fromkeys(id_ for id_ in self._done if id_ in self._releasing)
            self._news, self._looked_ns = False, clock.now_ns()
            found, self._ahead = await asyncio.to_thread(self._look)
            self._news |= len(found) == REFILL
            self._ready.extend(found)
        while self._ready:
            entry = self._ready.popleft()
            if entry.id in book.open or entry.id in self._done:
                continue
            if book.room(entry.bytes):
                return entry
            self._ready.appendleft(entry)
            break
        return None if due is None else self._unless_crowded(due)

    def _look(self) -> tuple[list[Entry], dict[ChunkId, bytes | SpoolError]]:
        """What the spool wants delivered, the first of it read; runs in a thread."""
        found = self._spool.pending(REFILL, exclude=self._book.open)
        ahead: dict[ChunkId, bytes | SpoolError] = {}
        room = AHEAD_BYTES
        for entry in found:
            room -= entry.bytes
            if room < 0:
                break
            try:
                ahead[entry.id] = self._spool.read(entry.id)
            except SpoolError as error:
                ahead[entry.id] = error
        return found, ahead

    async def _read(self, id_: ChunkId) -> bytes:
        """A chunk that is to be sent now; raises `SpoolError`, also for one that a receipt has overtaken."""
        read = self._ahead.pop(id_, None)
        if read is None:
            return await asyncio.to_thread(self._spool.read, id_)
        if isinstance(read, SpoolError):
            raise read
        if id_ in self._done:
            raise SpoolError(f"chunk {id_.session}/{id_.stream}/{id_.seq} has been released meanwhile")
        return read

    def _unless_crowded(self, delivery: Delivery) -> Entry | None:
        """A suspect of making the broker hang up flies alone."""
        return None if self._book.suspicious(delivery) and self._book.flying else delivery.entry

    def _take_off(self, entry: Entry, now_ns: int) -> Delivery:
        again = entry.id in self._book.open
        delivery = self._book.take_off(entry, now_ns)
        self._resent += again
        self._alone = self._book.suspicious(delivery)
        return delivery

    async def _deliver(self, connection: Connection, delivery: Delivery) -> None:
        entry = delivery.entry
        try:
            data = await self._read(entry.id)
        except SpoolError as error:
            if error.evidence.get("again"):
                self._book.unreadable(delivery, clock.now_ns())
                if delivery.tries == 1:
                    self._say("unreadable", str(error))
                return
            known = entry.id in self._book.open
            self._book.forget(entry.id)
            if known and entry.id not in self._done:  # else a receipt has released it meanwhile
                self._quarantined += 1
                self._say("poison", str(error))
            return
        await self._listen(connection, entry)
        started_ns = clock.now_ns()
        try:
            code = await connection.publish(
                topics.topic(entry.site, entry.rig, topics.UP, entry.id.stream),
                data,
                qos=topics.UP.qos,
                content_type=topics.UP.content_type,
            )
        except PublishRefusedError as error:
            self._refused += 1
            if refused_for_good(error):
                await self._poison(delivery, str(error))
            else:
                self._book.refused(delivery, clock.now_ns())
                self._say("refused", str(error))
            return
        now_ns = clock.now_ns()
        self._adapt((now_ns - started_ns) / 1e9)
        if code == NO_SUBSCRIBERS:
            self._nobody += 1
            self._book.unheard(delivery, now_ns)
            self._tell_hold()  # at once: whoever chooses next may be waiting for the spool
            return
        self._sent += 1
        self._book.landed(delivery, now_ns)

    async def _listen(self, connection: Connection, entry: Entry) -> None:
        """Receipts for chunks recorded under another name come on that name's topic."""
        name = (entry.site, entry.rig)
        if name not in self._listening:
            self._listening.add(name)
            await connection.subscribe([topics.topic(entry.site, entry.rig, topics.RECEIPT)])

    async def _poison(self, delivery: Delivery, reason: str) -> None:
        """Set aside a chunk that can never be delivered, so that it holds nothing up."""
        id_ = delivery.entry.id
        self._book.condemned(delivery)
        try:
            await asyncio.to_thread(self._spool.quarantine, id_, reason)
        except SpoolError as error:
            reason = f"{reason}; and it cannot be set aside: {error}"
        self._book.forget(id_)
        self._quarantined += 1
        self._say("poison", f"chunk {id_.session}/{id_.stream}/{id_.seq} was set aside: {reason}")

    def _adapt(self, took_s: float) -> None:
        """Fewer in flight on a slow link, so that no message waits behind a minute of others."""
        if took_s > SLOW_S:
            self._window_now = max(1.0, self._window_now / 2)
        elif took_s < QUICK_S and self._window_now < self._window:
            self._window_now = min(float(self._window), self._window_now + 1.0 / self._window_now)

    def _tell_hold(self) -> None:
        if self._book.hold != self._told:
            self._told = self._book.hold
            if self._told == "no receipts":
                self._say("no-receipts", "the broker takes chunks, but no receipt comes: is ingest running?")
            elif self._told == "nobody listens":
                self._say("nobody-listens", "no ingest is subscribed to this rig's chunks")

    def _say(self, kind: str, text: str) -> None:
        log.warning("%s: %s", kind, text)
        if self._on_event is not None:
            self._on_event(kind, text)
