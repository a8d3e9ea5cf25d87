"""Write every generated file of hw/, or with --check say which are out of date (exit 1)."""

from __future__ import annotations

import sys
from pathlib import Path

from hw.drawing.board import draw_board
from hw.drawing.force import draw_force
from hw.drawing.pinout import HW, load_pinout, problems
from hw.drawing.rig import draw_rig
from hw.drawing.tables import bom_markdown, load_bom, power_markdown


def generated() -> dict[Path, str]:
    """Every generated file with its text; raises `ValueError` listing what is wrong with the wiring."""
    pinout, functions = load_pinout()
    wrong = problems(pinout, functions)
    if wrong:
        raise ValueError("pinout.toml: " + "; ".join(wrong))
    diagrams = HW / "diagrams"
    boards = {board.id: board for board in pinout.board}
    files = {
        diagrams / "glove.svg": draw_board(pinout, functions, boards["glove"]),
        diagrams / "force.svg": draw_force(pinout),
    }
    for rig in pinout.rig:
        files[diagrams / f"rig-{rig.id}.svg"] = draw_rig(rig)
        if rig.chips:
            files[diagrams / f"pi-{rig.id}.svg"] = draw_board(pinout, functions, boards["pi"], rig.id)
    bom = load_bom()
    files[HW / "BOM.md"] = bom_markdown(bom)
    files[HW / "POWER.md"] = power_markdown(bom)
    return files


def main(arguments: list[str]) -> int:
    """`python -m hw.drawing [--check]`."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m hw.drawing [--check]\n")
        return 2
    try:
        files = generated()
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    stale = 0
    for path, text in files.items():
        if path.exists() and path.read_bytes() == text.encode():
            continue
        stale += 1
        name = path.relative_to(HW.parent)
        if arguments:
            sys.stderr.write(f"{name} is out of date: run `python -m hw.drawing`\n")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.encode())
            sys.stdout.write(f"{name}\n")
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
