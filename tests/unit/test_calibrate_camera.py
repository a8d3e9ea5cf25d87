"""`edgecap calibrate camera` against pictures rendered with a known lens."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgecap.calibration import CameraRecord, find
from edgecap.cli.main import main
from edgecap.dataset.calibrate_camera import calibrate_camera, covered
from edgecap.dataset.charuco import Board, View, views_of
from edgecap.dataset.kalibr import read_camchain, write_camchain
from edgecap.errors import EdgecapError
from tests.board_pictures import BOARD, Lens, Studio
from tests.calibration_session import SESSION, Rig
from tests.system.synthetic import RAW0

RADTAN = Lens((640, 480), (520.0, 515.0, 322.5, 236.0), "radtan", (-0.22, 0.06, 0.0012, -0.0008))
WIDE = Lens((640, 480), (330.0, 330.0, 318.0, 243.0), "equidistant", (0.02, -0.01, 0.003, -0.001))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eighteen pictures of the board, and one in which it was moved while the shutter was open."""
    rng = np.random.default_rng(1)
    studio = Studio(RADTAN)
    path = tmp_path_factory.mktemp("shots")
    for k, pose in enumerate(studio.poses(rng, 18)):
        cv2.imwrite(str(path / f"{k:02d}.png"), studio.shoot(rng, *pose))
    return path


@pytest.mark.parametrize("lens", [RADTAN, WIDE], ids=lambda lens: lens.model)
def test_a_known_lens_is_found_within_the_stated_bounds(lens):
    rng = np.random.default_rng(2)
    studio = Studio(lens)
    poses = studio.poses(rng, 20, tilt=0.5 if lens is WIDE else 0.6, spread=1.2 if lens is WIDE else 1.0)
    pictures = [(str(k), studio.shoot(rng, *pose)) for k, pose in enumerate(poses)]
    views, size, n = views_of(studio.board, pictures, is_film=False)
    assert (size, n) == (lens.size, 20)
    found = calibrate_camera(views, size, lens.model)
    print(found)
    assert found.residual_px < 0.25
    off = np.abs(found.matrix - lens.four)
    assert (off <= np.maximum(2 * found.u_matrix, 0.3)).all(), (off, found.u_matrix)
    assert (off < 2.0).all()
    # what the parameters are for: where a ray ends up in the picture
    for x, y in ((0, 0), (0.3, 0.2), (-0.4, 0.3), (0.45, -0.3)):
        before, after = project(lens.four, lens, x, y), project(found.matrix, lens, x, y, found.coefficients)
        assert np.abs(before - after).max() < 1.5


def project(four, lens, x, y, coefficients=None):
    """By the lens's equations, in their usual direction."""
    k1, k2, k3, k4 = lens.coefficients if coefficients is None else coefficients
    r2 = x * x + y * y
    if lens.model == "equidistant":
        r = max(np.sqrt(r2), 1e-12)
        t = np.arctan(r)
        bent = t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8) / r
        a, b = x * bent, y * bent
    else:
        radial = 1 + k1 * r2 + k2 * r2 * r2
        a = x * radial + 2 * k3 * x * y + k4 * (r2 + 2 * x * x)
        b = y * radial + k3 * (r2 + 2 * y * y) + 2 * k4 * x * y
    return np.array([four[0] * a + four[2], four[1] * b + four[3]])


def test_pictures_of_a_folder_become_a_record_and_a_camera_chain(capsys, folder, tmp_path):
    out, chain = tmp_path / "calibration.json", tmp_path / "camchain.yaml"
    arguments = ["--pictures", str(folder), "--stream", "head-cam", "--board", BOARD, "--by", "p-001"]
    arguments += ["--out", str(out), "--to-kalibr", str(chain)]
    assert main(["calibrate", "camera", *arguments]) == 0
    said = capsys.readouterr()
    assert "head-cam: 640 × 480, pinhole, radtan -0.2" in said.out
    assert "views of 18 pictures" in said.err
    record = find(json.loads(out.read_text()), CameraRecord, "head-cam")
    assert record is not None
    assert record.u_intrinsics is not None
    assert record.board == f"{BOARD} 5X5_100"
    np.testing.assert_allclose(record.intrinsics, RADTAN.four, atol=1.5)
    cam0 = yaml.safe_load(chain.read_text())["cam0"]
    assert cam0["intrinsics"] == list(record.intrinsics)
    assert (cam0["camera_model"], cam0["distortion_model"], cam0["resolution"]) == (
        "pinhole",
        "radtan",
        [640, 480],
    )
    assert (cam0["rostopic"], cam0["cam_overlaps"]) == ("/head_cam/video", [])
    again = ["--from-kalibr", str(chain), "--stream", "head-cam", "--out", str(out), "--json"]
    assert main(["calibrate", "camera", *again]) == 0
    back = json.loads(capsys.readouterr().out)
    assert (back["version"], back["intrinsics"]) == (2, list(record.intrinsics))


