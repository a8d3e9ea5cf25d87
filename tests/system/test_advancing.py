"""When systemd's watchdog is fed: idle, or while blocks come."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgecap.clock import now_ns
from edgecap.config import parse_config
from edgecap.daemon.devices import STALL_NS
from edgecap.daemon.rig import Rig
from edgecap.source.camera_synthetic import SyntheticCamera
from tests.rig_session import record


def test_a_recording_rig_advances_only_while_blocks_come(tmp_path: Path) -> None:
    config = parse_config(
        'site = "lab"\nrig = "r"\n[session]\ntask = "t"\noperator = "o"\nconsent = "c"\n'
        f'[spool]\ndir = "{tmp_path}/spool"\n'
    )

    async def body(rig: Rig) -> None:
        assert rig.advancing(now_ns() + 100 * STALL_NS)  # idle, nothing has to come
        async with asyncio.timeout(60):
            while rig.machine.state.value != "recording" or not rig.devices.open[0].live.last_ns:
                await asyncio.sleep(0.01)
        last_ns = rig.devices.open[0].live.last_ns
        assert rig.advancing(last_ns + STALL_NS // 2)
        assert not rig.advancing(rig.devices.open[0].live.last_ns + STALL_NS)

    camera = SyntheticCamera("head", 160, 96, 10.0)
    asyncio.run(record(config, [camera], tmp_path / "store", body))
