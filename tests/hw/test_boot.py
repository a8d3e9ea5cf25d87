"""hw/boot: overlays compiled with dtc and read back, config.txt against the wiring, the driver's build."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hw.drawing.pinout import HW, load_pinout

BOOT = HW / "boot"
OVERLAYS = sorted((BOOT / "overlays").glob("*.dts"))

# What an overlay finds on a Raspberry Pi: the labels it refers to, and nothing else.
BASE = """/dts-v1/;
/ {
    gpio: gpio@0 { interrupt-controller; #interrupt-cells = <2>; #gpio-cells = <2>; gpio-controller; };
    spi0: spi@1 { #address-cells = <1>; #size-cells = <0>; status = "disabled";
        spidev0: spidev@0 { compatible = "spidev"; reg = <0>; }; };
    i2c1: i2c@2 { #address-cells = <1>; #size-cells = <0>; status = "disabled"; };
};
"""

# Of Raspberry Pi OS (overlays/README of its kernel): name → GPIOs that it takes.
SHIPPED = {"disable-bt": (), "uart2-pi5": (4, 5), "imx708": (), "pps-gpio": None}


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The overlays as `make` compiles them, without a warning."""
    assert shutil.which("dtc"), "sudo apt-get install device-tree-compiler"
    folder = tmp_path_factory.mktemp("overlays")
    shutil.copytree(BOOT / "overlays", folder / "source")
    done = run("make", "-C", folder / "source", f"BUILD={folder}")
    assert done.returncode == 0, done.stderr
    assert "arning" not in done.stderr, done.stderr
    return folder


def merged(built: Path, name: str, tmp_path: Path) -> dict[str, dict[str, str]]:
    """Node path → its properties, after the overlay is laid over a tree with a Raspberry Pi's labels."""
    base, out = tmp_path / "base.dtb", tmp_path / "out.dtb"
    assert run("dtc", "-@", "-O", "dtb", "-o", base, "-", input=BASE).returncode == 0
    done = run("fdtoverlay", "-i", base, "-o", out, built / f"{name}.dtbo")
    assert done.returncode == 0, done.stderr
    text = run("dtc", "-I", "dtb", "-O", "dts", "-q", out).stdout
    nodes: dict[str, dict[str, str]] = {}
    path: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line.endswith("{"):
            path.append(line[:-1].strip())
            nodes["/".join(path)] = {}
        elif line == "};":
            path.pop()
        elif line.endswith(";") and path:
            key, _, value = line[:-1].partition(" = ")
            nodes["/".join(path)][key] = value
    return nodes


def cells(text: str) -> list[int]:
    return [int(word, 16) for word in text.strip("<>").split()]


@pytest.mark.parametrize(
    ("name", "node", "compatible", "reg"),
    [
        ("edgecap-icm42688-spi", "//spi@1/imu@0", '"invensense,icm42688"', 0),
        ("edgecap-icm42688-i2c", "//i2c@2/imu@68", '"invensense,icm42688"', 0x68),
        ("edgecap-lsm6dsv-i2c", "//i2c@2/imu@6a", r'"st,lsm6dsv16x\0st,lsm6dsv"', 0x6A),
        ("edgecap-mpu6500-i2c", "//i2c@2/imu@68", '"invensense,mpu6500"', 0x68),
    ],
)
def test_overlay_describes_the_sensor(built, tmp_path, name, node, compatible, reg):
    assert name in {p.stem for p in OVERLAYS}
    tree = merged(built, name, tmp_path)
    imu, pins = tree[node], tree["//gpio@0/edgecap_imu_pins"]
    assert imu["compatible"].replace('", "', r"\0") == compatible
    assert cells(imu["reg"]) == [reg]
    assert tree[node.rsplit("/", 1)[0]]["status"] == '"okay"'
    gpio, trigger = cells(imu["interrupts"])
    wired = {s.name: s.gpio for b in load_pinout()[0].board if b.id == "pi" for s in b.signal}
    assert gpio == wired["IMU_INT1"] == cells(pins["brcm,pins"])[0]
    assert trigger == 1  # IRQ_TYPE_EDGE_RISING, so the idle level is low:
    assert cells(pins["brcm,pull"]) == [1]
    assert imu["interrupt-parent"] == tree["//gpio@0"]["phandle"]
    assert imu["pinctrl-0"] == pins["phandle"]
    if "spi" in name:
        assert {"spi-cpha", "spi-cpol"} <= imu.keys()
        assert cells(imu["spi-max-frequency"])[0] <= 24_000_000  # ICM-42688-P datasheet, SPI timing
        assert tree["//spi@1/spidev@0"]["status"] == '"disabled"'
    else:
        assert cells(tree["//i2c@2"]["clock-frequency"]) == [400_000]


@pytest.mark.parametrize("source", OVERLAYS, ids=lambda p: p.stem)
def test_parameters_point_at_properties_that_exist(built, source):
    """An override is a phandle and "property:offset": the firmware changes that cell, so it must be there."""
    text = run("dtc", "-I", "dtb", "-O", "dts", "-q", built / f"{source.stem}.dtbo").stdout
    written = source.read_text()
    for overridden in re.findall(r'"([\w,-]+):0"', written):
        assert re.search(rf"^\s*{re.escape(overridden)} = <", text, re.M), overridden
    block = written.split("__overrides__")[1]
    declared = set(re.findall(r"^\t\t(\w+) = <&", block, re.M))
    shown = set(re.findall(r"\[,(\w+)=", written.split("/dts-v1/")[0]))
    assert declared == shown, "the comment on top shows every parameter"


def snippet_settings(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#["]
    return [tuple(line.split("=", 1)) for line in lines]


@pytest.mark.parametrize("rig_id", ["head", "two-hands"])
def test_boot_configuration_fits_the_wiring(rig_id):
    pinout, functions = load_pinout()
    rig = next(r for r in pinout.rig if r.id == rig_id)
    settings = snippet_settings(BOOT / f"config-{rig_id}.txt")
    own = {p.stem for p in OVERLAYS}
    overlays = [value.split(",")[0] for key, value in settings if key == "dtoverlay"]
    params = dict(value.split("=") for key, value in settings if key == "dtparam")
    assert set(overlays) <= own | set(SHIPPED)
    board = next(b for b in pinout.board if b.id == "pi")
    parts = {p.id for p in pinout.part if rig_id in p.rigs}
    wired = {s.gpio: s.function for s in board.signal if s.to.split(".")[0] in parts}
    if any(f.startswith("SPI0") for f in wired.values()):
        assert params["spi"] == "on"
        assert any(o.endswith("-spi") for o in overlays if o in own)
    uarts = {int(f[4]) for f in wired.values() if f.startswith("UART")}
    switched = {int(m[1]) for o in overlays if (m := re.fullmatch(r"uart(\d)-pi5", o))}
    switched |= {int(k[4:]) for k, v in params.items() if k.startswith("uart") and v == "on"}
    if "rp1" in rig.chips:
        assert uarts == switched
    else:
        assert uarts == {0}
        assert ("enable_uart", "1") in settings
        assert "disable-bt" in overlays
    for overlay in overlays:
        for gpio in SHIPPED.get(overlay) or ():
            assert wired[gpio].startswith("UART"), f"{overlay} takes GPIO{gpio}"
    for pin in re.findall(r"gpiopin=(\d+)", (BOOT / f"config-{rig_id}.txt").read_text()):
        assert int(pin) not in wired, f"GPIO{pin} is wired already"
        assert functions.header["pi"].pin_of(int(pin)) is not None


def test_driver_build_runs_the_kernels_own_build(tmp_path):
    """The kernel's build directory is the seam: its Makefile here notes what it was asked for."""
    module = tmp_path / "linux/drivers/iio/imu/inv_icm42600"
    module.mkdir(parents=True)
    (module / "core.c").write_text("")
    kernel = tmp_path / "kernel"
    kernel.mkdir()
    (kernel / "Makefile").write_text(
        "modules:\n\t@test -e $(M)/core.c\n\t@echo $(CONFIG_INV_ICM42600_SPI) > $(M)/inv-icm42600-spi.ko\n"
    )
    script = BOOT / "build-imu-driver.sh"
    done = run(script, "--source", tmp_path / "linux", "--kernel", kernel, "--to", tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, "inv-icm42600-spi.ko\n"), done.stderr
    assert (tmp_path / "out/inv-icm42600-spi.ko").read_text() == "m\n"
    for wrong, message in (
        (["--driver", "icm"], "no driver is called icm"),
        (["--sauce", "x"], "unknown option --sauce"),
        (["--kernel"], "--kernel wants a value"),
        (["--kernel", str(tmp_path / "none")], "no kernel headers in"),
        (["--kernel", str(kernel), "--source", str(kernel)], "has no drivers/iio/imu/inv_icm42600"),
    ):
        done = run(script, *wrong)
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
