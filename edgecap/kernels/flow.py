"""Motion of a whole picture between two frames, to a fraction of a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.compile import kernel

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PARAMETERS = 4
"""Shift in x and y (pixels), rotation (rad) and growth, about the picture's centre."""
UNKNOWNS = PARAMETERS + 1
"""A common change of brightness is estimated, too."""


@kernel
def align_pictures(before: F32, after: F32, motion: F64, rounds: int) -> tuple[float, float]:
    """Find the motion that carries one picture into another, by Gauss-Newton steps.

    What stands at (x, y) before stands at (x + dx − r·y + g·x, y + dy + r·x + g·y) after, with x and y
    from the centre. Pixels whose difference is large against the typical one (moving hands, occlusion)
    lose their weight, so that the motion of the greater part of the picture is found.

    Args:
        before: (h, w) float32, brightness.
        after: (h, w) float32.
        motion: (4,) float64, dx, dy, r, g: the first guess, overwritten.
        rounds: Most steps to take.

    Returns:
        Typical (mean absolute) difference of brightness at the end, and the weighted share of the
        picture's pixels that agree; the share is 0 where the pictures could not be aligned.

    Source: Baker and Matthews 2004, Lucas-Kanade 20 Years On, § 3.2 (inverse compositional steps, here
        added up, as fits small motions); weights of Geman and McClure 1987.
    """
    height, width = before.shape
    centre_x, centre_y = 0.5 * (width - 1), 0.5 * (height - 1)
    hessian = np.empty((UNKNOWNS, UNKNOWNS))
    right = np.empty(UNKNOWNS)
    slope = np.empty(UNKNOWNS)
    offset = 0.0
    scale = 1e9
    mean_off, share = 0.0, 0.0
    for _ in range(rounds):
        hessian[:] = 0.0
        right[:] = 0.0
        total_off, total_weight, inside = 0.0, 0.0, 0
        for row in range(1, height - 1):
            y = row - centre_y
            for column in range(1, width - 1):
                x = column - centre_x
                at_x = centre_x + x + motion[0] - motion[2] * y + motion[3] * x
                at_y = centre_y + y + motion[1] + motion[2] * x + motion[3] * y
                left, top = int(np.floor(at_x)), int(np.floor(at_y))
                if left < 0 or top < 0 or left >= width - 1 or top >= height - 1:
                    continue
                part_x, part_y = at_x - left, at_y - top
                upper = after[top, left] + part_x * (after[top, left + 1] - after[top, left])
                lower = after[top + 1, left] + part_x * (after[top + 1, left + 1] - after[top + 1, left])
                off = upper + part_y * (lower - upper) - before[row, column] - offset
                inside += 1
                total_off += abs(off)
                weight = 1.0 / (1.0 + (off / scale) ** 2) ** 2
                total_weight += weight
                slope_x = 0.5 * (before[row, column + 1] - before[row, column - 1])
                slope_y = 0.5 * (before[row + 1, column] - before[row - 1, column])
                slope[0] = slope_x
                slope[1] = slope_y
                slope[2] = slope_y * x - slope_x * y
                slope[3] = slope_x * x + slope_y * y
                slope[4] = 1.0
                for i in range(UNKNOWNS):
                    scaled = weight * slope[i]
                    right[i] += scaled * off
                    for j in range(i + 1):
                        hessian[i, j] += scaled * slope[j]
        if inside * 4 < height * width:
            return mean_off, 0.0
        mean_off = total_off / inside
        share = total_weight / (height * width)
        # two mean differences: the weights leave the bulk of the pixels alone
        scale = max(2.0 * mean_off, 0.5)
        for i in range(UNKNOWNS):
            hessian[i, i] += 1e-9 * hessian[i, i] + 1e-12
        for j in range(UNKNOWNS):
            for k in range(j):
                hessian[j, j] -= hessian[j, k] * hessian[j, k]
            if hessian[j, j] <= 0.0:
                return mean_off, 0.0
            hessian[j, j] = np.sqrt(hessian[j, j])
            for i in range(j + 1, UNKNOWNS):
                for k in range(j):
                    hessian[i, j] -= hessian[i, k] * hessian[j, k]
                hessian[i, j] /= hessian[j, j]
        for j in range(UNKNOWNS):
            for k in range(j):
                right[j] -= hessian[j, k] * right[k]
            right[j] /= hessian[j, j]
        for j in range(UNKNOWNS - 1, -1, -1):
            for k in range(j + 1, UNKNOWNS):
                right[j] -= hessian[k, j] * right[k]
            right[j] /= hessian[j, j]
        for i in range(PARAMETERS):
            motion[i] -= right[i]
        offset += right[4]
        reach = abs(right[0]) + abs(right[1]) + (abs(right[2]) + abs(right[3])) * 0.5 * width
        if reach < 1e-3:
            break
    return mean_off, share


def warm_up() -> None:
    """Compile the kernels of this module."""
    picture = np.add.outer(np.arange(8.0), np.sin(np.arange(8.0))).astype(np.float32)
    align_pictures(picture, picture, np.zeros(PARAMETERS), 2)
