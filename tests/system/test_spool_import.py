"""A rig that never sees a network: its card goes to the dock, the receipts come back with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecap.cli.main import main
from edgecap.codec.chunk import Chunk
from edgecap.daemon.pulse import Pulse
from edgecap.daemon.recovery import close_interrupted
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.local_store import LocalStore
from edgecap.ingest.store import SessionKey
from edgecap.spool import Spool
from edgecap.spool.handover import apply_receipts
from tests.chunks import SessionMaker
from tests.system.object_server import BUCKET, ObjectServer, use

WHOLE, CUT = "20260102-030405-abcd", "20260102-040506-efgh"


def record(path: Path) -> tuple[list[Chunk], list[Chunk]]:
    """A spool with a whole session and one in which the power went."""
    whole, cut = SessionMaker(WHOLE).whole(rounds=30), SessionMaker(CUT, seed=1).whole(rounds=10)[:-1]
    with Spool.open(path, reserve_bytes=0, segment_bytes=30_000) as spool:
        for chunk in whole + cut:
            spool.append(chunk)
    return whole, cut


def tear(path: Path) -> None:
    """What a cut of power leaves: no index, and half a record at the end."""
    last = max(path.glob("*.seg"))
    data = last.read_bytes()
    index_at = int.from_bytes(data[-16:-8], "little")
    last.write_bytes(data[:index_at] + data[64:300])


def state_of(path: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(path.iterdir())
        if p.is_file() and not p.name.endswith(".receipts")
    }


def run_json(capsys: pytest.CaptureFixture[str], *args: str | Path, code: int = 0) -> dict[str, object]:
    capsys.readouterr()
    assert main([str(a) for a in (*args, "--json")]) == code
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def report_on(store: Path, session: str) -> tuple[bool, str, list[str]]:
    with LocalStore.open(store) as opened:
        report = verify_session(opened, SessionKey("site-a", "rig-01", session))
        return report.complete, report.outcome, report.problems


def test_the_whole_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card, store = tmp_path / "card", tmp_path / "store"
    whole, cut = record(card)
    tear(card)
    before = state_of(card)

    survey = run_json(capsys, "spool", "ls", card)
    assert (survey["unsent_chunks"], survey["problems"]) == (len(whole) + len(cut), [])
    assert survey["torn_bytes"] == 236

    first = run_json(capsys, "spool", "import", card, "--store", store)
    assert (first["stored"], first["duplicates"], first["problems"]) == (len(whole) + len(cut), 0, [])
    assert first["receipts"] == str(card / "handover.receipts")
    assert [(s["session"], s["state"]) for s in first["sessions"]] == [(WHOLE, "complete"), (CUT, "open")]  # type: ignore[attr-defined]
    again = run_json(capsys, "spool", "import", card, "--store", store)
    assert (again["stored"], again["duplicates"]) == (0, len(whole) + len(cut))
    assert state_of(card) == before, "nothing on the card has changed"
    assert len(first["kept"]) == 1  # type: ignore[arg-type]
    assert report_on(store, WHOLE) == (True, "complete", [])
    assert report_on(store, CUT)[:2] == (False, "open")

    # Back in the rig: what a daemon does on start.
    with Spool.open(card, reserve_bytes=0) as spool:
        assert close_interrupted(spool, Pulse(spool.path)) == [CUT]
        assert apply_receipts(spool) == len(whole) + len(cut)
        assert not (card / "handover.receipts").exists()
        (left,) = spool.pending(10)
        assert (left.id.session, left.id.stream) == (CUT, "session")
        third = SessionMaker("20260103-000000-zzzz", seed=2).whole()
        for chunk in third:
            spool.append(chunk)
    assert len(list(card.glob("*.seg"))) == 1, "the delivered segments are gone"

    last = run_json(capsys, "spool", "import", card, "--store", store)
    assert last["stored"] == 1 + len(third)
    assert report_on(store, CUT) == (True, "interrupted", [])
    assert report_on(store, "20260103-000000-zzzz") == (True, "complete", [])
    with Spool.open(card, reserve_bytes=0) as spool:
        assert apply_receipts(spool) == 1 + len(third)
        assert spool.stats().chunks == 0
    assert not list(card.glob("*.seg"))


def test_the_daemon_takes_receipts_on_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "spool"
    record(card)
    assert main(["spool", "import", str(card), "--store", str(tmp_path / "store")]) == 0
    config = tmp_path / "rig.toml"
    config.write_text(
        'site = "site-a"\nrig = "rig-01"\n[session]\ntask = "t"\noperator = "o"\nconsent = "c"\n'
        f'[spool]\ndir = "{card}"\nreserve_mb = 1\n[[serial]]\nname = "glove"\nport = "/dev/not-there"\n'
    )
    command = [sys.executable, "-m", "edgecap", "run", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        said = []
        for line in daemon.stderr:
            said.append(line)
            if "cannot open /dev/not-there" in line:  # waits for its port; what the start does is done
                daemon.terminate()
        assert daemon.wait() == 0, said
    assert not list(card.glob("*.receipts"))
    survey = run_json(capsys, "spool", "ls", card)
    assert survey["unsent_chunks"] == 1, "the record that closed the cut-off session"


def test_damage_is_told_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card, store = tmp_path / "card", tmp_path / "store"
    whole, cut = record(card)
    segment = card / "00000001.seg"
    data = bytearray(segment.read_bytes())
    data[5000:5010] = b"\xff" * 10
    segment.write_bytes(data)
    report = run_json(capsys, "spool", "import", card, "--store", store, code=1)
    lost = len(whole) + len(cut) - int(str(report["stored"]))
    assert 1 <= lost <= 2
    assert report["receipted"] == report["stored"]
    assert any("are damaged" in p for p in report["problems"])  # type: ignore[attr-defined]
    (kept,) = report["kept"]  # type: ignore[misc]
    assert b"\xff" * 10 in Path(str(kept)).read_bytes()
    assert Path(str(kept)).is_relative_to(store / ".refused")
    assert "00000001.seg@" in Path(str(kept)).with_suffix(".json").read_text()
    with Spool.open(card, reserve_bytes=0) as spool:
        close_interrupted(spool, Pulse(spool.path))
        assert apply_receipts(spool) == report["stored"]
        assert {e.id.stream for e in spool.pending(10)} == {"session"}, "the damaged chunk was set aside"
    assert len(list(card.glob("*.seg"))) == 1
    assert main(["spool", "import", str(card), "--store", str(store)]) == 0
    assert main(["sessions", "verify", str(store), WHOLE]) == 1


def test_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "card"
    record(card / "var/lib/edgecap/spool")
    assert main(["spool", "ls", str(card)]) == 0
    out = capsys.readouterr().out
    assert "cut off" in out
    assert "nothing amiss" in out
    elsewhere = tmp_path / "rig-01.receipts"
    args = ["spool", "import", str(card), "--store", str(tmp_path / "store"), "--receipts", str(elsewhere)]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "1 session was cut off" in out
    assert "put this file into the spool's directory" in out
    shutil.copy(elsewhere, card / "var/lib/edgecap/spool")
    with Spool.open(card / "var/lib/edgecap/spool", reserve_bytes=0) as spool:
        assert apply_receipts(spool) > 0
        assert not spool.pending(10)
    for wrong, code in ((tmp_path / "nowhere", 1), (tmp_path / "store", 1)):
        assert main(["spool", "ls", str(wrong)]) == code
        assert "edgecap: " in capsys.readouterr().err


@contextlib.contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    found = subprocess.run(
        ["losetup", "--show", "--read-only", "-f", image], capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip(f"no loop device: {found.stderr.strip()}")
    device = Path(found.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="needs root to mount a real file system"
)
def test_a_device_is_mounted_read_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    whole, cut = record(root / "var/lib/edgecap/spool")
    image = tmp_path / "card.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-d", root, image], check=True)
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    monkeypatch.chdir(tmp_path)
    with loop_device(image) as device:
        survey = run_json(capsys, "spool", "ls", device)
        assert survey["unsent_chunks"] == len(whole) + len(cut)
        report = run_json(capsys, "spool", "import", device, "--store", tmp_path / "store")
        assert (report["stored"], report["problems"]) == (len(whole) + len(cut), [])
        receipts = Path(str(report["receipts"]))
        assert receipts.parent == tmp_path
        assert receipts.name.startswith("rig-01-")
        mount = tmp_path / "a mount ü"
        mount.mkdir()
        subprocess.run(["mount", "-o", "ro", device, mount], check=True)
        try:
            known = run_json(capsys, "spool", "import", mount, "--store", tmp_path / "store")
            assert known["duplicates"] == len(whole) + len(cut), "a directory that is mounted read-only"
            known = run_json(capsys, "spool", "import", device, "--store", tmp_path / "store")
            assert known["spool"] == str(mount / "var/lib/edgecap/spool"), "a device is read where it is"
        finally:
            subprocess.run(["umount", mount], check=True)
    known = run_json(capsys, "spool", "import", image, "--store", tmp_path / "store")
    assert known["duplicates"] == len(whole) + len(cut), "an image of the card"
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before, "not a byte of the card has changed"
    shutil.copy(receipts, root / "var/lib/edgecap/spool")
    with Spool.open(root / "var/lib/edgecap/spool", reserve_bytes=0) as spool:
        assert apply_receipts(spool) == len(whole) + len(cut)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make loop devices")
def test_a_device_without_a_file_system(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "empty.img"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    with loop_device(image) as device:
        assert main(["spool", "ls", str(device)]) == 1
        assert f"{device} cannot be mounted" in capsys.readouterr().err
    assert main(["spool", "ls", str(image)]) == 1
    assert "an image of a whole card has partitions" in capsys.readouterr().err


def test_into_a_bucket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = record(tmp_path / "card")
    with ObjectServer(tmp_path) as server:
        use(monkeypatch, server.environ())
        url = f"s3://{BUCKET}/dock"
        report = run_json(capsys, "spool", "import", tmp_path / "card", "--store", url)
        assert (report["receipted"], report["problems"]) == (len(whole) + len(cut), [])
        objects = [name for name in server.names() if name.endswith(".seg")]
        assert objects
        run_json(capsys, "spool", "import", tmp_path / "card", "--store", url)
        assert [name for name in server.names() if name.endswith(".seg")] == objects, "nothing twice"
        ledger = run_json(capsys, "sessions", "ledger", url)
        total = ledger["total"]
        assert (total["sessions"], total["not_whole"]) == (2, 1)  # type: ignore[index]
        assert total["captured_ns"] == total["delivered_ns"] > 0  # type: ignore[index]
        assert main(["sessions", "verify", url, WHOLE]) == 0
