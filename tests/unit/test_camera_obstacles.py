"""Why a camera cannot be had, from what the machine itself says."""

from __future__ import annotations

import pytest

from edgecap.source.camera_obstacles import absence, end_holders, holders, overlay_hint


@pytest.fixture
def proc(tmp_path):
    """A /proc with three processes, one of which has a camera open, and one that may not be looked into."""
    root = tmp_path / "proc"
    for pid, name, opened in ((812, "motion", "/dev/video0"), (90, "bash", "/dev/null"), (7, "gone", None)):
        (root / str(pid)).mkdir(parents=True)
        (root / str(pid) / "comm").write_text(f"{name}\n")
        if opened:
            (root / str(pid) / "fd").mkdir()
            (root / str(pid) / "fd" / "3").symlink_to(opened)
    (root / "self").mkdir()
    return root


def test_who_holds_a_device_is_named(proc):
    assert holders(["/dev/video0"], proc) == ["motion (pid 812)"]
    assert end_holders(["/dev/video0"], proc) == "end motion (pid 812)"
    assert "sudo fuser -v /dev/video9" in end_holders(["/dev/video9"], proc)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            "dtparam=audio=on\n#camera_auto_detect=1\n",
            "neither camera_auto_detect=1 nor the sensor's overlay",
        ),
        ("camera_auto_detect=1\n", "detects official modules; another needs its dtoverlay"),
        (
            "dtoverlay=vc4-kms-v3d\n dtoverlay = imx519,cam0 # mine\n",
            "loads imx519,cam0: is that this sensor",
        ),
    ],
)
def test_a_missing_overlay_is_named(tmp_path, config, words):
    path = tmp_path / "config.txt"
    path.write_text(config)
    hint = overlay_hint([tmp_path / "absent.txt", path])
    assert words in hint
    assert str(path) in hint
    assert "\n" not in hint


def test_no_camera_because_of_permissions_is_told_apart(tmp_path):
    node = tmp_path / "media0"
    node.touch()
    nowhere = [tmp_path / "absent.txt"]
    # root may open everything: what cannot be opened here is a node that is gone
    locked = str(absence("camera head", [str(tmp_path / "media1")], nowhere))
    assert "media1 may not be opened by this user; add it to the group video" in locked
    assert "finds no camera; connect one" in str(absence("camera head", [str(node)], nowhere))
    assert "finds no camera; connect one" in str(absence("camera head", [], nowhere))


def test_elsewhere_than_on_a_pi_a_camera_has_to_be_connected(tmp_path):
    assert overlay_hint([tmp_path / "absent.txt"]).startswith("connect one")