def test_a_film_of_a_session_gives_views_that_are_still_and_new(capsys, tmp_path):
    rng = np.random.default_rng(3)
    studio = Studio(RADTAN, factor=1)
    poses = list(studio.poses(rng, 13))
    film = []
    for k, (turn, centre) in enumerate(poses):
        still = studio.shoot(rng, turn, centre, 0.0)
        film += [still] * 7
        after = poses[(k + 1) % len(poses)]
        for share in (0.3, 0.6):  # on the way to the next place
            film.append(
                studio.shoot(rng, turn + share * (after[0] - turn), centre + share * (after[1] - centre), 0.0)
            )
    rig = Rig()
    times = [RAW0 + k * 33_333_333 for k in range(len(film))]
    rig.add_film("head-cam", film, times, line_ns=0, exposure_ns=2_000_000)
    url = rig.write(tmp_path / "store")
    assert (
        main(["calibrate", "camera", url, SESSION, "--stream", "head-cam", "--board", BOARD, "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert 8 <= len(found["view_residuals_px"]) <= 16
    np.testing.assert_allclose(found["intrinsics"], RADTAN.four, atol=4)
    assert found["session"] == SESSION


def test_a_view_that_does_not_fit_is_left_out(folder):
    board = Board(BOARD)
    shots = [(p.name, cv2.imread(str(p), cv2.IMREAD_GRAYSCALE)) for p in sorted(folder.iterdir())]
    views, size, _ = views_of(board, shots, is_film=False)
    rng = np.random.default_rng(0)
    bad = views[3]
    views[3] = View(
        bad.name, bad.board, bad.picture + rng.normal(0, 4, bad.picture.shape).astype(np.float32), bad.ids
    )
    found = calibrate_camera(views, size, "radtan")
    assert found.dropped == (bad.name,)
    np.testing.assert_allclose(found.matrix, RADTAN.four, atol=1.5)


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────


def refusal(capsys, code, *args):
    assert main(["calibrate", "camera", *args]) == code
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda views: views[:5], "in 5 views; 8 are needed"),
        (lambda views: [v for v in views if v.picture[:, 0].mean() < 300][:4] * 3, "corners cover"),
        (lambda views: [flat(v) for v in views], "tilted by 15° in 0 views"),
        (lambda views: [shaken(v) for v in views], r"leaves \d\.\d+ px"),
    ],
)  # fmt: skip
def test_poor_views_are_refused_with_what_is_missing(folder, change, says):
    board = Board(BOARD)
    shots = [(p.name, cv2.imread(str(p), cv2.IMREAD_GRAYSCALE)) for p in sorted(folder.iterdir())]
    views, size, _ = views_of(board, shots, is_film=False)
    with pytest.raises(EdgecapError, match=says) as found:
        calibrate_camera(change(views), size, "radtan")
    assert found.value.fix


def flat(view: View) -> View:
    """The same corners as if the board had been held square to the camera."""
    places = view.board[:, :2] * 2600 + view.picture.mean(0) - view.board[:, :2].mean(0) * 2600
    noise = np.random.default_rng(1).normal(0, 0.05, places.shape)
    return View(view.name, view.board, (places + noise).astype(np.float32), view.ids)


def shaken(view: View) -> View:
    noise = np.random.default_rng(len(view.ids)).normal(0, 3, view.picture.shape)
    return View(view.name, view.board, (view.picture + noise).astype(np.float32), view.ids)


