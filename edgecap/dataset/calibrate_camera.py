"""Intrinsics of a camera from views of a ChArUco board, through OpenCV; poor data are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.charuco import View, require_opencv
from edgecap.errors import CalibrationError

F64 = NDArray[np.float64]

LEAST_VIEWS = 8
CELLS = (8, 6)
LEAST_COVERAGE = 0.5
TILT_DEGREES = 15.0
LEAST_TILTED = 3
MAX_RESIDUAL_PX = 1.0
MAX_FOCAL_SHARE = 0.02
OUTLIER_RATIO = 3.0
"""A view that leaves this many times the median is dropped, and the rest solved anew."""


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A camera's parameters, with half-widths at 95 %.

    Attributes:
        matrix: fu, fv, pu, pv.
        coefficients: k1, k2, p1, p2 (`radtan`) or k1 … k4 (`equidistant`).
        u_matrix, u_coefficients: Half-widths.
        residual_px: Root mean square over all corners.
        view_px: The same per view used.
        dropped: Names of views left out.
        coverage: Share of 8 × 6 cells of the picture in which corners were seen.
    """

    matrix: F64
    coefficients: F64
    u_matrix: F64
    u_coefficients: F64
    residual_px: float
    view_px: F64
    dropped: tuple[str, ...]
    coverage: float


@dataclass(frozen=True, slots=True)
class _Solution:
    matrix: F64
    coefficients: F64
    sigma: F64
    """(8,) of fu, fv, pu, pv and the coefficients."""
    rotations: list[F64]
    view_px: F64


def calibrate_camera(views: Sequence[View], size: tuple[int, int], model: str) -> Intrinsics:
    """Solve for the intrinsics.

    Args:
        views: At least eight, tilted, over most of the picture.
        size: Width and height in pixels.
        model: `radtan` (Brown, two radial and two tangential terms) or `equidistant` (fisheye).

    Raises:
        CalibrationError: the views do not allow it; says what is missing.
    """
    coverage = covered(views, size)
    _require(views, coverage)
    solve = _solve_radtan if model == "radtan" else _solve_equidistant
    found = solve(views, size)
    limit = max(OUTLIER_RATIO * float(np.median(found.view_px)), 0.1)
    good = [v for v, left in zip(views, found.view_px, strict=True) if left <= limit]
    dropped = tuple(v.name for v, left in zip(views, found.view_px, strict=True) if left > limit)
    if dropped and len(good) >= LEAST_VIEWS:
        found = solve(good, size)
    else:
        good, dropped = list(views), ()
    _require_tilt(found.rotations)
    corners = np.array([len(v.picture) for v in good], np.float64)
    residual = float(np.sqrt(np.average(found.view_px**2, weights=corners)))
    if not residual <= MAX_RESIDUAL_PX:
        worst = good[int(np.argmax(found.view_px))].name
        raise CalibrationError(
            f"the {model} model leaves {residual:.2f} px (worst in picture {worst})",
            fix="check the board's sizes and flatness, hold it still; a wide lens wants --model equidistant",
        )
    u = 1.96 * found.sigma
    share = float(max(u[0] / found.matrix[0], u[1] / found.matrix[1]))
    if not 0 <= share <= MAX_FOCAL_SHARE:
        raise CalibrationError(
            f"the focal length is known to ± {share:.1%} only", fix="take more views, nearer and more tilted"
        )
    return Intrinsics(
        found.matrix, found.coefficients, u[:4], u[4:], residual, found.view_px, dropped, coverage
    )


def covered(views: Sequence[View], size: tuple[int, int]) -> float:
    """Share of 8 × 6 cells of the picture in which any corner was seen."""
    seen: set[tuple[int, int]] = set()
    for view in views:
        cells = np.floor(view.picture / np.array(size) * np.array(CELLS)).astype(int)
        seen.update(map(tuple, np.clip(cells, 0, np.array(CELLS) - 1).tolist()))
    return len(seen) / (CELLS[0] * CELLS[1])


def _require(views: Sequence[View], coverage: float) -> None:
    if len(views) < LEAST_VIEWS:
        raise CalibrationError(
            f"the board is seen, still and from a new place, in {len(views)} views; {LEAST_VIEWS} are needed",
            fix="check --board and --dictionary against the print; hold it still in more places",
        )
    if coverage < LEAST_COVERAGE:
        raise CalibrationError(
            f"corners cover {coverage:.0%} of the picture, {LEAST_COVERAGE:.0%} are needed",
            fix="show the board in all corners and at the edges",
        )


