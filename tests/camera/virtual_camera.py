"""libcamera's virtual cameras for a test: where they are built, and picamera2's process on top of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecap.source.camera_pi import PiCamera

PREFIX = Path(os.environ.get("EDGECAP_TEST_LIBCAMERA", "/var/cache/edgecap-libcamera"))
PYTHON = PREFIX / "venv/bin/python"
ROOT = Path(__file__).parents[2]
CHILD = ROOT / "tests/camera/virtual_child.py"


def use_virtual_libcamera(monkeypatch):
    """Have processes started from now on find it."""
    if not PYTHON.exists():
        reason = f"no libcamera in {PREFIX}: run tests/camera/build_libcamera.sh {PREFIX}"
        pytest.fail(reason) if "EDGECAP_TEST_LIBCAMERA" in os.environ else pytest.skip(reason)
    packages = next(PREFIX.glob("lib/python3*/site-packages"))
    library = next(PREFIX.glob("lib/*/libcamera.so")).parent
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{packages}")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("LIBCAMERA_PIPELINES_MATCH_LIST", "virtual")
    monkeypatch.setenv("LIBCAMERA_LOG_LEVELS", "*:FATAL")


def virtual_camera(*faults, camera_id="Front", width=640, height=480, **settings):
    """A `PiCamera` on it, with the faults that virtual_child.py knows."""
    child = (str(PYTHON), str(CHILD), *map(str, faults))
    return PiCamera("head", camera_id, width, height, child=child, **settings)
