"""ROS 2 CDR (XCDR1, little endian), encoded for many messages at once.

All messages of one stream have the same layout: their strings and array lengths do not change. So a
message is a record of a numpy structured array laid over a template, and a chunk of n samples becomes n
messages with one assignment per field instead of n calls per field.

Source: OMG DDSI-RTPS 2.5 § 10 (encapsulation), DDS-XTypes 1.3 § 7.4.1 (alignment, XCDR version 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgecap.model import I64

ENCAPSULATION = b"\x00\x01\x00\x00"
"""CDR little endian, no options."""


class CdrLayout:
    """Builds the layout of a message, field by field in the order of its definition.

    `value` fields differ from message to message; everything else is constant and lies in the template.
    """

    def __init__(self) -> None:
        self._template = bytearray(ENCAPSULATION)
        self._names: list[str] = []
        self._formats: list[Any] = []
        self._offsets: list[int] = []

    def value(self, name: str, dtype: str, shape: tuple[int, ...] = ()) -> CdrLayout:
        """A primitive, or a fixed-size array of primitives, that is given per message."""
        self._align(np.dtype(dtype).itemsize)
        self._names.append(name)
        self._formats.append((dtype, shape))
        self._offsets.append(len(self._template))
        self._template += bytes(np.dtype((dtype, shape)).itemsize)
        return self

    def stamp(self) -> CdrLayout:
        """`builtin_interfaces/Time`, filled from the column `stamp_ns`."""
        return self.value("_sec", "<i4").value("_nanosec", "<u4")

    def header(self, frame_id: str) -> CdrLayout:
        """`std_msgs/Header` with a constant frame."""
        return self.stamp().string(frame_id)

    def constant(self, dtype: str, values: ArrayLike) -> CdrLayout:
        """A primitive or fixed-size array that is the same in every message."""
        self._align(np.dtype(dtype).itemsize)
        self._template += np.asarray(values, dtype).tobytes()
        return self

    def string(self, text: str) -> CdrLayout:
        data = text.encode() + b"\0"
        self.constant("<u4", len(data))
        self._template += data
        return self

    def strings(self, texts: Sequence[str]) -> CdrLayout:
        self.constant("<u4", len(texts))
        for text in texts:
            self.string(text)
        return self

    def sequence(self, name: str, dtype: str, count: int) -> CdrLayout:
        """A sequence of `count` primitives that are given per message."""
        self.constant("<u4", count)
        return self.value(name, dtype, (count,)) if count else self

    def filled(self, dtype: str, values: NDArray[Any]) -> CdrLayout:
        """A sequence of primitives, (k,), that is the same in every message."""
        self.constant("<u4", len(values))
        return self.constant(dtype, values) if len(values) else self

    def blob(self, data: bytes) -> CdrLayout:
        """`uint8[]`."""
        self.constant("<u4", len(data))
        self._template += data
        return self

    def encode(self, n: int, stamp_ns: I64 | None = None, **columns: ArrayLike) -> NDArray[np.uint8]:
        """Encode `n` messages; returns (n, size) bytes.

        Args:
            n: Number of messages.
            stamp_ns: (n,) int64 UTC, for layouts with a `stamp` or `header`.
            columns: One entry per `value` and `sequence`, of shape (n, …) or broadcastable to it.
        """
        size = len(self._template)
        rows = np.empty((n, size), np.uint8)
        rows[:] = np.frombuffer(bytes(self._template), np.uint8)
        if self._names:
            record = np.dtype(
                {"names": self._names, "formats": self._formats, "offsets": self._offsets, "itemsize": size}
            )
            fields = rows.view(record)[:, 0]
            if stamp_ns is not None:
                fields["_sec"] = stamp_ns // 1_000_000_000
                fields["_nanosec"] = stamp_ns % 1_000_000_000
            for name, column in columns.items():
                fields[name] = column
        return rows

    def message(self, stamp_ns: int | None = None, **columns: ArrayLike) -> bytes:
        """Encode a single message."""
        stamp = None if stamp_ns is None else np.array([stamp_ns], np.int64)
        return self.encode(1, stamp, **columns).tobytes()

    def _align(self, size: int) -> None:
        # Alignment counts from behind the encapsulation header.
        self._template += bytes(-(len(self._template) - len(ENCAPSULATION)) % size)
