"""hw/pinout.toml as types, and everything that can be wrong with it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

HW = Path(__file__).resolve().parents[1]
WIRES = ("black", "brown", "red", "orange", "yellow", "green", "blue", "violet", "grey", "white", "pink")


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every table; a misspelt key is refused."""


class Signal(Row, frozen=True):
    """One GPIO of a board; `to` is "part.pin", or empty for a spare."""

    name: str
    gpio: int
    function: str
    direction: Literal["in", "out", "both"]
    wire: str
    to: str


class Supply(Row, frozen=True):
    """One power wire from a physical pin."""

    pin: int
    wire: str
    to: str


class Board(Row, frozen=True):
    """A board with a header; `pins_h` names the firmware's header, or is empty."""

    id: str
    title: str
    chips: tuple[str, ...]
    header: str
    pins_h: str
    signal: tuple[Signal, ...]
    supply: tuple[Supply, ...]


class Part(Row, frozen=True):
    """What is wired to a board: its pins with their volts."""

    id: str
    board: str
    title: str
    pins: dict[str, float]
    note: str = ""
    rigs: tuple[str, ...] = ()
    device: str = ""


class Force(Row, frozen=True):
    """A force sensor: the multiplexer's input and its place on the hand."""

    input: int
    name: str
    at: tuple[int, int]


class Magnet(Row, frozen=True):
    """A magnetometer: its address on the bus and its finger."""

    address: int
    finger: str


class Block(Row, frozen=True):
    """A thing in a rig's picture, at (column, row)."""

    id: str
    at: tuple[int, int]
    text: tuple[str, ...]


class Cable(Row, frozen=True, rename={"from_": "from"}):
    """What joins two blocks."""

    from_: str
    to: str
    wire: str
    text: str


class Rig(Row, frozen=True):
    """A reference rig: its configuration, its computers' chips and its picture."""

    id: str
    title: str
    config: str
    chips: tuple[str, ...]
    devices: tuple[str, ...]
    block: tuple[Block, ...]
    cable: tuple[Cable, ...]


class Pinout(Row, frozen=True):
    """hw/pinout.toml."""

    board: tuple[Board, ...]
    part: tuple[Part, ...]
    force: tuple[Force, ...]
    magnet: tuple[Magnet, ...]
    rig: tuple[Rig, ...]


class Chip(Row, frozen=True):
    """What each GPIO of a chip can do."""

    source: str
    any: tuple[str, ...]
    gpio: dict[int, tuple[str, ...]]


class Header(Row, frozen=True):
    """A board's physical pins, and the GPIOs that it keeps to itself."""

    source: str
    columns: Literal["dip", "pairs"]
    inside: dict[int, str]
    pins: tuple[str, ...]

    def pin_of(self, gpio: int) -> int | None:
        """Physical number of a GPIO; None where the header does not bring it out."""
        names = (f"GP{gpio}", f"GPIO{gpio}")
        return next((n for n, name in enumerate(self.pins, 1) if name in names), None)


class Functions(Row, frozen=True):
    """hw/pin_functions.toml."""

    chip: dict[str, Chip]
    header: dict[str, Header]
    power: dict[str, float]


T = TypeVar("T", bound=Row)


def load(path: Path, kind: type[T]) -> T:
    """Read one of the TOML files; raises `ValueError` naming file and key."""
    tree: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        return msgspec.convert(tree, kind, str_keys=True)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path.name}: {error}") from None


def load_pinout(hw: Path = HW) -> tuple[Pinout, Functions]:
    """Both files, not yet checked."""
    return load(hw / "pinout.toml", Pinout), load(hw / "pin_functions.toml", Functions)


def firmware_pins(text: str) -> dict[str, int]:
    """`#define PIN_NAME number` lines of a C header."""
    return {name: int(value) for name, value in re.findall(r"^#define PIN_(\w+)\s+(\d+)u?\b", text, re.M)}


def chips_of(part: Part, board: Board, rigs: tuple[Rig, ...]) -> tuple[str, ...]:
    """The chips a part may meet: those of its rigs, or all of the board's."""
    used = {chip for rig in rigs if rig.id in part.rigs for chip in rig.chips}
    return tuple(chip for chip in board.chips if not part.rigs or chip in used)


def problems(pinout: Pinout, functions: Functions) -> list[str]:
    """Every fault of the wiring, one line each; empty when it can be built as drawn."""
    found = list(_fault_of_names(pinout, functions))
    if found:
        return found
    parts = {part.id: part for part in pinout.part}
    for board in pinout.board:
        found += _faults_of_board(board, parts, pinout, functions)
    found += _faults_of_forces(pinout)
    return found


