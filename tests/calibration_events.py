"""Taps and blinks at known times, as force, acceleration and rolling shutter record them."""

from __future__ import annotations

import numpy as np

from edgecap.dataset.sync import Signal
from edgecap.dataset.sync_led import RowFilm, Switching

MS = 1_000_000
START_NS = 10**18
HEIGHT, LINE_NS, PERIOD_NS = 480, 30_000, 33_333_333


def knock_times(rng: np.random.Generator, count: int) -> np.ndarray:
    """Irregular, a third to one and a half seconds apart."""
    return 1.0 + np.cumsum(rng.uniform(0.35, 1.5, count))


def force(rng: np.random.Generator, knocks: np.ndarray, *, late_ns: int = 0, noise_n: float = 0.01) -> Signal:
    """Five fingers that grip slowly; each knock is a half sine of 8 ms on one of them."""
    n = int((knocks[-1] + 1.5) * 1000)
    t = np.arange(n) / 1000 + 0.00031
    values = 5 * np.clip(np.sin(2 * np.pi * 0.25 * t), 0, None)[:, None] * np.arange(1, 6) / 5
    for at in knocks:
        part = (t - at) / 0.008
        strength = rng.uniform(2, 6)
        values[:, rng.integers(5)] += np.where((part > 0) & (part < 1), strength * np.sin(np.pi * part), 0)
    t_ns = START_NS + late_ns + np.rint(t * 1e9).astype(np.int64)
    return Signal(t_ns, values + rng.normal(0, noise_n, values.shape))


def acceleration(rng: np.random.Generator, knocks: np.ndarray, *, noise_g: float = 0.01) -> Signal:
    """Gravity, slow motion, and each knock as a damped ringing at 60 Hz."""
    n = int((knocks[-1] + 1.5) * 800)
    t = np.arange(n) / 800
    values = np.column_stack([0.3 * np.sin(t), 0.2 * np.cos(0.7 * t), 1 + 0 * t])
    for at in knocks:
        since = np.clip(t - at, 0, None)
        ring = rng.uniform(2, 5) * np.sin(2 * np.pi * 60 * since) * np.exp(-since / 0.02)
        values += ring[:, None] * rng.normal(0, 1, 3).clip(-1, 1)
    return Signal(START_NS + np.rint(t * 1e9).astype(np.int64), values + rng.normal(0, noise_g, values.shape))


def blinking(rng: np.random.Generator, seconds: float) -> Switching:
    pauses = rng.uniform(0.12, 0.6, int(seconds / 0.36))
    t_ns = START_NS + 500 * MS + np.rint(np.cumsum(pauses) * 1e9).astype(np.int64)
    return Switching(t_ns, np.arange(len(t_ns)) % 2 == 0)


def film_of(
    rng: np.random.Generator, led: Switching, *, exposure_ns: int, late_ns: int = 0, noise: float = 2.0
) -> RowFilm:
    """What a rolling shutter records; each row integrates the light over its own exposure."""
    frames = int((led.t_ns[-1] - START_NS) / PERIOD_NS) + 5
    starts = START_NS + np.arange(frames, dtype=np.int64) * PERIOD_NS
    middle = starts[:, None] + np.arange(HEIGHT) * LINE_NS
    edges = np.concatenate([[START_NS - 10**9], led.t_ns]).astype(float)
    state = np.concatenate([[0.0], led.on.astype(float)])
    area = np.concatenate([[0.0], np.cumsum(state[:-1] * np.diff(edges))])

    def lit_until(t):
        k = np.searchsorted(edges, t, "right") - 1
        return area[k] + state[k] * (t - edges[k])

    share = (lit_until(middle + exposure_ns / 2) - lit_until(middle - exposure_ns / 2)) / exposure_ns
    shape = 40 + 150 * np.exp(-(((np.arange(HEIGHT) - 260) / 150) ** 2))
    rows = 20 + share * shape + rng.normal(0, noise, share.shape)
    return RowFilm(starts + late_ns, np.clip(rows, 0, 255), LINE_NS, np.full(frames, exposure_ns))
