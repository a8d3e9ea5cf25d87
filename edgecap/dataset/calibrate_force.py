"""Newtons from counts: tare and gain per channel by weighted least squares, or a refusal with the reason."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecap.calibration import STANDARD_GRAVITY_M_S2, ForceChannel
from edgecap.dataset.still import Plateau
from edgecap.dataset.sync import student_95
from edgecap.errors import CalibrationError, UsageError

F64 = NDArray[np.float64]

LEAST_SIGNAL = 10.0
"""The greatest load must move the reading by so many standard deviations of a sample."""
MAX_RESIDUAL = 0.05
"""Share of the greatest load; a model that leaves more does not describe the sensor."""
MAX_NONLINEARITY = 0.03
LEAST_SPAN = 3.0
"""Greatest over smallest load that a power law needs."""
EXPONENTS = (0.3, 3.0)
REPEATABILITY = 0.01
"""Force-sensing resistors repeat no better: the least relative deviation given to one reading."""
ZERO_WORDS = ("tare", "zero", "nothing", "empty", "unloaded")
_LOAD = re.compile(
    r"(?:(?P<channel>[A-Za-z][\w-]*)\s*:?\s+)?(?P<value>-?\d+(?:[.,]\d+)?)\s*(?P<unit>kg|g|mN|N)\b"
)
_ZERO = re.compile(rf"\b({'|'.join(ZERO_WORDS)})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """What lay on a channel from `t_ns` on; channel `""` stands for all of them."""

    t_ns: int
    channel: str
    newton: float


@dataclass(frozen=True, slots=True)
class Point:
    """A known load and the reading of one channel under it: counts, their deviation and half-width."""

    newton: float
    counts: float
    sd: float
    u: float


def parse_load(text: str, gravity_m_s2: float = STANDARD_GRAVITY_M_S2) -> tuple[str, float] | None:
    """`thumb 0.5 kg`, `index: 3.2 N`, `tare` → channel and newtons; None if the words name no load."""
    found = _LOAD.search(text)
    if found is not None:
        value = float(found["value"].replace(",", "."))
        factor = {"kg": gravity_m_s2, "g": gravity_m_s2 * 1e-3, "N": 1.0, "mN": 1e-3}[found["unit"]]
        return found["channel"] or "", value * factor
    return ("", 0.0) if _ZERO.search(text) else None


def match_channel(name: str, names: Sequence[str]) -> list[int]:
    """Columns meant by `name`: all for none, the exact one, else the only one that contains it."""
    if not name:
        return list(range(len(names)))
    if name in names:
        return [names.index(name)]
    near = [k for k, n in enumerate(names) if name.lower() in n.lower()]
    if len(near) == 1:
        return near
    raise UsageError(f"{name!r} names no single channel", fix=f"the channels are: {', '.join(names)}")


def points_of(plateaus: Sequence[tuple[Load, Plateau]], names: Sequence[str]) -> dict[int, list[Point]]:
    """Readings by column; a load on one channel says nothing of the others."""
    points: dict[int, list[Point]] = {}
    for load, seen in plateaus:
        for k in match_channel(load.channel, names):
            point = Point(load.newton, float(seen.mean[k]), float(seen.sd[k]), float(seen.u[k]))
            points.setdefault(k, []).append(point)
    return {k: found for k, found in points.items() if any(p.newton for p in found)}


def calibrate_channel(
    name: str, points: Sequence[Point], model: str, *, full_counts: float, reference_percent: float
) -> ForceChannel:
    """One channel's model.

    Args:
        name: Of the channel.
        points: At least a tare and two loads.
        model: `linear` or `fsr`.
        full_counts: Reading at the end of the converter; 0 if unknown (an `fsr` needs it).
        reference_percent: Uncertainty of the loads themselves (95 %), the same for all.

    Raises:
        CalibrationError: the points do not allow it; says why and what to do.
    """
    loads = sorted({p.newton for p in points})
    if 0.0 not in loads:
        raise CalibrationError(f"{name}: no reading without load", fix="mark `tare` while nothing touches it")
    if len(loads) < 3:
        raise CalibrationError(
            f"{name}: {len(loads) - 1} load besides none is too few", fix="use two different weights or more"
        )
    if full_counts and any(p.counts >= full_counts - 1.5 for p in points):
        raise CalibrationError(f"{name}: a load drives it to full scale", fix="use smaller weights")
    tares = [p for p in points if p.newton == 0.0]
    noise = max(float(np.mean([p.sd for p in tares])), 1 / math.sqrt(12))
    tare = float(np.mean([p.counts for p in tares]))
    signal = max(abs(p.counts - tare) for p in points)
    if signal < LEAST_SIGNAL * noise:
        raise CalibrationError(
            f"{name}: the greatest load moves it by {signal:.1f} counts, noise is {noise:.1f}",
            fix="use greater weights, or check the wiring",
        )
    fit = _linear if model == "linear" else _power
    channel = fit(name, list(points), full_counts, reference_percent * 1e-2)
    if channel.residual_n > MAX_RESIDUAL * loads[-1]:
        share = channel.residual_n / loads[-1]
        raise CalibrationError(
            f"{name}: the {model} model leaves {share:.1%} of the greatest load",
            fix="repeat it, holding still",
        )
    return msgspec.structs.replace(channel, noise_counts=noise)


@dataclass(frozen=True, slots=True)
class _Fit:
    """Parameters, their covariance times Student's factor squared, and what is left of the readings."""

    terms: F64
    covariance: F64
    left: F64

    def u(self, direction: Sequence[float]) -> float:
        """Half-width at 95 % of a combination of the terms."""
        g = np.asarray(direction, np.float64)
        return math.sqrt(float(g @ self.covariance @ g))


