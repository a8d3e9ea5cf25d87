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
I64 = NDArray[np.int64]

MOST_DIGITS = 15
MOST_PLACES = 22
"""The largest power of ten that float64 has exactly."""
ENOUGH_DIGITS = 7
"""More are as many as float32 has."""
DIGIT_BITS = math.log2(10)
GLANCED_ROWS = 16
LEAST_SAVED_BITS = 0.5
"""So much a sample must be less than a float32 for it to be worth a closer look."""
LEAST_DECADE, MOST_DECADE = -46, 60
_DECADES = np.array([float(f"1e{d}") for d in range(LEAST_DECADE, MOST_DECADE)])
_POWERS = np.array([float(f"1e{d}") for d in range(MOST_DECADE)])


def decades(size: F64) -> I64:
    """The largest powers of ten that are not above sizes: no logarithms, which differ between machines."""
    found: I64 = np.maximum(np.searchsorted(_DECADES, size, side="right") - 1, 0) + LEAST_DECADE
    return found


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
        places = np.minimum(self.digits - 1 - decades(size), self.places)
        up, down = _POWERS[np.maximum(places, 0)], _POWERS[np.maximum(-places, 0)]
        found: F64 = np.copysign(np.rint(size * up / down) / up * down, exact)
        return found

    def shift_of(self, values: F32) -> int:
        """The binary places that show no more of the largest samples (n, c) than the decimal ones do."""
        largest = np.abs(values[np.isfinite(values)]).max().astype(np.float64)
        places = min(self.digits - 1 - int(decades(largest)), self.places)
        return math.floor(places * DIGIT_BITS)


def read_printed(reader: Reader) -> Printed | None:
    """Read what `Printed.packed` wrote, if it begins here: None where a larger byte does."""
    if reader.data[reader.at : reader.at + 1] > bytes([MOST_DIGITS]):
        return None
    found = Printed(reader.byte(), reader.byte())
    if found.digits == 0 or found.places > MOST_PLACES:
        raise ChunkError("columns payload: impossible number of decimal digits")
    return found


Shown = list[tuple[int, int]]
"""For each channel the most digits that samples show, and the most behind the point."""


def shown(values: F32) -> Shown | None:
    """What some samples (n, c) show; None where they are no decimals, or have all digits of float32."""
    found = []
    saved, seen = 0.0, 0
    for channel in values[:: max(1, values.shape[0] // GLANCED_ROWS)][:GLANCED_ROWS].T.tolist():
        most, behind, counted = 1, 0, 0
        for value in channel:
            if value == 0 or not math.isfinite(value):
                continue
            text = f"{value:.{ENOUGH_DIGITS - 1}e}"
            last = math.frexp(value)[1] - 24
            if 2 * abs(float(text) - value) > math.ldexp(1.0, last):
                return None
            mantissa, exponent = text.split("e")
            digits = len(mantissa.replace("-", "").rstrip("0")) - 1
            most, behind = max(most, digits), max(behind, digits - 1 - int(exponent))
            saved += (int(exponent) + 1) * DIGIT_BITS - last
            counted += 1
        seen += counted
        saved -= counted * most * DIGIT_BITS
        found.append((most, behind))
    return found if saved > LEAST_SAVED_BITS * seen else None


def guesses(found: Shown | None) -> list[Printed]:
    """How samples may have been printed, likelier ones first."""
    if found is None:
        return []
    digits = max(most for most, _ in found)
    places = min(max(behind for _, behind in found), MOST_PLACES)
    return [Printed(digits, MOST_PLACES), Printed(digits, places)]
