"""Where the force sensors sit on the hand, and how each is wired to the multiplexer."""

from __future__ import annotations

from hw.drawing.pinout import Pinout
from hw.drawing.svg import PALE, WIRE, Picture

FINGERS = (  # from the palm to the tip, and the width
    (158, 235, 149, 78, 40),
    (198, 230, 196, 56, 42),
    (238, 235, 243, 74, 40),
    (274, 255, 292, 128, 34),
    (128, 345, 74, 262, 44),
)
PALM = "M140 222 L290 232 L286 372 L236 404 L168 400 L118 336 Z"
WRIST = "M166 396 L238 400 L236 470 L164 470 Z"
SKIN = "#f6ddc9"
SHADE = "#c9a78c"


def draw_force(pinout: Pinout) -> str:
    """The hand with its sensors, the list of inputs and one channel's circuit, as SVG."""
    picture = Picture(900, 520, "Force sensors: places and wiring")
    picture.text(20, 30, "Force sensors", size=20, bold=True)
    _draw_hand(picture)
    for force in pinout.force:
        x, y = force.at
        picture.dot(x, y, 13, fill=WIRE["yellow"])
        picture.text(x, y + 4, f"C{force.input}", size=10, anchor="middle", bold=True)
    picture.text(20, 496, "Left hand, palm towards you; the right hand is its mirror image.", size=12)
    _draw_inputs(picture, pinout)
    _draw_channel(picture)
    return str(picture)


def _draw_hand(picture: Picture) -> None:
    for grow, colour in ((3, SHADE), (0, SKIN)):
        for x0, y0, x1, y1, width in FINGERS:
            picture.path(f"M{x0} {y0} L{x1} {y1}", stroke=colour, width=width + 2 * grow)
        for d in (PALM, WRIST):
            picture.path(d, fill=colour, stroke=colour, width=14 + 2 * grow)


def _draw_inputs(picture: Picture, pinout: Pinout) -> None:
    picture.text(360, 66, "Input Cn is channel taxel-n", size=13, bold=True)
    for n, force in enumerate(sorted(pinout.force, key=lambda f: f.input)):
        y = 92 + 24 * n
        picture.dot(372, y - 4, 11, fill=WIRE["yellow"])
        picture.text(372, y, f"C{force.input}", size=9, anchor="middle", bold=True)
        picture.text(394, y, force.name, size=12)
    free = [f"C{i}" for i in range(16) if i not in {f.input for f in pinout.force}]
    if free:
        y = 92 + 24 * len(pinout.force)
        picture.text(360, y + 4, f"{free[0]} … {free[-1]}: 10 kΩ to GND", size=12)
        picture.text(360, y + 22, "(open, they echo others)", size=12)


def _draw_channel(picture: Picture) -> None:
    x = 720
    picture.rect(560, 50, 320, 380, fill="#ffffff")
    picture.text(576, 74, "One of the channels", size=13, bold=True)
    picture.wire([(x, 100), (x, 140)], "red")
    picture.text(x, 94, "3V3 (Pico pin 36)", size=12, anchor="middle")
    picture.rect(x - 34, 140, 68, 56, fill=SKIN, round_=28)
    picture.text(x, 172, "FSR", size=13, anchor="middle", bold=True)
    picture.text(x + 46, 164, "FSR 400 short", size=12)
    picture.text(x + 46, 180, "(tips) or 402", size=12)
    picture.wire([(x, 196), (x, 250)], "yellow")
    picture.wire([(x, 250), (x - 96, 250)], "yellow")
    picture.dot(x, 250, 5, fill=WIRE["yellow"])
    picture.rect(576, 230, 48, 40, fill=PALE)
    picture.text(600, 254, "C0", size=13, anchor="middle", bold=True)
    picture.text(576, 222, "multiplexer", size=12)
    picture.wire([(x, 250), (x, 290)], "yellow")
    picture.rect(x - 14, 290, 28, 62, fill="#ffffff", stroke="#1f2933", round_=2)
    picture.text(x - 24, 326, "10 kΩ", size=12, anchor="end")
    picture.wire([(x, 352), (x, 392)], "black")
    picture.wire([(x, 270), (x + 80, 270), (x + 80, 312)], "yellow")
    picture.wire([(x + 62, 314), (x + 98, 314)], "black")
    picture.wire([(x + 62, 324), (x + 98, 324)], "black")
    picture.wire([(x + 80, 324), (x + 80, 376), (x, 376)], "black")
    picture.text(x + 104, 324, "10 nF", size=12)
    picture.text(x, 412, "GND (Pico pin 13)", size=12, anchor="middle")
    picture.text(576, 456, "More force, less resistance, higher voltage.", size=12)
    picture.text(576, 474, "10 nF against 10 kΩ delays by at most 0.1 ms.", size=12)
