"""The firmware under test, built once per session: plain, and with sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecap.sim.firmware_build import build_firmware
from tests.hw.emulated import build_images, install_emulator


@pytest.fixture(scope="session")
def build_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("firmware with a space")


@pytest.fixture(scope="session")
def plain_binary(build_dir: Path) -> Path:
    return build_firmware(build_dir)


@pytest.fixture(scope="session")
def sanitized_binary(build_dir: Path) -> Path:
    return build_firmware(build_dir, sanitize=True)


@pytest.fixture
def binary(sanitized_binary: Path) -> Path:
    """What the behaviour tests run: the sanitizers turn every slip into a failed test."""
    return sanitized_binary


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images for RP2040 boards, as they are shipped, and an emulator to run them."""
    install_emulator()
    return build_images(tmp_path_factory.mktemp("rp2040"))
