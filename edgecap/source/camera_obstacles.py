"""Why a camera cannot be had, in words: another program holds it, or the machine was not told of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgecap.errors import SourceError

BOOT_CONFIGS = (Path("/boot/firmware/config.txt"), Path("/boot/config.txt"))
SENSORS = ("imx", "ov", "camera", "ar0", "gc", "mira", "vc-mipi")
"""How the names of camera overlays begin."""


def holders(nodes: Iterable[str], proc: Path = Path("/proc")) -> list[str]:
    """Programs that have one of `nodes` open, as `name (pid)`; those of other users only if we are root."""
    wanted = {os.path.realpath(n) for n in nodes}
    found = []
    for process in sorted(proc.glob("[0-9]*"), key=lambda p: int(p.name)):
        if process.name == str(os.getpid()):
            continue
        try:
            if any(os.path.realpath(fd) in wanted for fd in (process / "fd").iterdir()):
                found.append(f"{(process / 'comm').read_text().strip()} (pid {process.name})")
        except OSError:
            continue  # it ended, or is not ours to look into
    return found


def end_holders(nodes: Iterable[str], proc: Path = Path("/proc")) -> str:
    """The fix for a camera that is in use, with the culprit's name where it can be seen."""
    nodes = list(nodes)
    found = holders(nodes, proc)
    if found:
        return f"end {', '.join(found)}"
    return f"end the program that uses it (`sudo fuser -v {' '.join(nodes) or '/dev/video*'}`)"


def pi_nodes() -> list[str]:
    """Device nodes that libcamera holds while a camera of the CSI port is in use."""
    return sorted(str(n) for n in Path("/dev").glob("media*"))


def absence(label: str, nodes: Sequence[str], configs: Iterable[Path] = BOOT_CONFIGS) -> SourceError:
    """Why libcamera lists no camera: it may look at none of the nodes, or there is none."""
    if nodes and not any(os.access(n, os.R_OK | os.W_OK) for n in nodes):
        return SourceError(
            f"{label}: {nodes[0]} may not be opened by this user",
            fix="add it to the group video and log in anew",
        )
    return SourceError(f"{label}: libcamera finds no camera", fix=overlay_hint(configs))


def overlay_hint(configs: Iterable[Path] = BOOT_CONFIGS) -> str:
    """What to do when libcamera finds no camera, from what the boot configuration says."""
    check = "check the ribbon cable at both ends, then `rpicam-hello --list-cameras`"
    for path in configs:
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        settings = [line.split("#")[0].replace(" ", "") for line in lines]
        overlays = [s.removeprefix("dtoverlay=") for s in settings if s.startswith("dtoverlay=")]
        cameras = [o for o in overlays if o.startswith(SENSORS)]
        if cameras:
            return f"{path} loads {', '.join(cameras)}: is that this sensor? {check}"
        if "camera_auto_detect=1" not in settings:
            return (
                f"{path} has neither camera_auto_detect=1 nor the sensor's overlay "
                "(dtoverlay=imx708, …): add it and reboot"
            )
        return f"{path} detects official modules; another needs its dtoverlay there. {check}"
    return f"connect one; on a Raspberry Pi {check}"
