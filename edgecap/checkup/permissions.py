"""Who may open what: groups and device nodes for each kind of hardware that is configured."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgecap.checkup.exam import Exam, read_text
from edgecap.checkup.finding import Finding, fail, none, ok

CONFIG_TXT = "/boot/firmware/config.txt"


class Need(NamedTuple):
    """One kind of hardware."""

    group: str
    nodes: Sequence[Path]
    """What must be there and open; empty when nothing of this kind is configured."""
    absent: str
    """What makes nodes appear that are not there."""


class User(NamedTuple):
    """The account that opens the devices."""

    name: str
    uid: int
    gids: frozenset[int]


async def check_permissions(exam: Exam) -> list[Finding]:
    """One row per group that hands out devices."""
    pid = exam.daemon or "self"
    user = user_of(exam, pid)
    if user is None:
        return [none("permissions", f"{exam.roots.proc / pid / 'status'} cannot be read")]
    return [_row(need, user, exam) for need in _needs(exam)]


def user_of(exam: Exam, pid: str) -> User | None:
    """The user and groups of a process (proc(5), status)."""
    text = read_text(exam.roots.proc / pid / "status")
    if text is None:
        return None
    fields = {key: value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
    try:
        uid, gid = int(fields["Uid"][1]), int(fields["Gid"][1])
        gids = frozenset({gid, *map(int, fields.get("Groups", []))})
    except (KeyError, IndexError, ValueError):
        return None
    names = _names(exam.roots.etc / "passwd")
    return User(names.get(uid, str(uid)), uid, gids)


def _needs(exam: Exam) -> list[Need]:
    config, dev = exam.config, exam.roots.dev
    pins = max(config.button.gpio, config.button.led_gpio, config.button.buzzer_gpio) >= 0
    real_cameras = [c for c in config.camera if c.__struct_config__.tag in ("picamera2", "uvc")]
    video = [*dev.glob("video*"), *dev.glob("media*")] if real_cameras else []
    return [
        Need("dialout", [Path(s.port) for s in config.serial], ""),
        Need(
            "video",
            sorted(video) or [dev / "video0"] * bool(real_cameras),
            f"check the camera's cable; on a Pi set camera_auto_detect=1 or its dtoverlay in {CONFIG_TXT}",
        ),
        Need(
            "gpio",
            sorted(dev.glob("gpiochip*")) or [dev / "gpiochip0"] * pins if pins else [],
            "pins need a Raspberry Pi or another board with GPIO; leave [button] out elsewhere",
        ),
        Need(
            "plugdev",
            (sorted(dev.glob("iio:device*")) or [dev / "iio:device0"]) if config.iio else [],
            f"enable the bus and the sensor's overlay in {CONFIG_TXT} (dtparam=i2c_arm=on, dtoverlay=…)",
        ),
    ]


def _row(need: Need, user: User, exam: Exam) -> Finding:
    check = f"group {need.group}"
    if not need.nodes:
        return none(check, "nothing is configured that needs it")
    there = [node for node in need.nodes if node.exists()]
    if not there:
        missing = ", ".join(dict.fromkeys(str(n) for n in need.nodes))
        if not need.absent:
            return none(check, f"{missing}: not there (see the device's own row)")
        return fail(check, f"{missing}: not there", need.absent)
    gid = {name: gid for gid, name in _names(exam.roots.etc / "group").items()}.get(need.group)
    closed = [n for n in there if not may_use(n.stat(), user)]
    if not closed:
        member = f"in group {need.group}" if gid in user.gids else "allowed in"
        return ok(check, f"{user.name} is {'root' if user.uid == 0 else member} and may open {_list(there)}")
    fix = f"sudo usermod -aG {need.group} {user.name}, then log in again (or restart the service)"
    if gid is None:
        fix = f"sudo groupadd -r {need.group}, install the udev rules (systemd/udev), then {fix}"
    elif gid in user.gids:
        fix = "install the udev rules (systemd/udev), which give the device to this group"
    return fail(check, f"{user.name} may not open {_list(closed)}", fix)


def may_use(node: os.stat_result, user: User) -> bool:
    """Whether the permission bits let a user read and write."""
    if user.uid == 0:
        return True
    both = stat.S_IROTH | stat.S_IWOTH
    if node.st_uid == user.uid:
        both <<= 6
    elif node.st_gid in user.gids:
        both <<= 3
    return node.st_mode & both == both


def _list(nodes: Sequence[Path]) -> str:
    shown = ", ".join(map(str, nodes[:3]))
    return f"{shown} and {len(nodes) - 3} more" if len(nodes) > 3 else shown


def _names(path: Path) -> dict[int, str]:
    """Names by number, of passwd(5) or group(5)."""
    found = {}
    for line in (read_text(path) or "").splitlines():
        parts = line.split(":")
        if len(parts) > 2 and parts[2].isdigit():
            found[int(parts[2])] = parts[0]
    return found
