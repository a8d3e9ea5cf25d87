"""The sums in BOM.md and POWER.md, added up again from their own rows."""

from __future__ import annotations

import re
import tomllib

import pytest

from hw.drawing.pinout import HW
from hw.drawing.tables import load_bom

BOM = (HW / "BOM.md").read_text(encoding="utf-8")
POWER = (HW / "POWER.md").read_text(encoding="utf-8")
DATA = tomllib.loads((HW / "bom.toml").read_text(encoding="utf-8"))


def sections(text: str) -> dict[str, list[list[str]]]:
    """Heading → rows of its table, as cells without markup."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:]
            found[heading] = []
        elif line.startswith("| ") and heading:
            found[heading].append([c.strip().strip("*") for c in line.strip("|").split("|")])
    return found


def number(text: str) -> float:
    return float(text.removesuffix("≈"))


def test_price_totals_add_up():
    tables = {k: v for k, v in sections(BOM).items() if not k.startswith("What")}
    assert set(tables) == {"One glove", "Rig “Desk”", "Rig “Head”", "Rig “Two hands”"}
    for heading, rows in tables.items():
        items, total = rows[1:-1], rows[-1]
        for row in items:
            assert number(row[4]) == pytest.approx(int(row[2]) * number(row[3])), row
        assert total[0] == "total"
        assert number(total[4]) == pytest.approx(sum(number(r[4]) for r in items)), heading


def test_two_hands_take_two_gloves():
    tables = sections(BOM)
    for row in tables["One glove"][1:-1]:
        both = next(r for r in tables["Rig “Two hands”"] if r[0] == row[0])
        extra = 1 if row[0].startswith("ICM") else 0  # the head has one of its own
        assert int(both[2]) == 2 * int(row[2]) + extra


def test_power_adds_up_and_the_battery_lasts_as_said():
    for rig in DATA["rig"]:
        heading = f"Rig “{rig['title']}”"
        rows = sections(POWER)[heading]
        recording = sum(number(r[2]) for r in rows[1:-1])
        worst = sum(number(r[3]) for r in rows[1:-1])
        assert number(rows[-1][2]) == pytest.approx(recording, abs=0.5)
        assert number(rows[-1][3]) == pytest.approx(worst, abs=0.5)
        text = POWER.split(f"## {heading}")[1].split("\n## ")[0]
        watts, watts_worst = map(float, re.findall(r"([\d.]+) W ", text))
        assert watts == pytest.approx(recording * 5 / 1000, abs=0.01)
        assert watts_worst == pytest.approx(worst * 5 / 1000, abs=0.01)
        if rig["battery"]:
            bank = next(p for p in DATA["part"] if p["id"] == rig["battery"])
            hours = float(re.search(r"\*\*([\d.]+) h\*\*", text)[1])
            assert hours == pytest.approx(bank["watt_hours"] * DATA["efficiency"] / watts, abs=0.06)
            assert worst / 1000 <= bank["amps"], f"{rig['id']}: the battery cannot deliver the worst case"


def test_every_price_and_current_says_what_it_rests_on():
    assert re.fullmatch(r"20\d\d-\d\d", DATA["as_of"])
    for part in DATA["part"]:
        assert part["how"]
        if part["basis"] == "page":
            assert re.search(r"\w\.\w+, \d{4}-\d{2}-\d{2}", part["how"]), part["id"]
        if part.get("ma", 0) or part.get("ma_max", 0):
            assert part["power"], part["id"]
            assert part.get("ma", 0) <= part["ma_max"], part["id"]


def test_everything_listed_is_used():
    bom = load_bom()
    used = {part for rig in bom.rig for part in bom.counts(rig)}
    assert used == {p.id for p in bom.part}
