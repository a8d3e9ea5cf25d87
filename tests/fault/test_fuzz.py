"""Spoiled bytes are refused cleanly, quickly, in bounded memory; bench/fuzz.py is the long form."""

from __future__ import annotations

import contextlib

import pytest

from edgecap.kernels.compile import warm_up
from edgecap.sim.fuzz import TARGETS, run_inputs
from edgecap.sim.fuzz_messages import ChunkTarget
from edgecap.sim.fuzz_target import FuzzError

SEED = 20260102
INPUTS = 6000


@pytest.fixture(scope="module", autouse=True)
def kernels() -> None:
    """Compiled beforehand, so that no input is charged with it."""
    list(warm_up())


@pytest.mark.parametrize("name", TARGETS)
def test_spoiled_inputs(name: str) -> None:
    make, share = TARGETS[name]
    with contextlib.closing(make()) as target:
        tally = run_inputs(target, SEED, 0, INPUTS * share // 20)
    print(name, SEED, tally)
    assert tally.accepted
    assert tally.refused


def test_a_wrong_acceptance_is_noticed() -> None:
    target = ChunkTarget()
    target._payloads = set()
    with pytest.raises(FuzzError, match="chunk, seed 20260102, input"):
        run_inputs(target, SEED, 0, 2000)
