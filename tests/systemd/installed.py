"""A machine on which install.sh was run: a rig with board and camera, a broker with passwords, ingest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from edgecap.daemon.neighbour import address_of
from edgecap.model import ChannelInfo
from edgecap.sim.firmware import FirmwareStream
from tests.systemd.machine import CACHE, ENVIRONMENT, Machine

REPOSITORY = Path(__file__).parents[2]
STORE = "/var/lib/edgecap-ingest"
SPOOL = "/var/lib/edgecap/spool"
PASSWORDS = {"rig-01": "correct horse", "ingest": "battery staple"}

BOARD = """
[Unit]
Description=the device firmware, built for this computer, behind a pty
[Service]
# A pty belongs to the one who opened it, as udev would give a port to the group.
User=edgecap
RuntimeDirectory=board
ExecStartPre=/usr/bin/mkfifo /run/board/commands
ExecStart=/bin/sh -c 'exec /firmware/{binary} --link=/run/board/left-hand --serial=test-left \\
  "--stream={stream}" 0<>/run/board/commands'
[Install]
WantedBy=multi-user.target
"""

BROKER = """
[Service]
ExecStart=/usr/sbin/mosquitto -c /etc/test-broker/mosquitto.conf
Restart=no
[Install]
WantedBy=multi-user.target
"""

RIG = """
site = "lab"
rig = "rig-01"
[session]
task = "fold a towel"
operator = "op-1"
consent = "c-1"
[broker]
url = "mqtt://rig-01@127.0.0.1:1883"
[spool]
dir = "/var/lib/edgecap/spool"
reserve_mb = 16
[uplink]
resend_seconds = 3.0
[[serial]]
name = "left-hand"
port = "/run/board/left-hand"
"""

CAMERA = """
[[camera]]
backend = "synthetic"
name = "head-cam"
width = 160
height = 120
fps = 10.0
"""

SITE = """
[broker]
url = "mqtt://ingest@127.0.0.1:1883"
[ingest]
store = "/var/lib/edgecap-ingest"
"""


COLLECT = """
mount --bind "$2" "$1/mnt"
mount --bind "$3" "$1/media"
mount --bind "$4" "$1/srv"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/tmp"
exec chroot "$1" env PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv /mnt/systemd/install.sh --collect /media --role both
"""


def collect(folder: Path) -> Path:
    """What `install.sh --collect` makes for a site without network, with the Python of the machine to be.

    pip finds the wheels in the cache.
    """
    folder.mkdir(exist_ok=True)
    root, wheels = (CACHE / "root").resolve(), (CACHE / "wheels").resolve()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", COLLECT, "sh", root, REPOSITORY, folder, wheels],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def imu() -> FirmwareStream:
    """A small board: six axes, two hundred times a second."""
    axes = [ChannelInfo(f"accel_{a}", "g", 16 / 32768, 16.0) for a in "xyz"]
    axes += [ChannelInfo(f"gyro_{a}", "deg/s", 2000 / 32768, 2000.0) for a in "xyz"]
    return FirmwareStream("imu", "imu", 200.0, tuple(axes))


class InstalledRig:
    """What a test does with such a machine, and what it can see of it."""

    def __init__(self, machine: Machine, firmware: str) -> None:
        self.machine = machine
        self.firmware = firmware

    def install(self, *options: str, folder: str = "/bundle", check: bool = True) -> str:
        """Run the installer as a person would; returns what it said."""
        done = self.machine.run(
            "sh",
            "-c",
            f'cd {folder} && ./systemd/install.sh "$@" 2>&1',
            "sh",
            *options,
            check=check,
            timeout_s=900,
        )
        return done.stdout

    def set_up(self) -> None:
        """Fill in what a person fills in, and start the broker and the board."""
        m = self.machine
        m.write("/etc/edgecap/edgecap.toml", RIG + CAMERA)
        m.write("/etc/edgecap/site.toml", SITE)
        m.write("/etc/edgecap/credentials/broker-password", PASSWORDS["rig-01"] + "\n", "600")
        m.write("/etc/edgecap/credentials/ingest-password", PASSWORDS["ingest"] + "\n", "600")
        m.write(
            "/etc/test-broker/mosquitto.conf",
            "listener 1883 127.0.0.1\npassword_file /etc/test-broker/users\n",
        )
        m.write("/etc/test-broker/users", "", "644")
        for user, password in PASSWORDS.items():
            m.run("mosquitto_passwd", "-b", "/etc/test-broker/users", user, password)
        m.write("/etc/systemd/system/test-broker.service", BROKER)
        m.write(
            "/etc/systemd/system/test-board.service", BOARD.format(binary=self.firmware, stream=imu().spec())
        )
        m.write("/etc/systemd/system/edgecap.service.d/test.conf", "[Service]\nWatchdogSec=10\n")
        m.run("systemctl", "daemon-reload")
        m.run("systemctl", "enable", "--now", "test-broker.service", "test-board.service")
        m.run("systemctl", "enable", "--now", "--no-block", "edgecap.service", "edgecap-ingest.service")

    def press(self) -> None:
        """A short press of the board's button."""
        self.machine.run("sh", "-c", "echo press 50 >/run/board/commands")

    def status(self) -> dict[str, Any]:
        """What the daemon tells programs on its own computer; empty while it does not answer."""
        address = address_of(SPOOL).encode().hex()
        ask = (
            "import socket; s = socket.socket(socket.AF_UNIX); "
            f"s.connect(bytes.fromhex('{address}')); print(s.makefile().read())"
        )
        return json.loads(self.machine.out("python3", "-c", ask, check=False) or "{}")

    def until_state(self, state: str) -> dict[str, Any]:
        """Wait until the rig is idle, recording, …; returns its status then."""
        self.machine.until(f"the rig is {state}", lambda: self.status().get("state") == state)
        return self.status()

    def until_ready(self) -> None:
        """Wait until systemd takes the daemon for started, and the daemon is idle."""
        self.machine.until(
            "edgecap.service is active",
            lambda: self.machine.show("edgecap.service", "ActiveState")["ActiveState"] == "active",
        )
        self.until_state("idle")

    def start_recording(self, seconds: float = 2.0) -> str:
        """Press, and wait until a session has run for so long; returns its name."""
        self.press()
        self.machine.until(
            f"it records for {seconds} s", lambda: self.status().get("session_s", 0) >= seconds
        )
        return self.status()["session"]

    def stop_recording(self) -> None:
        """Press, and wait until the session is closed."""
        self.press()
        self.until_state("idle")

    def main_pid(self) -> int:
        return int(self.machine.show("edgecap.service", "MainPID")["MainPID"])

    def restarts(self) -> int:
        return int(self.machine.show("edgecap.service", "NRestarts")["NRestarts"])

    def sessions(self) -> dict[str, dict[str, Any]]:
        """What ingest has, by session: `sessions verify`."""
        said = self.machine.out("edgecap", "sessions", "verify", STORE, "--json", check=False)
        return {row["session"]: row for row in map(json.loads, said.splitlines())}

    def until_complete(self, session: str) -> dict[str, Any]:
        """Wait until ingest can prove that it has the whole session."""
        self.machine.until(f"{session} is complete", lambda: self.sessions().get(session, {}).get("complete"))
        return self.sessions()[session]

    def spooled(self) -> int:
        """How many chunks wait for delivery."""
        return int(self.status()["spool"]["chunks"])
