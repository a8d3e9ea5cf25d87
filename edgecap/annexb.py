"""H.264 as a byte stream (ITU-T H.264 Annex B): where its NAL units are, and of which type."""

from __future__ import annotations

from collections.abc import Iterator

NAL_SLICE, NAL_IDR, NAL_SPS, NAL_PPS = 1, 5, 7, 8
"""Types of NAL units (table 7-1): a slice of a picture, one that decoding can start at, parameter sets."""
START_CODE = b"\0\0\1"
LONG_START_CODE = b"\0" + START_CODE


def nal_units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The NAL units of an access unit as (type, bytes without start code and trailing zeros), in order.

    Source: ITU-T H.264 Annex B.1.1 (byte stream) and 7.3.1 (type).
    """
    start = data.find(START_CODE)
    while start >= 0:
        begin = start + len(START_CODE)
        start = data.find(START_CODE, begin)
        unit = data[begin:] if start < 0 else data[begin:start]
        # The zero byte before a four-byte start code belongs to that code; a NAL never ends in zero.
        unit = unit.rstrip(b"\0")
        if unit:
            yield unit[0] & 0x1F, unit
