"""`edgecap calibrate sync` on stored sessions and on arrays, as a person calls it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edgecap.cli.main import main
from edgecap.dataset.sync import Signal
from edgecap.sim.recordings import SYNC_COMMA2K19, SYNC_TWISTNSYNC
from tests.calibration_events import (
    HEIGHT,
    LINE_NS,
    START_NS,
    acceleration,
    blinking,
    film_of,
    force,
    knock_times,
)
from tests.calibration_session import CAMERA_U_NS, SESSION, U_NS, Rig
from tests.system.synthetic import RAW0
from tests.turning_camera import gyroscope, pictures, turning

MS = 1_000_000
LATE_NS = 21_000_000
SECONDS = 10


def at_raw0(signal: Signal) -> Signal:
    return Signal(signal.t_ns - START_NS + RAW0, signal.values)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    rng = np.random.default_rng(42)
    body = turning(rng, SECONDS)
    rig = Rig()
    film = pictures(rng, body, SECONDS, late_ns=LATE_NS, start_ns=RAW0, noise=2.0)
    grey = [np.clip(p.grey, 0, 255).astype(np.uint8) for p in film]
    rig.add_film("head-cam", grey, [p.t_ns for p in film], line_ns=18_000, exposure_ns=8 * MS)
    degrees = np.rad2deg(1.0)
    for name, lag_ns in (("head-gyro", 3 * MS), ("left-gyro", 0)):
        gyro = gyroscope(rng, body, start_ns=RAW0 + lag_ns)
        rig.add_samples(name, Signal(gyro.t_ns, gyro.values * degrees), "deg/s", 0.02, lag_ns=lag_ns)
    knocks = knock_times(rng, 12)
    rig.add_samples("left-force", at_raw0(force(rng, knocks, late_ns=4 * MS)), "N", 0.001)
    rig.add_samples("left-imu", at_raw0(acceleration(rng, knocks)), "g", 0.001)
    led = blinking(rng, 14)
    rows = film_of(rng, led, exposure_ns=2 * MS, late_ns=-7 * MS)
    bright = [np.repeat(np.clip(r, 0, 255).astype(np.uint8)[:, None], 64, 1) for r in rows.rows]
    middles = (rows.t_ns - START_NS + RAW0 + LINE_NS * (HEIGHT // 2)).tolist()
    rig.add_film("led-cam", bright, middles, line_ns=LINE_NS, exposure_ns=2 * MS)
    led_ns = (led.t_ns - START_NS + RAW0).tolist()
    for t_ns, on in zip(led_ns, led.on.tolist(), strict=True):
        kind = "led-on" if on else "led-off"
        rig.records.append({"type": "event", "t_ns": t_ns, "device": "left-hand", "kind": kind, "text": ""})
    t_ns = np.arange(RAW0, led_ns[-1] + 10**9, MS)
    level = (np.searchsorted(led_ns, t_ns, "right") % 2).astype(float)[:, None]
    rig.add_samples("left-led", Signal(t_ns, level), "", 1.0)
    return rig.write(tmp_path_factory.mktemp("calibration") / "store")


def measure(capsys, *args: str) -> dict:
    assert main(["calibrate", "sync", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys, code: int, *args: str) -> str:
    assert main(["calibrate", "sync", *args]) == code
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("edgecap: ")
    return line


@pytest.mark.parametrize(
    ("a", "b", "method", "lag_ns", "within_ns"),
    [
        # the gyroscope's own 3 ms are part of what is measured
        ("head-cam", "head-gyro", "flow", LATE_NS - 3 * MS, 400_000),
        ("head-gyro", "left-gyro", "gyro", 3 * MS, 200_000),
        ("left-force", "left-imu", "tap", 4 * MS, 400_000),
        ("led-cam", "left-hand", "led", -7 * MS, 60_000),
        ("led-cam", "left-led", "led", -7 * MS, 400_000),
    ],
)
def test_every_method_on_a_stored_session(capsys, store, a, b, method, lag_ns, within_ns):
    found = measure(capsys, store, SESSION, "--streams", f"{a},{b}", "--method", method)
    assert abs(found["lag_ns"] - lag_ns) <= min(within_ns, max(2 * found["u_ns"], 100_000))
    assert found["u_ns"] <= within_ns
    assert (found["a"], found["b"], found["method"], found["session"]) == (a, b, method, SESSION)
    assert found["n"] >= 3
    assert (found["r2"] is None) == (method in {"tap", "led"})
    bounds = {"head-cam": CAMERA_U_NS, "led-cam": CAMERA_U_NS, "left-hand": 0}
    assert found["clock_u_ns"] == {name: bounds.get(name, U_NS) for name in (a, b)}
    assert found["known_lag_ns"].get("head-gyro", 3 * MS) == 3 * MS
    measured_at = datetime.fromisoformat(found["date"])
    assert abs(datetime.now(UTC) - measured_at) < timedelta(minutes=5)


def test_words_tell_the_lag_and_what_is_part_of_it(capsys, store):
    assert (
        main(["calibrate", "sync", store, SESSION, "--streams", "head-gyro,left-gyro", "--method", "gyro"])
        == 0
    )
    said = capsys.readouterr().out
    assert "head-gyro is stamped 3.0" in said or "head-gyro is stamped 2.9" in said
    assert "ms late against left-gyro" in said
    assert "known lags of the descriptors, part of this one: head-gyro 3.000 ms" in said
    assert "bounds of the streams' clocks, beside this one: head-gyro ± 40 µs" in said


def test_records_gather_in_a_calibration_map(capsys, tmp_path):
    out = tmp_path / "calibration.json"
    npz = str(SYNC_TWISTNSYNC)
    for names in ("phone,mcu", "other,mcu", "other,mcu"):
        record = measure(
            capsys, "--npz", npz, "--method", "gyro", "--any-lag", "--streams", names, "--out", str(out)
        )
    kept = json.loads(out.read_text())
    assert list(kept) == ["sync:phone:mcu", "sync:other:mcu"]
    assert kept["sync:other:mcu"] == record
    assert [kept[key]["version"] for key in kept] == [1, 2]  # the second replaced the first
    out.write_text("[1]")
    assert "not a calibration map" in refusal(
        capsys, 2, "--npz", npz, "--method", "gyro", "--any-lag", "--out", str(out)
    )
    out.write_text("{")
    assert "not JSON" in refusal(capsys, 2, "--npz", npz, "--method", "gyro", "--any-lag", "--out", str(out))


def test_the_real_recordings_by_hand(capsys):
    camera = measure(capsys, "--npz", str(SYNC_COMMA2K19), "--method", "gyro")
    assert (camera["a"], camera["b"], camera["n"]) == ("a", "b", 6)
    assert abs(camera["lag_ns"]) < 6 * MS
    assert "too little time in common" in refusal(
        capsys, 1, "--npz", str(SYNC_TWISTNSYNC), "--method", "gyro"
    )


def test_arrays_of_every_method(capsys, tmp_path):
    rng = np.random.default_rng(9)
    body = turning(rng, 7)
    film = pictures(rng, body, 7, late_ns=5 * MS)
    gyro = gyroscope(rng, body)
    path = tmp_path / "arrays.npz"
    shots = np.stack([p.grey for p in film]).clip(0, 255).astype(np.uint8)
    # float64 seconds and int64 ns may be mixed
    t_a = np.array([p.t_ns for p in film]) * 1e-9
    np.savez(path, t_a=t_a, a=shots, t_b=gyro.t_ns, b=gyro.values)
    found = measure(capsys, "--npz", str(path), "--method", "flow")
    assert abs(found["lag_ns"] - 5 * MS) <= max(found["u_ns"], 250_000)
    led = blinking(rng, 15)
    rows = film_of(rng, led, exposure_ns=MS, late_ns=2 * MS)
    np.savez(path, t_a=rows.t_ns, a=rows.rows, t_b=led.t_ns, b=led.on, line_ns=LINE_NS, exposure_ns=MS)
    found = measure(capsys, "--npz", str(path), "--method", "led")
    assert abs(found["lag_ns"] - 2 * MS) < 60_000
    knocks = knock_times(rng, 10)
    a, b = force(rng, knocks, late_ns=-3 * MS), acceleration(rng, knocks)
    np.savez(path, t_a=a.t_ns, a=a.values, t_b=b.t_ns, b=b.values)
    found = measure(capsys, "--npz", str(path), "--method", "tap")
    assert abs(found["lag_ns"] + 3 * MS) < 400_000


@pytest.mark.parametrize(
    ("streams", "method", "code", "says"),
    [
        ("head-cam", "flow", 2, "does not name two streams"),
        ("head-cam,head-cam", "flow", 2, "does not name two streams"),
        ("nose-cam,head-gyro", "flow", 1, "has no stream 'nose-cam'"),
        ("head-gyro,head-cam", "flow", 1, "name the camera first"),
        ("head-gyro,left-gyro", "flow", 1, "is not a camera's"),
        ("head-cam,head-gyro", "gyro", 1, "is a camera's"),
        ("head-cam,left-force", "flow", 1, "has no channel in rad/s"),
        ("head-gyro,left-force", "tap", 1, "neither force nor acceleration"),
        ("led-cam,left-imu", "led", 1, "has no channel 'led'"),
        ("led-cam,right-hand", "led", 1, "neither a stream 'right-hand' nor LED events"),
        # Without texture, the last bits of the arithmetic decide in how many pictures something is followed.
        (
            "led-cam,head-gyro",
            "flow",
            1,
            "R² is too low|motion could not be followed|too little time in common",
        ),
    ],
)
def test_refusals_name_the_reason(capsys, store, streams, method, code, says):
    line = refusal(capsys, code, store, SESSION, "--streams", streams, "--method", method)
    assert any(part in line for part in says.split("|")), line


def test_bad_arguments_and_files(capsys, tmp_path, store):
    assert "which streams" in refusal(capsys, 2, store, "--method", "gyro")
    assert "do not go together" in refusal(capsys, 2, store, "--npz", "x.npz", "--method", "gyro")
    npz = str(SYNC_TWISTNSYNC)
    assert "--window-s nan" in refusal(capsys, 2, "--npz", npz, "--method", "gyro", "--window-s", "nan")
    assert "there is no" in refusal(capsys, 2, "--npz", str(tmp_path / "none.npz"), "--method", "gyro")
    text = tmp_path / "text.npz"
    text.write_text("hello")
    assert "not an npz" in refusal(capsys, 2, "--npz", str(text), "--method", "gyro")
    path = tmp_path / "arrays.npz"
    t, rates = np.arange(100) * 0.01, np.zeros((100, 3))
    np.savez(path, t_a=t, a=rates, t_b=t)
    assert "lacks b" in refusal(capsys, 2, "--npz", str(path), "--method", "gyro")
    np.savez(path, t_a=t[:5], a=rates, t_b=t, b=rates)
    assert "differ" in refusal(capsys, 2, "--npz", str(path), "--method", "gyro")
    np.savez(path, t_a=t * np.nan, a=rates, t_b=t, b=rates)
    assert "are no times" in refusal(capsys, 2, "--npz", str(path), "--method", "gyro")
    np.savez(path, t_a=t, a=rates, t_b=t, b=rates)
    assert "too short" in refusal(capsys, 1, "--npz", str(path), "--method", "gyro")
    assert "grey pictures" in refusal(capsys, 2, "--npz", str(path), "--method", "flow")
    assert "line_ns" in refusal(capsys, 2, "--npz", str(path), "--method", "led")
