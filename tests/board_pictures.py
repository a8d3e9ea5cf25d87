"""Pictures of a ChArUco board by a camera whose parameters are known: rays traced onto the print."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edgecap.dataset.charuco import Board

BOARD = "9x7:20:15"
SQUARE_PX = 80


@dataclass(frozen=True)
class Lens:
    """A camera: size, fu fv pu pv, model and its four coefficients."""

    size: tuple[int, int]
    four: tuple[float, float, float, float]
    model: str
    coefficients: tuple[float, float, float, float]

    @property
    def matrix(self) -> np.ndarray:
        fu, fv, pu, pv = self.four
        return np.array([[fu, 0, pu], [0, fv, pv], [0, 0, 1.0]])

    def rays(self, factor: int) -> np.ndarray:
        """(h · factor, w · factor, 2) directions x / z, y / z that reach each point of the sensor.

        The lens's own equations, solved for the ray by Newton's fixed point; not OpenCV's.
        """
        w, h = self.size
        u, v = np.meshgrid(
            (np.arange(w * factor) + 0.5) / factor - 0.5, (np.arange(h * factor) + 0.5) / factor - 0.5
        )
        fu, fv, pu, pv = self.four
        a, b = (u - pu) / fu, (v - pv) / fv
        k1, k2, p1, p2 = self.coefficients
        if self.model == "equidistant":
            bent = np.hypot(a, b)
            theta = bent.copy()
            for _ in range(30):
                t2 = theta * theta
                poly = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (p1 + t2 * p2))))
                theta -= (poly - bent) / (1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * p1 + t2 * 9 * p2))))
            scale = np.where(bent > 1e-9, np.tan(theta) / np.maximum(bent, 1e-9), 1.0)
            return np.stack([a * scale, b * scale], -1)
        x, y = a.copy(), b.copy()
        for _ in range(30):
            r2 = x * x + y * y
            radial = 1 + r2 * (k1 + r2 * k2)
            x, y = (
                (a - 2 * p1 * x * y - p2 * (r2 + 2 * x * x)) / radial,
                (b - p1 * (r2 + 2 * y * y) - 2 * p2 * x * y) / radial,
            )
        return np.stack([x, y], -1)


class Studio:
    """Takes pictures of one board with one lens."""

    def __init__(self, lens: Lens, factor: int = 2) -> None:
        self.lens, self.factor = lens, factor
        self.board = Board(BOARD)
        self._print = self.board.drawing(SQUARE_PX).astype(np.float32)
        self._rays = lens.rays(factor)

    def shoot(
        self, rng: np.random.Generator, turn: np.ndarray, centre_m: np.ndarray, noise: float = 2.0
    ) -> np.ndarray:
        """A grey picture of the board turned by `turn` (rotation vector), its middle at `centre_m`."""
        rotation = cv2.Rodrigues(np.asarray(turn, float))[0]
        side = self.board.square_m
        middle = np.array([self.board.columns, self.board.rows, 0]) * side / 2
        shift = np.asarray(centre_m, float) - rotation @ middle
        rays = np.dstack([self._rays, np.ones(self._rays.shape[:2])])
        normal = rotation[:, 2]
        along = (normal @ shift) / (rays @ normal)
        on_board = (rays * along[..., None] - shift) @ rotation
        pixels = on_board[..., :2] / side * SQUARE_PX + SQUARE_PX / 2 - 0.5
        pixels[along <= 0] = -1e4
        seen = cv2.remap(self._print, pixels.astype(np.float32), None, cv2.INTER_LINEAR, borderValue=120)
        w, h = self.lens.size
        small = seen.reshape(h, self.factor, w, self.factor).mean((1, 3)) * 0.8 + 20
        return np.clip(small + rng.normal(0, noise, small.shape), 0, 255).astype(np.uint8)

    def poses(self, rng: np.random.Generator, n: int, *, tilt: float = 0.6, spread: float = 1.0):
        """Turns and places in which the board lies about the picture."""
        w, h = self.lens.size
        fu, fv = self.lens.four[:2]
        for k in range(n):
            distance = rng.uniform(0.22, 0.34) * fu / 400 * 640 / w
            at = np.array([(k * 0.618) % 1, (k * 0.382 * 1.7) % 1]) * 2 - 1
            x = at[0] * spread * 0.32 * w / fu * distance
            y = at[1] * spread * 0.32 * h / fv * distance
            yield np.append(rng.uniform(-tilt, tilt, 2), rng.uniform(-0.5, 0.5)), np.array([x, y, distance])
