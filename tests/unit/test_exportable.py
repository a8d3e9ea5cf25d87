"""Two exports at once never write one file; what a killed one left is nobody's."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgecap.dataset.exportable import one_writer, whole_file
from edgecap.dataset.lerobot_export import UNFINISHED, LerobotDataset
from edgecap.errors import ExportError

TAKEN = "another program is writing"


def test_a_file_has_one_writer_and_the_next_one_waits_for_its_end(tmp_path: Path) -> None:
    target = tmp_path / "out" / "a.mcap"
    with whole_file(target) as partial:
        partial.write_bytes(b"first")
        with pytest.raises(ExportError, match=TAKEN), whole_file(target):
            pytest.fail("two at once")
        assert partial.read_bytes() == b"first"
        with whole_file(target.with_name("b.mcap")) as other:
            other.write_bytes(b"beside")
    assert sorted(path.name for path in target.parent.iterdir()) == ["a.mcap", "b.mcap"]
    target.with_name(".a.mcap.part").write_bytes(b"of one that was killed, longer")
    with whole_file(target) as partial:
        partial.write_bytes(b"again")
    assert target.read_bytes() == b"again"
    with pytest.raises(RuntimeError), whole_file(target) as partial:
        raise RuntimeError
    assert sorted(path.name for path in target.parent.iterdir()) == ["a.mcap", "b.mcap"]


def test_whoever_comes_as_another_ends_takes_nothing_for_unfinished(tmp_path: Path) -> None:
    """Many at one file: each writes it whole or is told; no file is a mixture, none stays behind."""
    target, wrote = tmp_path / "a", []

    def write(number: int) -> None:
        for _ in range(50):
            try:
                with whole_file(target) as partial, partial.open("wb") as file:
                    for _ in range(20):
                        file.write(bytes([number]) * 100)
                        file.flush()
                wrote.append(number)
            except ExportError as error:
                assert TAKEN in str(error)
            if target.exists():
                data = target.read_bytes()
                assert len(data) == 2000
                assert len(set(data)) == 1

    found: list[threading.ExceptHookArgs] = []
    hook, threading.excepthook = threading.excepthook, found.append
    try:
        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = hook
    assert found == []
    assert wrote
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_dataset_has_one_writer(tmp_path: Path) -> None:
    root = tmp_path / "lids"
    with LerobotDataset(root):
        with pytest.raises(ExportError, match=f"{TAKEN} {root}"), LerobotDataset(root):
            pytest.fail("two at once")
        assert (root / UNFINISHED / "meta").is_dir()
    with LerobotDataset(root), pytest.raises(ExportError), one_writer(root, root):
        pytest.fail("two at once")
