"""A drive with a volatile cache: of what was not flushed any subset reaches the medium, in any order.

Device-mapper's write log would replay real block writes; where it is missing, the injected file layer keeps
the log instead, and the real recovery runs on every subset of it.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgecap.errors import SpoolError
from tests.fault.disk import PowerCut, SimDisk, Survivors, Write, scattered
from tests.fault.spool_story import SPOOL, Story, open_spool, operations


def told_until_the_cut(directory: Path, number: int, seed: int) -> Story:
    directory.mkdir()
    story = Story(SimDisk(directory, lambda n, _: "cut" if n == number else "", seed))
    with pytest.raises(PowerCut):
        story.tell()
    return story


def recovers(story: Story) -> None:
    """Nothing promised is missing, nothing is made up, and everything works on."""
    spool = story.check()
    spool.append(story.chunks[-1], closing=True)
    spool.sync()
    spool.release([e.id for e in spool.pending(10**6)])
    spool.close()
    assert not [n for n in story.disk.names(SPOOL) if n.endswith(".seg")]


def subset(mask: int) -> Survivors:
    """Writes chosen by the bits of `mask`, over all files in turn."""
    bits = iter(range(64))

    def choose(writes: list[Write]) -> list[Write]:
        return [write for write in writes if mask >> next(bits) & 1]

    return choose


def test_every_subset_of_the_unsynced_writes(memory: Path) -> None:
    """Every operation is the last one, and every subset of what was not flushed by then is what is left."""
    names = operations(memory)
    tried = 0
    for number in range(1, len(names) + 1):
        mask, n = 0, 1
        while mask < 1 << n:
            story = told_until_the_cut(memory / f"{number}-{mask}", number, number * 64 + mask)
            n = len(story.disk.unsynced())
            assert n < 8
            story.disk.crash(subset(mask))
            try:
                recovers(story)
            except BaseException as error:
                error.add_note(f"cut in operation {number} ({names[number - 1]}), subset {mask:b} of {n}")
                raise
            mask, tried = mask + 1, tried + 1
    print(f"{tried} subsets at {len(names)} operations")
    assert tried > 2 * len(names)


@pytest.mark.parametrize("seed", range(3))
def test_scattered_sectors(memory: Path, seed: int) -> None:
    """Below whole writes: sectors of 512 bytes, each of them old or new, overlapping ones in any order."""
    names = operations(memory)
    for number in range(1, len(names) + 1):
        story = told_until_the_cut(memory / f"{number}", number, seed)
        story.disk.crash(scattered(random.Random(f"{seed}/{number}")))
        try:
            recovers(story)
        except BaseException as error:
            error.add_note(f"cut in operation {number} ({names[number - 1]}), seed {seed}")
            raise


def test_scattered_sectors_during_recovery(memory: Path) -> None:
    """The recovery's own writes are cached as well, and the power goes out during each of them."""
    names = operations(memory)
    cuts = 0
    for number in range(6, len(names), 5):
        recovery = 1
        while True:
            story = told_until_the_cut(memory / f"{number}-{recovery}", number, number)
            disk = story.disk
            disk.crash(scattered(random.Random(f"first/{number}")))
            disk.fail = lambda n, _, at=disk.count + recovery: "cut" if n == at else ""
            try:
                open_spool(disk).close()
            except PowerCut:
                disk.crash(scattered(random.Random(f"second/{number}/{recovery}")))
                recovers(story)
                recovery, cuts = recovery + 1, cuts + 1
                continue
            break
    assert cuts > 10


def test_a_drive_that_ignores_flushes_is_found_out(memory: Path) -> None:
    """The tests above can fail."""
    broken = 0
    for seed in range(10):
        directory = memory / f"{seed}"
        directory.mkdir()
        disk = SimDisk(directory, seed=seed)
        disk.lying_sync = True
        story = Story(disk)
        story.tell()
        disk.crash(scattered(random.Random(seed)))
        try:
            recovers(story)
        except (AssertionError, ValueError, SpoolError):
            broken += 1
    assert broken > 5
