"""Every kernel of the column codec, to be compiled ahead of time."""

from __future__ import annotations

import numpy as np

from edgecap.kernels import (
    adaptive,
    beside,
    choice,
    decoding,
    digits,
    encoding,
    multiples,
    rans,
    recurring,
    repeats,
    rests,
    rice,
)


def warm_up() -> None:
    """Compile the column codec's kernels for every sample type."""
    built, costs = choice.tables_and_costs()
    models, states = np.zeros((1, adaptive.MODEL), np.float32), np.zeros((1, adaptive.STATE), np.int64)
    row, short = np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int16)
    steps, words = np.zeros(64, np.uint64), np.zeros(64, np.uint32)
    count = encoding.encode_samples(
        short, True, 16, 999, models, states, adaptive.PRESETS, built.parts, built.splits, costs, steps, 0
    )
    rans.encode(steps, count, 0, words, *rans.reciprocals())
    coder = np.zeros(2, np.uint64)
    models[:], states[:] = 0, 0
    decoding.decode_samples(
        short,
        True,
        16,
        models,
        states,
        adaptive.PRESETS,
        built.parts,
        built.buckets,
        built.splits,
        coder,
        words,
    )
    state = np.zeros(recurring.STATE, np.int64)
    recurring.start_steps(state)
    recurring.encode_steps(row[0], state, steps, 0)
    recurring.decode_steps(row[0], state, coder, words)
    # Last: `edgecap warmup` compiles these in the other of its processes.
    rice.warm_up()
    rests.warm_up()
    repeats.warm_up()
    digits.warm_up()
    multiples.warm_up()
    beside.warm_up()
