"""Files of arrays that people bring, whole and broken: arrays, or one sentence."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from edgecap.cli.codec import load
from edgecap.errors import UsageError
from edgecap.npz import read_npz


def test_arrays_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, t=np.arange(3), accel=np.ones((3, 3)))
    assert {n: a.shape for n, a in read_npz(path, fix="x").items()} == {"t": (3,), "accel": (3, 3)}
    assert list(read_npz(path, fix="x", names=("t", "gyro"))) == ["t"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"t,x,y,z\n1,2,3,4\n", "it is another kind of file"),
        (b"PK\x03\x04" + bytes(60), "it is damaged or cut short"),
        (np.arange(5), "it holds a single array"),
        ({"t": np.array([{}], object)}, "it holds Python objects"),
    ],
)
def test_what_it_is_instead(tmp_path: Path, content: object, says: str) -> None:
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        elif isinstance(content, dict):
            np.savez(file, **content)
        else:
            np.save(file, np.asarray(content))
    with pytest.raises(UsageError) as found:
        read_npz(path, fix="write it with numpy.savez")
    assert f"{path} is not an npz of plain arrays: {says}" in str(found.value)
    assert "pickle" not in str(found.value)


def test_damage_anywhere_is_one_sentence_or_harmless(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    path, single = tmp_path / "a.npz", tmp_path / "a.npy"
    np.savez_compressed(path, t=np.arange(50), accel=np.ones((50, 3)))
    np.save(single, np.arange(50, dtype=np.int16))
    whole, one = path.read_bytes(), single.read_bytes()
    for n in range(300):
        for file, data in ((path, bytearray(whole)), (single, bytearray(one))):
            if n % 2:
                del data[rng.randrange(len(data)) :]
            else:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(data)
        try:
            read_npz(path, fix="x")
        except UsageError as error:
            assert "\n" not in str(error)
        said = load(single)
        assert not isinstance(said, str) or ("\n" not in said and str(single) in said)
