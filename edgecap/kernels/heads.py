"""First samples, magnitudes and weights of channels without a past: what a fresh column begins with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.adaptive import group_of, missed_by, preset_of, start_state
from edgecap.kernels.bits import Words, bit_length, i8, u8
from edgecap.kernels.compile import part
from edgecap.kernels.rans import ALL, least_of, put, put_plain, take, take_plain

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]

MAGNITUDE_ROWS = 17
"""From so many samples at most the first magnitude of residuals is estimated."""


NEAR = np.array((0, 22528, 34816, 47104, 52224, 57344, 60416, 63488, 65536), np.int64)
"""Where the parts of differences between channels' octaves begin: 0, -1, 1, -2, 2, -3, 3, and any other."""
OTHER = 7
OCTAVES_BEYOND = 8
"""So many more octaves than bits of a sample a channel's first magnitude can have."""


@part
def put_even(steps: Words, at: int, value: int, count: int) -> int:
    """Note one of `count` ≤ 65536 values that are equally likely; returns the number of the next step."""
    start = (value << 16) // count
    return put(steps, at, start, ((value + 1) << 16) // count - start, i8(0), i8(0))


@part
def take_even(
    x: Any, at: int, word: Any, least: Any, words: U32, count: int
) -> tuple[int, Any, int, Any, Any]:
    """Read what `put_even` wrote; returns it and the rest of what `take` does."""
    value = ((i8(x & u8(ALL - 1)) + 1) * count - 1) >> 16
    start = (value << 16) // count
    size = ((value + 1) << 16) // count - start
    _, x, at, word, least = take(x, at, word, least, words, u8(start), u8(size), u8(0))
    return value, x, at, word, least


@part
def start_fresh(x: I32, models: F32, states: I64, presets: F64, chosen: I64) -> None:
    """Choose first weights of channels without a past, set their zeroed models and states.

    Args:
        x: (c, n) samples, n ≥ 1.
        chosen: (c,) receives the presets.
    """
    for c in range(x.shape[0]):
        preset = preset_of(x[c], presets)
        chosen[c] = preset
        group, lane = group_of(c, x.shape[0])
        start_state(models[group], lane, states[c], i8(x[c, 0]), i8(0), preset, presets)


@part
def likely_octave(values: I32, width: int, preset: int, presets: F64) -> int:
    """An octave of residuals' magnitudes, from how a preset does at the first of `values` (n,)."""
    # The first weights are changed at once, which costs more than they would: half as much again is best.
    missed = missed_by(values, presets, preset, min(values.size, MAGNITUDE_ROWS))
    return min(max(bit_length(u8(missed * 96.0)) - 1, 0), width + OCTAVES_BEYOND - 1)


@part
def put_fresh(steps: Words, at: int, first: int, width: int, octave: int, before: int, preset: int) -> int:
    """Note a channel's first sample, octave and preset; returns the number of the next step.

    Args:
        before: The octave of the channel before, -1 for the first.
    """
    folded = (first << 1) ^ (first >> 63)
    length = bit_length(u8(folded))
    at = put_even(steps, at, length, width + 1)
    at = put_plain(steps, at, folded, length - 1)
    near = i8(OTHER)
    if before >= 0:
        near = min(((octave - before) << 1) ^ ((octave - before) >> 63), i8(OTHER))
        near = near if near >= 0 else i8(OTHER)
        at = put(steps, at, NEAR[near], NEAR[near + 1] - NEAR[near], i8(0), i8(0))
    if near == OTHER:
        at = put_even(steps, at, octave, width + OCTAVES_BEYOND)
    return put_plain(steps, at, preset, i8(3))


@part
def take_fresh(
    width: int, models: F32, states: I64, presets: F64, x: Any, at: int, words: U32
) -> tuple[Any, int]:
    """Read what `put_fresh` wrote, setting zeroed models and states; at is -1 when it is not valid."""
    word, least = words[u8(at)], least_of(at, words)
    channels = states.shape[0]
    octave = i8(-1)
    for c in range(channels):
        length, x, at, word, least = take_even(x, at, word, least, words, width + 1)
        bits, x, at, word, least = take_plain(x, at, word, least, words, length - 1)
        folded = bits | (u8(1) << u8(length - 1)) if length > 0 else u8(0)
        near = i8(OTHER)
        if octave >= 0:
            near, slot = i8(0), i8(x & u8(ALL - 1))
            while slot >= NEAR[near + 1]:
                near += 1
            start, size = u8(NEAR[near]), u8(NEAR[near + 1] - NEAR[near])
            _, x, at, word, least = take(x, at, word, least, words, start, size, u8(0))
        if near == OTHER:
            octave, x, at, word, least = take_even(x, at, word, least, words, width + OCTAVES_BEYOND)
        else:
            octave += (near >> 1) ^ -(near & 1)
        bits, x, at, word, least = take_plain(x, at, word, least, words, i8(3))
        if octave < 0 or octave >= width + OCTAVES_BEYOND:
            return x, -1
        sample = i8(folded >> u8(1)) ^ -i8(folded & u8(1))
        group, lane = group_of(c, channels)
        start_state(models[group], lane, states[c], sample, octave, i8(bits), presets)
    return x, at
