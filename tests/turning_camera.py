"""A camera and a gyroscope on one body that turns, with everything known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgecap.dataset.sync import Signal
from edgecap.dataset.sync_flow import Picture

SIZE = (108, 192)
FOCAL_PX = 180.0
MOUNTING = np.array([[0.0, -1.0, 0.0], [0.96, 0.0, 0.28], [-0.28, 0.0, 0.96]])
"""Gyroscope's axes from the camera's."""
BIAS = np.array([0.02, -0.01, 0.015])


@dataclass(frozen=True)
class Body:
    """Rates (n, 3) rad/s in the camera's axes at `rate_hz`."""

    rate_hz: float
    rates: np.ndarray

    @cached_property
    def orientation(self) -> np.ndarray:
        """(n, 3, 3), camera to world."""
        found = np.empty((len(self.rates), 3, 3))
        current = np.eye(3)
        for k in range(len(found)):
            found[k] = current
            following = self.rates[min(k + 1, len(found) - 1)]
            current = current @ _turn((self.rates[k] + following) / 2 / self.rate_hz)
        return found

    def orientation_at(self, t_s: float) -> np.ndarray:
        k = int(t_s * self.rate_hz)
        return self.orientation[k] @ _turn(self.rates[k] * (t_s - k / self.rate_hz))


def turning(
    rng: np.random.Generator,
    seconds: float,
    *,
    rms_rad_s: float = 0.4,
    low_hz: float = 0.3,
    high_hz: float = 2.5,
) -> Body:
    """Irregular turning about all three axes, as of a head that looks around."""
    rate_hz = 1000.0
    n = int((seconds + 2) * rate_hz)
    rates = np.stack([band_noise(rng, n, rate_hz, low_hz, high_hz) for _ in range(3)], 1)
    return Body(rate_hz, rates * rms_rad_s)


def band_noise(rng: np.random.Generator, n: int, rate_hz: float, low_hz: float, high_hz: float) -> np.ndarray:
    """Noise of unit deviation in a band."""
    spectrum = np.fft.rfft(rng.normal(size=n))
    frequency = np.fft.rfftfreq(n, 1 / rate_hz)
    spectrum[(frequency < low_hz) | (frequency > high_hz)] = 0
    noise = np.fft.irfft(spectrum, n)
    return noise / noise.std()


def gyroscope(
    rng: np.random.Generator,
    body: Body,
    *,
    rate_hz: float = 200.0,
    noise_rad_s: float = 0.01,
    start_ns: int = 0,
) -> Signal:
    """Samples of a gyroscope that is mounted askew, biased and noisy."""
    step = int(body.rate_hz / rate_hz)
    values = body.rates[::step] @ MOUNTING.T + BIAS
    t_ns = start_ns + np.rint(np.arange(len(values)) * step / body.rate_hz * 1e9).astype(np.int64)
    return Signal(t_ns, values + rng.normal(0, noise_rad_s, values.shape))


def pictures(
    rng: np.random.Generator,
    body: Body,
    seconds: float,
    *,
    rate_hz: float = 30.0,
    late_ns: int = 0,
    start_ns: int = 0,
    noise: float = 3.0,
) -> list[Picture]:
    """What the camera sees; its time stamps are late by `late_ns`."""
    scene = _texture(rng, 640, 960)
    height, width = SIZE
    y, x = np.mgrid[0:height, 0:width]
    rays = np.stack([x - (width - 1) / 2, y - (height - 1) / 2, np.full(SIZE, FOCAL_PX)], -1)
    seen = []
    for k in range(int(seconds * rate_hz)):
        t_s = 0.5 + k / rate_hz
        world = rays @ body.orientation_at(t_s).T
        at = world[..., :2] / world[..., 2:] * FOCAL_PX + (scene.shape[1] / 2, scene.shape[0] / 2)
        grey = _sample(scene, at[..., 0], at[..., 1]) + rng.normal(0, noise, SIZE)
        seen.append(Picture(start_ns + round(t_s * 1e9) + late_ns, grey.astype(np.float32)))
    return seen


def _turn(angle: np.ndarray) -> np.ndarray:
    """Rotation matrix of a small rotation vector."""
    size = float(np.sqrt(angle @ angle))
    cross = np.array([[0, -angle[2], angle[1]], [angle[2], 0, -angle[0]], [-angle[1], angle[0], 0]])
    if size < 1e-12:
        return np.eye(3) + cross
    return np.eye(3) + np.sin(size) / size * cross + (1 - np.cos(size)) / size**2 * (cross @ cross)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Random spots of many sizes, 0 … 255."""
    scene = np.zeros((height, width))
    for size in (4, 8, 16, 32, 64):
        coarse = rng.normal(size=(height // size + 3, width // size + 3))
        y, x = np.mgrid[0:height, 0:width] / size
        scene += _sample(coarse, x, y) * size**0.5
    return np.clip(128 + scene / scene.std() * 40, 0, 255)


def _sample(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    left = np.clip(x.astype(int), 0, picture.shape[1] - 2)
    top = np.clip(y.astype(int), 0, picture.shape[0] - 2)
    part_x, part_y = x - left, y - top
    upper = picture[top, left] * (1 - part_x) + picture[top, left + 1] * part_x
    lower = picture[top + 1, left] * (1 - part_x) + picture[top + 1, left + 1] * part_x
    return upper * (1 - part_y) + lower * part_y
