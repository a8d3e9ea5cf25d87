"""Power cuts on a real file system: ext4 on a loop device, whose image is copied at an instant under load.

The image lies on XFS and is written with direct I/O, so a reflink copy holds exactly what the kernel had sent
to the medium at that instant, and nothing of the page cache. A drive's own cache: test_drive_cache.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgecap import clock
from edgecap.codec.chunk import unpack_chunk
from edgecap.spool import Spool
from edgecap.spool.writer import SYNC_NS
from tests.fault.power_writer import chunks

SEED = 20260103
CUTS = 8
CONTROL_CUTS = 3
RECOVERY_CUTS = 6
FICLONE = 0x40049409
"""From linux/fs.h: share all of a file's blocks."""
ROOT = Path(__file__).parent.parent.parent
GAP_S = (0.15, 1.3)
SLOW_SYNC_NS = 1_000_000_000
"""What a sync itself may take on a busy machine, on top of the writer's half second between syncs."""
XFS_BYTES, EXT4_BYTES = 640 << 20, 192 << 20
READY_S = 20.0

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
    pytest.mark.timeout(120),
]


def run(*command: str | Path) -> str:
    """Run a system command; a failure says what this machine cannot do."""
    try:
        done = subprocess.run(
            list(map(str, command)), check=False, capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError:
        pytest.fail(f"{command[0]} is missing: apt-get install xfsprogs e2fsprogs mount")
    if done.returncode:
        pytest.fail(
            f"`{' '.join(map(str, command))}` failed, so power cannot be cut here (this needs loop devices "
            f"and XFS with reflink): {done.stderr.strip()}"
        )
    return done.stdout.strip()


@contextlib.contextmanager
def mounted(image: Path, at: Path, *, direct_io: bool = False) -> Iterator[Path]:
    """A file system image, mounted; nothing is left of it afterwards, whatever happens."""
    at.mkdir()
    with contextlib.ExitStack() as after:
        device = run("losetup", "--find", "--show", f"--direct-io={'on' if direct_io else 'off'}", image)
        after.callback(subprocess.run, ["losetup", "--detach", device], check=False)
        run("mount", device, at)
        after.callback(unmount, at)
        yield at


def unmount(at: Path) -> None:
    if subprocess.run(["umount", at], capture_output=True, check=False).returncode:
        subprocess.run(["umount", "--lazy", at], check=False)


@contextlib.contextmanager
def drive(root: Path) -> Iterator[tuple[Path, Path]]:
    """Image and mount point of an ext4 that can be copied at an instant."""
    outer = root / "xfs.img"
    with contextlib.ExitStack() as after:
        after.callback(outer.unlink, missing_ok=True)
        with outer.open("wb") as file:
            file.truncate(XFS_BYTES)
        run("mkfs.xfs", "-q", "-m", "reflink=1", outer)
        image = after.enter_context(mounted(outer, root / "xfs")) / "drive.img"
        with image.open("wb") as file:
            file.truncate(EXT4_BYTES)
        run("mkfs.ext4", "-q", "-F", "-b", "4096", image)  # direct I/O on a shared copy asks for so much
        at = after.enter_context(mounted(image, root / "drive", direct_io=True))
        yield image, at


@dataclass(slots=True)
class Cut:
    """A copy of the image, and what was promised before it was begun."""

    image: Path
    durable: int
    put_ns: dict[int, int]
    begun_ns: int


@dataclass(slots=True)
class Writer:
    """A recording process, and what it has said."""

    process: subprocess.Popen[bytes]
    durable: int = 0
    put_ns: dict[int, int] = field(default_factory=dict)
    _rest: bytes = b""

    def listen(self) -> None:
        """Take in everything that it has said by now."""
        assert self.process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.process.stdout.fileno(), 1 << 16):
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    what, n, t_ns = line.split()
                    if what == b"put":
                        self.put_ns[int(n)] = int(t_ns)
                    else:
                        self.durable = int(n)


@contextlib.contextmanager
def recording(spool: Path, sync: str) -> Iterator[Writer]:
    command = [sys.executable, "-m", "tests.fault.power_writer", str(spool), str(SEED), sync]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    writer = Writer(process)
    try:
        deadline = time.monotonic() + READY_S
        while not writer.durable:
            assert process.poll() is None, "the writer ended"
            assert time.monotonic() < deadline, "the writer promised nothing"
            time.sleep(0.01)
            writer.listen()
        yield writer
    finally:
        process.kill()
        process.wait()
        writer.listen()  # it went on while the last copy was begun, which may hold that, too
        process.stdout.close()


