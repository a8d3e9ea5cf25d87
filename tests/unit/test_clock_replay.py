"""`edgecap clock replay` and `edgecap sim clock` from the outside."""

import argparse
import json

import numpy as np
import pytest

from edgecap.cli import clock as clock_cli
from edgecap.cli import sim as sim_cli
from edgecap.errors import UsageError
from edgecap.sim.clock import LinkLog, simulate
from edgecap.sim.clock_bytes import replay_bytes
from edgecap.sim.links import SCENARIOS
from edgecap.timeline.device_clock import DeviceClock
from edgecap.timeline.replay import replay, rows_from_arrays


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    clock_cli.add_parser(commands)
    sim_cli.add_parser(commands)
    args = parser.parse_args([str(word) for word in words])
    return args.run(args)


@pytest.fixture(scope="module")
def log():
    return simulate(SCENARIOS["usb-1ms-batch"], seed=11, seconds=40)


def without_truth(log) -> dict[str, np.ndarray]:
    arrays = log.arrays()
    del arrays["truth_ns"]
    return arrays


def test_writes_what_was_published_for_the_sample_frames(log, tmp_path, capsys):
    np.savez(tmp_path / "log.npz", **without_truth(log))
    assert run("clock", "replay", tmp_path / "log.npz", "--out", tmp_path / "out.npz", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    samples = log.kind == 0
    with np.load(tmp_path / "out.npz") as out:
        assert sorted(out.files) == ["epoch", "locked", "t_ns", "u_ns"]
        assert [out[name].dtype.str for name in ("t_ns", "u_ns", "epoch", "locked")] == [
            "<i8",
            "<i8",
            "<i4",
            "|u1",
        ]
        assert all(len(out[name]) == samples.sum() for name in out.files)
        assert (np.abs(out["t_ns"] - log.truth_ns[samples]) <= out["u_ns"]).all()
    assert summary["frames"] == len(log.kind)
    assert summary["epochs"] == 1
    assert 0 < summary["lock_s"] < 1
    assert 20 < summary["u_p50_us"] <= summary["u_p99_us"]
    assert summary["rejects"] == 0
    assert "error_p99_us" not in summary


def test_is_causal(log, tmp_path):
    np.savez(tmp_path / "log.npz", **without_truth(log))
    cut = int(np.searchsorted(log.arrival_ns, log.arrival_ns[len(log.kind) // 2]))
    np.savez(tmp_path / "half.npz", **{name: values[:cut] for name, values in without_truth(log).items()})
    for name in ("log", "half"):
        assert run("clock", "replay", tmp_path / f"{name}.npz", "--out", tmp_path / f"{name}-out.npz") == 0
    with np.load(tmp_path / "log-out.npz") as whole, np.load(tmp_path / "half-out.npz") as half:
        for name in half.files:
            assert np.array_equal(whole[name][: len(half[name])], half[name])


def test_says_how_far_from_the_truth(log, tmp_path, capsys):
    log.save(tmp_path / "log.npz")
    assert run("clock", "replay", tmp_path / "log.npz") == 0
    assert "inside the bound 100.0000%" in capsys.readouterr().out


def broken(log, name, value):
    arrays = without_truth(log)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    return arrays


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("seq", lambda a: None, "no array 'seq'"),
        ("t2_us", lambda a: a[:-1], "'t2_us'"),
        ("boot", lambda a: a.astype(float), "not whole numbers"),
        ("arrival_ns", lambda a: a.reshape(1, -1), "2 dimensions"),
        ("has_prev", lambda a: a.astype(np.int64) - 3, "does not fit"),
        ("kind", lambda a: a + 7, "holds 8"),
        ("t_us", lambda a: np.array([None] * len(a)), "plain arrays"),
    ],
)
def test_a_wrong_array_gets_one_clear_error(log, tmp_path, name, change, says):
    arrays = broken(log, name, change(without_truth(log)[name]))
    np.savez(tmp_path / "log.npz", **arrays)
    with pytest.raises(UsageError, match=says) as error:
        run("clock", "replay", tmp_path / "log.npz")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_log_gets_one_clear_error(tmp_path):
    (tmp_path / "text.npz").write_text("not an npz")
    np.save(tmp_path / "single.npy", np.arange(3))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04" + bytes(50))
    for name in ("text.npz", "single.npy", "cut.npz", "absent.npz"):
        with pytest.raises(UsageError, match=name):
            run("clock", "replay", tmp_path / name)


def test_an_empty_log_and_one_without_samples_are_fine(log, tmp_path, capsys):
    for part in (slice(0, 0), log.kind == 1):
        np.savez(tmp_path / "log.npz", **{name: values[part] for name, values in without_truth(log).items()})
        assert run("clock", "replay", tmp_path / "log.npz", "--json") == 0
        assert json.loads(capsys.readouterr().out)["sample_frames"] == 0
        assert run("clock", "replay", tmp_path / "log.npz") == 0
        capsys.readouterr()


@pytest.mark.parametrize("seed", range(6))
def test_any_bytes_are_survived(seed, tmp_path):
    rng = np.random.default_rng(seed)
    n = 3000
    limits = {"u1": 256, "u4": 1 << 32, "i8": 1 << 62}
    names = (
        "kind",
        "has_prev",
        "seq",
        "t_us",
        "prev_tx_done_us",
        "t2_us",
        "boot",
        "arrival_ns",
        "ping_sent_ns",
    )
    types = dict(zip(names, ["u1"] * 2 + ["u4"] * 5 + ["i8"] * 2, strict=True))
    arrays = {name: rng.integers(0, limits[t], n).astype(t) for name, t in types.items()}
    arrays["kind"] %= 2
    if seed % 2:
        arrays["arrival_ns"] = np.sort(arrays["arrival_ns"] % 10**13)
        arrays["boot"] %= 2
    np.savez(tmp_path / "log.npz", **arrays)
    assert run("clock", "replay", tmp_path / "log.npz", "--out", tmp_path / "out.npz") == 0
    with np.load(tmp_path / "out.npz") as out:
        assert (out["u_ns"] > 0).all()


def test_frame_bytes_lead_to_the_same_times(log):
    rows = rows_from_arrays(log.arrays())[:4000]
    part = LinkLog(**{name: values[:4000] for name, values in log.arrays().items()})
    direct, through = replay(rows, DeviceClock()), replay_bytes(part, DeviceClock(seed=1))
    for name in ("t_ns", "u_ns", "epoch", "locked", "arrival_ns"):
        assert np.array_equal(getattr(direct, name), getattr(through, name)), name
    assert through.clock.quality().rejected_unknown == 0


def test_the_ping_book_refuses_repeated_pongs_of_the_line():
    dirty = simulate(SCENARIOS["losses"], seed=12, seconds=15)
    result = replay_bytes(dirty, DeviceClock(seed=1))
    quality = result.clock.quality()
    assert quality.rejected_duplicate > 0
    assert quality.restarts == 0
    error = np.abs(result.t_ns - dirty.truth_ns[dirty.kind == 0])
    assert (error <= result.u_ns).mean() >= 0.999


def test_simulates_and_judges(tmp_path, capsys):
    assert run("sim", "clock", "--seed", "3", "--seconds", "20", "--scenario", "everything", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["inside_bound"] >= 0.999
    assert run("sim", "clock", "--seed", "3", "--seconds", "20", "--scenario", "everything", "--json") == 0
    assert json.loads(capsys.readouterr().out) == first
    with pytest.raises(UsageError, match="usb-1ms"):
        run("sim", "clock", "--scenario", "usb1ms")
    assert run("sim", "clock", "--list") == 0
    assert "temperature" in capsys.readouterr().out


def test_shows_what_a_slewed_and_a_stepped_host_clock_cost(capsys):
    found = {}
    for stamps in ("raw", "monotonic", "realtime"):
        code = run("sim", "clock", "--seed", "9", "--seconds", "300", "--stamp-with", stamps, "--json")
        found[stamps] = json.loads(capsys.readouterr().out)
        assert (code == 0) == (found[stamps]["inside_bound"] >= 0.999)
    assert found["raw"]["inside_bound"] == 1.0
    assert found["raw"]["error_p99_us"] * 5 < found["monotonic"]["error_p99_us"]
    assert found["realtime"]["epochs"] > found["raw"]["epochs"] == 1
