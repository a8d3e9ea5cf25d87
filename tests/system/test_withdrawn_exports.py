"""Exports of withdrawn sessions: none is made, and those that were made before are found."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from edgecap.cli.main import main
from tests.command import run
from tests.system.synthetic import make_session
from tests.system.test_mcap_export import store_of


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings as every kind of dataset."""
    path = tmp_path_factory.mktemp("exported")
    made = [make_session(seconds=1), make_session(seconds=1, session="20261121-111111-aaaa")]
    store_of(path / "store", *made)
    names = [m.session for m in made]
    for format_ in ("mcap", "frames", "lerobot"):
        out = str(path / "out" / format_)
        assert main(["export", str(path / "store"), *names, "--to", format_, "--out", out]) == 0
    return path


def test_no_format_lets_a_withdrawn_session_out(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = str(shutil.copytree(exported / "store", tmp_path / "store")), tmp_path / "out"
    names = ["20261121-101500-k3fz", "20261121-111111-aaaa"]
    assert run(capsys, "sessions", "withdraw", store, "--session", names[0], "--why", "asked")[0] == 0
    for format_ in ("mcap", "frames", "lerobot"):
        argv = ["export", store, *names, "--to", format_, "--out", str(out), "--allow-incomplete"]
        code, lines, err = run(capsys, *argv)
        assert (code, lines, err.count("\n")) == (1, [], 1)
        assert f"session {names[0]} was withdrawn" in err
        assert names[1] not in err
        assert not out.exists(), "nothing is written, of the others neither"
    assert run(capsys, "export", store, names[1], "--to", "mcap", "--out", str(out))[0] == 0
    code, _, err = run(
        capsys, "calibrate", "imu", store, names[0], "--stream", "left-hand-imu", "--method", "rest"
    )
    assert (code, "was withdrawn" in err) == (1, True)


class Search(NamedTuple):
    """What `sessions withdrawn --dataset` found: its exit code, sessions by export, what cannot be told."""

    code: int
    held: dict[str, set[str]]
    unreadable: list[str]


def find_exports(capsys: pytest.CaptureFixture[str], store: str, out: Path) -> Search:
    code, lines, _ = run(capsys, "sessions", "withdrawn", store, "--dataset", str(out), "--json")
    found = json.loads(lines[0])["search"]
    held: dict[str, set[str]] = {}
    for h in found["held"]:
        held.setdefault(str(Path(h["path"]).relative_to(out)), set()).add(h["session"])
    return Search(code, held, found["unreadable"])


CLEAN = Search(0, {}, [])


def test_exports_that_hold_withdrawn_sessions_are_found(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what they tell of themselves, in whichever store the consent was withdrawn."""
    gone, other = "20261121-101500-k3fz", "20261121-111111-aaaa"
    out = shutil.copytree(exported / "out", tmp_path / "out")
    (out / "mcap" / f"{gone}.png").write_bytes(b"a picture")
    (out / "notes.parquet").write_bytes(b"no table")
    (out / "mine.txt").write_text("no export")
    store = str(shutil.copytree(exported / "store", tmp_path / "store"))
    empty = str(tmp_path / "another")
    (tmp_path / "another").mkdir()

    code, held, unreadable = find_exports(capsys, store, out)
    assert (code, held) == (1, {})
    assert len(unreadable) == 1
    assert "notes.parquet" in unreadable[0]
    (out / "notes.parquet").unlink()
    assert find_exports(capsys, store, out) == CLEAN

    assert run(capsys, "sessions", "withdraw", store, "--session", gone, "--why", "asked")[0] == 0
    files = {f"mcap/{gone}.mcap", f"mcap/{gone}.png", f"frames/{gone}.head-camera.mp4"}
    files |= {f"frames/{gone}.head-camera.parquet"}
    code, held, unreadable = find_exports(capsys, store, out)
    assert (code, held, unreadable) == (1, {name: {gone} for name in (*files, "lerobot")}, [])
    code, lines, _ = run(capsys, "sessions", "withdrawn", store, "--dataset", str(out))
    assert (code, len([line for line in lines if f" holds {gone}" in line and ": withdrawn 20" in line])) == (
        1,
        5,
    )
    assert any(line.startswith(f"{out / 'lerobot'} holds {gone} (episode 0): ") for line in lines)
    assert "5 still hold withdrawn sessions, 0 cannot be told" in lines[-1]

    # By the consent, of which this other store knows no session; videos and pictures tell nothing of it.
    assert run(capsys, "sessions", "withdraw", empty, "--consent", "c-2026-031", "--why", "asked")[0] == 0
    told_by_head = {f"mcap/{s}.mcap" for s in (gone, other)}
    told_by_head |= {f"frames/{s}.head-camera.parquet" for s in (gone, other)}
    code, held, _ = find_exports(capsys, empty, out)
    assert code == 1
    assert set(held) == {*told_by_head, "lerobot"}
    assert held["lerobot"] == {gone, other}

    # A dataset that cannot tell any more, and a native table taken out of it.
    (out / "lerobot" / "meta" / "edgecap.json").unlink()
    shutil.copy(next((out / "lerobot" / "native" / gone).iterdir()), out / "loose.parquet")
    code, held, unreadable = find_exports(capsys, empty, out)
    assert held["loose.parquet"] == {gone}
    assert any(line.endswith("info.json: edgecap.json beside it is gone") for line in unreadable)


def test_what_is_no_export_is_passed_over_and_what_cannot_tell_is_named(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, other = "20261121-101500-k3fz", "20261121-111111-aaaa"
    store = str(shutil.copytree(exported / "store", tmp_path / "store"))
    assert run(capsys, "sessions", "withdraw", store, "--session", gone, "--why", "asked")[0] == 0
    out = tmp_path / "out"
    shutil.copytree(exported / "out" / "mcap", out / "mcap", ignore=shutil.ignore_patterns(f"*{gone}*"))
    assert find_exports(capsys, store, out) == CLEAN
    (out / "mcap" / f"{other}.mcap").write_bytes(b"cut")
    assert find_exports(capsys, store, out)[0] == 1
    (out / "mcap" / f"{other}.mcap").unlink()
    assert find_exports(capsys, store, out) == CLEAN
    os.mkfifo(out / "pipe.mcap")
    (out / "nowhere.mcap").symlink_to(out / "gone.mcap")
    (out / "caf\udce9.txt").write_text("a name that is no text")
    assert find_exports(capsys, store, out) == CLEAN
    (out / "link").symlink_to(exported)
    meta = out / "meta"
    meta.mkdir()
    told = ("3", "[[]]", '[{"session": 5}]', '[{"session": "\\ud800"}]', '[{"session": "a", "episodes": 1}]')
    for strange in ("[]", "7", *(f'{{"sessions": {one}}}' for one in told)):
        (meta / "edgecap.json").write_text(strange)
        code, held, unreadable = find_exports(capsys, store, out)
        assert (code, held, len(unreadable)) == (1, {}, 2), strange
    # What names no consent is known by the store's own record of the session.
    assert run(capsys, "sessions", "withdraw", store, "--worker", "p-014", "--why", "left")[0] == 0
    whose = {"site": "lab", "rig": "rig-07", "session": other}
    (meta / "edgecap.json").write_text(json.dumps({"sessions": [whose]}))
    assert find_exports(capsys, store, out)[1] == {".": {other}}
    assert any("is a link: search where it leads" in line for line in unreadable)
    code, _, err = run(capsys, "sessions", "withdrawn", store, "--dataset", str(tmp_path / "nowhere"))
    assert (code, "nowhere does not exist" in err) == (1, True)
