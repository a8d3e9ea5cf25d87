"""Daemon, broker and ingest are killed, links are cut: where is every sample? bench/soak.py is longer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgecap.ingest.store import open_store
from edgecap.sim.partition import Cable
from edgecap.sim.upheaval import Plan, Upheaval

pytestmark = pytest.mark.timeout(240)
SEED = 11


def test_kills_and_cuts_cost_no_more_than_the_stated_bound(tmp_path: Path) -> None:
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

    # The audit can fail: without one of the store's segments it names what is gone.
    victim = max((tmp_path / "store").rglob("*.seg"), key=lambda path: path.stat().st_size)
    session = victim.parent.name
    victim.unlink()
    assert any(key.session for key in open_store(str(upheaval.store)).sessions())
    found = upheaval.audit().violations
    assert any(session in line for line in found), found


KINDS = ("kill daemon", "kill broker", "kill ingest", "partition")