def _weighted(design: F64, y: F64, u: F64, shape: F64) -> _Fit:
    """Least squares with weights 1 / (σ² + (r · shape)²).

    Args:
        design: (n, p).
        y: (n,) readings.
        u: (n,) their own half-widths at 95 %.
        shape: (n,) how scatter between repeated loads grows: with the load itself, or not at all.

    The scatter r is what makes the weighted sum of squares equal to its degrees of freedom, 0 if it is less
    already (R. C. Paule and J. Mandel, J. Res. NBS 87 (1982) 377).
    """
    degrees = design.shape[0] - design.shape[1]
    own = (u / 1.96) ** 2

    def solve(r: float) -> tuple[F64, F64, F64, float]:
        weights = 1 / (own + (r * shape) ** 2)
        inverse: F64 = np.asarray(np.linalg.inv((design.T * weights) @ design), np.float64)
        terms = inverse @ (design.T @ (weights * y))
        left = y - design @ terms
        return terms, inverse, left, float((weights * left**2).sum())

    low, high = 0.0, 0.0
    if degrees > 0 and solve(0.0)[3] > degrees:
        high = 1e-6
        while solve(high)[3] > degrees and high < 1e6:
            high *= 4
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if solve(middle)[3] > degrees else (low, middle)
    terms, inverse, left, _ = solve(high)
    free = degrees - (high > 0)  # the scatter was estimated from the same points
    return _Fit(terms, inverse * student_95(max(free, 1)) ** 2, left)


def _floor(points: Sequence[Point]) -> F64:
    """Half-widths of the readings, none below what a count's rounding leaves."""
    return np.array([max(p.u, 2 * p.sd / math.sqrt(1000), 0.1) for p in points])


