"""The unit files by themselves: systemd's own checks, and what must not be forgotten in them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
SERVICES = sorted(p.name for p in SYSTEMD.glob("*.service"))
UNITS = [*SERVICES, *sorted(p.name for p in SYSTEMD.glob("*.timer"))]
WORST_EXPOSURE = 3.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with nothing but the units and what they start."""
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(SYSTEMD / unit, units)
    for target in (
        "multi-user",
        "network",
        "timers",
        "sysinit",
        "basic",
        "shutdown",
        "time-set",
        "time-sync",
    ):
        (units / f"{target}.target").write_text("[Unit]\nDescription=a target\n")
    program = tmp_path / "opt/edgecap/bin/edgecap"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_to_say(root: Path, unit: str) -> None:
    done = analyze("verify", f"--root={root}", "--man=no", "--recursive-errors=one", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES)
def test_exposure_is_bounded(root: Path, unit: str) -> None:
    done = analyze("security", "--offline=true", f"--root={root}", "--threshold=30", "--no-pager", unit)
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= WORST_EXPOSURE, done.stdout
    assert done.returncode == 0
    assert "ignoring" not in done.stderr


def test_a_bad_unit_is_found(root: Path) -> None:
    """The two checks above can fail."""
    unit = root / "etc/systemd/system/edgecap.service"
    text = unit.read_text()
    unit.write_text(text.replace("WatchdogSec=20", "WatchdogSecs=20"))
    assert "WatchdogSecs" in analyze("verify", f"--root={root}", "--man=no", "edgecap.service").stderr
    unit.write_text("[Service]\nExecStart=/opt/edgecap/bin/edgecap run\n")
    assert (
        analyze("security", "--offline=true", f"--root={root}", "--threshold=30", unit.name).returncode != 0
    )


@pytest.mark.parametrize("unit", ["edgecap.service", "edgecap-ingest.service", "edgecap-fleet.service"])
def test_a_service_never_gives_up(unit: str) -> None:
    text = (SYSTEMD / unit).read_text()
    assert "StartLimitIntervalSec=0" in text
    assert "Restart=always" in text


def test_what_would_break_the_daemon_is_not_there() -> None:
    active = [
        line for line in (SYSTEMD / "edgecap.service").read_text().splitlines() if not line.startswith("#")
    ]
    for trap in (
        "MemoryDenyWriteExecute",
        "PrivateDevices",
        "ProtectClock",
        "PrivateNetwork",
        "network-online",
    ):
        assert not any(trap in line for line in active), trap
    # Without capabilities the clock can be read, not set.
    assert "SystemCallFilter=adjtimex clock_adjtime" in active
    assert "CapabilityBoundingSet=" in active


def test_scripts_are_clean() -> None:
    scripts = sorted(map(str, [*SYSTEMD.glob("*.sh"), *Path(__file__).parent.glob("*.sh")]))
    assert len(scripts) >= 3
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
