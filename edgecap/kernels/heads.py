"""First samples, magnitudes and weights of channels without a past: what a fresh column begins with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.adaptive import STILL, group_of, missed_by, preset_of, start_state
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
NEAR_PRESETS = np.array((0, 24576, 32768, 40960, 46080, 51200, 53760, 56320, 65536), np.int64)
"""The same for their presets."""
PRESET_BITS = 4
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
def put_near(steps: Words, at: int, off: int, ends: I64) -> tuple[int, bool]:
    """Note a difference to the channel before if it is small; returns the next step, and whether it was."""
    folded = i8((off << 1) ^ (off >> 63))
    near = folded if folded < OTHER else i8(OTHER)
    return put(steps, at, ends[near], ends[near + 1] - ends[near], i8(0), i8(0)), near < OTHER


@part
def take_near(
    x: Any, at: int, word: Any, least: Any, words: U32, ends: I64
) -> tuple[int, Any, int, Any, Any]:
    """Read what `put_near` wrote, folded; `OTHER` for none."""
    near, slot = i8(0), i8(x & u8(ALL - 1))
    while slot >= ends[near + 1]:
        near += 1
    _, x, at, word, least = take(
        x, at, word, least, words, u8(ends[near]), u8(ends[near + 1] - ends[near]), u8(0)
    )
    return near, x, at, word, least


@part
def start_fresh(x: I32, models: F32, states: I64, presets: F64, chosen: I64) -> None:
    """Choose first weights of channels without a past, set their zeroed models and states.

    Args:
        x: (c, n) samples, n ≥ 1.
        chosen: (c,) receives the presets.
    """
    weights, totals = np.empty(presets.size, np.float32), np.empty(presets.shape[0], np.float32)
    for k in range(presets.shape[1]):
        for p in range(presets.shape[0]):
            weights[k * presets.shape[0] + p] = presets[p, k]
    for c in range(x.shape[0]):
        preset = preset_of(x[c], weights, totals)
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
def put_fresh(
    steps: Words,
    at: int,
    first: int,
    width: int,
    octave: int,
    preset: int,
    last_octave: int,
    last_preset: int,
) -> int:
    """Note a channel's first sample, octave and preset; returns the number of the next step.

    Args:
        last_octave, last_preset: Of the channel before; -1 for the first.
    """
    folded = (first << 1) ^ (first >> 63)
    length = bit_length(u8(folded))
    at = put_even(steps, at, length, width + 1)
    at = put_plain(steps, at, folded, length - 1)
    near = False
    if last_octave >= 0:
        at, near = put_near(steps, at, octave - last_octave, NEAR)
    if not near:
        at = put_even(steps, at, octave, width + OCTAVES_BEYOND)
    near = False
    if last_preset >= 0:
        at, near = put_near(steps, at, preset - last_preset, NEAR_PRESETS)
    return at if near else put_plain(steps, at, preset ^ STILL, i8(PRESET_BITS))


@part
def take_fresh(
    width: int, models: F32, states: I64, presets: F64, x: Any, at: int, words: U32
) -> tuple[Any, int]:
    """Read what `put_fresh` wrote, setting zeroed models and states; at is -1 when it is not valid."""
    word, least = words[u8(at)], least_of(at, words)
    channels = states.shape[0]
    octave = preset = i8(-1)
    for c in range(channels):
        length, x, at, word, least = take_even(x, at, word, least, words, width + 1)
        bits, x, at, word, least = take_plain(x, at, word, least, words, length - 1)
        folded = bits | (u8(1) << u8(length - 1)) if length > 0 else u8(0)
        near = i8(OTHER)
        if c > 0:
            near, x, at, word, least = take_near(x, at, word, least, words, NEAR)
        if near == OTHER:
            octave, x, at, word, least = take_even(x, at, word, least, words, width + OCTAVES_BEYOND)
        else:
            octave += (near >> 1) ^ -(near & 1)
        near = i8(OTHER)
        if c > 0:
            near, x, at, word, least = take_near(x, at, word, least, words, NEAR_PRESETS)
        if near == OTHER:
            bits, x, at, word, least = take_plain(x, at, word, least, words, i8(PRESET_BITS))
            preset = i8(bits) ^ STILL
        else:
            preset += (near >> 1) ^ -(near & 1)
        if octave < 0 or octave >= width + OCTAVES_BEYOND or preset < 0 or preset >> PRESET_BITS:
            return x, -1
        sample = i8(folded >> u8(1)) ^ -i8(folded & u8(1))
        group, lane = group_of(c, channels)
        start_state(models[group], lane, states[c], sample, octave, preset, presets)
    return x, at
