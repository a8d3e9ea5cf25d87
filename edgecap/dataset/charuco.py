"""A ChArUco board and where its corners are in pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.dataset.session import RecordedSession
from edgecap.dataset.sync_flow import decoded_frames
from edgecap.errors import CalibrationError, UsageError

F32 = NDArray[np.float32]
Grey = NDArray[np.uint8]

LEAST_CORNERS = 8
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
STRIDE = 3
"""Of a film, every third frame is looked at."""
MAX_PIXELS_PER_FRAME = 1.5
"""A board that moves faster is smeared, and sheared by a rolling shutter."""
NEW_SHARE = 0.04
"""A view must differ from every kept one by this share of the picture's width, over its corners."""
MAX_VIEWS = 60
_BOARD = re.compile(r"(\d{1,2})x(\d{1,2}):(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)")


def require_opencv() -> Any:
    """The module `cv2`; raises `CalibrationError` where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise CalibrationError(
            f"camera calibration needs OpenCV ({error})", fix="pip install 'edgecap[calibrate]'"
        ) from error
    return cv2


@dataclass(frozen=True, slots=True)
class View:
    """One picture's corners: (n, 3) on the board in m, and (n, 2) in the picture in pixels; their ids."""

    name: str
    board: F32
    picture: F32
    ids: NDArray[np.int32]


class Board:
    """A printed board.

    Args:
        text: `COLUMNSxROWS:SQUARE:MARKER`, sides in mm, as measured on the print: `11x8:15:11`.
        dictionary: Of its markers, as OpenCV calls it without `DICT_`: `5X5_100`.

    Raises:
        UsageError: not of that form, or OpenCV knows no such dictionary.
    """

    def __init__(self, text: str, dictionary: str = "5X5_100") -> None:
        cv2 = require_opencv()
        found = _BOARD.fullmatch(text)
        code = getattr(cv2.aruco, f"DICT_{dictionary.upper()}", None)
        if code is None:
            raise UsageError(
                f"there is no dictionary {dictionary!r}", fix="for example 4X4_50, 5X5_100, 6X6_250"
            )
        if (
            found is None
            or not 0 < float(found[4]) < float(found[3])
            or min(int(found[1]), int(found[2])) < 3
        ):
            raise UsageError(
                f"--board {text!r} is no board",
                fix="columns x rows : square : marker in mm, for example 11x8:15:11",
            )
        self.text, self.dictionary = text, dictionary.upper()
        self.columns, self.rows = int(found[1]), int(found[2])
        self.square_m = float(found[3]) * 1e-3
        markers = cv2.aruco.getPredefinedDictionary(code)
        self._board = cv2.aruco.CharucoBoard(
            (self.columns, self.rows), self.square_m, float(found[4]) * 1e-3, markers
        )
        if self.columns * self.rows // 2 > len(markers.bytesList):
            raise UsageError(
                f"a board of {self.columns}x{self.rows} has more markers than {dictionary}",
                fix="choose a larger dictionary, such as 5X5_250",
            )
        self._detector = cv2.aruco.CharucoDetector(self._board)

    def drawing(self, pixels_per_square: int) -> Grey:
        """The board itself, with a white margin of half a square."""
        size = (self.columns * pixels_per_square, self.rows * pixels_per_square)
        drawn = self._board.generateImage(size, marginSize=0)
        return np.pad(np.asarray(drawn, np.uint8), pixels_per_square // 2, constant_values=255)

    def find(self, name: str, picture: Grey) -> View | None:
        """Its corners; None if fewer than eight are seen, or all in one row."""
        corners, ids, _, _ = self._detector.detectBoard(picture)
        if ids is None or len(ids) < LEAST_CORNERS:
            return None
        numbers = np.asarray(ids, np.int32).reshape(-1)
        across = self.columns - 1
        if len(set((numbers // across).tolist())) < 2 or len(set((numbers % across).tolist())) < 2:
            return None
        places, pixels = self._board.matchImagePoints(corners, ids)
        return View(
            name,
            np.asarray(places, np.float32).reshape(-1, 3),
            np.asarray(pixels, np.float32).reshape(-1, 2),
            numbers,
        )


def folder_pictures(folder: Path) -> Iterator[tuple[str, Grey]]:
    """Every picture of a directory, in grey, by name.

    Raises:
        UsageError: no such directory, no pictures, or one that cannot be read.
    """
    cv2 = require_opencv()
    try:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
    except OSError as error:
        raise UsageError(
            f"cannot list {folder}: {error.strerror}", fix="give a directory of pictures"
        ) from error
    if not paths:
        raise UsageError(f"{folder} holds no pictures", fix=f"they end in {', '.join(PICTURES)}")
    for path in paths:
        try:
            data = np.frombuffer(path.read_bytes(), np.uint8)
            grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
        except (OSError, cv2.error):
            grey = None
        if grey is None:
            raise UsageError(f"{path} is not a picture that can be read", fix="take it out")
        yield path.name, np.asarray(grey, np.uint8)


def session_pictures(session: RecordedSession, stream: str) -> Iterator[tuple[str, Grey]]:
    """Every third frame of a camera's stream, in grey, by its number."""
    for k, (frame, picture) in enumerate(decoded_frames(session, stream)):
        if k % STRIDE == 0:
            yield str(frame.index), np.asarray(picture.to_ndarray(format="gray"), np.uint8)


def views_of(
    board: Board, pictures: Iterable[tuple[str, Grey]], *, is_film: bool
) -> tuple[list[View], tuple[int, int], int]:
    """Views in which the board is seen, still and in a new place.

    Returns:
        The views, width and height of the pictures, and how many pictures there were.

    Raises:
        CalibrationError: pictures of different sizes.
    """
    kept: list[View] = []
    before: View | None = None
    size, n = (0, 0), 0
    for name, grey in pictures:
        n += 1
        here = (grey.shape[1], grey.shape[0])
        if size not in ((0, 0), here):
            raise CalibrationError(
                f"picture {name} has {here[0]} × {here[1]} pixels, those before {size[0]} × {size[1]}",
                fix="give pictures of one camera and mode",
            )
        size = here
        view = board.find(name, grey)
        moved = _distance(view, before) if is_film and view and before else 0.0
        still = not is_film or (before is not None and moved <= MAX_PIXELS_PER_FRAME * STRIDE)
        before = view
        if view is None or not still or len(kept) >= MAX_VIEWS:
            continue
        if not is_film or all(_distance(view, k) > NEW_SHARE * size[0] for k in kept):
            kept.append(view)
    return kept, size, n


def _distance(a: View, b: View) -> float:
    """Mean distance of the corners that both show, in pixels; infinite without any."""
    _, at_a, at_b = np.intersect1d(a.ids, b.ids, return_indices=True)
    if not len(at_a):
        return float("inf")
    return float(np.linalg.norm(a.picture[at_a] - b.picture[at_b], axis=1).mean())