def _require_tilt(rotations: Sequence[F64]) -> None:
    """Without tilt, focal length and distance cannot be told apart."""
    cv2 = require_opencv()
    normals = [np.asarray(cv2.Rodrigues(r)[0], np.float64)[:, 2] for r in rotations]
    tilted = sum(abs(n[2]) < math.cos(math.radians(TILT_DEGREES)) for n in normals)
    if tilted < LEAST_TILTED:
        raise CalibrationError(
            f"the board is tilted by {TILT_DEGREES:g}° in {tilted} views, {LEAST_TILTED} are needed",
            fix="tilt it to all sides: flat views cannot tell focal length from distance",
        )


def _solve_radtan(views: Sequence[View], size: tuple[int, int]) -> _Solution:
    cv2 = require_opencv()
    try:
        _, matrix, coefficients, rotations, _, sigma, _, left = cv2.calibrateCameraExtended(
            [v.board for v in views],
            [v.picture for v in views],
            size,
            np.eye(3),
            np.zeros(5),
            flags=cv2.CALIB_FIX_K3,
        )
    except cv2.error as error:
        raise CalibrationError(
            f"OpenCV cannot solve these views: {_first_line(error)}", fix="take other views"
        ) from error
    deviations = np.asarray(sigma, np.float64).reshape(-1)[:8]
    terms = np.asarray(coefficients, np.float64).reshape(-1)[:4]
    return _Solution(
        _four(matrix), terms, deviations, list(rotations), np.asarray(left, np.float64).reshape(-1)
    )


def _solve_equidistant(views: Sequence[View], size: tuple[int, int]) -> _Solution:
    cv2 = require_opencv()
    focal = 0.5 * size[0]
    guess = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]], np.float64)
    boards = [v.board.reshape(1, -1, 3).astype(np.float64) for v in views]
    pictures = [v.picture.reshape(1, -1, 2).astype(np.float64) for v in views]
    # OpenCV 5 moved these from cv2.fisheye into cv2, with other values
    home = cv2.fisheye if hasattr(cv2.fisheye, "CALIB_FIX_SKEW") else cv2
    flags = home.CALIB_RECOMPUTE_EXTRINSIC | home.CALIB_FIX_SKEW | home.CALIB_USE_INTRINSIC_GUESS
    try:
        _, matrix, coefficients, rotations, shifts = cv2.fisheye.calibrate(
            boards, pictures, size, guess, np.zeros((4, 1)), flags=flags
        )
    except cv2.error as error:
        raise CalibrationError(
            f"OpenCV cannot solve these views: {_first_line(error)}", fix="take other views"
        ) from error
    sigma, left = _fisheye_deviations(boards, pictures, matrix, coefficients, rotations, shifts)
    return _Solution(_four(matrix), np.asarray(coefficients).reshape(-1), sigma, list(rotations), left)


def _fisheye_deviations(
    boards: Sequence[F64],
    pictures: Sequence[F64],
    matrix: F64,
    coefficients: F64,
    rotations: Sequence[F64],
    shifts: Sequence[F64],
) -> tuple[F64, F64]:
    """Deviations of the eight intrinsics, and what each view leaves; OpenCV gives none for its fisheye.

    The normal matrix of all parameters is reduced to that of the intrinsics, view by view (Schur complement).
    """
    cv2 = require_opencv()
    normal = np.zeros((8, 8))
    squares, n, per_view = 0.0, 0, []
    for board, picture, rotation, shift in zip(boards, pictures, rotations, shifts, strict=True):
        projected, jacobian = cv2.fisheye.projectPoints(board, rotation, shift, matrix, coefficients)
        left = (np.asarray(projected) - picture).reshape(-1)
        inner, outer = np.asarray(jacobian)[:, :8], np.asarray(jacobian)[:, 8:14]
        cross = inner.T @ outer
        normal += inner.T @ inner - cross @ np.linalg.solve(outer.T @ outer, cross.T)
        squares, n = squares + float(left @ left), n + len(left)
        per_view.append(math.sqrt(2 * float(np.mean(left**2))))
    variance = squares / max(n - 8 - 6 * len(boards), 1)
    sigma: F64 = np.sqrt(variance * np.diag(np.linalg.inv(normal)))
    return sigma, np.array(per_view)


def _four(matrix: F64) -> F64:
    return np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]], np.float64)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:120]
