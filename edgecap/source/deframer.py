"""The read buffer of one serial line: collects reads with their arrival times, deframes them at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels import framing

CAPACITY = 1 << 16


class Batch(NamedTuple):
    """The frames found by one `Deframer.take`; valid until the next."""

    frames: NDArray[Any]
    """(m,) rows of framing.FRAME."""
    bodies: NDArray[np.uint8]


class Deframer:
    """Bytes in, frames out. Read into `space()`, call `filled`, and `take` now and then.

    A frame's arrival is that of the read which brought its delimiter. Nothing is allocated per read.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Args:
        capacity: Bytes that may wait for `take`.
        """
        self._data = np.zeros(capacity, np.uint8)
        self._view = self._data.data
        self._bodies = np.zeros(capacity, np.uint8)
        self._frames = np.zeros(capacity // framing.MIN_WIRE + 1, framing.FRAME)
        self._fill = 0
        self._skipping = False
        self._ends: list[int] = []
        self._arrivals_ns: list[int] = []
        self.bytes = self.reads = 0
        """Taken in so far."""
        self.counts = np.zeros(framing.COUNTS, np.int64)
        """By cause: rows N_OK, N_BAD_CRC, … of edgecap/kernels/framing.py."""
        self.sample_bytes = np.zeros(256, np.int64)
        """Bytes of one sample of each stream number; 0 for a stream unknown. Set from the descriptors."""

    @property
    def waiting(self) -> int:
        """Bytes in the buffer."""
        return self._fill

    def space(self) -> memoryview:
        """Where to read to."""
        return self._view[self._fill :]

    def filled(self, n: int, arrival_ns: int) -> None:
        """Say that `n` bytes were read into `space()`, having arrived at `arrival_ns`."""
        self._fill += n
        self.bytes += n
        self.reads += 1
        self._ends.append(self._fill)
        self._arrivals_ns.append(arrival_ns)

    def take(self) -> Batch:
        """All complete frames; a partial one at the end stays."""
        found, consumed, self._skipping = framing.deframe(
            self._data[: self._fill],
            self._skipping,
            self.sample_bytes,
            self._bodies,
            self._frames,
            self.counts,
        )
        frames = self._frames[:found]
        if found:
            read = np.array(self._ends, np.int64).searchsorted(frames["end"])
            frames["arrival_ns"] = np.array(self._arrivals_ns, np.int64)[read]
        rest = self._fill - consumed
        self._data[:rest] = self._data[consumed : self._fill].copy()
        self._fill = rest
        self._ends.clear()
        self._arrivals_ns.clear()
        return Batch(frames, self._bodies)

    def clear(self) -> None:
        """Forget a partial frame: the line was cut."""
        self._fill, self._skipping = 0, False
        self._ends.clear()
        self._arrivals_ns.clear()
