"""A board's header in the middle, its parts on both sides, every wire in its colour."""

from __future__ import annotations

from typing import NamedTuple

from hw.drawing.pinout import Board, Functions, Header, Part, Pinout
from hw.drawing.svg import EDGE, WIRE, Picture

ROW = 28
PART_ROW = 22
PART_WIDTH = 250
LANE = 9
BODY = 230
TOP = 84


class Wire(NamedTuple):
    """One wire: physical pin, colour, the part's pin."""

    pin: int
    colour: str
    part: str
    part_pin: str


class Place(NamedTuple):
    """Where a header pin is drawn."""

    row: int
    left: bool


def draw_board(pinout: Pinout, functions: Functions, board: Board, rig: str = "") -> str:
    """The wiring of one board, for one rig or for all, as SVG."""
    header = functions.header[board.header]
    parts = [p for p in pinout.part if p.board == board.id and (not rig or not p.rigs or rig in p.rigs)]
    wires = _wires(board, header, {p.id for p in parts})
    left = {p.id for p in parts if _is_left(p, wires, header)}
    sides = [
        _stack([p for p in parts if (p.id in left) == on_left], wires, header) for on_left in (True, False)
    ]
    lanes = [sum(w.part in dict(side) for w in wires) for side in sides]
    body_x = 20 + PART_WIDTH + 24 + lanes[0] * LANE + 24
    width = body_x + BODY + 24 + lanes[1] * LANE + 24 + PART_WIDTH + 20
    rows = max(_place(n, header).row for n in range(1, len(header.pins) + 1)) + 1
    bottom = max([TOP + rows * ROW, *(y + _height(p, parts) for side in sides for p, y in side)])
    title = board.title + (f": rig “{rig}”" if rig else "")
    picture = Picture(width, bottom + 30, title)
    picture.text(20, 34, title, size=20, bold=True)
    picture.text(
        20, 56, "Numbers are the header's physical pins. Colour names stand beside every wire.", size=12
    )
    picture.rect(body_x, TOP - 22, BODY, rows * ROW + 24)
    used = {w.pin for w in wires}
    for side, on_left in zip(sides, (True, False), strict=True):
        _draw_wires(picture, wires, side, on_left, body_x, width, parts, header)
    _draw_header(picture, header, body_x, used)
    for side, on_left in zip(sides, (True, False), strict=True):
        for part_id, y in side:
            part = next(p for p in parts if p.id == part_id)
            _draw_part(picture, part, 20 if on_left else width - 20 - PART_WIDTH, y, wires, on_left, header)
    return str(picture)


def _wires(board: Board, header: Header, parts: set[str]) -> list[Wire]:
    found: list[Wire] = []
    for colour, to, pin in (
        *((s.wire, s.to, header.pin_of(s.gpio)) for s in board.signal),
        *((s.wire, s.to, s.pin) for s in board.supply),
    ):
        part, _, part_pin = to.partition(".")
        if pin is not None and part in parts:
            found.append(Wire(pin, colour, part, part_pin))
    return sorted(found)


