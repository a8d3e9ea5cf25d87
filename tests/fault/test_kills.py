"""Daemon, broker and ingest are killed, links are cut: where is every sample? bench/soak.py is longer."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from edgecap.dataset.session import load_session
from edgecap.ingest.store import open_store
from edgecap.sim.firmware import read_truth
from edgecap.sim.partition import Cable
from edgecap.sim.upheaval import Plan, Upheaval
from edgecap.spool.files import OsFiles
from edgecap.spool.segment import Record, scan
from tests.conftest import do_without

pytestmark = pytest.mark.timeout(240)
SEED = 11


def test_kills_and_cuts_cost_no_more_than_the_stated_bound(tmp_path: Path) -> None:
    if not Cable.available():
        do_without("network partitions", "root, iproute2 and network namespaces")
    plan = Plan(
        seed=SEED,
        rigs=2,
        kills_daemon=6,
        kills_broker=3,
        kills_ingest=4,
        partitions=4 if Cable.available() else 0,
        session_s=2.0,
        calm_s=3.0,
    )
    print(plan)
    upheaval = Upheaval(plan, tmp_path, print)
    outcome = asyncio.run(upheaval.run())
    print(outcome)
    assert outcome.holds, "\n".join(outcome.violations)
    done = {kind: sum(n for name, n in outcome.faults.items() if name.startswith(kind)) for kind in KINDS}
    assert done == {
        "kill daemon": plan.kills_daemon,
        "kill broker": plan.kills_broker,
        "kill ingest": plan.kills_ingest,
        "partition": plan.partitions,
    }
    assert outcome.account.stored > 5000
    assert outcome.account.compared > 1000

    # The audit can fail. Of one rig's last session each segment loses all but its first record, which leaves
    # fewer chunks than it has streams: it is named. The other rig's is gone altogether: then only the boards
    # know of it, and each of them is named with the START that no session tells of.
    thinned, gone = (last_session(upheaval.store, rig) for rig in ("rig-01", "rig-02"))
    for path in thinned.glob("*.seg"):
        keep_first_record(path)
    shutil.rmtree(gone)
    found = upheaval.audit().violations
    rest = [line for line in found if thinned.name not in line]
    assert len(rest) < len(found), found
    thinned_starts, gone_starts = (
        {f"{board} was started at {last_start_ns(tmp_path / rig / f'truth-{board}.bin')}" for board in BOARDS}
        for rig in ("rig-01", "rig-02")
    )
    for start in gone_starts:
        assert any(line.startswith(f"rig-02: {start}, ") for line in rest), (start, found)
    # With its opening record a session takes the knowledge of its STARTs along; nothing else is missing.
    allowed = [f"rig-01: {s}, " for s in thinned_starts] + [f"rig-02: {s}, " for s in gone_starts]
    assert all(line.startswith(tuple(allowed)) for line in rest), found


def last_session(store: Path, rig: str) -> Path:
    """The directory of a rig's last session: it began after the last kill, and ended in peace."""
    opened = open_store(str(store))
    keys = [key for key in opened.sessions() if key.rig == rig]
    return store.joinpath(*max(keys, key=lambda key: load_session(opened, key).t0_ns))


def keep_first_record(path: Path) -> None:
    file = OsFiles().open(path, write=True)
    first = next(found for found in scan(file) if isinstance(found, Record))
    file.truncate(first.end)
    file.close()


def last_start_ns(truth: Path) -> int:
    """When a board obeyed its last START."""
    rows = read_truth(truth)
    return int(rows["raw_ns"][rows["run"] == rows["run"].max()].min())


BOARDS = ("glove", "hand")
KINDS = ("kill daemon", "kill broker", "kill ingest", "partition")
