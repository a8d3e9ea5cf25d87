"""The ping book: which pings are out, and when the next one is due."""

from __future__ import annotations

import random
from collections import OrderedDict

from edgecap.kernels.align_state import NO_PING

PERIOD_NS = 100_000_000
BURST = 16
BURST_PERIOD_NS = 11_000_000
STALE_NS = 2_000_000_000
_OUTSTANDING = 64
_ANSWERED = 64


class PingBook:
    """Hands out fresh ids and resolves each at most once; counts every reply it refuses."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)
        self._next_id = self._random.getrandbits(32)
        self._sent: OrderedDict[int, int] = OrderedDict()
        self._answered: OrderedDict[int, None] = OrderedDict()
        self._due_ns = 0
        self._burst = BURST
        self.sent = 0
        self.unknown = 0
        self.stale = 0
        self.duplicate = 0

    def burst(self) -> None:
        """Ask for a quick series of pings: the link or the device has just come (back) up."""
        self._burst = BURST
        self._due_ns = 0

    def due_ns(self) -> int:
        """Rig time at which the next ping should be sent."""
        return self._due_ns

    def issue(self, sent_ns: int) -> int:
        """A fresh id for a ping handed to the link at `sent_ns`; also sets the next due time."""
        ping_id = self._next_id
        self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        self._sent[ping_id] = sent_ns
        if len(self._sent) > _OUTSTANDING:
            self._sent.popitem(last=False)
        self.sent += 1
        period = PERIOD_NS
        if self._burst > 0:
            self._burst -= 1
            period = BURST_PERIOD_NS
        # the phase against the USB frame must be random, or the waiting time never shows its minimum
        self._due_ns = sent_ns + round(period * self._random.uniform(0.6, 1.4))
        return ping_id

    def resolve(self, ping_id: int, arrival_ns: int) -> int:
        """When the ping was sent, or `NO_PING` if the reply is unknown, stale or a duplicate."""
        sent_ns = self._sent.pop(ping_id, None)
        if sent_ns is None:
            if ping_id in self._answered:
                self.duplicate += 1
            else:
                self.unknown += 1
            return NO_PING
        self._answered[ping_id] = None
        if len(self._answered) > _ANSWERED:
            self._answered.popitem(last=False)
        if arrival_ns - sent_ns > STALE_NS:
            self.stale += 1
            return NO_PING
        return sent_ns
