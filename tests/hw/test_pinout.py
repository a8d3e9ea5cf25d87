"""hw/pinout.toml against the firmware's header, the pins' abilities, and the pictures drawn from it."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from hw.drawing.__main__ import generated
from hw.drawing.pinout import (
    HW,
    Board,
    Functions,
    Part,
    Pinout,
    Signal,
    Supply,
    firmware_pins,
    load,
    load_pinout,
    problems,
)

ROOT = HW.parent


@pytest.fixture(scope="module")
def wiring() -> tuple[Pinout, Functions]:
    return load_pinout()


def board(pinout: Pinout, name: str) -> Board:
    return next(b for b in pinout.board if b.id == name)


def with_board(pinout: Pinout, changed: Board) -> Pinout:
    boards = tuple(changed if b.id == changed.id else b for b in pinout.board)
    return msgspec.structs.replace(pinout, board=boards)


def with_signal(pinout: Pinout, board_id: str, which: str, change: dict[str, object]) -> Pinout:
    old = board(pinout, board_id)
    signals = tuple(msgspec.structs.replace(s, **change) if s.name == which else s for s in old.signal)
    return with_board(pinout, msgspec.structs.replace(old, signal=signals))


def test_it_can_be_built_as_drawn(wiring):
    assert problems(*wiring) == []


def test_pins_are_the_firmwares(wiring):
    for b in wiring[0].board:
        if b.pins_h:
            assert {s.name: s.gpio for s in b.signal} == firmware_pins((HW / b.pins_h).read_text())


def test_magnetometers_are_the_firmwares(wiring):
    """The compiler's own view of board.c: which address is which finger, and the streams' order."""
    source = HW / "firmware" / "rp2040" / "board.c"
    done = subprocess.run(["cc", "-E", "-DBOARD_glove", source], capture_output=True, text=True, check=True)
    text = re.sub(r'"\s+"', "", done.stdout.split("BOARD_HERE =")[0])
    places = [(int(a, 16), f) for a, f in re.findall(r'\{(0x[0-9A-F]{2}), "(\w+)"\}', text)]
    assert places == [(m.address, m.finger) for m in wiring[0].magnet]
    assert re.findall(r'"magnetic-(\w+)"', text) == [m.finger for m in wiring[0].magnet]
    guide = (HW / "BUILD.md").read_text(encoding="utf-8")
    for magnet in wiring[0].magnet:
        jumpers = f"| {magnet.address >> 1 & 1} | {magnet.address & 1} |"
        assert f"{jumpers} 0x{magnet.address:02X} | `magnetic-{magnet.finger}` |" in guide


def test_a_firmware_pin_is_read_as_c_reads_it(tmp_path: Path):
    """The compiler's own view of pins.h, so that an odd definition cannot slip past the pattern."""
    header = HW / "firmware" / "rp2040" / "pins.h"
    done = subprocess.run(["cc", "-E", "-dM", header], capture_output=True, text=True, check=True)
    macros = dict(re.findall(r"^#define PIN_(\w+) (\S+)$", done.stdout, re.M))
    assert {name: str(gpio) for name, gpio in firmware_pins(header.read_text()).items()} == macros


def test_rp2040_functions_repeat_as_in_the_datasheet(wiring):
    """The table's regularity (datasheet, 1.4.3): a typing error in one row breaks it."""
    gpio = wiring[1].chip["rp2040"].gpio
    assert sorted(gpio) == list(range(30))
    for n, functions in gpio.items():
        spi = f"SPI{n // 8 % 2} {('RX', 'CSn', 'SCK', 'TX')[n % 4]}"
        uart = f"UART{(n + 4) // 8 % 2} {('TX', 'RX', 'CTS', 'RTS')[n % 4]}"
        i2c = f"I2C{n // 2 % 2} {('SDA', 'SCL')[n % 2]}"
        pwm = f"PWM{n // 2 % 8} {'AB'[n % 2]}"
        assert functions == (spi, uart, i2c, pwm, *([f"ADC{n - 26}"] if n >= 26 else []))


def test_headers_bring_out_each_gpio_once(wiring):
    for name, count in (("pico", 26), ("pi", 28)):
        header = wiring[1].header[name]
        assert len(header.pins) == 40
        gpios = [p for p in header.pins if p.startswith("GP")]
        assert len(gpios) == len(set(gpios)) == count
        assert header.pins.count("GND") + header.pins.count("AGND") == 8


