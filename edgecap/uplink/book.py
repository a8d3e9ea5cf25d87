"""Who has been sent, who is due again, and when to send nothing at all. No I/O; times are arguments."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

from edgecap.codec.chunk import ChunkId
from edgecap.spool import Entry

FIRST_HOLD_S = 1.0
MOST_HOLD_S = 60.0
"""Ceiling of the waits between probes of a broker that refuses."""
MOST_UNHEARD_S = 5.0
"""Ceiling of the waits between probes of a broker that says there is no ingest."""
STRIKES = 3
"""Lost connections, each with one chunk alone in flight, that prove the chunk to be the cause."""
RESEND_TURN = 4
"""While fresh chunks wait, every so many-th send goes to one that is due again."""

SWEPT = 64
"""Wrong rows that may stand among those of the resends besides as many as are open."""

Hold = Literal["", "nobody listens", "no receipts", "refused"]


@dataclass(slots=True)
class Delivery:
    """One chunk on its way.

    Attributes:
        state: `flying` until the broker answers, then `awaiting` its receipt; `deferred` is to be sent
            again at `due_ns`.
        strikes: Connections that the peer closed while it was flying.
        alone: Of these, how many while nothing else was.
    """

    entry: Entry
    state: Literal["flying", "awaiting", "deferred"]
    sent_ns: int
    due_ns: int = 0
    tries: int = 0
    strikes: int = 0
    alone: int = 0
    acknowledged_at: int = 0
    """The book's count of acknowledged publishes when it was last alone in flight."""
    stale: bool = field(default=False)
    """Sent longer ago than `resend_s`: no longer counted in the budget."""


