"""`edgecap calibrate force`: truth inside the stated bounds, sessions, a live board, and refusals."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgecap.calibration import ForceRecord, find
from edgecap.cli.main import main
from edgecap.dataset.calibrate_force import Point, calibrate_channel, parse_load
from edgecap.dataset.sync import Signal
from edgecap.errors import CalibrationError, ConfigError
from edgecap.model import ChannelInfo
from edgecap.sim.firmware import FirmwareStream, HostFirmware
from tests.calibration_session import SESSION, Rig
from tests.system.synthetic import RAW0

KG = 9.80665
FULL = 4095.0


def points_of(rng, counts_of, loads, *, noise=3.0, scatter=0.0, repeats=2):
    """Readings of `counts_of(force)`, with noise in a sample and scatter between presses."""
    found = []
    for newton in np.repeat(loads, repeats):
        pressed = newton * (1 + rng.normal(0, scatter))
        samples = counts_of(pressed) + rng.normal(0, noise, 1000)
        u = 1.96 * noise / np.sqrt(1000)
        found.append(Point(float(newton), float(samples.mean()), float(samples.std()), float(u)))
    return found


def fsr_counts(force, k=0.5, exponent=0.85):
    """A force-sensing resistor under a divider: conductance a power of force."""
    y = 0.002 + (max(force, 0.0) / k) ** (1 / exponent) * 0.05
    return FULL * y / (1 + y)


def test_linear_truth_lies_within_the_stated_bounds():
    inside = {"gain": 0, "tare": 0, "force": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        gain, tare = rng.uniform(0.002, 0.02) * rng.choice([-1, 1]), rng.uniform(-800, 800)
        points = points_of(
            rng, lambda f, g=gain, t=tare: t + f / g, [0, 2, 5, 10], scatter=rng.uniform(0, 0.01)
        )
        channel = calibrate_channel("thumb", points, "linear", full_counts=0, reference_percent=0)
        inside["gain"] += abs(channel.gain - gain) <= channel.u_gain
        inside["tare"] += abs(channel.tare - tare) <= channel.u_tare
        inside["force"] += abs(float(channel.newtons(np.array(tare + 10 / gain))) - 10) <= channel.u_n
        assert channel.u_gain < 0.05 * abs(gain)
    assert all(n >= 186 for n in inside.values()), inside  # 95 % of 200, less three standard deviations


def test_power_law_recovers_a_resistor_and_inverts_it():
    inside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        k, exponent = rng.uniform(0.3, 1), rng.uniform(0.6, 1.2)
        points = points_of(
            rng, lambda f, k=k, e=exponent: fsr_counts(f, k, e), [0, 0.5, 1, 2, 5, 8], scatter=0.02, repeats=3
        )
        channel = calibrate_channel("thumb", points, "fsr", full_counts=FULL, reference_percent=0)
        assert abs(channel.exponent - exponent) < 0.1
        for force in (0.7, 3.0, 8.0):
            read = float(channel.newtons(np.array(fsr_counts(force, k, exponent))))
            assert read == pytest.approx(force, rel=0.08)
        inside += abs(float(channel.newtons(np.array(fsr_counts(8, k, exponent)))) - 8) <= channel.u_n
    assert inside >= 88
    assert float(channel.newtons(np.array(0.0))) == 0.0
    assert np.isnan(channel.newtons(np.array(FULL)))


def test_the_reference_counts_in_the_uncertainty():
    rng = np.random.default_rng(1)
    points = points_of(rng, lambda f: 100 + f / 0.01, [0, 5, 10])
    exact, rough = (
        calibrate_channel("thumb", points, "linear", full_counts=0, reference_percent=p) for p in (0, 2)
    )
    assert rough.u_n == pytest.approx(np.hypot(exact.u_n, 0.02 * 10), rel=0.01)


@pytest.mark.parametrize(
    ("loads", "counts_of", "model", "full", "says"),
    [
        ([2, 5], lambda f: f * 100, "linear", 0, "no reading without load"),
        ([0, 5], lambda f: f * 100, "linear", 0, "1 load besides none is too few"),
        ([0, 2, 5], lambda f: f * 0.5, "linear", 0, "greatest load moves it by"),
        ([0, 2, 5], lambda f: f * 900, "linear", FULL, "drives it to full scale"),
        ([0, 1, 2, 5, 10], fsr_counts, "linear", 0, "not linear: .*--model fsr"),
        ([0, 1, 2, 5], fsr_counts, "fsr", 0, "give --full-counts"),
        ([0, 4, 5, 6], fsr_counts, "fsr", FULL, "three loads that span a factor 3"),
        ([0, 1, 3, 9], lambda f: 3000 - f * 100, "fsr", FULL, "reads less than none does"),
        ([0, 1, 3, 9], lambda f: 100 + 20 * (f > 0) + f**0.1 * 20, "fsr", FULL, "exponent would be"),
        ([0, 1, 3, 9], lambda f: {0: 100, 1: 900, 3: 300, 9: 2000}[f], "linear", 0, "not linear|leaves"),
    ],
)  # fmt: skip
def test_refusals_name_the_channel_and_the_reason(loads, counts_of, model, full, says):
    points = points_of(np.random.default_rng(3), counts_of, loads, noise=2.0)
    with pytest.raises(CalibrationError, match=f"^thumb.*({says})") as found:
        calibrate_channel("thumb", points, model, full_counts=full, reference_percent=0.5)
    assert found.value.fix or "no reading" in str(found.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thumb 0.5 kg", ("thumb", 0.5 * KG)),
        ("index: 250 g", ("index", 0.25 * KG)),
        ("4,9 N", ("", 4.9)),
        ("ring_tip 900mN", ("ring_tip", 0.9)),
        ("tare", ("", 0.0)),
        ("nothing on the sensors", ("", 0.0)),
        ("0 N", ("", 0.0)),
        ("dropped the lid", None),
        ("took 3 minutes", None),
        ("", None),
    ],
)
def test_loads_in_words(text, expected):
    found = parse_load(text)
    assert found == expected if expected is None else found == (expected[0], pytest.approx(expected[1]))


# ── a stored session ────────────────────────────────────────────────────────────────────────────────

GAINS, TARES = (0.004, -0.0025), (120.0, -300.0)
PLAN = [(1, "", 0.0, "tare"), (5, "thumb", 0.2 * KG, "thumb 0.2 kg"), (9, "thumb", KG, "thumb 1kg"),
        (13, "index", 0.5 * KG, "index 500 g"), (17, "index", 6.0, "index: 6 N")]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """Weights put on and taken off two fingers, with a mark once each lies; a third is never touched."""
    rng = np.random.default_rng(7)
    t_ns = RAW0 + np.arange(0, 21_000, 2) * 1_000_000
    seconds = (t_ns - RAW0) * 1e-9
    counts = np.tile(np.array([*TARES, 55.0]), (len(t_ns), 1)) + rng.normal(0, 2.5, (len(t_ns), 3))
    for start, channel, newton, _ in PLAN:
        lies = np.clip((seconds - start + 0.4) / 0.2, 0, 1) * np.clip((start + 2.6 - seconds) / 0.2, 0, 1)
        for k, name in enumerate(("thumb", "index")):
            if name == channel:
                counts[:, k] += lies * newton / GAINS[k]
    rig = Rig()
    rig.add_samples("left-force", Signal(t_ns, counts), "N", 1.0, names=("thumb", "index", "ring"))
    for start, _, _, words in [*PLAN, (19, "", 0, "that was it")]:
        mark = {"type": "mark", "t_ns": RAW0 + start * 10**9, "kind": "note", "text": words, "by": "ctl"}
        rig.records.append(mark)
    warmth = np.full((len(t_ns) // 50, 1), 31.5)
    rig.add_samples("left-air", Signal(t_ns[::50][: len(warmth)], warmth), "degC", 0.01)
    return rig.write(tmp_path_factory.mktemp("force") / "store")


def test_marks_of_a_session_become_a_record(capsys, store, tmp_path):
    out = tmp_path / "calibration.json"
    arguments = ["calibrate", "force", store, SESSION, "--stream", "left-force", "--out", str(out)]
    arguments += ["--reference", "class M1 weights", "--by", "p-001", "--json"]
    for version in (1, 2):
        assert main(arguments) == 0
        said = capsys.readouterr()
        assert "mark 'that was it' tells no load" in said.err
        found = json.loads(said.out)
        assert found["version"] == version
    record = find(json.loads(out.read_text()), ForceRecord, "left-force")
    assert record is not None
    assert (record.reference, record.by, record.session) == ("class M1 weights", "p-001", SESSION)
    assert record.temperature_c == pytest.approx(31.5)
    assert [c.name for c in record.channels] == ["thumb", "index"]
    for channel, gain, tare in zip(record.channels, GAINS, TARES, strict=True):
        assert abs(channel.gain - gain) <= channel.u_gain <= 0.02 * abs(gain)
        assert abs(channel.tare - tare) <= max(channel.u_tare, 0.3)
        assert channel.noise_counts == pytest.approx(2.5, rel=0.1)
        counts = np.array(tare + 5 / gain)
        assert float(channel.newtons(counts)) == pytest.approx(5, abs=channel.u_n)


def test_times_instead_of_marks_and_words_for_people(capsys, store):
    at = [f"--at={t}:{n}:{c}" if c else f"--at={t}:{n}" for t, c, n, _ in PLAN[:3]]
    assert main(["calibrate", "force", store, SESSION, "--stream", "left-force", *at]) == 0
    said = capsys.readouterr().out
    assert "thumb: F = 0.003999" in said or "thumb: F = 0.0040" in said
    assert "index" not in said
    assert "31.5 °C" in said


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--stream", "right-force"], 1, "has no stream 'right-force'"),
        (["--stream", "left-air"], 1, "names no single channel|no channel"),
        (["--stream", "left-force", "--at=x"], 2, "--at 'x' is no load at a time"),
        (["--stream", "left-force", "--at=1:0", "--at=90:5"], 1, "is not followed by"),
        (["--stream", "left-force", "--at=1:0"], 1, "no load is known"),
        (["--stream", "left-force", "--at=1:0", "--at=5:2:toe"], 2, "'toe' names no single channel"),
        (["--stream", "left-force", "--window-s", "-1"], 2, "--window-s -1.0 is not a positive number"),
        (["--stream", "left-force", "--port", "/dev/null", "--load", "1kg"], 2, "do not go together"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(capsys, store, arguments, code, says):
    import re

    if arguments[1] == "left-air":
        code = 2
    assert main(["calibrate", "force", store, SESSION, *arguments]) == code
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "note:" not in x]
    assert re.search(says, line), line


def test_a_session_without_marks_says_how_to_mark(capsys, tmp_path):
    t_ns = RAW0 + np.arange(0, 2_000, 2) * 1_000_000
    rig = Rig()
    rig.add_samples("left-force", Signal(t_ns, np.zeros((len(t_ns), 1))), "N", 1.0, names=("thumb",))
    rig.records.append({"type": "mark", "t_ns": RAW0, "kind": "note", "text": "hello", "by": "ctl"})
    store = rig.write(tmp_path / "store")
    assert main(["calibrate", "force", store, SESSION, "--stream", "left-force"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no mark of session" in line
    assert "edgecap ctl RIG mark 'thumb 0.5 kg'" in line


def test_a_record_that_is_damaged_is_named():
    with pytest.raises(ConfigError, match="calibration record 'force:left-force' cannot be used"):
        find({"force:left-force": {"stream": "left-force", "channels": 3}}, ForceRecord, "left-force")
    assert find({"left-force": {"version": 3}}, ForceRecord, "left-force") is None


# ── live ────────────────────────────────────────────────────────────────────────────────────────────


def test_live_from_a_board(tmp_path: Path):
    """The command itself: the real firmware replays weights, Enter comes once each plateau has begun."""
    rate, held = 500, 1500  # 3 s each
    levels = [0.0, 2.0, 5.0, 12.0]
    rng = np.random.default_rng(5)
    counts = np.repeat(200 + np.array(levels) / 0.005, held)[:, None] * [[1.0, 0.0]] + [[0.0, -50.0]]
    file = tmp_path / "weights.npy"
    np.save(file, np.rint(counts + rng.normal(0, 2, counts.shape)).astype(np.int16))
    channels = (ChannelInfo("thumb", "N", 0.005, 160.0), ChannelInfo("index", "N", 0.005, 160.0))
    stream = FirmwareStream("force", "force", rate, channels, file=file)
    out = tmp_path / "calibration.json"
    asked: list[str] = []

    async def scenario():
        async with HostFirmware([stream], link=tmp_path / "board", loop=False) as board:
            arguments = [
                "--port",
                str(tmp_path / "board"),
                "--stream",
                "left-hand-force",
                "--channel",
                "thumb",
            ]
            arguments += [f"--load={n:g}N" for n in levels[1:]]
            command = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edgecap", "calibrate", "force", *arguments,
                "--window-s", "0.4", "--out", str(out),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert command.stdin is not None
            assert command.stderr is not None
            async with asyncio.timeout(90):
                for begins in range(0, len(levels) * held, held):
                    asked.append((await command.stderr.readuntil(b", press Enter ")).decode())
                    while (await board.totals())["force"] < begins:
                        await asyncio.sleep(0.02)
                    command.stdin.write(b"\n")
                return await command.communicate()

    said, errors = asyncio.run(scenario())
    assert not errors, errors.decode()
    assert asked == ["take everything off the sensors, press Enter "] + [
        f"finger thumb: put {n:g}N on, press Enter " for n in levels[1:]
    ]
    assert "left-hand-force: 1 channels" in said.decode()
    record = find(json.loads(out.read_text()), ForceRecord, "left-hand-force")
    assert record is not None
    assert record.source == "host-0001"
    (channel,) = record.channels
    assert abs(channel.gain - 0.005) <= channel.u_gain
    assert abs(channel.tare - 200) <= max(channel.u_tare, 1)


def test_nobody_at_the_terminal_is_told(tmp_path: Path):
    stream = FirmwareStream("force", "force", 100.0, (ChannelInfo("thumb", "N", 0.005, 160.0),))

    async def scenario(*arguments: str):
        async with HostFirmware([stream], link=tmp_path / "board"):
            command = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edgecap", "calibrate", "force", "--port", str(tmp_path / "board"),
                "--load", "1N", "--load", "2N", *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _, errors = await command.communicate(b"")
            return command.returncode, errors.decode().splitlines()[-1]

    code, line = asyncio.run(scenario("--stream", "left-hand-force"))
    assert code == 1
    assert "nobody answers: standard input has ended; run it on a terminal" in line
    command = [sys.executable, "-m", "edgecap", "calibrate", "force", "--port", "/dev/none", "--stream", "s"]
    done = subprocess.run(
        [*command, "--load=1N", "--load=2N"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "standard input is no terminal" in done.stderr
    code, line = asyncio.run(scenario("--stream", "left-hand-grip"))
    assert code == 1
    assert "has no stream 'left-hand-grip'; it has force" in line
