"""What a player needs of Annex B H.264: parameter sets in front of every key frame."""

from __future__ import annotations

from edgecap.annexb import LONG_START_CODE, NAL_IDR, NAL_PPS, NAL_SLICE, NAL_SPS, nal_units


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
            if kind in (NAL_SPS, NAL_PPS):
                self._sets[kind] = unit
                present.add(kind)
            elif kind in (NAL_SLICE, NAL_IDR):
                break
        if len(present) == 2:
            return data
        if len(self._sets) < 2:
            return None
        return b"".join(LONG_START_CODE + self._sets[kind] for kind in (NAL_SPS, NAL_PPS)) + data
