"""Whether every kernel is cached, told without numba; and the process that compiles what is not."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecap.cli import kernel_cache
from edgecap.cli.kernel_cache import KERNELS, compile_beside, compile_missing, is_complete, mark_complete
from edgecap.kernels import compile as compiling
from edgecap.kernels.compile import WARM_UP_MODULES, warm_up


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Compiled kernels and their source, all of them there."""
    sources, folder = tmp_path / "kernels", tmp_path / "cache/kernels_1"
    sources.mkdir()
    folder.mkdir(parents=True)
    (sources / "align.py").write_text("a kernel\n")
    (folder / "align.fit-1.py311.nbi").write_text("index")
    (folder / "align.fit-1.py311.1.nbc").write_text("code")
    monkeypatch.setattr(kernel_cache, "KERNELS", sources)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    assert not is_complete()
    mark_complete(folder)
    assert is_complete()
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "align.fit-1.py311.1.nbc").unlink(),
        lambda folder: (folder / "align.fit-1.py311.1.nbc").write_text("cut"),
        lambda folder: (folder.parents[1] / "kernels/align.py").touch(),
        lambda folder: (folder.parents[1] / "kernels/columns.py").touch(),
        lambda folder: (folder / kernel_cache.STAMP).write_text(""),
        lambda folder: shutil.rmtree(folder.parent),
    ],
    ids=["kernel gone", "kernel cut", "source newer", "another source", "stamp cut", "cache gone"],
)
def test_any_change_is_seen(folder: Path, change: Callable[[Path], object]) -> None:
    change(folder)
    assert not is_complete()


def test_settings_of_the_compiler_and_its_version_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("NUMBA_OPT", "1")
        assert not is_complete()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version", "3.99")
        assert not is_complete()
    assert is_complete()


def test_where_nothing_can_be_kept_nobody_compiles_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o400)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(file / "below"))
    monkeypatch.setattr(sys, "executable", "/not/there")  # it would be told
    compile_missing()


def test_a_second_process_compiles_meanwhile_and_ends_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "COMPILER_BYTES", 0)
    with compile_beside("edgecap.kernels.resample") as process:
        if process is None:
            assert len(os.sched_getaffinity(0)) == 1
            return
        assert process.wait(120) == 0
    assert [p.suffix for p in sorted(tmp_path.glob("*/resample.ticks_to_rig*"))] == [".nbc", ".nbi"]
    with pytest.raises(KeyError), compile_beside("edgecap.kernels.columns") as process:
        raise KeyError
    assert process is not None
    assert process.returncode == -signal.SIGTERM
    monkeypatch.setattr(kernel_cache, "COMPILER_BYTES", 1 << 60)
    with compile_beside("edgecap.kernels.columns") as process:
        assert process is None


def test_a_start_looks_once_in_a_process_of_its_own_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(warm_up())
    # numba's own name for the folder: systemd/install.sh relies on it, too
    folder = tmp_path / f"kernels_{hashlib.sha1(str(KERNELS).encode()).hexdigest()}"
    kept = os.environ.get("NUMBA_CACHE_DIR")
    here = Path(kept) / folder.name if kept else KERNELS / "__pycache__"
    shutil.copytree(here, folder, ignore=shutil.ignore_patterns("*.pyc", "complete*"))
    compiled = sorted(p.name for p in folder.iterdir())
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        compile_missing()
        sock.setblocking(False)
        told = [sock.recv(4096).decode() for _ in range(len(WARM_UP_MODULES))]
        assert all(t.startswith("STATUS=loading kernels, compiling what is new: [") for t in told)
        assert is_complete()
        compile_missing()  # nothing to do, nothing to tell
        with pytest.raises(BlockingIOError):
            sock.recv(4096)
    assert sorted(p.name for p in folder.iterdir() if p.suffix) == compiled  # none was compiled anew


def test_a_part_that_is_edited_is_not_used_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, cache = tmp_path / "sources", tmp_path / "cache"
    sources.mkdir()
    head = "from edgecap.kernels.compile import kernel, part\n"
    (sources / "kernel_of_test.py").write_text(
        f"{head}from part_of_test import step\n@kernel\ndef twice(x):\n    return step(step(x))\n"
    )
    monkeypatch.syspath_prepend(sources)
    monkeypatch.setattr(compiling, "_kernels", [])
    monkeypatch.setattr("numba.config.CACHE_DIR", str(cache))
    for step, expected, compiled in ((1, 2, 1), (1, 2, 0), (9, 18, 1)):
        (sources / "part_of_test.py").write_text(f"{head}@part\ndef step(x):\n    return x + {step}\n")
        monkeypatch.setattr(compiling, "_SOURCES", compiling.digest_of(sources))
        for name in ("kernel_of_test", "part_of_test"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        assert importlib.import_module("kernel_of_test").twice(0) == expected
        assert compiling.cache_state().compiled == compiled
        compiling._kernels.clear()