def _linear(name: str, points: list[Point], full_counts: float, u_reference: float) -> ForceChannel:
    force = np.array([p.newton for p in points])
    counts = np.array([p.counts for p in points])
    u = _floor(points)
    top = float(force.max())
    # weights are put on more or less squarely: scatter goes with the load, and the zero wanders a little
    shape = np.maximum(force / top, 0.05) * abs(float(counts[force.argmax()] - counts[force.argmin()]))
    design = np.stack([np.ones_like(force), force], 1)
    line = _weighted(design, counts, u, shape)
    tare, slope = (float(v) for v in line.terms)
    u_tare, u_slope = line.u([1, 0]), line.u([0, 1])
    left = line.left
    nonlinearity = 0.0
    if len(set(force.tolist())) > 3:
        curved = _weighted(np.concatenate([design, force[:, None] ** 2], 1), counts, u, shape)
        bend = float(curved.terms[2])
        nonlinearity = abs(bend) * top / 4 / abs(slope)
        if nonlinearity > MAX_NONLINEARITY and abs(bend) > curved.u([0, 0, 1]):
            raise CalibrationError(
                f"{name} is not linear: it departs by {nonlinearity:.1%} of its range",
                fix="a force-sensing resistor wants `--model fsr`; else use a smaller range",
            )
    gain = 1.0 / slope
    u_gain = abs(gain) * math.hypot(u_slope / slope, u_reference)
    return ForceChannel(
        name=name,
        model="linear",
        tare=float(tare),
        gain=float(gain),
        u_tare=float(u_tare),
        u_gain=float(u_gain),
        u_n=float(math.hypot(top * u_gain / gain, u_tare * gain)),
        residual_n=float(np.sqrt(np.mean((left * gain) ** 2))),
        nonlinearity=float(nonlinearity),
        max_n=top,
        n=len(points),
        noise_counts=0.0,
    )


def _power(name: str, points: list[Point], full_counts: float, u_reference: float) -> ForceChannel:
    """F = k · (y − y₀)^p as a line of logarithms; y = x / (full − x), a conductance."""
    loaded = [p for p in points if p.newton]
    force = np.array([p.newton for p in loaded])
    if not full_counts:
        raise CalibrationError(
            f"{name}: the reading at the end of the converter is not known",
            fix="give --full-counts, e.g. 4095",
        )
    if len(set(force.tolist())) < 3 or force.max() < LEAST_SPAN * force.min() or force.min() < 0:
        raise CalibrationError(
            f"{name}: a power law needs three loads that span a factor {LEAST_SPAN:g}",
            fix="add smaller and greater ones",
        )
    tares = [p for p in points if not p.newton]
    tare = float(np.mean([p.counts for p in tares]))
    u_tare = float(np.mean(_floor(tares)) / math.sqrt(len(tares)))
    counts, u = np.array([p.counts for p in loaded]), _floor(loaded)
    y = counts / (full_counts - counts) - tare / (full_counts - tare)
    if (y <= 0).any():
        raise CalibrationError(
            f"{name}: a load reads less than none does",
            fix="an FSR's reading must rise with the force; swap the divider",
        )
    u_log = np.hypot(u * full_counts / (full_counts - counts) ** 2 / y, 1.96 * REPEATABILITY)
    # in the direction of the reading, which is what scatters
    design = np.stack([np.ones_like(force), np.log(force)], 1)
    line = _weighted(design, np.log(y), u_log, np.ones_like(force))
    a, b = (float(v) for v in line.terms)
    if b <= 0 or not EXPONENTS[0] <= 1 / b <= EXPONENTS[1]:
        raise CalibrationError(
            f"{name}: its exponent would be {1 / b if b else math.inf:.2f}",
            fix="check loads, channel and --full-counts",
        )
    exponent, gain = 1.0 / b, math.exp(-a / b)
    top = float(force.max())
    u_a, u_b, left = line.u([1, 0]), line.u([0, 1]), line.left
    u_top = top * math.hypot(line.u([1, math.log(top)]) / b, u_reference)
    return ForceChannel(
        name=name,
        model="fsr",
        tare=tare,
        gain=gain,
        exponent=exponent,
        full_counts=full_counts,
        u_tare=u_tare,
        u_gain=float(gain * math.hypot(u_a / b, u_reference)),
        u_exponent=float(u_b / b**2),
        u_n=u_top,
        residual_n=float(np.sqrt(np.mean((force * (np.exp(left / b) - 1)) ** 2))),
        max_n=top,
        n=len(points),
        noise_counts=0.0,
    )
