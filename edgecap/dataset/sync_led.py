"""Lag from a light: an LED that a device switches, seen across the rows of a rolling shutter.

Every row is exposed a little later than the one above it. In the frame in which the LED is switched, the
upper rows show the state before and the lower ones that after; the rows that were being exposed show a part
of the light, and that part tells when, to a fraction of a row's time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.sync import F64, LagEstimate, Limits
from edgecap.dataset.sync_taps import MIN_EVENTS, lag_of_events, pair_events
from edgecap.errors import CalibrationError
from edgecap.model import I64

Bool = NDArray[np.bool_]

STRIPES = 32
"""Columns of a picture are averaged in so many stripes; the LED is looked for in each."""
MAX_FRAMES = 900
"""Half a minute; 140 kB each at 1080 rows."""
MIN_CONTRAST = 8.0
"""Grey levels between dark and lit that a row must show."""
ROW_CONTRAST = 0.3
"""A row counts if it shows this share of the best row's contrast."""
MIN_ROWS = 8
DARK, LIT = 0.1, 0.9
"""Shares of the light below and above which a row is dark or lit."""
EDGE = 0.03
"""A frame with less than this share of another state has no edge in it that could be told from noise."""
MAX_MISFIT = 0.15
"""Root mean square by which an edge's rows may differ from the model."""


@dataclass(frozen=True, slots=True)
class RowFilm:
    """Brightness of the rows in which an LED is seen.

    Attributes:
        t_ns: (n,) int64, mid-exposure of row 0 of each frame.
        rows: (n, h) float64.
        line_ns: From one row to the next.
        exposure_ns: (n,) int64, how long each row is exposed.
    """

    t_ns: I64
    rows: F64
    line_ns: int
    exposure_ns: I64


@dataclass(frozen=True, slots=True)
class Switching:
    """When a device switched its LED: `t_ns` (k,) int64, rising; `on` (k,) bool, the state after."""

    t_ns: I64
    on: Bool


def lag_of_led(film: RowFilm, led: Switching, limits: Limits | None = None) -> LagEstimate:
    """Lag of a camera's time stamps behind the device that switches the LED.

    Raises:
        CalibrationError: no rolling shutter, no LED in sight, too few edges, or a rhythm that fits at
            several lags.
    """
    limits = limits or Limits()
    if len(led.t_ns) < MIN_EVENTS:
        raise CalibrationError(
            f"the LED was switched {len(led.t_ns)} times, {MIN_EVENTS} are needed",
            fix="blink it for half a minute, at irregular intervals",
        )
    edges_s, on = led_edges(film)
    if len(edges_s) < MIN_EVENTS:
        raise CalibrationError(
            f"the camera shows {len(edges_s)} edges of the LED, {MIN_EVENTS} are needed",
            fix="hold the LED close, so that it fills the height of the picture, and keep still",
        )
    origin_a, origin_b = int(film.t_ns[0]), int(led.t_ns[0])
    led_s = np.asarray((led.t_ns - origin_b) * 1e-9, np.float64)
    offset_ns = origin_a - origin_b
    first, second = pair_events(edges_s, led_s, offset_ns * 1e-9, limits, on[:, None] == led.on[None, :])
    at_ns = origin_a + np.rint(edges_s[first] * 1e9).astype(np.int64)
    lags_ns = (edges_s[first] - led_s[second]) * 1e9
    return lag_of_events(at_ns, lags_ns, offset_ns, len(edges_s), "edges")


