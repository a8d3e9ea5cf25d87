"""Merges the messages of many streams into one order of time, a window at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.model import I64


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one topic, in order.

    Attributes:
        topic: Where they go.
        log_ns: (n,) int64, UTC of the sample.
        publish_ns: (n,) int64, UTC of its arrival on the rig.
        sequence: (n,) int64, running number of the sample.
        rows: (n, size) encoded messages, or n messages of different lengths.
    """

    topic: str
    log_ns: I64
    publish_ns: I64
    sequence: I64
    rows: NDArray[np.uint8] | list[bytes]

    def data(self) -> list[bytes]:
        if isinstance(self.rows, list):
            return self.rows
        size, whole = self.rows.shape[1], self.rows.tobytes()
        return [whole[i : i + size] for i in range(0, len(whole), size)]


@dataclass(frozen=True, slots=True)
class Message:
    """One encoded message."""

    topic: str
    log_ns: int
    publish_ns: int
    sequence: int
    data: bytes


class _Feed:
    """One stream's messages: those of the group at hand, in order, and the groups to come."""

    def __init__(self, groups: Iterable[list[Batch]]) -> None:
        self._groups = iter(groups)
        self.log_ns: I64 = np.zeros(0, np.int64)
        self._messages: list[Message] = []
        self._at = 0

    def fill(self) -> bool:
        """Take the next group when this one is used up; False when there is none."""
        while self._at == len(self._messages):
            group = next(self._groups, None)
            if group is None:
                return False
            self._load(group)
        return True

    def take(self, cutoff_ns: int) -> tuple[I64, list[Message]]:
        """All messages up to and including `cutoff_ns`."""
        start = self._at
        self._at = start + int(np.searchsorted(self.log_ns[start:], cutoff_ns, "right"))
        return self.log_ns[start : self._at], self._messages[start : self._at]

    def _load(self, group: list[Batch]) -> None:
        found = [
            Message(batch.topic, log, publish, sequence, data)
            for batch in group
            for log, publish, sequence, data in zip(
                batch.log_ns.tolist(),
                batch.publish_ns.tolist(),
                batch.sequence.tolist(),
                batch.data(),
                strict=True,
            )
        ]
        times = np.concatenate([b.log_ns for b in group]) if group else np.zeros(0, np.int64)
        order = np.argsort(times, kind="stable")
        self.log_ns = times[order]
        self._messages = [found[i] for i in order.tolist()]
        self._at = 0


def merged(sources: Iterable[Iterable[list[Batch]]]) -> Iterator[list[Message]]:
    """Yield windows of messages in order of time; holds one group of each source at a time.

    A source's groups follow one another in time. Where a clock correction makes a group begin before the
    end of the one before, its first messages come that much late; nothing is lost.
    """
    feeds = [_Feed(source) for source in sources]
    while feeds := [feed for feed in feeds if feed.fill()]:
        cutoff = min(int(feed.log_ns[-1]) for feed in feeds)
        taken = [feed.take(cutoff) for feed in feeds]
        order = np.argsort(np.concatenate([times for times, _ in taken]), kind="stable")
        messages = [m for _, part in taken for m in part]
        yield [messages[i] for i in order.tolist()]