def clone(image: Path, copy: Path) -> None:
    """What `cp --reflink=always` does, without the time that starting it takes."""
    with image.open("rb") as source, copy.open("wb") as target:
        fcntl.ioctl(target, FICLONE, source.fileno())


def cut_during_recovery(image: Path, at: Path) -> Iterator[Path]:
    """Let the spool on a cut image recover, and cut its power again and again meanwhile."""
    copies: list[tuple[Path, int]] = []
    with mounted(image, at, direct_io=True) as mount:
        command = [sys.executable, "-m", "tests.fault.power_writer", str(mount / "spool"), str(SEED)]
        with subprocess.Popen([*command, "recovery"], stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline().startswith(b"recovering")
                for k in range(RECOVERY_CUTS):
                    copies.append((image.with_name(f"{image.stem}-{k}.img"), clock.now_ns()))
                    clone(image, copies[-1][0])
                assert process.poll() is None, "the recovery ended"
                recovered = process.stdout.readline().split()
            finally:
                process.kill()
    in_time = sum(t_ns < int(recovered[2]) for _, t_ns in copies)
    print(f"{RECOVERY_CUTS} cuts, {in_time} of them while the spool recovered")
    assert in_time > 0
    for copy, _ in copies:
        yield copy
        copy.unlink()


def chunks_found(image: Path, at: Path) -> set[bytes]:
    """What the spool on an image holds after its recovery."""
    found = set()
    with mounted(image, at) as mount, Spool.open(mount / "spool", reserve_bytes=0) as spool:
        for entry in spool.pending(10**6):
            packed = spool.read(entry.id)
            assert unpack_chunk(packed).id == entry.id
            found.add(packed)
    return found


def cut_power(
    root: Path, sync: str, cuts: int, *, twice: bool = False
) -> Iterator[tuple[int, int, int, float]]:
    """Per cut: chunks promised, promised ones missing, chunks found, age of the oldest missing in seconds.

    With `twice` the power is cut again and again while the spool recovers from the first cut.
    """
    instants = random.Random(SEED)
    root.mkdir()
    with drive(root) as (image, at):
        taken: list[Cut] = []
        with recording(at / "spool", sync) as writer:
            for k in range(cuts):
                time.sleep(instants.uniform(*GAP_S))  # the seeded instant of the cut
                writer.listen()
                assert writer.process.poll() is None, "the writer ended"
                copy = image.with_name(f"cut-{k}.img")
                taken.append(Cut(copy, writer.durable, dict(writer.put_ns), clock.now_ns()))
                run("cp", "--reflink=always", image, copy)
        made = list(itertools.islice(chunks(SEED), max(writer.put_ns) + 2))
        for k, cut in enumerate(taken):
            if twice:
                for n, again in enumerate(cut_during_recovery(cut.image, root / f"recovery-{k}")):
                    after = chunks_found(again, root / f"cut-{k}-{n}")
                    assert {c.packed for c in made[: cut.durable]} <= after <= {c.packed for c in made}
            found = chunks_found(cut.image, root / f"cut-{k}")
            cut.image.unlink()
            missing = [n for n in cut.put_ns if made[n].packed not in found]
            assert found <= {c.packed for c in made}
            age_s = (cut.begun_ns - min((cut.put_ns[n] for n in missing), default=cut.begun_ns)) / 1e9
            broken = sum(c.packed not in found for c in made[: cut.durable])
            print(
                f"{sync} cut {k}: {cut.durable} promised, {broken} of them missing; {len(cut.put_ns)} put, "
                f"{len(found)} found, oldest missing {age_s:.2f} s"
            )
            yield cut.durable, broken, len(found), age_s


def test_no_promised_chunk_is_lost_by_a_power_cut(tmp_path: Path) -> None:
    results = list(cut_power(tmp_path / "honest", "honest", CUTS))
    assert len(results) == CUTS
    for promised, broken, found, age_s in results:
        assert promised > 0
        assert broken == 0
        assert found >= promised
        assert age_s * 1e9 <= SYNC_NS + SLOW_SYNC_NS
    assert len({promised for promised, *_ in results}) > CUTS // 2, "the cuts were not at different instants"


def test_power_cuts_while_recovering_lose_nothing_either(tmp_path: Path) -> None:
    results = list(cut_power(tmp_path / "twice", "honest", 2, twice=True))
    for promised, broken, found, _ in results:
        assert promised > 0
        assert broken == 0
        assert found >= promised


def test_without_fdatasync_the_same_cuts_lose_promised_chunks(tmp_path: Path) -> None:
    """The test above can fail."""
    results = list(cut_power(tmp_path / "lying", "lying", CONTROL_CUTS))
    assert all(broken > 0 for _, broken, _, _ in results), results