def test_wrong_usage_and_unreadable_things_are_named(capsys, folder, tmp_path):
    common = ["--stream", "head-cam", "--board", BOARD]
    assert "which pictures?" in refusal(capsys, 2, *common)
    assert "which camera?" in refusal(capsys, 2, "--pictures", str(folder))
    assert "cannot list" in refusal(capsys, 2, "--pictures", str(tmp_path / "no"), *common)
    (tmp_path / "shots").mkdir()
    assert "holds no pictures" in refusal(capsys, 2, "--pictures", str(tmp_path / "shots"), *common)
    (tmp_path / "shots" / "a.png").write_bytes(b"no picture")
    assert "a.png is not a picture" in refusal(capsys, 2, "--pictures", str(tmp_path / "shots"), *common)
    for board in ("9x7", "9x7:15:20", "1x7:20:15", "9x7:0:0"):
        line = refusal(capsys, 2, "--pictures", str(folder), "--stream", "c", "--board", board)
        assert re.search("is no board", line)
    line = refusal(capsys, 2, "--pictures", str(folder), *common, "--dictionary", "9X9")
    assert "no dictionary '9X9'" in line
    line = refusal(capsys, 2, "--pictures", str(folder), "--stream", "c", "--board", "30x30:20:15")
    assert "has more markers than 5X5_100" in line
    line = refusal(
        capsys,
        1,
        "--pictures",
        str(folder),
        "--stream",
        "c",
        "--board",
        "9x7:20:15",
        "--dictionary",
        "4X4_100",
    )
    assert "in 0 views; 8 are needed" in line


def test_a_board_to_print_is_found_in_its_own_drawing(capsys, tmp_path):
    path = tmp_path / "board.png"
    assert main(["calibrate", "camera", "--board", BOARD, "--draw", str(path)]) == 0
    view = Board(BOARD).find("drawing", cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    assert view is not None
    assert len(view.ids) == 8 * 6
    assert covered([view], (9 * 200 + 200, 7 * 200 + 200)) == 0.5


# ── Kalibr ──────────────────────────────────────────────────────────────────────────────────────────

CHAIN = """\
%YAML:1.0
cam0:
  T_cam_imu:
  - [0.0, -1.0, 0.0, 0.01]
  - [1.0, 0.0, 0.0, 0.02]
  - [0.0, 0.0, 1.0, 0.03]
  - [0.0, 0.0, 0.0, 1.0]
  cam_overlaps: [1]
  camera_model: pinhole
  distortion_coeffs: [-0.28, 0.07, 0.0002, 0.00002]
  distortion_model: radtan
  intrinsics: [458.6, 457.3, 367.2, 248.4]
  resolution: [752, 480]
  rostopic: /cam0/image_raw
  timeshift_cam_imu: 0.0012
cam1:
  camera_model: pinhole
  distortion_coeffs: [0.1, 0.2, 0.3, 0.4]
  distortion_model: equidistant
  intrinsics: [400, 401, 320, 240]
  resolution: [640, 480]
  rostopic: /cam1/image_raw
"""


def test_a_chain_of_two_with_an_imu_travels_both_ways(tmp_path):
    path, back = tmp_path / "camchain.yaml", tmp_path / "back.yaml"
    path.write_text(CHAIN)
    records = read_camchain(path, ["head-cam", "left-cam"])
    assert [r.key for r in records] == ["camera:head-cam", "camera:left-cam"]
    write_camchain(back, records)
    first, second = yaml.safe_load(CHAIN.partition("\n")[2]), yaml.safe_load(back.read_text())
    for name in ("cam0", "cam1"):
        for key in set(first[name]) - {"rostopic", "cam_overlaps"}:
            assert second[name][key] == first[name][key], key


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("camera_model: pinhole", "camera_model: omni", "model 'omni'; only `pinhole`"),
        ("[458.6, 457.3, 367.2, 248.4]", "[458.6, 457.3]", "only `pinhole`"),
        ("distortion_model: radtan", "distortion_model: fov", "cam0: .*fov"),
        ("resolution: [752, 480]", "resolution: wide", "cam0: Expected `array`"),
        ("cam1:", "nope:", "1 cameras, 2 streams"),
        ("cam0:", "\t:", "not YAML"),
    ],
)
def test_a_chain_that_cannot_be_used_is_named(capsys, tmp_path, old, new, says):
    path = tmp_path / "camchain.yaml"
    path.write_text(CHAIN.replace(old, new, 1))
    code = 2 if "streams" in says else 1
    line = refusal(capsys, code, "--from-kalibr", str(path), "--stream", "a", "--stream", "b")
    assert re.search(says, line), line


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_no_chain_but_told_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "hostile.yaml"
    path.write_bytes(data)
    with pytest.raises(EdgecapError) as found:
        read_camchain(path, ["a"])
    assert found.value.fix