def led_edges(film: RowFilm) -> tuple[F64, Bool]:
    """When the camera saw the LED switched, (m,) s from its first frame, and to which state, (m,) bool.

    An edge between the last row of a frame and the first of the next is not seen; a frame with two edges is
    left out.

    Raises:
        CalibrationError: no rolling shutter, or no LED in sight.
    """
    if film.line_ns <= 0:
        raise CalibrationError(
            "the camera's line time is unknown or zero",
            fix="this method needs a rolling shutter; use gyro against flow with a global one",
        )
    dark, lit = _levels(film.rows)
    contrast = lit - dark
    seen = contrast >= max(MIN_CONTRAST, ROW_CONTRAST * float(contrast.max()))
    if seen.sum() < MIN_ROWS:
        raise CalibrationError(
            f"only {int(seen.sum())} rows of the picture show a change of light, {MIN_ROWS} are needed",
            fix="hold the LED close, so that it fills the height of the picture, and blink it",
        )
    share = (film.rows[:, seen] - dark[seen]) / contrast[seen]
    middle_s: F64 = np.asarray(np.flatnonzero(seen) * (film.line_ns * 1e-9), np.float64)
    whole = share.mean(axis=1)
    edges: list[float] = []
    states: list[bool] = []
    for k in range(1, len(share) - 1):
        before, after = whole[k - 1], whole[k + 1]
        rises = before < DARK and after > LIT
        if not (rises or (before > LIT and after < DARK)) or not EDGE < whole[k] < 1.0 - EDGE:
            continue
        light = share[k] if rises else 1.0 - share[k]
        width_s = max(int(film.exposure_ns[k]), film.line_ns) * 1e-9
        edge = _edge(light, middle_s, width_s)
        if edge is not None:
            edges.append((int(film.t_ns[k]) - int(film.t_ns[0])) * 1e-9 + edge)
            states.append(rises)
    return np.array(edges), np.array(states, np.bool_)


def brightest_stripe(pictures: Iterable[NDArray[np.uint8]]) -> F64:
    """Row brightness (n, h) in the stripe of columns whose light changes most over the frames.

    Args:
        pictures: Grey pictures (h, w) uint8; the first `MAX_FRAMES` are used.
    """
    stripes: list[NDArray[np.float32]] = []
    for picture in pictures:
        if len(stripes) == MAX_FRAMES:
            break
        width = picture.shape[1] // STRIPES * STRIPES
        blocks = picture[:, :width].reshape(picture.shape[0], STRIPES, -1)
        stripes.append(blocks.mean(axis=2, dtype=np.float32))
    if not stripes:
        raise CalibrationError("the camera's recording holds no frame that can be decoded")
    film = np.stack(stripes)
    best = int(film.std(axis=0).sum(axis=0).argmax())
    return film[:, :, best].astype(np.float64)


def _levels(rows: F64) -> tuple[F64, F64]:
    """Each row's level while the LED is off and on: medians of the frames that are mostly so."""
    dark, lit = np.quantile(rows, (0.05, 0.95), axis=0)
    moves = lit - dark >= MIN_CONTRAST
    if not moves.any():
        return dark, lit
    whole = ((rows[:, moves] - dark[moves]) / (lit[moves] - dark[moves])).mean(axis=1)
    off, on = whole < np.quantile(whole, 0.05) + DARK, whole > np.quantile(whole, 0.95) - DARK
    return np.median(rows[off], axis=0), np.median(rows[on], axis=0)


def _edge(light: F64, middle_s: F64, width_s: float) -> float | None:
    """When the light came on, from each row's share of it; None where the rows do not look like an edge.

    A row exposed over [m − w/2, m + w/2] gets (m + w/2 − e) / w of the light that came on at e.
    """
    # the sum of all shares says roughly when; each partly lit row then says exactly
    rough = middle_s[0] + (middle_s[-1] - middle_s[0]) * (1.0 - float(light.mean()))
    partly = (light > DARK) & (light < LIT) & (np.abs(middle_s - rough) <= 2 * width_s)
    edge = float((middle_s[partly] + width_s * (0.5 - light[partly])).mean()) if partly.any() else rough
    for _ in range(5):
        model = (middle_s + width_s / 2 - edge) / width_s
        linear = (model > 0.02) & (model < 0.98)
        if not linear.any():
            break
        edge += float((model[linear] - light[linear]).mean()) * width_s
    if not middle_s[0] - width_s / 2 <= edge <= middle_s[-1] + width_s / 2:
        return None
    misfit = np.clip((middle_s + width_s / 2 - edge) / width_s, 0.0, 1.0) - light
    return edge if float(np.sqrt((misfit**2).mean())) <= MAX_MISFIT else None
