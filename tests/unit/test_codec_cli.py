"""`edgecap codec` measures what it is given and refuses the rest in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgecap.cli.main import main

KEYS = {"file", "level", "seconds", "raw_bytes", "bytes", "ratio", "encode_mb_s", "decode_mb_s", "lossless"}


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", ">i2"])
@pytest.mark.parametrize("shape", [(500,), (500, 3)])
def test_every_type_and_shape(tmp_path, capsys, dtype, shape):
    walk = np.cumsum(np.random.default_rng(1).integers(-9, 9, shape), axis=0) + 5000
    np.save(tmp_path / "walk.npy", walk.astype(dtype))
    code = main(["codec", str(tmp_path / "walk.npy"), "--rate", "100", "--level", "stream", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert code == 0
    assert set(result) == KEYS
    assert result["lossless"] is True
    assert result["ratio"] > 1.5


def test_all_levels_by_default(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.arange(3000, dtype="<i2").reshape(-1, 3))
    assert main(["codec", str(tmp_path / "a.npy"), "--json"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["level"] for line in captured.out.splitlines()] == ["fast", "max", "stream"]
    assert "1000 Hz" in captured.err


def test_a_table_with_the_installed_peers(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.cumsum(np.ones((900, 2)), axis=0).astype("<i2"))
    assert main(["codec", str(tmp_path / "a.npy"), "--rate", "300"]) == 0
    out = capsys.readouterr().out
    assert "edgecap stream" in out
    assert "NO" not in out


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 5, 5), "<i2"), "shape"),
        (np.zeros((0, 3), "<i2"), "shape"),
        (np.zeros(9), "float64"),
        (np.array([{"a": 1}]), "Python objects"),
    ],
)
def test_other_arrays_get_one_line(tmp_path, capsys, array, message):
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    assert main(["codec", str(tmp_path / "bad.npy"), "--rate", "100", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert "bad.npy" in line
    assert message in line


def test_missing_and_broken_files_get_one_line_each(tmp_path, capsys):
    (tmp_path / "text.npy").write_text("not an array")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "good.npy", np.arange(100, dtype="<i2"))
    names = ["none.npy", "text.npy", "empty.npy", "good.npy"]
    paths = [str(tmp_path / name) for name in names]
    assert main(["codec", *paths, "--rate", "100", "--level", "fast", "--json"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert len(captured.err.splitlines()) == 3


@pytest.mark.parametrize("option", [["--seconds", "0"], ["--rate", "-1"], ["--seconds", "nan"]])
def test_impossible_options_are_usage_errors(tmp_path, capsys, option):
    np.save(tmp_path / "a.npy", np.arange(100, dtype="<i2"))
    assert main(["codec", str(tmp_path / "a.npy"), *option]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
