"""How the kernel packs one IIO scan into bytes, and the arrays that come out of many. No I/O.

Source: Linux ABI, `Documentation/ABI/testing/sysfs-bus-iio` (`scan_elements/*_type`, `*_index`) and
`Documentation/iio/iio_devbuf.rst`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.errors import SourceError
from edgecap.model import I64, SampleDtype

TIMESTAMP = "timestamp"
_TYPE = re.compile(r"(be|le):([suf])(\d{1,3})/(\d{1,3})(?:X(\d{1,3}))?(?:>>(\d{1,3}))?")
_STORAGE_BITS = (8, 16, 32, 64)
_FIX_TYPE = "leave the channel out with `channels`, or report the driver"


@dataclass(frozen=True, slots=True)
class Element:
    """One value of a scan.

    Attributes:
        name: As in sysfs, without `in_`: `accel_x`, `timestamp`.
        index: Its place in the scan.
        order: `<` or `>`.
        form: `i` two's complement, `u` unsigned, `f` IEEE 754.
        bits: Valid bits, after shifting right by `shift`.
        storage_bits: Room that it takes.
    """

    name: str
    index: int
    order: str
    form: str
    bits: int
    storage_bits: int
    shift: int

    @property
    def storage_bytes(self) -> int:
        return self.storage_bits // 8


def parse_element(name: str, index_text: str, type_text: str, where: str) -> Element:
    """An element from its `_index` and `_type`, for example `le:s12/16>>4`.

    Raises:
        SourceError: not of that form, or of a size that no array has.
    """
    type_text, index_text = type_text.strip()[:40], index_text.strip()[:12]
    found = _TYPE.fullmatch(type_text)
    if found is None or not re.fullmatch("[0-9]{1,6}", index_text):
        raise SourceError(
            f"{where}: channel {name} has type {type_text!r} and index {index_text!r}", fix=_FIX_TYPE
        )
    order = "<" if found[1] == "le" else ">"
    form = {"s": "i", "u": "u", "f": "f"}[found[2]]
    bits, storage, repeat, shift = (
        int(found[k] or default) for k, default in ((3, 0), (4, 0), (5, 1), (6, 0))
    )
    whole = storage in _STORAGE_BITS and 1 <= bits <= storage - shift and repeat == 1
    if not whole or (form == "f" and (bits, storage, shift) != (32, 32, 0)):
        raise SourceError(f"{where}: channel {name} is packed as {type_text}, not supported", fix=_FIX_TYPE)
    return Element(name, int(index_text), order, form, bits, storage, shift)


class ScanLayout:
    """Where each element lies: every one aligned to its own size, the scan to the largest of them.

    Args:
        elements: Those enabled, in any order; one of them the timestamp.
        where: The device, for messages.

    Raises:
        SourceError: no timestamp, two elements in one place, or values that no sample type holds.
    """

    def __init__(self, elements: Sequence[Element], where: str) -> None:
        in_order = sorted(elements, key=lambda e: e.index)
        if len({e.index for e in in_order}) < len(in_order):
            raise SourceError(
                f"{where}: two channels have the same index in the scan", fix="report the driver"
            )
        self.channels = tuple(e for e in in_order if e.name != TIMESTAMP)
        stamps = [e for e in in_order if e.name == TIMESTAMP]
        if not stamps or stamps[0].storage_bits != 64 or stamps[0].form == "f":
            raise SourceError(f"{where} gives no 64-bit time stamps", fix="use a driver with in_timestamp")
        if not self.channels:
            raise SourceError(f"{where} has no channel to capture", fix="choose some with `channels`")
        offsets, at = [], 0
        for element in in_order:
            at += -at % element.storage_bytes
            offsets.append(at)
            at += element.storage_bytes
        at += -at % max(e.storage_bytes for e in in_order)
        self.scan_bytes = at
        self.dtype: SampleDtype = _sample_dtype(self.channels, where)
        self._stamp = stamps[0]
        self._scan = np.dtype(
            {
                "names": [e.name for e in in_order],
                "formats": [f"{e.order}{e.form}{e.storage_bytes}" for e in in_order],
                "offsets": offsets,
                "itemsize": at,
            }
        )

    def decode(self, data: bytes) -> tuple[I64, NDArray[np.generic]]:
        """Whole scans as arrays.

        Args:
            data: A multiple of `scan_bytes`.

        Returns:
            (n,) int64 ticks in ns of the device's time-stamp clock; (n, c) raw counts in `dtype`.
        """
        scans = np.frombuffer(data, self._scan)
        values = np.empty((len(scans), len(self.channels)), _ARRAY_DTYPE[self.dtype])
        for column, element in enumerate(self.channels):
            values[:, column] = _numbers(scans[element.name], element)
        return _numbers(scans[TIMESTAMP], self._stamp).astype(np.int64), values


_ARRAY_DTYPE: dict[SampleDtype, type[np.generic]] = {
    "int16": np.int16,
    "int24": np.int32,
    "int32": np.int32,
    "float32": np.float32,
}


def _numbers(stored: NDArray[np.generic], element: Element) -> NDArray[np.generic]:
    """The valid bits, moved to the top and back down: the second shift extends the sign."""
    spare = element.storage_bits - element.bits
    if element.form == "f" or not spare:
        return stored
    moved: NDArray[np.generic] = (stored << (spare - element.shift)) >> spare  # type: ignore[operator]
    return moved


def _sample_dtype(channels: Sequence[Element], where: str) -> SampleDtype:
    """The smallest type of sample that holds every channel."""
    if any(e.form == "f" for e in channels):
        if all(e.form == "f" for e in channels):
            return "float32"
        raise SourceError(f"{where} mixes integer and float channels", fix="choose one kind with `channels`")
    signed_bits = max(e.bits + (e.form == "u") for e in channels)
    if signed_bits > 32:
        wide = next(e.name for e in channels if e.bits + (e.form == "u") > 32)
        raise SourceError(
            f"{where}: channel {wide} is wider than 32 bits", fix="leave it out with `channels`"
        )
    return "int16" if signed_bits <= 16 else "int32"