class DeliveryBook:
    """Bookkeeping of every chunk sent and not yet receipted.

    A chunk flies from `take_off` until its publish has an end: `landed`, `unheard`, `refused`, `unreadable`,
    `returned`, `condemned`, or the whole connection `crashed`.

    Args:
        resend_s: Wait for a receipt before the first resend; doubles with each.
        resend_most_s: Longest wait between resends.
        budget_bytes: Most bytes sent within `resend_s` and not receipted.
        most: Most chunks in the book.
    """

    def __init__(self, *, resend_s: float, resend_most_s: float, budget_bytes: int, most: int) -> None:
        self.resend_s, self.resend_most_s = resend_s, resend_most_s
        self.budget_bytes, self.most = budget_bytes, most
        self.open: dict[ChunkId, Delivery] = {}
        self.flying: set[ChunkId] = set()
        self.flying_bytes = 0
        self.fresh_bytes = 0
        self.acknowledged = 0
        self.hold: Hold = ""
        self.hold_until_ns = 0
        self._hold_s = 0.0
        self._due: list[tuple[int, int, ChunkId]] = []
        """When something is due again, by time; rows that have become wrong stay until they are swept."""
        self._ageing: OrderedDict[ChunkId, Delivery] = OrderedDict()
        """What is not stale, in order of sending; only what is open, or a fast drain would fill it."""
        self._n = 0
        self._turn = 0
        self._last_receipt_ns = -1

    def room(self, n_bytes: int) -> bool:
        """Whether a fresh chunk of that size may be sent."""
        fits = self.fresh_bytes + n_bytes <= self.budget_bytes or self.fresh_bytes == 0
        return fits and len(self.open) < self.most

    def due(self, now_ns: int) -> Delivery | None:
        """The chunk whose resend is due for longest."""
        while self._due:
            due_ns, _, id_ = self._due[0]
            delivery = self.open.get(id_)
            if delivery is None or not _is_due(delivery, due_ns):
                heapq.heappop(self._due)
                continue
            return delivery if due_ns <= now_ns else None
        return None

    def next_event_ns(self) -> int | None:
        """When something next becomes due or stale; None when nothing is open."""
        times = [self._due[0][0]] if self._due else []
        if self._ageing:
            times.append(self._stale_ns(next(iter(self._ageing.values()))))
        return min(times, default=None)

    def resend_turn(self) -> bool:
        """Whether a due resend goes before a fresh chunk this time."""
        self._turn += 1
        return self._turn % RESEND_TURN == 0

    def take_off(self, entry: Entry, now_ns: int) -> Delivery:
        """A chunk is handed to the connection."""
        delivery = self.open.get(entry.id)
        if delivery is None:
            delivery = self.open[entry.id] = Delivery(entry, "flying", now_ns)
            self.fresh_bytes += entry.bytes
        elif delivery.stale:
            delivery.stale = False
            self.fresh_bytes += entry.bytes
        delivery.state, delivery.sent_ns = "flying", now_ns
        self.flying.add(entry.id)
        self.flying_bytes += entry.bytes
        self._ageing[entry.id] = delivery
        self._ageing.move_to_end(entry.id)
        return delivery

    def landed(self, delivery: Delivery, now_ns: int) -> None:
        """The broker acknowledged the chunk; now the receipt has to come."""
        self._end_flight(delivery)
        self.acknowledged += 1
        delivery.tries += 1
        delivery.strikes = delivery.alone = 0
        if delivery.entry.id in self.open:
            delivery.state = "awaiting"
            self._schedule(delivery, now_ns + self._wait_ns(delivery.tries))
        if self.hold in ("refused", "nobody listens"):
            self.release_hold()
        if self.hold == "no receipts":
            self._hold(self.hold, now_ns, self.resend_s, self.resend_most_s)

    def unheard(self, delivery: Delivery, now_ns: int) -> None:
        """The broker acknowledged the chunk, but says that nobody is subscribed: as good as not sent."""
        self._end_flight(delivery)
        self.acknowledged += 1
        self.forget(delivery.entry.id)
        self._hold("nobody listens", now_ns, FIRST_HOLD_S / 4, MOST_UNHEARD_S)

    def refused(self, delivery: Delivery, now_ns: int) -> None:
        """The broker refused the chunk in a way that may pass: sent again later, and slower if all are."""
        self._end_flight(delivery)
        delivery.tries += 1
        delivery.state = "deferred"
        self._schedule(delivery, now_ns + self._wait_ns(delivery.tries))
        self._hold("refused", now_ns, FIRST_HOLD_S, MOST_HOLD_S)

    def unreadable(self, delivery: Delivery, now_ns: int) -> None:
        """The medium cannot read the chunk now: it is tried again later, and holds up nothing else."""
        self._end_flight(delivery)
        delivery.tries += 1
        delivery.state = "deferred"
        self._schedule(delivery, now_ns + self._wait_ns(delivery.tries))

    def returned(self, delivery: Delivery) -> None:
        """The chunk was not sent after all."""
        self._end_flight(delivery)
        if delivery.tries == 0 and delivery.strikes == 0:
            self.forget(delivery.entry.id)
        else:
            delivery.state = "deferred"
            self._schedule(delivery, delivery.sent_ns)

    def crashed(self, now_ns: int, *, peer_closed: bool) -> list[Delivery]:
        """The connection is gone; returns the chunks that have proved to be the cause."""
        guilty: list[Delivery] = []
        alone = len(self.flying) == 1
        for id_ in list(self.flying):
            delivery = self.open[id_]
            if not peer_closed:
                self.returned(delivery)
                continue
            self._end_flight(delivery)
            delivery.strikes += 1
            if alone and (delivery.alone == 0 or self.acknowledged > delivery.acknowledged_at):
                delivery.alone += 1
                delivery.acknowledged_at = self.acknowledged
            if delivery.alone >= STRIKES:
                guilty.append(delivery)
            delivery.state = "deferred"
            wait_ns = int(FIRST_HOLD_S * 5e8) << min(delivery.strikes - 2, 12) if delivery.strikes > 1 else 0
            self._schedule(delivery, now_ns + wait_ns)
        if self.hold == "nobody listens":
            self.release_hold()
        return guilty

    def suspicious(self, delivery: Delivery) -> bool:
        """Whether a chunk must fly alone, to find out if it is what makes the broker hang up."""
        return delivery.strikes >= 2

    def receipted(self, id_: ChunkId, now_ns: int) -> int | None:
        """Ingest holds the chunk; returns how long that took since it was last sent, None if it was not sent.

        Only a receipt for what was sent proves that ingest is there: one made up, or repeated, does not.
        """
        delivery = self.open.get(id_)
        if delivery is None:
            return None
        self._last_receipt_ns = now_ns
        if self.hold == "no receipts":
            self._revive(now_ns)
        self.forget(id_)
        return now_ns - delivery.sent_ns

    def condemned(self, delivery: Delivery) -> None:
        """The chunk can never be delivered; it stays known until `forget`, so that it is not chosen again."""
        self._end_flight(delivery)
        delivery.state, delivery.due_ns = "deferred", -1

    def forget(self, id_: ChunkId) -> None:
        """The chunk is no longer ours to deliver."""
        delivery = self.open.pop(id_, None)
        if delivery is None:
            return
        if id_ in self.flying:
            self._end_flight(delivery)
        if not delivery.stale:
            del self._ageing[id_]
            self.fresh_bytes -= delivery.entry.bytes

    def age(self, now_ns: int) -> None:
        """Let what has waited for long enough leave the budget; hold if no receipt comes at all."""
        while self._ageing:
            delivery = next(iter(self._ageing.values()))
            if self._stale_ns(delivery) > now_ns:
                break
            self._ageing.popitem(last=False)
            delivery.stale = True
            self.fresh_bytes -= delivery.entry.bytes
            if delivery.state == "awaiting" and self._last_receipt_ns < delivery.sent_ns and not self.hold:
                self._hold("no receipts", now_ns, self.resend_s, self.resend_most_s)
                self.hold_until_ns = now_ns  # the first probe goes at once: its receipt is overdue

    def release_hold(self) -> None:
        """Send freely again."""
        self.hold, self.hold_until_ns, self._hold_s = "", 0, 0.0

    def _revive(self, now_ns: int) -> None:
        """Ingest is back: whatever went unanswered is due now."""
        self.release_hold()
        for delivery in self.open.values():
            if delivery.state == "awaiting" and delivery.stale:
                delivery.tries = 1
                self._schedule(delivery, now_ns)

    def _hold(self, why: Hold, now_ns: int, first_s: float, most_s: float) -> None:
        if self.hold == why and now_ns < self.hold_until_ns:
            return  # several were in flight: they have learned one thing, not many
        self._hold_s = min(most_s, self._hold_s * 2 if self.hold == why else first_s)
        self.hold = why
        self.hold_until_ns = now_ns + int(self._hold_s * 1e9)

    def _wait_ns(self, tries: int) -> int:
        return int(min(self.resend_most_s, self.resend_s * 2.0 ** min(tries - 1, 30)) * 1e9)

    def _end_flight(self, delivery: Delivery) -> None:
        if delivery.entry.id in self.flying:
            self.flying.discard(delivery.entry.id)
            self.flying_bytes -= delivery.entry.bytes

    def _schedule(self, delivery: Delivery, due_ns: int) -> None:
        delivery.due_ns = due_ns
        self._n += 1
        heapq.heappush(self._due, (due_ns, self._n, delivery.entry.id))
        if len(self._due) > 2 * len(self.open) + SWEPT:
            # While one row waits at the top, thousands a second become wrong behind it.
            self._due = [
                row for row in self._due if (d := self.open.get(row[2])) is not None and _is_due(d, row[0])
            ]
            heapq.heapify(self._due)

    def _stale_ns(self, delivery: Delivery) -> int:
        return delivery.sent_ns + int(self.resend_s * 1e9)


def _is_due(delivery: Delivery, due_ns: int) -> bool:
    """Whether a row of the heap still holds."""
    return delivery.state != "flying" and delivery.due_ns == due_ns
