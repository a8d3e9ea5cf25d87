"""Every kernel of the column codec, to be compiled ahead of time."""

from __future__ import annotations

import numpy as np

from edgecap.kernels import adaptive, rangecoder, recurring, rice, spread


def warm_up() -> None:
    """Compile the column codec's kernels for every sample type."""
    rice.warm_up()
    starts, guess = rangecoder.build_tables()
    costs = spread.build_costs(starts)
    values = np.zeros((1, 2), np.int32)
    u = np.zeros((3, adaptive.PAST + 1), np.int32)
    states = np.zeros((1, adaptive.STATE), np.int64)
    choices = np.zeros((1, 3), np.int64)
    spread.start_fresh(values, states, adaptive.PRESETS, choices)
    e, phases = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int8)
    rest = values[:, :1].copy()
    adaptive.residuals(rest, 16, 0, states, u, e, phases, adaptive.MIX)
    chosen = np.zeros((1, 2), np.int64)
    spread.choose(e, phases, 16, states, costs, chosen)
    coder, out, flat = spread.start_coder(), np.zeros(64, np.uint8), np.zeros(8, np.uint64)
    spread.put_fresh(choices, 16, coder, flat)
    spread.encode_spread(e, phases, 16, states, chosen, starts, coder, out, flat)
    low, span, at, _ = coder
    data = np.frombuffer(out[: rangecoder.finish(low, span, int(at), out)].tobytes(), np.uint8)
    coder = spread.start_coder()
    coder[spread.LOW] = rangecoder.open_coder(data)
    states[:] = 0
    spread.take_fresh(16, states, adaptive.PRESETS, coder, flat, 8, np.zeros(1, np.int32))
    spread.decode_samples(rest, 16, 0, states, u, adaptive.MIX, starts, guess, coder, data, flat)
    state = np.zeros(recurring.STATE, np.int64)
    recurring.start_steps(state)
    recurring.encode_steps(np.zeros(1, np.int32), state, spread.start_coder(), out, flat)
    recurring.decode_steps(np.zeros(1, np.int32), state, coder, data, flat)
