"""What a player needs of Annex B H.264: parameter sets in front of every key frame."""

from __future__ import annotations

from collections.abc import Iterator

SLICE, IDR, SPS, PPS = 1, 5, 7, 8
START = b"\0\0\0\1"


def nal_units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The NAL units of an access unit as (type, bytes without start code).

    Source: ITU-T H.264 Annex B.1.1 (byte stream) and table 7-1 (types).
    """
    start = data.find(b"\0\0\1")
    while start >= 0:
        begin = start + 3
        start = data.find(b"\0\0\1", begin)
        unit = data[begin:] if start < 0 else data[begin:start]
        # The zero byte before a four-byte start code belongs to that code; a NAL never ends in zero.
        unit = unit.rstrip(b"\0")
        if unit:
            yield unit[0] & 0x1F, unit


class ParameterSets:
    """Puts the last SPS and PPS seen in front of key frames that come without them."""

    def __init__(self) -> None:
        self._sets: dict[int, bytes] = {}

    def complete(self, data: bytes, *, key: bool) -> bytes | None:
        """The access unit, ready to start decoding at if `key`; None if it cannot be decoded yet."""
        if not key:
            return data if len(self._sets) == 2 else None
        present = set()
        for kind, unit in nal_units(data):
            if kind in (SPS, PPS):
                self._sets[kind] = unit
                present.add(kind)
            elif kind in (SLICE, IDR):
                break
        if len(present) == 2:
            return data
        if len(self._sets) < 2:
            return None
        return b"".join(START + self._sets[kind] for kind in (SPS, PPS)) + data
