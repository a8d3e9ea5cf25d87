"""The udev rules and the port names, evaluated by udev itself over boards that umockdev describes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="mounts over /etc/udev and /dev need root"
)

GLOVE = "E6614103E7452D2F"
SOCKETS = {"ttyACM0": "1-1", "ttyACM1": "1-2"}

ROOT_HUB = """\
P: /devices/platform/soc/usb1
N: bus/usb/001/001
E: DEVTYPE=usb_device
E: SUBSYSTEM=usb
A: bDeviceClass=09\\n

"""

BOARD = """\
P: /devices/platform/soc/usb1/{socket}
N: bus/usb/001/00{number}
E: DEVTYPE=usb_device
E: SUBSYSTEM=usb
A: bDeviceClass=ef\\n
A: idVendor=2e8a\\n
A: idProduct=000a\\n
A: manufacturer=edgecap\\n
A: product=glove\\n
{serial}
P: /devices/platform/soc/usb1/{socket}/{socket}:1.0
E: DEVTYPE=usb_interface
E: SUBSYSTEM=usb
A: bInterfaceNumber=00\\n
A: bInterfaceClass=02\\n

P: /devices/platform/soc/usb1/{socket}/{socket}:1.0/tty/{tty}
N: {tty}
E: DEVNAME=/dev/{tty}
E: SUBSYSTEM=tty
E: MAJOR=166
E: MINOR={number}
E: ID_PATH=platform-soc-usb-0:{path}:1.0
{known}A: dev=166:{number}\\n

