"""Numbers as text shows them: rounded to so many significant digits, and so many behind the point at most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.codec.lattice import F32
from edgecap.codec.layout import Reader
from edgecap.errors import ChunkError

F64 = NDArray[np.float64]

MOST_DIGITS = 15
MOST_PLACES = 22
"""The largest power of ten that float64 has exactly."""
LEAST_DECADE, MOST_DECADE = -46, 60
_DECADES = np.array([float(f"1e{d}") for d in range(LEAST_DECADE, MOST_DECADE)])
_POWERS = np.array([float(f"1e{d}") for d in range(MOST_DECADE)])


@dataclass(frozen=True, slots=True)
class Printed:
    """How a column was printed."""

    digits: int
    places: int

    def packed(self) -> bytes:
        """As it is written."""
        return bytes([self.digits, self.places])

    def values(self, exact: F64) -> F64:
        """Numbers (n, c) as they were printed."""
        size = np.abs(exact)
        decade = np.maximum(np.searchsorted(_DECADES, size, side="right") - 1, 0) + LEAST_DECADE
        places = np.minimum(self.digits - 1 - decade, self.places)
        up, down = _POWERS[np.maximum(places, 0)], _POWERS[np.maximum(-places, 0)]
        found: F64 = np.copysign(np.rint(size * up / down) / up * down, exact)
        return found

    def shift_of(self, values: F32) -> int:
        """The binary places that show no more of the largest samples (n, c) than the decimal ones do."""
        largest = float(np.abs(values[np.isfinite(values)]).max())
        places = min(self.digits - 1 - math.floor(math.log10(largest)), self.places)
        return math.floor(places * math.log2(10))


def read_printed(reader: Reader) -> Printed | None:
    """Read what `Printed.packed` wrote, if it begins here: None where a larger byte does."""
    if reader.data[reader.at : reader.at + 1] > bytes([MOST_DIGITS]):
        return None
    found = Printed(reader.byte(), reader.byte())
    if found.digits == 0 or found.places > MOST_PLACES:
        raise ChunkError("columns payload: impossible number of decimal digits")
    return found


def guesses(values: F32) -> list[Printed]:
    """How some samples (n, c) may have been printed, likelier ones first; none where they have all digits."""
    most, behind = 0, 0
    for value in values[:: max(1, values.shape[0] // 16)][:16].reshape(-1).tolist():
        if value == 0 or not math.isfinite(value):
            continue
        text = f"{value:.6e}"
        if np.float32(text) != value:
            return []
        mantissa, exponent = text.split("e")
        digits = len(mantissa.replace("-", "").rstrip("0")) - 1
        most, behind = max(most, digits), max(behind, digits - 1 - int(exponent))
    if not most:
        return []
    return [Printed(most, MOST_PLACES), Printed(most, min(max(behind, 0), MOST_PLACES))]
