"""Just enough SVG: whole numbers, stable order, so that equal input gives equal bytes."""

from __future__ import annotations

from html import escape

INK = "#1f2933"
PALE = "#eef2f6"
EDGE = "#9aa5b1"
WIRE = {
    "black": "#222222",
    "brown": "#8a5a2b",
    "red": "#d62828",
    "orange": "#f08a24",
    "yellow": "#f2cf1d",
    "green": "#2a9d4a",
    "blue": "#2f6fde",
    "violet": "#8e4ec6",
    "grey": "#8d99a6",
    "white": "#ffffff",
    "pink": "#ef8fb0",
}


class Picture:
    """An SVG drawing of fixed size."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="DejaVu Sans, Helvetica, Arial, sans-serif" '
            f'role="img">\n<title>{escape(title)}</title>'
        )
        self._lines = [f'<rect width="{width}" height="{height}" fill="#ffffff"/>']

    def rect(
        self, x: int, y: int, w: int, h: int, *, fill: str = PALE, stroke: str = EDGE, round_: int = 8
    ) -> None:
        self._lines.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{round_}" fill="{fill}" stroke="{stroke}"/>'
        )

    def dot(self, x: int, y: int, r: int, *, fill: str = "#ffffff", stroke: str = INK) -> None:
        self._lines.append(f'<circle cx="{x}" cy="{y}" r="{r}" fill="{fill}" stroke="{stroke}"/>')

    def text(
        self,
        x: int,
        y: int,
        text: str,
        *,
        size: int = 12,
        anchor: str = "start",
        bold: bool = False,
        fill: str = INK,
    ) -> None:
        weight = ' font-weight="bold"' if bold else ""
        self._lines.append(
            f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"{weight} fill="{fill}">'
            f"{escape(text)}</text>"
        )

    def wire(self, points: list[tuple[int, int]], colour: str, *, width: int = 3) -> None:
        """A line through points, with a dark rim so that white and yellow show."""
        path = "M" + " L".join(f"{x} {y}" for x, y in points)
        for stroke, w in ((INK, width + 2), (WIRE[colour], width)):
            self._lines.append(
                f'<path d="{path}" fill="none" stroke="{stroke}" stroke-width="{w}" '
                'stroke-linejoin="round" stroke-linecap="round"/>'
            )

    def path(self, d: str, *, fill: str = "none", stroke: str = INK, width: int = 2) -> None:
        self._lines.append(
            f'<path d="{d}" fill="{fill}" stroke="{stroke}" stroke-width="{width}" stroke-linejoin="round" '
            'stroke-linecap="round"/>'
        )

    def __str__(self) -> str:
        return "\n".join([self._head, *self._lines, "</svg>"]) + "\n"
