"""One machine for all tests of systemd/: install.sh is run in it once, with the wheels of this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecap.sim.firmware_build import build_firmware
from tests.systemd.installed import REPOSITORY, InstalledRig, collect
from tests.systemd.machine import CACHE, Machine


@pytest.fixture(scope="session")
def cache() -> Path:
    """The root to boot and the wheels, built by `make system-packages` where that is possible."""
    reason = ""
    if os.geteuid() != 0:
        reason = "booting a container needs root"
    elif (
        not shutil.which("systemd-nspawn") or not (CACHE / "root").exists() or not (CACHE / "wheels").exists()
    ):
        reason = f"no systemd-nspawn, or nothing in {CACHE}: run `make system-packages` as root on Debian"
    if reason:
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return CACHE


@pytest.fixture(scope="session")
def bundle(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `install.sh --collect` makes for a site without network; pip finds every wheel in the cache."""
    return collect(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def newer_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, one version later."""
    folder = tmp_path_factory.mktemp("newer")
    source = folder / "source"
    shutil.copytree(REPOSITORY / "edgecap", source / "edgecap", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    (source / "edgecap/__init__.py").write_text('"""A later version."""\n\n__version__ = "99.0.0"\n')
    shutil.copytree(bundle, folder / "bundle", ignore=shutil.ignore_patterns("edgecap-*.whl"))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index",
         "-w", folder / "bundle/wheels", source],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "bundle"


@pytest.fixture(scope="session")
def machine(
    cache: Path, bundle: Path, newer_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A booted Debian with nothing installed yet."""
    firmware = build_firmware(tmp_path_factory.mktemp("firmware"))
    folder = tmp_path_factory.mktemp("machine")
    binds = {"/bundle": bundle, "/newer": newer_bundle, "/firmware": firmware.parent}
    (folder / "firmware-name").write_text(firmware.name)
    with Machine(folder, binds) as machine:
        yield machine
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def rig(machine: Machine) -> InstalledRig:
    """Installed, configured and running; the tests of one file go through its life in order."""
    rig = InstalledRig(machine, (machine.folder / "firmware-name").read_text())
    rig.install("--role", "both", "--offline", "./wheels")
    rig.set_up()
    rig.until_ready()
    return rig
