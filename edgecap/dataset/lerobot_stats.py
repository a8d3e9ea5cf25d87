"""Statistics of a LeRobot dataset: of numbers over rows, of pictures over a sample of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
PICTURE_PIXELS = 150
"""A picture whose longer side has more than twice as many pixels is thinned to about this many along it."""
Stats = dict[str, NDArray[Any]]


def number_stats(values: NDArray[Any]) -> Stats:
    """Statistics of (n, c) numbers; those that are not finite do not count, 0 where there is none.

    Returns:
        `min`, `max`, `mean`, `std` (population), `q01` to `q99`: (c,) float64; `count`: (1,) int64, rows with
        a number.
    """
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    columns = [_column(values[finite[:, c], c]) for c in range(values.shape[1])]
    stats: Stats = {name: np.array([column[name] for column in columns]) for name in columns[0]}
    return {**stats, "count": np.array([int(finite.any(axis=1).sum())])}


def _column(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys(("min", "max", "mean", "std", *QUANTILES), 0.0)
    quantiles = np.quantile(values, list(QUANTILES.values())).tolist()
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "std": float(values.std()),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


class PictureStats:
    """Counts how often each level occurs in each colour."""

    def __init__(self) -> None:
        self.levels = np.zeros((3, 256), np.int64)
        self.pictures = 0

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Count a picture, (h, w, 3) uint8."""
        longer = max(picture.shape[:2])
        step = longer // PICTURE_PIXELS if longer >= 2 * PICTURE_PIXELS else 1
        thin = picture[::step, ::step]
        for c in range(3):
            self.levels[c] += np.bincount(thin[..., c].ravel(), minlength=256)
        self.pictures += 1

    def merge(self, others: Iterable[PictureStats]) -> PictureStats:
        """Add what another has counted."""
        for other in others:
            self.levels += other.levels
            self.pictures += other.pictures
        return self

    def stats(self) -> Stats:
        """As `number_stats` gives them, of levels from 0 to 1, in shape (3, 1, 1); `count` is of pictures."""
        level = np.arange(256) / 255.0
        total = np.maximum(self.levels.sum(axis=1), 1)
        mean = self.levels @ level / total
        square = self.levels @ level**2 / total
        some = self.levels > 0
        found = {
            "min": level[some.argmax(axis=1)],
            "max": level[255 - some[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(square - mean**2, 0.0)),
        }
        share = np.cumsum(self.levels, axis=1) / total[:, None]
        for name, q in QUANTILES.items():
            found[name] = level[(share >= q).argmax(axis=1)]
        stats: Stats = {name: values.reshape(3, 1, 1) for name, values in found.items()}
        return {**stats, "count": np.array([self.pictures])}
