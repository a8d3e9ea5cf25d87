"""The local store: idempotent, conflicts kept, several workers, readers beside writers, kills."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgecap.errors import SessionError, StoreError
from edgecap.ingest.completeness import verify_session
from edgecap.ingest.local_store import LocalStore
from edgecap.ingest.session_log import HashTable
from edgecap.ingest.store import SessionKey, Store, open_store
from tests.chunks import BOOT, SessionMaker
from tests.fault.disk import PowerCut, SimDisk

KEY = SessionKey("site-a", "rig-01", "20260102-030405-abcd")


def test_append_is_idempotent_and_survives_reopening(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=20)
    shuffled = random.Random(1).sample(chunks, len(chunks))
    with LocalStore.open(tmp_path / "store", create=True, segment_bytes=10_000) as store:
        assert isinstance(store, Store)
        assert store.append(shuffled[:30]) == ["stored"] * 30
        store.commit()
        assert store.append(shuffled[:40]) == ["duplicate"] * 30 + ["stored"] * 10
    with LocalStore.open(tmp_path / "store", segment_bytes=10_000) as store:
        assert store.append(shuffled) == ["duplicate"] * 40 + ["stored"] * (len(chunks) - 40)
        store.commit()
        assert store.sessions() == [KEY]
        assert len(list((tmp_path / "store").rglob("*.seg"))) > 3
        for stream in ("session", "left-imu", "head-cam"):
            assert [c.packed for c in store.chunks(KEY, stream)] == [
                c.packed for c in chunks if c.header.stream == stream
            ]
        assert len(list(store.chunks(KEY))) == len(chunks)
        assert verify_session(store, KEY).complete


def test_readers_see_what_is_being_written(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=2)
    with open_store(str(tmp_path), create=True) as store, open_store(str(tmp_path)) as reader:  # type: ignore[attr-defined]
        for number, chunk in enumerate(chunks, 1):
            store.append([chunk])
            assert len(list(reader.chunks(KEY))) == number
    assert not (tmp_path / ".workers" / "w02.lock").exists(), "a reader takes no worker name"


def test_workers_write_beside_each_other(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=10)
    with (
        LocalStore.open(tmp_path, create=True) as one,
        LocalStore.open(tmp_path) as two,
        LocalStore.open(tmp_path, worker="w01") as same,
    ):
        one.append(chunks[::2])
        two.append(chunks[::3])
        two.append(chunks[1::2])
        assert (one.worker, two.worker) == ("w01", "w02")
        with pytest.raises(StoreError, match="worker name w01 .* is in use"):
            same.append(chunks)
        assert [c.id for c in one.chunks(KEY)] == [c.id for c in two.chunks(KEY)]
        report = verify_session(one, KEY)
        assert (report.complete, report.chunks) == (True, len(chunks))


def test_a_conflict_is_kept_beside_and_the_chain_decides(tmp_path: Path) -> None:
    """Whoever came first: the chunk that the following ones build on counts."""
    chunks = SessionMaker().whole(rounds=4)
    forged = SessionMaker(seed=99)
    forged.chain, forged.t_ns = SessionMaker().chain, 0
    fakes = [
        c
        for c in forged.whole(rounds=4)
        if (c.header.stream, c.header.seq) in {("left-imu", 1), ("left-imu", 3)}
    ]
    for order in (chunks + fakes, fakes + chunks):
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        with LocalStore.open(path, create=True) as store:
            outcomes = store.append(order)
            assert outcomes.count("conflict") == 2
            assert store.append(order) == ["conflict" if o == "conflict" else "duplicate" for o in outcomes]
        with LocalStore.open(path) as store:
            assert store.append(order) == ["conflict" if o == "conflict" else "duplicate" for o in outcomes]
            assert [c.packed for c in store.chunks(KEY)] == [
                c.packed
                for c in sorted(
                    chunks,
                    key=lambda c: (["session", "head-cam", "left-imu"].index(c.header.stream), c.header.seq),
                )
            ]
            report = verify_session(store, KEY)
            assert report.complete
            assert len([n for n in report.notes if "different chunks came" in n]) == 2
        assert len(list(path.rglob("conflict-*.seg"))) == 1


def test_a_session_id_used_again_by_another_boot_is_kept_apart(tmp_path: Path) -> None:
    first = SessionMaker().whole(rounds=3)
    second = SessionMaker(boot="other-boot", seed=7).whole(rounds=2)
    with LocalStore.open(tmp_path, create=True) as store:
        assert set(store.append([*first, *second])) == {"stored"}
        report = verify_session(store, KEY)
        assert (report.complete, report.boot, report.chunks) == (True, BOOT, len(first))
        assert any("kernel boot other-boot" in n for n in report.notes)


def test_idle_sessions_let_go_of_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sessions there have been, only those still written to hold a file open."""
    recordings = [SessionMaker(rig=f"rig-{n:02d}", seed=n).whole(rounds=1) for n in range(20)]
    fds = Path("/proc/self/fd")
    with LocalStore.open(tmp_path, create=True) as store:
        store.commit()
        before = len(list(fds.iterdir()))
        store.append([c for chunks in recordings for c in chunks[:-1]])
        store.commit()
        assert len(list(fds.iterdir())) == before + 20 + 1  # and the worker's lock
        monkeypatch.setattr("edgecap.ingest.local_store.IDLE_S", -1.0)
        for _ in range(3):
            store.commit()
        assert len(list(fds.iterdir())) == before + 1
        # What comes later finds what is there, and goes on beside it.
        assert store.append(recordings[7]) == ["duplicate"] * (len(recordings[7]) - 1) + ["stored"]
        store.commit()
        key = KEY._replace(rig="rig-07")
        assert verify_session(store, key).complete
        assert len(list(tmp_path.joinpath(*key).glob("*.seg"))) == 2