@pytest.mark.parametrize(
    ("board_id", "signal", "change", "fault"),
    [
        ("glove", "UART_TX", {"gpio": 1}, "the pin is UART_TX already"),
        ("glove", "UART_TX", {"gpio": 2}, "cannot be 'UART0 TX' on rp2040; it can be SPI0 SCK, UART0 CTS"),
        ("glove", "ADC0", {"gpio": 25}, "cannot be 'ADC0'"),
        ("glove", "IMU_SCK", {"gpio": 10, "function": "SPI1 SCK"}, "the pin is"),
        ("glove", "ADC3", {"to": "mux.SIG"}, "not on the pico header (VSYS / 3)"),
        ("glove", "BUTTON", {"gpio": 30}, "rp2040 has no such pin"),
        ("glove", "BUTTON", {"to": "cable.5V"}, "3.3 V meets 5.0 V at cable.5V"),
        ("glove", "BUTTON", {"to": "buton.contact"}, "there is no 'buton.contact' on this board"),
        ("glove", "BUTTON", {"to": "mux.S0"}, "mux.S0 is wired to"),
        ("glove", "BUTTON", {"to": ""}, "button.contact: not connected"),
        ("glove", "BUTTON", {"wire": "beige"}, "no wire is 'beige'"),
        ("glove", "BUTTON", {"name": "UART_TX"}, "the name is used twice"),
        ("pi", "RIGHT_TX", {"function": "UART3 TX"}, "cannot be 'UART3 TX' on rp1"),
        ("pi", "LEFT_TX", {"function": "UART2 TX"}, "cannot be 'UART2 TX' on bcm2837"),
    ],
)
def test_each_fault_is_named(wiring, board_id, signal, change, fault):
    pinout = with_signal(wiring[0], board_id, signal, change)
    found = problems(pinout, wiring[1])
    assert any(fault in line for line in found), found
    assert all("\n" not in line for line in found)


def test_power_is_checked(wiring):
    pinout, functions = wiring
    glove = board(pinout, "glove")
    for supply, fault in (
        (Supply(pin=40, wire="red", to="imu.3V3"), "5.0 V meets 3.3 V at imu.3V3"),
        (Supply(pin=30, wire="red", to="imu.3V3"), "RUN is no power pin"),
        (Supply(pin=41, wire="red", to="imu.3V3"), "does not exist"),
    ):
        supplies = tuple(supply if s.to == "imu.3V3" else s for s in glove.supply)
        changed = with_board(pinout, msgspec.structs.replace(glove, supply=supplies))
        assert any(fault in line for line in problems(changed, functions))


def test_names_must_be_known(wiring):
    pinout, functions = wiring
    lost = Part(id="lost", board="shoe", title="", pins={}, rigs=("moon",))
    found = problems(msgspec.structs.replace(pinout, part=(*pinout.part, lost, lost)), functions)
    assert found == [
        "two parts are called 'lost'",
        *(2 * ["lost: unknown board 'shoe'", "lost: unknown rig 'moon'"]),
    ]


def test_a_misspelt_key_is_refused(tmp_path: Path):
    text = (HW / "pinout.toml").read_text().replace("gpio = 11", "gipo = 11")
    (tmp_path / "pinout.toml").write_text(text)
    with pytest.raises(ValueError, match=r"pinout\.toml: .*(gipo|gpio)"):
        load(tmp_path / "pinout.toml", Pinout)


def test_regenerating_gives_the_committed_bytes():
    for path, text in generated().items():
        assert path.read_bytes() == text.encode(), f"{path.name}: run `python -m hw.drawing`"
    done = subprocess.run(
        [sys.executable, "-m", "hw.drawing", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_pictures_show_every_wire_and_stay_inside(wiring):
    pinout = wiring[0]
    names = {p.id: p.title for p in pinout.part}
    for path in sorted((HW / "diagrams").glob("*.svg")):
        root = ET.fromstring(path.read_text(encoding="utf-8"))
        width, height = int(root.attrib["width"]), int(root.attrib["height"])
        texts = [(t.text or "", t.attrib) for t in root.iter("{http://www.w3.org/2000/svg}text")]
        for text, at in texts:
            assert 0 <= int(at["x"]) <= width, (path.name, text)
            assert 0 <= int(at["y"]) <= height, (path.name, text)
        shown = {text for text, _ in texts}
        rig = path.stem.removeprefix("pi-")
        parts = [
            p
            for p in pinout.part
            if path.stem == p.board or (path.stem.startswith("pi-") and p.board == "pi" and rig in p.rigs)
        ]
        for part in parts:
            assert names[part.id] in shown, path.name
            assert set(part.pins) <= shown, path.name
    signals: list[Signal] = [s for b in pinout.board for s in b.signal]
    assert len(signals) > 30


def test_words_fit_their_boxes(wiring):
    """A box is 250 px wide: some 8 px a letter of the title, 6 px of the note."""
    for part in wiring[0].part:
        assert len(part.title) <= 29, part.title
        assert len(part.note) <= 38, part.note
    for rig in wiring[0].rig:
        for block in rig.block:
            assert len(block.text[0]) <= 26, block.text
            assert all(len(line) <= 38 for line in block.text[1:]), block.text


def test_wires_of_one_part_differ_in_colour(wiring):
    """Whoever solders tells a part's signals apart by colour; only supplies may share red and black."""
    pinout = wiring[0]
    for part in pinout.part:
        colours = [s.wire for b in pinout.board for s in b.signal if s.to.startswith(part.id + ".")]
        assert len(colours) == len(set(colours)), part.id
        assert not {"red", "black"} & set(colours), part.id
