"""What ingest has stored and not yet told: gathered per rig, told within a second of the commit."""

from __future__ import annotations

from collections.abc import Iterable

from edgecap.codec.chunk import ChunkId

Rig = tuple[str, str]
"""Site and name."""


class ReceiptBook:
    """Ids of durable chunks, by the rig that waits for them.

    Args:
        after_s: Longest wait of a chunk in the book.
        enough: Chunks of one rig that are told at once.
        most: Chunks in the whole book; beyond it the oldest are forgotten, which costs their rigs a resend.
    """

    def __init__(self, *, after_s: float = 0.5, enough: int = 256, most: int = 200_000) -> None:
        self.after_s, self.enough, self.most = after_s, enough, most
        self.forgotten = 0
        self._ids: dict[Rig, list[ChunkId]] = {}
        self._since_ns: dict[Rig, int] = {}
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, rig: Rig, ids: Iterable[ChunkId], now_ns: int) -> None:
        """Note chunks that are durable since `now_ns`."""
        new = list(ids)
        if not new:
            return
        self._ids.setdefault(rig, []).extend(new)
        self._n += len(new)
        self._since_ns.setdefault(rig, now_ns)
        while self._n > self.most:
            oldest = next(iter(self._ids))
            self.forgotten += len(self._ids[oldest])
            self._n -= len(self._ids.pop(oldest))
            del self._since_ns[oldest]

    def due_ns(self) -> int | None:
        """When the next receipt must be told; None when there is nothing to tell."""
        if not self._since_ns:
            return None
        if any(len(ids) >= self.enough for ids in self._ids.values()):
            return 0
        return min(self._since_ns.values()) + int(self.after_s * 1e9)

    def take(self, now_ns: int, *, everything: bool = False) -> list[tuple[Rig, list[ChunkId]]]:
        """The receipts that are due, taken out of the book."""
        due = [
            rig
            for rig, since_ns in self._since_ns.items()
            if everything or len(self._ids[rig]) >= self.enough or now_ns - since_ns >= self.after_s * 1e9
        ]
        taken = [(rig, self._ids.pop(rig)) for rig in due]
        for rig, ids in taken:
            del self._since_ns[rig]
            self._n -= len(ids)
        return taken