def _place(pin: int, header: Header) -> Place:
    if header.columns == "pairs":
        return Place((pin - 1) // 2, pin % 2 == 1)
    half = len(header.pins) // 2
    return Place(pin - 1, True) if pin <= half else Place(2 * half - pin, False)


def _is_left(part: Part, wires: list[Wire], header: Header) -> bool:
    """By the majority of its signals; supply pins are on both sides of every header."""
    own = [w for w in wires if w.part == part.id]
    votes = [_place(w.pin, header).left for w in own]
    signals = [_place(w.pin, header).left for w in own if part.pins[w.part_pin] == 3.3]
    return 2 * sum(signals or votes) >= len(signals or votes)


def _pins(part: str, wires: list[Wire], header: Header) -> list[Wire]:
    """A part's wires from top to bottom, in the header's order."""
    return sorted((w for w in wires if w.part == part), key=lambda w: (_place(w.pin, header).row, w.pin))


def _height(part_id: str, parts: list[Part]) -> int:
    part = next(p for p in parts if p.id == part_id)
    return 34 + (16 if part.note else 0) + PART_ROW * len(part.pins)


def _stack(parts: list[Part], wires: list[Wire], header: Header) -> list[tuple[str, int]]:
    """Parts of one side with their top edges: near their pins, without overlap."""

    def middle(part: Part) -> float:
        rows = [_place(w.pin, header).row for w in _pins(part.id, wires, header)]
        return sum(rows) / len(rows)

    placed: list[tuple[str, int]] = []
    bottom = TOP - 36
    for part in sorted(parts, key=middle):
        height = _height(part.id, parts)
        wish = round(TOP + middle(part) * ROW - height / 2)
        y = max(bottom + 14, wish)
        placed.append((part.id, y))
        bottom = y + height
    excess = min(bottom - (TOP + 20 * ROW), placed[0][1] - (TOP - 22)) if placed else 0
    if excess > 0:
        placed = [(p, y - excess) for p, y in placed]
    return placed


def _pin_y(part: Part, y: int, n: int) -> int:
    return y + 34 + (16 if part.note else 0) + PART_ROW * n + 6


def _draw_wires(
    picture: Picture,
    wires: list[Wire],
    side: list[tuple[str, int]],
    on_left: bool,
    body_x: int,
    width: int,
    parts: list[Part],
    header: Header,
) -> None:
    ends: list[tuple[Wire, int, int]] = []
    far_side: dict[int, int] = {}
    for part_id, y in side:
        part = next(p for p in parts if p.id == part_id)
        for n, wire in enumerate(_pins(part_id, wires, header)):
            place = _place(wire.pin, header)
            start = TOP + place.row * ROW
            if place.left != on_left:
                # From the other column: pass below the pin's row, several wires of one pin side by side.
                far_side[wire.pin] = far_side.get(wire.pin, -1) + 1
                start += (7 if header.columns == "pairs" else 10) + 4 * far_side[wire.pin]
            ends.append((wire, start, _pin_y(part, y, n)))
    down = sorted((e for e in ends if e[2] >= e[1]), key=lambda e: (-e[1], -e[2]))
    up = sorted((e for e in ends if e[2] < e[1]), key=lambda e: (e[1], e[2]))
    edge = body_x if on_left else body_x + BODY
    out = -1 if on_left else 1
    part_edge = 20 + PART_WIDTH if on_left else width - 20 - PART_WIDTH
    for group in (down, up):
        for n, (wire, start, end) in enumerate(group):
            offset = n if group is down else len(down) + n
            lane = edge + out * (24 + LANE * offset)
            place = _place(wire.pin, header)
            pin_x = _pin_x(place, header, body_x)
            row_y = TOP + place.row * ROW
            points = [(pin_x, row_y)]
            if start != row_y:
                points.append((pin_x + out * 12, start))
            points += [(lane, start), (lane, end), (part_edge, end)]
            picture.wire(points, wire.colour)


def _pin_x(place: Place, header: Header, body_x: int) -> int:
    if header.columns == "pairs":
        return body_x + BODY // 2 + (-13 if place.left else 13)
    return body_x + (0 if place.left else BODY)


def _draw_header(picture: Picture, header: Header, body_x: int, used: set[int]) -> None:
    for pin, name in enumerate(header.pins, 1):
        place = _place(pin, header)
        x, y = _pin_x(place, header, body_x), TOP + place.row * ROW
        colour = {"3V3": WIRE["red"], "5V": WIRE["red"], "VSYS": WIRE["red"], "GND": WIRE["black"]}.get(name)
        fill = "#ffffff" if pin in used else "#dde3ea"
        picture.dot(x, y, 11, fill=fill, stroke=colour or EDGE)
        picture.text(x, y + 4, str(pin), size=10, anchor="middle")
        if header.columns == "pairs":
            picture.text(
                x + (-18 if place.left else 18),
                y - 5,
                name,
                size=10,
                anchor="end" if place.left else "start",
                bold=pin in used,
            )
        else:
            picture.text(
                x + (18 if place.left else -18),
                y + 4,
                name,
                size=12,
                anchor="start" if place.left else "end",
                bold=pin in used,
            )


def _draw_part(
    picture: Picture, part: Part, x: int, y: int, wires: list[Wire], on_left: bool, header: Header
) -> None:
    pins = _pins(part.id, wires, header)
    head = 34 + (16 if part.note else 0)
    picture.rect(x, y, PART_WIDTH, head + PART_ROW * len(pins), fill="#ffffff")
    picture.text(x + 12, y + 20, part.title, size=13, bold=True)
    if part.note:
        picture.text(x + 12, y + 37, part.note, size=11)
    for n, wire in enumerate(pins):
        row = _pin_y(part, y, n)
        inner = x + PART_WIDTH if on_left else x
        picture.dot(inner, row, 5, fill=WIRE[wire.colour])
        near, far = (x + PART_WIDTH - 14, x + 12) if on_left else (x + 14, x + PART_WIDTH - 12)
        picture.text(near, row + 4, wire.part_pin, size=12, anchor="end" if on_left else "start", bold=True)
        picture.text(far, row + 4, wire.colour, size=11, anchor="start" if on_left else "end", fill="#52606d")
