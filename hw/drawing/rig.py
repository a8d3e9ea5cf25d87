"""A reference rig as blocks and cables."""

from __future__ import annotations

from hw.drawing.pinout import Block, Rig
from hw.drawing.svg import Picture

WIDTH, HEIGHT = 240, 74
STEP_X, STEP_Y = 370, 150
LEFT, TOP = 24, 64


def draw_rig(rig: Rig) -> str:
    """The rig's blocks at their places, with the cables between them, as SVG."""
    columns = max(block.at[0] for block in rig.block) + 1
    rows = max(block.at[1] for block in rig.block) + 1
    width = 2 * LEFT + (columns - 1) * STEP_X + WIDTH
    picture = Picture(width, TOP + (rows - 1) * STEP_Y + HEIGHT + 30, rig.title)
    picture.text(LEFT, 34, rig.title, size=20, bold=True)
    at = {block.id: block for block in rig.block}
    for cable in rig.cable:
        points = _route(at[cable.from_], at[cable.to])
        picture.wire(points, cable.wire, width=5)
        x, y, anchor = _label(points)
        picture.text(x, y, cable.text, size=12, anchor=anchor)
    for block in rig.block:
        x, y = _corner(block)
        picture.rect(x, y, WIDTH, HEIGHT)
        picture.text(x + WIDTH // 2, y + 30, block.text[0], size=14, anchor="middle", bold=True)
        for n, line in enumerate(block.text[1:]):
            picture.text(x + WIDTH // 2, y + 52 + 16 * n, line, size=11, anchor="middle")
    return str(picture)


def _corner(block: Block) -> tuple[int, int]:
    return LEFT + block.at[0] * STEP_X, TOP + block.at[1] * STEP_Y


def _route(a: Block, b: Block) -> list[tuple[int, int]]:
    """Straight where the blocks are in line, else one bend half-way; from the left or the upper block."""
    if a.at > b.at:
        a, b = b, a
    (ax, ay), (bx, by) = _corner(a), _corner(b)
    if a.at[0] == b.at[0]:
        x = ax + WIDTH // 2
        return [(x, ay + HEIGHT), (x, by)]
    shift = 14 if a.at[1] != b.at[1] else 0
    y0 = ay + HEIGHT // 2 + (shift if by > ay else 0)
    y1 = by + HEIGHT // 2 + (shift if by < ay else 0)
    middle = ax + WIDTH + (STEP_X - WIDTH) // 2
    return [(ax + WIDTH, y0), (middle, y0), (middle, y1), (bx, y1)]


def _label(points: list[tuple[int, int]]) -> tuple[int, int, str]:
    (x0, y0), (x1, y1) = points[0], points[-1]
    if x0 == x1:
        return x0 + 12, (y0 + y1) // 2 + 4, "start"
    if y0 == y1:
        return (x0 + x1) // 2, y0 - 10, "middle"
    return points[1][0] + 10, (y0 + y1) // 2 + 4, "start"