"""

ALONE = """
mount -t tmpfs tmpfs /etc/udev/rules.d
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev
mknod -m 666 /dev/null c 1 3
mkdir /dev/pts
mount -t devpts devpts /dev/pts -o ptmxmode=666
ln -s pts/ptmx /dev/ptmx
cp "$1"/*.rules /etc/udev/rules.d/
shift
exec "$@"
"""
"""udevadm makes links and records for the boards: they must not be this computer's."""


class Boards:
    """Two boards on two sockets, each with the serial number that it is given."""

    def __init__(self, folder: Path, *serials: str) -> None:
        self.rules = folder / "rules"
        self.rules.mkdir()
        shutil.copy(SYSTEMD / "udev/70-edgecap.rules", self.rules)
        self.names = self.rules / "71-edgecap-names.rules"
        self.device = folder / "boards.umockdev"
        parts = [ROOT_HUB]
        for number, (serial, (tty, socket)) in enumerate(zip(serials, SOCKETS.items(), strict=False), 2):
            known = f"E: ID_SERIAL_SHORT={serial}\nE: ID_USB_INTERFACE_NUM=00\n" if serial else ""
            text = f"A: serial={serial}\\n\n" if serial else ""
            path = socket.partition("-")[2]
            parts.append(
                BOARD.format(socket=socket, number=number, serial=text, tty=tty, path=path, known=known)
            )
        self.device.write_text("".join(parts))

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "--mount", "sh", "-ec", ALONE, "sh", self.rules,
             "umockdev-run", f"--device={self.device}", "--", *command],
            capture_output=True, text=True, check=False,
            env={**os.environ, "EDGECAP_NAMES_RULES": str(self.names)},
        )  # fmt: skip

    def name(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("sh", SYSTEMD / "name-port.sh", *arguments)

    def links(self, tty: str) -> set[str]:
        """The links that udev would make for a port; its complaints about our rules fail the test."""
        socket = SOCKETS[tty]
        path = f"/sys/devices/platform/soc/usb1/{socket}/{socket}:1.0/tty/{tty}"
        done = self.run("udevadm", "test", "--action=add", path)
        said = done.stdout + done.stderr
        bad = [
            line for line in said.splitlines() if "edgecap" in line and ("nvalid" in line or "ailed" in line)
        ]
        assert not bad, bad
        found = [line for line in said.splitlines() if line.startswith("DEVLINKS=")]
        return set(found[0].removeprefix("DEVLINKS=").split()) if found else set()


def test_by_serial_number(tmp_path: Path) -> None:
    boards = Boards(tmp_path, GLOVE, "0001")
    assert boards.links("ttyACM0") >= {f"/dev/edgecap/serial-{GLOVE}"}
    done = boards.name("left-hand", "/dev/ttyACM0")
    assert done.returncode == 0, done.stderr
    assert "/dev/edgecap/left-hand" in done.stdout
    assert boards.name("right-hand", "/dev/ttyACM1").returncode == 0
    assert "/dev/edgecap/left-hand" in boards.links("ttyACM0")
    assert "/dev/edgecap/left-hand" not in boards.links("ttyACM1")
    assert "/dev/edgecap/right-hand" in boards.links("ttyACM1")
    # The board behind a name is exchanged: one rule, not two.
    assert boards.name("left-hand", "/dev/ttyACM1").returncode == 0
    assert len(boards.names.read_text().splitlines()) == 2
    assert "/dev/edgecap/left-hand" in boards.links("ttyACM1")
    assert boards.name("left-hand", "--forget").returncode == 0
    assert "left-hand" not in boards.names.read_text()


ADAPTER = """\
P: /devices/platform/soc/usb1/1-3
N: bus/usb/001/009
E: DEVTYPE=usb_device
E: SUBSYSTEM=usb
A: idVendor=0403\\n
A: idProduct=6001\\n

P: /devices/platform/soc/usb1/1-3/1-3:1.0
E: DEVTYPE=usb_interface
E: SUBSYSTEM=usb
E: DRIVER=ftdi_sio

P: /devices/platform/soc/usb1/1-3/1-3:1.0/ttyUSB0
E: SUBSYSTEM=usb-serial
E: DRIVER={driver}
L: driver=../../../../../../../bus/usb-serial/drivers/{driver}
A: latency_timer=16\\n

"""


@pytest.mark.parametrize(("driver", "told"), [("ftdi_sio", True), ("cp210x", False)])
def test_an_ftdi_adapter_is_told_not_to_wait(tmp_path: Path, driver: str, told: bool) -> None:
    boards = Boards(tmp_path)
    boards.device.write_text(ROOT_HUB + ADAPTER.format(driver=driver))
    path = "/sys/devices/platform/soc/usb1/1-3/1-3:1.0/ttyUSB0"
    done = boards.run("sh", "-c", f"udevadm test --action=add {path} 2>&1")
    lines = [line for line in done.stdout.splitlines() if "latency_timer" in line]
    assert bool(lines) == told, done.stdout
    assert all("70-edgecap.rules" in line and "1" in line for line in lines[:1])


LED = """\
P: /devices/platform/leds/leds/{name}
E: SUBSYSTEM=leds
A: trigger=[none] timer\\n

"""


@pytest.mark.parametrize(("name", "told"), [("edgecap", True), ("ACT", False)])
def test_only_our_led_is_given_to_the_kernels_rhythm(tmp_path: Path, name: str, told: bool) -> None:
    boards = Boards(tmp_path)
    boards.device.write_text(ROOT_HUB + LED.format(name=name))
    path = f"/sys/devices/platform/leds/leds/{name}"
    done = boards.run("sh", "-c", f"udevadm test --action=add {path} 2>&1")
    assert (f"echo pattern >{path}/trigger" in done.stdout) == told, done.stdout
    assert (f"chmod g+w {path}/pattern {path}/repeat" in done.stdout) == told


def test_twins_are_named_by_their_sockets(tmp_path: Path) -> None:
    boards = Boards(tmp_path, GLOVE, GLOVE)
    done = boards.name("left-hand", "/dev/ttyACM0")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"2 boards have the serial number {GLOVE}" in done.stderr
    assert "--by-path" in done.stderr
    for name, tty in (("left-hand", "ttyACM0"), ("right-hand", "ttyACM1")):
        assert boards.name(name, f"/dev/{tty}", "--by-path").returncode == 0
    # What udev computes as ID_PATH for a described board depends on its platform: compare the rules.
    assert (
        'ENV{ID_PATH}=="platform-soc-usb-0:1:1.0", SYMLINK+="edgecap/left-hand"' in boards.names.read_text()
    )
    assert (
        'ENV{ID_PATH}=="platform-soc-usb-0:2:1.0", SYMLINK+="edgecap/right-hand"' in boards.names.read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("Left Hand", "/dev/ttyACM0"), "the name Left Hand is not"),
        (("left-hand",), "which port?"),
        (("left-hand", "/dev/ttyACM7"), "there is no /dev/ttyACM7; what is there: /dev/ttyACM0 /dev/ttyACM1"),
        (("left-hand", "/dev/ttyACM1"), "has no serial number; name its socket"),
        (("left-hand", "/dev/ttyACM0", "--by-luck"), "unknown option --by-luck"),
    ],
)
def test_mistakes_get_one_line(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    boards = Boards(tmp_path, GLOVE, "")
    done = boards.name(*arguments)
    assert done.returncode == 1
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert not boards.names.exists()
