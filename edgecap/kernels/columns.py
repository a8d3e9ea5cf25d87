"""Every kernel of the column codec, to be compiled ahead of time."""

from __future__ import annotations

import numpy as np

from edgecap.kernels import adaptive, choice, decoding, encoding, multiples, rans, recurring, rests, rice


def warm_up() -> None:
    """Compile the column codec's kernels for every sample type."""
    built, costs = choice.tables_and_costs()
    models, states = np.zeros((1, adaptive.MODEL), np.float32), np.zeros((1, adaptive.STATE), np.int64)
    row, short = np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int16)
    steps, words = np.zeros(64, np.uint64), np.zeros(64, np.uint32)
    count = encoding.encode_samples(
        short, True, 16, 999, models, states, adaptive.PRESETS, built.parts, built.splits, costs, steps, 0
    )
    rans.encode(steps, count, 0, words)
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
    state = rests.start_rests(1)
    channels, wide = np.zeros(1, np.int64), np.zeros((1, 1), np.int64)
    multiples.find_spaced(row, channels, np.zeros(multiples.SEEN_WORDS, np.uint64))
    places = np.zeros(multiples.PLACES, np.int64)
    multiples.split_samples(wide, wide[0] + 1, wide[0], wide[0], row, row, places)
    channels[0] = 0  # a channel's number, not what was found of it
    rests.encode_rests(row, row, channels, state, steps, 0, 999)
    rests.decode_rests(row, row, channels, state, coder, words)
    rice.warm_up()  # last: `edgecap warmup` compiles it in the other of its processes