def test_many_sessions_in_one_commit(tmp_path: Path) -> None:
    """Syncs run side by side; one that fails costs only its own session."""
    recordings = [SessionMaker(rig=f"rig-{n:02d}", seed=n).whole(rounds=1) for n in range(20)]
    disk = SimDisk(tmp_path)
    store = LocalStore.open(Path("/disk/store"), create=True, files=disk)
    store.append([c for chunks in recordings for c in chunks])
    bad = disk.count + 7
    disk.fail = lambda n, name: "EIO" if n == bad and name.startswith("sync ") else ""
    with pytest.raises(StoreError, match="cannot be synced"):
        store.commit()
    outcomes = store.append([c for chunks in recordings for c in chunks])
    assert outcomes.count("stored") == len(recordings[0])
    store.commit()
    disk.crash()
    again = LocalStore.open(Path("/disk/store"), create=True, files=disk)
    assert [verify_session(again, key).complete for key in again.sessions()] == [True] * 20
    again.close()


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no kind of store called gs"):
        open_store("gs://bucket/prefix")
    with pytest.raises(StoreError, match="does not exist"):
        open_store(str(tmp_path / "nothing"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(str(tmp_path / "file" / "store"), create=True)
    store = open_store(f"file://{tmp_path}")
    with pytest.raises(SessionError, match="holds no session"):
        list(store.chunks(KEY))


def test_hash_table_with_wild_numbers() -> None:
    table = HashTable()
    numbers = [0, 1, 5, 4000, 70_000, 1 << 62, (1 << 64) - 1, 4096, 8191]
    for n in numbers:
        assert table.get(n) is None
        table.put(n, n.to_bytes(8, "big") + b"\x01" * 24)
    for n in numbers:
        assert table.get(n) == n.to_bytes(8, "big") + b"\x01" * 8
    assert table.get(2) is None


def test_power_cut_at_every_operation_keeps_what_was_committed(tmp_path: Path) -> None:
    chunks = SessionMaker().whole(rounds=4)
    root = Path("/disk/store")

    def story(disk: SimDisk, committed: list[bytes]) -> None:
        store = LocalStore.open(root, create=True, files=disk, segment_bytes=5000)
        for start in range(0, len(chunks), 3):
            store.append(chunks[start : start + 3])
            store.commit()
            committed[:] = [c.packed for c in chunks[: start + 3]]
        store.close()

    dry = SimDisk(tmp_path)
    story(dry, [])
    assert dry.count > 20
    for number in range(1, dry.count + 1):
        for seed in range(2):
            disk = SimDisk(tmp_path, lambda n, _, number=number: "cut" if n == number else "", seed)
            committed: list[bytes] = []
            with pytest.raises(PowerCut):
                story(disk, committed)
            disk.crash()
            again = LocalStore.open(root, create=True, files=disk, segment_bytes=5000)
            found = {c.packed for key in again.sessions() for c in again.chunks(key)}
            assert found >= set(committed), f"operation {number} ({dry.log[number - 1]}), seed {seed}"
            again.append(chunks)
            again.commit()
            assert verify_session(again, KEY).complete
            again.close()


def test_a_failed_sync_is_not_receipted_later(tmp_path: Path) -> None:
    """What a failed sync left in the page cache must come again, not count as a duplicate."""
    chunks = SessionMaker().whole(rounds=1)
    disk = SimDisk(tmp_path)
    store = LocalStore.open(Path("/disk/store"), create=True, files=disk)
    store.append(chunks[:2])
    store.commit()
    store.append(chunks[2:4])
    disk.fail = lambda n, name: "EIO" if name.startswith("sync ") else ""
    with pytest.raises(StoreError, match="cannot be synced"):
        store.commit()
    disk.fail = lambda n, name: ""
    assert store.append(chunks) == ["duplicate"] * 2 + ["stored"] * (len(chunks) - 2)
    store.commit()
    disk.crash()
    again = LocalStore.open(Path("/disk/store"), files=disk, create=True)
    assert verify_session(again, KEY).complete
    again.close()


STORING = """
import sys
from pathlib import Path
from edgecap.ingest.local_store import LocalStore
from tests.chunks import SessionMaker
store = LocalStore.open(Path(sys.argv[1]), create=True, worker="w01", segment_bytes=200_000)
chunks = SessionMaker().whole(rounds=2000, n_bytes=500)
for start in range(0, len(chunks), 5):
    store.append(chunks[start : start + 5])
    store.commit()
    print(start + 5, flush=True)
"""


def test_kill_9_keeps_what_was_committed(tmp_path: Path) -> None:
    for lines_wanted in (3, 40, 90):
        process = subprocess.Popen(
            [sys.executable, "-c", STORING, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(lines_wanted)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        committed = int([line for line in lines if line.endswith("\n")][-1])
        with open_store(str(tmp_path / "store")) as store:  # type: ignore[attr-defined]
            assert len(list(store.chunks(KEY))) >= committed
            report = verify_session(store, KEY)
            assert report.problems == ["no close record: the session is still open or was cut off"] or all(
                "damaged" not in p for p in report.problems
            )
