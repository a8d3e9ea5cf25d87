"""Every kernel of the column codec, to be compiled ahead of time."""

from __future__ import annotations

import numpy as np

from edgecap.kernels import adaptive, rans, recurring, rice, spread, tables


def warm_up() -> None:
    """Compile the column codec's kernels for every sample type."""
    rice.warm_up()
    starts, guess = tables.build_tables()
    costs = spread.build_costs(starts)
    values = np.zeros((1, 2), np.int32)
    models, states = np.zeros((1, adaptive.MODEL)), np.zeros((1, adaptive.STATE), np.int64)
    choices = np.zeros((1, 3), np.int64)
    spread.start_fresh(values, models, states, adaptive.PRESETS, choices)
    e, phases = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int8)
    adaptive.residuals(values[:, :1].copy(), 16, models, states, e, phases)
    chosen = np.zeros((1, 2), np.int64)
    spread.choose(e, phases, 16, states, costs, chosen)
    steps = np.zeros(64, np.uint64)
    count = spread.put_fresh(choices, 16, steps, 0)
    count = spread.encode_spread(e, phases, 16, states, chosen, starts, steps, count)
    words = np.zeros(64, np.uint64)
    rans.encode(steps, count, 0, words)
    coder = np.zeros(2, np.uint64)
    models[:], states[:] = 0, 0
    row = np.zeros((1, 1), np.int32)
    spread.take_fresh(16, models, states, adaptive.PRESETS, coder, words, row[0])
    spread.decode_samples(row, 16, models, states, starts, guess, coder, words)
    state = np.zeros(recurring.STATE, np.int64)
    recurring.start_steps(state)
    recurring.encode_steps(row[0], state, steps, 0)
    recurring.decode_steps(row[0], state, coder, words)
