"""The reference rigs' configurations load, and say what the wiring, the overlays and the parts list say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecap.cli.main import main
from edgecap.config import ButtonConfig, PiCameraConfig, UvcCameraConfig, load_config
from hw.drawing.pinout import HW, Pinout, Rig, load_pinout
from hw.drawing.tables import load_bom

ROOT = HW.parent
PINOUT, FUNCTIONS = load_pinout()
RIGS = PINOUT.rig


def gpios(pinout: Pinout, board_id: str) -> dict[str, int]:
    return {s.name: s.gpio for b in pinout.board if b.id == board_id for s in b.signal}


def parts_of(rig: Rig) -> set[str]:
    return {p.id for p in PINOUT.part if rig.id in p.rigs}


@pytest.mark.parametrize("rig", RIGS, ids=lambda r: r.id)
def test_configuration_loads_and_fits_the_wiring(rig: Rig):
    config = load_config(HW / rig.config)
    devices = [*rig.devices, *(p.device for p in PINOUT.part if p.id in parts_of(rig) and p.device)]
    assert [s.port for s in config.serial] == devices
    assert all(s.baud == 1_000_000 for s in config.serial)
    pins = gpios(PINOUT, "pi")
    if rig.chips:
        assert config.button == ButtonConfig(
            gpio=pins["BUTTON"], led_gpio=pins["LED"], buzzer_gpio=pins["BUZZER"]
        )
    else:
        assert config.button == ButtonConfig()


@pytest.mark.parametrize("rig", RIGS, ids=lambda r: r.id)
def test_config_check_accepts_it(rig: Rig, capsys):
    """As hw/BUILD.md says to try it."""
    code = main(["config", "check", "--config", str(HW / rig.config)])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "systemd").glob("edgecap*.toml")), ids=lambda p: p.name)
def test_installed_example_uses_the_same_pins(path: Path):
    config, pins = load_config(path), gpios(PINOUT, "pi")
    for said, name in (
        (config.button.gpio, "BUTTON"),
        (config.button.led_gpio, "LED"),
        (config.button.buzzer_gpio, "BUZZER"),
    ):
        assert said in (-1, pins[name]), f"{path.name}: {name} is wired to GPIO{pins[name]}"


@pytest.mark.parametrize("rig", RIGS, ids=lambda r: r.id)
def test_configuration_has_the_sensors_that_are_bought(rig: Rig):
    config = load_config(HW / rig.config)
    bom = load_bom()
    bought = bom.counts(next(r for r in bom.rig if r.id == rig.id))
    assert len(config.serial) == bought["pico"]
    cameras = [c for c in config.camera if isinstance(c, PiCameraConfig)]
    assert len(cameras) == bought.get("cam3w", 0)
    assert len([c for c in config.camera if isinstance(c, UvcCameraConfig)]) == bought.get("uvc", 0)
    head_imu = bought["imu"] - bought["pico"]
    assert bool(config.iio) == (head_imu == 1) == ("head-imu" in parts_of(rig))
    if len(cameras) > 1:
        assert len({c.camera_id for c in cameras}) == len(cameras), "each camera is named"


@pytest.mark.parametrize("rig", [r for r in RIGS if r.chips], ids=lambda r: r.id)
def test_head_imu_is_the_one_of_the_overlay(rig: Rig):
    """The driver names its two devices after the chip in the overlay's compatible."""
    overlay = next(
        line.removeprefix("dtoverlay=")
        for line in (HW / "boot" / f"config-{rig.id}.txt").read_text().splitlines()
        if line.startswith("dtoverlay=edgecap-")
    )
    source = (HW / "boot" / "overlays" / f"{overlay}.dts").read_text()
    chip = source.split('compatible = "invensense,')[1].split('"')[0]
    config = load_config(HW / rig.config)
    assert [i.device for i in config.iio] == [f"{chip}-gyro", f"{chip}-accel"]


def test_build_page_names_files_that_exist():
    """Every relative link of the pages here leads somewhere."""
    for page in ("BUILD.md", "MOUNTING.md", "BOM.md", "POWER.md"):
        text = (HW / page).read_text(encoding="utf-8")
        links = [part.split(")")[0].split("#")[0] for part in text.split("](")[1:]]
        for link in links:
            if link and "://" not in link:
                assert (HW / link).exists(), f"{page}: {link}"
    build = (HW / "BUILD.md").read_text(encoding="utf-8")
    for name in ("desk", "head", "two-hands"):
        assert f"rigs/{name}.toml" in build
        assert f"diagrams/rig-{name}.svg" in build
