"""A card that is still a block device, or its image: read where it is mounted, or mounted read-only."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgecap.errors import SpoolError, UsageError

OPTIONS = ("ro,nosuid,nodev,noexec", "ro,noload,nosuid,nodev,noexec")
"""The second leaves an ext4 journal unreplayed: for cards whose write protection is set."""
COMMAND_S = 60


@contextlib.contextmanager
def mounted(path: Path) -> Iterator[Path]:
    """A directory to read `path` at: itself, or where that device, or image of one, is or can be mounted.

    Raises:
        UsageError: it is a device or an image, and only root may mount it.
        SpoolError: it cannot be mounted.
    """
    image = path.is_file()
    if not image and not path.is_block_device():
        yield path
        return
    where = None if image else mount_point(path)
    if where is not None:
        yield where
        return
    if os.geteuid() != 0:
        raise UsageError(
            f"{path} is {'a file' if image else 'a device'}, and only root may mount it",
            fix=f"mount it (sudo mount -o ro {path} /mnt) and give the directory",
        )
    with tempfile.TemporaryDirectory(prefix="edgecap-card-") as name:
        _mount(path, name, "loop," if image else "")
        try:
            yield Path(name)
        finally:
            if _run("umount", name) is not None:
                _run("umount", "--lazy", name)


def mount_point(device: Path) -> Path | None:
    """Where a device is mounted, None when it is not."""
    number = device.stat().st_rdev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        if fields[2].decode() == wanted and fields[3] == b"/":
            # Blanks and the like stand as three octal digits.
            name = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), fields[4])
            return Path(os.fsdecode(name))
    return None


def _mount(device: Path, where: str, how: str) -> None:
    said = ""
    for options in OPTIONS:
        failed = _run("mount", "-o", how + options, str(device), where)
        if failed is None:
            return
        said = said or failed
    found = Path("/sys/class/block", device.resolve().name).glob("*/partition")
    names = sorted(p.parent.name for p in found)
    raise SpoolError(
        f"{device} cannot be mounted: {said}",
        fix=f"give one of its partitions: {', '.join(f'/dev/{n}' for n in names)}"
        if names
        else "give a directory, or an image of a partition; an image of a whole card has partitions: "
        "`losetup --find --show --partscan --read-only FILE`"
        if how
        else "",
    )


def _run(*command: str) -> str | None:
    """None when a command succeeded, else the last line it said of what is wrong."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} did not end within {COMMAND_S} s"
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if done.returncode == 0:
        return None
    said = (line.strip() for line in done.stderr.splitlines())
    lines = [line for line in said if line and "dmesg(1)" not in line]  # mount's advice comes last
    return lines[-1] if lines else f"{command[0]} failed with code {done.returncode}"
