"""Bill of materials and power budget as Markdown, computed from hw/bom.toml."""

from __future__ import annotations

from typing import Literal

from hw.drawing.pinout import HW, Row, load

VOLTS = 5.0


class Item(Row, frozen=True):
    """Something to buy; currents in mA from 5 V."""

    id: str
    name: str
    number: str
    price: float
    basis: Literal["page", "estimate"]
    how: str
    ma: float = 0.0
    ma_max: float = 0.0
    power: str = ""
    watt_hours: float = 0.0
    amps: float = 0.0


class Kit(Row, frozen=True):
    """Items that are bought together."""

    id: str
    title: str
    parts: dict[str, int]


class BomRig(Row, frozen=True):
    """What a reference rig takes: kits, single items, and the battery among them."""

    id: str
    title: str
    note: str
    kits: dict[str, int]
    parts: dict[str, int]
    battery: str


class Bom(Row, frozen=True):
    """hw/bom.toml."""

    as_of: str
    currency: str
    efficiency: float
    part: tuple[Item, ...]
    kit: tuple[Kit, ...]
    rig: tuple[BomRig, ...]

    def item(self, item_id: str) -> Item:
        return next(p for p in self.part if p.id == item_id)

    def counts(self, rig: BomRig) -> dict[str, int]:
        """How many of each item a rig takes, kits opened, in the file's order."""
        total: dict[str, int] = dict(rig.parts)
        for kit in self.kit:
            for part, n in kit.parts.items():
                total[part] = total.get(part, 0) + n * rig.kits.get(kit.id, 0)
        return {p.id: total[p.id] for p in self.part if total.get(p.id, 0)}


def load_bom() -> Bom:
    """Read hw/bom.toml; raises `ValueError` naming an item that does not exist or is there twice."""
    bom = load(HW / "bom.toml", Bom)
    known = [p.id for p in bom.part]
    twice = sorted({i for i in known if known.count(i) > 1})
    if twice:
        raise ValueError(f"bom.toml: part {twice[0]!r} is there twice")
    owners: tuple[Kit | BomRig, ...] = (*bom.kit, *bom.rig)
    for owner in owners:
        for part in owner.parts:
            if part not in known:
                raise ValueError(f"bom.toml: {owner.id} takes {part!r}, which is no part")
    for rig in bom.rig:
        for kit in rig.kits:
            if kit not in {k.id for k in bom.kit}:
                raise ValueError(f"bom.toml: rig {rig.id} takes {kit!r}, which is no kit")
        if rig.battery and rig.battery not in rig.parts:
            raise ValueError(f"bom.toml: rig {rig.id} runs from {rig.battery!r}, which it does not take")
    return bom


def bom_markdown(bom: Bom) -> str:
    """BOM.md."""
    lines = [
        "# Bill of materials",
        "",
        "Made from [bom.toml](bom.toml) by `python -m hw.drawing`.",
        f"Prices in {bom.currency} for one, as of {bom.as_of}, without tax and shipping.",
        "≈ is an estimate: check it before you order. What each rests on is at the end.",
    ]
    for kit in bom.kit:
        lines += ["", f"## {kit.title}", "", *_price_rows(bom, kit.parts)]
    for rig in bom.rig:
        lines += ["", f"## Rig “{rig.title}”", "", rig.note, "", *_price_rows(bom, bom.counts(rig))]
    lines += ["", "## What the prices rest on", "", "| item | price | basis | |", "|---|---:|---|---|"]
    lines += [f"| {p.name} | {p.price:.2f} | {p.basis} | {p.how} |" for p in bom.part]
    return "\n".join(lines) + "\n"


def _price_rows(bom: Bom, counts: dict[str, int]) -> list[str]:
    rows = [f"| item | part number | n | {bom.currency} each | {bom.currency} |", "|---|---|---:|---:|---:|"]
    total = 0.0
    for part_id, n in counts.items():
        item = bom.item(part_id)
        total += n * item.price
        star = "" if item.basis == "page" else " ≈"
        rows.append(f"| {item.name} | {item.number} | {n} | {item.price:.2f}{star} | {n * item.price:.2f} |")
    return [*rows, f"| **total** | | | | **{total:.2f}** |"]


def power_markdown(bom: Bom) -> str:
    """POWER.md."""
    lines = [
        "# Power budget",
        "",
        "Made from [bom.toml](bom.toml) by `python -m hw.drawing`. Currents in mA from 5 V.",
        "*Recording* is what to reckon with for hours, *worst* what supply and cable must bear.",
        "None of it was measured on a rig: the last table says where each figure comes from.",
        f"Hours = watt-hours of the battery × {bom.efficiency:.2f} (its converter, an estimate) ÷ watts.",
    ]
    for rig in bom.rig:
        lines += ["", f"## Rig “{rig.title}”", "", *_power_rows(bom, rig)]
    lines += [
        "",
        "## Where the currents come from",
        "",
        "| item | recording | worst | |",
        "|---|---:|---:|---|",
    ]
    lines += [f"| {p.name} | {p.ma:g} | {p.ma_max:g} | {p.power} |" for p in bom.part if p.power]
    return "\n".join(lines) + "\n"


def _power_rows(bom: Bom, rig: BomRig) -> list[str]:
    rows = ["| item | n | recording, mA | worst, mA |", "|---|---:|---:|---:|"]
    recording = worst = 0.0
    for part_id, n in bom.counts(rig).items():
        item = bom.item(part_id)
        if not item.power:
            continue
        recording += n * item.ma
        worst += n * item.ma_max
        rows.append(f"| {item.name} | {n} | {n * item.ma:.1f} | {n * item.ma_max:.1f} |")
    rows.append(f"| **total** | | **{recording:.1f}** | **{worst:.1f}** |")
    watts, watts_worst = recording * VOLTS / 1e3, worst * VOLTS / 1e3
    rows += ["", f"{watts:.2f} W while recording, {watts_worst:.2f} W at worst."]
    if rig.battery:
        bank = bom.item(rig.battery)
        usable = bank.watt_hours * bom.efficiency
        rows.append(
            f"{bank.name}: {usable:.1f} Wh usable, **{usable / watts:.1f} h** of recording "
            f"({usable / watts_worst:.1f} h at worst). "
            f"It delivers {bank.amps:g} A; the worst case takes {worst / 1e3:.2f} A."
        )
    return rows