def _fault_of_names(pinout: Pinout, functions: Functions) -> Iterator[str]:
    for kind, names in (
        ("board", [b.id for b in pinout.board]),
        ("part", [p.id for p in pinout.part]),
        ("rig", [r.id for r in pinout.rig]),
    ):
        yield from (f"two {kind}s are called {n!r}" for n in sorted(set(names)) if names.count(n) > 1)
    boards, rigs = {b.id for b in pinout.board}, {r.id for r in pinout.rig}
    for board in pinout.board:
        yield from (f"{board.id}: unknown chip {c!r}" for c in board.chips if c not in functions.chip)
        if board.header not in functions.header:
            yield f"{board.id}: unknown header {board.header!r}"
    for part in pinout.part:
        if part.board not in boards:
            yield f"{part.id}: unknown board {part.board!r}"
        yield from (f"{part.id}: unknown rig {r!r}" for r in part.rigs if r not in rigs)
    for rig in pinout.rig:
        known = {block.id for block in rig.block}
        for cable in rig.cable:
            yield from (
                f"{rig.id}: cable to unknown block {e!r}" for e in (cable.from_, cable.to) if e not in known
            )


def _faults_of_board(board: Board, parts: dict[str, Part], pinout: Pinout, functions: Functions) -> list[str]:
    found: list[str] = []
    header = functions.header[board.header]
    gpios: dict[int, str] = {}
    names: set[str] = set()
    wired: dict[str, str] = {}
    for signal in board.signal:
        who = f"{board.id} {signal.name} (GPIO {signal.gpio})"
        if signal.name in names:
            found.append(f"{who}: the name is used twice")
        names.add(signal.name)
        if signal.gpio in gpios:
            found.append(f"{who}: the pin is {gpios[signal.gpio]} already")
        gpios.setdefault(signal.gpio, signal.name)
        part = parts.get(signal.to.partition(".")[0])
        chips = board.chips if part is None else chips_of(part, board, pinout.rig)
        for chip in chips:
            table = functions.chip[chip]
            if signal.gpio not in table.gpio:
                found.append(f"{who}: {chip} has no such pin")
            elif signal.function not in (*table.any, *table.gpio[signal.gpio]):
                can = ", ".join(table.gpio[signal.gpio]) or "GPIO only"
                found.append(f"{who}: cannot be {signal.function!r} on {chip}; it can be {can}")
        if signal.to and header.pin_of(signal.gpio) is None:
            why = header.inside.get(signal.gpio, "no such pin")
            found.append(f"{who}: not on the {board.header} header ({why})")
        if signal.to:
            found += _faults_of_wire(who, board, signal.wire, signal.to, 3.3, parts, wired)
    for supply in board.supply:
        who = f"{board.id} pin {supply.pin}"
        name = header.pins[supply.pin - 1] if 1 <= supply.pin <= len(header.pins) else ""
        if name not in functions.power:
            found.append(f"{who}: {name or 'does not exist and'} is no power pin")
        else:
            found += _faults_of_wire(who, board, supply.wire, supply.to, functions.power[name], parts, wired)
    for part in parts.values():
        if part.board == board.id:
            found += [f"{part.id}.{p}: not connected" for p in part.pins if f"{part.id}.{p}" not in wired]
    return found


def _faults_of_wire(
    who: str, board: Board, wire: str, to: str, volts: float, parts: dict[str, Part], wired: dict[str, str]
) -> list[str]:
    found: list[str] = []
    if wire not in WIRES:
        found.append(f"{who}: no wire is {wire!r}; colours: {', '.join(WIRES)}")
    part_id, _, pin = to.partition(".")
    part = parts.get(part_id)
    if part is None or part.board != board.id or pin not in part.pins:
        return [*found, f"{who}: there is no {to!r} on this board"]
    if to in wired:
        found.append(f"{who}: {to} is wired to {wired[to]} already")
    wired.setdefault(to, who)
    if part.pins[pin] != volts:
        found.append(f"{who}: {volts} V meets {part.pins[pin]} V at {to}")
    return found


def _faults_of_forces(pinout: Pinout) -> list[str]:
    inputs = [force.input for force in pinout.force]
    names = [force.name for force in pinout.force]
    return [
        *(f"force {f.name}: input {f.input} is not 0 to 15" for f in pinout.force if not 0 <= f.input <= 15),
        *(f"force input {i} is used twice" for i in sorted(set(inputs)) if inputs.count(i) > 1),
        *(f"two force sensors are called {n!r}" for n in sorted(set(names)) if names.count(n) > 1),
    ]
