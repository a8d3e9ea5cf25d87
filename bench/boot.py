"""From starting the service to READY and to the first sample, and the memory of each program.

    sudo python bench/boot.py [--runs 5] [--json]

Boots the container of tests/systemd/ (root, `make system-packages`), installs edgecap into it with
install.sh, and starts edgecap.service again and again: with its compiled kernels in the cache, and without.
The rig has a board (the real firmware on a pty, one 200 Hz IMU) and a synthetic camera of 160x120 at 10 Hz.
The button is pressed as soon as systemd says READY. Processor seconds are those of the unit's control group
or its processes, so they hold on a busy machine, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgecap.ingest.completeness import verify_session
from edgecap.ingest.store import open_store
from edgecap.sim.firmware_build import build_firmware
from tests.systemd.installed import InstalledRig, collect
from tests.systemd.machine import Machine

UNIT = "edgecap.service"

GROWTH = """
import json, os, sys, time
def mb():
    text = open("/proc/self/smaps_rollup").read()
    return round(int(text.split("Rss:")[1].split()[0]) / 1000, 1)
steps = {"python": mb()}
import numpy; steps["+ numpy"] = mb()
import numba; steps["+ numba"] = mb()
from edgecap.kernels.compile import warm_up
list(warm_up()); steps["+ kernels from the cache"] = mb()
import edgecap.daemon.rig, edgecap.daemon.reporting, edgecap.uplink; steps["+ daemon, MQTT"] = mb()
print(json.dumps(steps))
"""


def memory(machine: Machine) -> dict[str, dict[str, float]]:
    """RSS and PSS in MB of every process of edgecap's units."""
    found = {}
    for unit in (UNIT, "edgecap-ingest.service", "edgecap-fleet.service"):
        group = machine.show(unit, "ControlGroup")["ControlGroup"]
        for pid in machine.out("sh", "-c", f"cat /sys/fs/cgroup{group}/cgroup.procs").split():
            words = machine.out("sh", "-c", f"tr '\\0' ' ' </proc/{pid}/cmdline").split()
            name = f"{unit.removesuffix('.service')}: {' '.join(words[2:3] or words[-1:])}"
            if "camera_child" in " ".join(words):
                name = f"{unit.removesuffix('.service')}: camera"
            text = machine.out("cat", f"/proc/{pid}/smaps_rollup")
            found[name] = {k: round(int(text.split(f"{k}:")[1].split()[0]) / 1000, 1) for k in ("Rss", "Pss")}
    return found


def start_once(rig: InstalledRig, *, cold: bool) -> dict[str, float]:
    """One start, one short session."""
    machine = rig.machine
    machine.run("systemctl", "stop", UNIT)
    if cold:
        machine.run("rm", "-rf", "/var/cache/edgecap/numba")
    machine.run("systemctl", "start", UNIT, timeout_s=1200)
    rig.press()
    shown = machine.show(
        UNIT, "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic", "CPUUsageNSec",
    )  # fmt: skip
    begin, ready = (
        int(shown[f"{event}TimestampMonotonic"]) / 1e6 for event in ("ExecMainStart", "ActiveEnter")
    )
    # systemd's stamps are CLOCK_MONOTONIC, those of the recording CLOCK_MONOTONIC_RAW.
    raw_ahead_s = time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - time.clock_gettime(time.CLOCK_MONOTONIC)
    machine.until("it records", lambda: rig.status().get("session_s", 0) >= 1.0)
    session = rig.status()["session"]
    rig.stop_recording()
    rig.until_complete(session)
    store = open_store(str(machine.folder / "upper/var/lib/edgecap-ingest"))
    key = next(k for k in store.sessions() if k.session == session)
    first = {s.name: s.t0_ns / 1e9 - raw_ahead_s for s in verify_session(store, key).streams}
    return {
        "start to READY": ready - begin,
        "start to first IMU sample": first["left-hand-imu"] - begin,
        "start to first frame": first["head-cam"] - begin,
        "processor seconds to READY": int(shown["CPUUsageNSec"]) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="starts with a warm cache; default 5")
    parser.add_argument("--cold-runs", type=int, default=2, help="starts without compiled kernels; default 2")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edgecap-boot-", dir="/var/tmp") as scratch:
        folder = Path(scratch)
        firmware = build_firmware(folder / "firmware")
        binds = {"/bundle": collect(folder / "bundle"), "/firmware": firmware.parent}
        machine = Machine(folder / "machine", binds)
        with machine:
            rig = InstalledRig(machine, firmware.name)
            begin = time.monotonic()
            rig.install("--role", "both", "--offline", "./wheels")
            found["install"] = {"seconds": [time.monotonic() - begin]}
            rig.set_up()
            rig.until_ready()
            for kind, runs in (("warm", args.runs), ("cold", args.cold_runs)):
                rows = [start_once(rig, cold=kind == "cold") for _ in range(runs)]
                found[f"{kind} kernel cache"] = {k: [r[k] for r in rows] for k in rows[0]} if rows else {}
            machine.run("systemctl", "restart", UNIT)
            machine.run("systemctl", "start", "edgecap-fleet.service")
            rig.until_ready()
            rig.start_recording(10.0)
            found["MB while recording"] = memory(machine)
            rig.stop_recording()
            python = machine.out("readlink", "-f", "/opt/edgecap/bin") + "/python"
            growth = machine.out("env", "NUMBA_CACHE_DIR=/var/cache/edgecap/numba", python, "-c", GROWTH)
            found["MB as the daemon grows"] = json.loads(growth)
        begin = time.monotonic()
        with machine:
            rig.until_ready()
            ready = (
                int(machine.show(UNIT, "ActiveEnterTimestampMonotonic")["ActiveEnterTimestampMonotonic"])
                / 1e6
            )
            found["boot"] = {"power-on of the container to READY": [ready - begin]}
    if args.json:
        print(json.dumps(found))
        return
    for title, rows in found.items():
        print(title)
        for name, values in rows.items():
            if isinstance(values, list):
                spread = f"({min(values):.2f} … {max(values):.2f}, n={len(values)})"
                text = f"{statistics.median(values):7.2f}   {spread}"
            else:
                text = str(values)
            print(f"  {name:45} {text}")


if __name__ == "__main__":
    main()
