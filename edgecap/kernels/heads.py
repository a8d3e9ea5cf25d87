"""First samples, magnitudes and weights of channels without a past: plain bits before a fresh column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecap.kernels.adaptive import group_of, missed_by, preset_of, start_state
from edgecap.kernels.bits import Words, bit_length, i8, u8
from edgecap.kernels.compile import part
from edgecap.kernels.rans import least_of, put_plain, take_plain

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]

MAGNITUDE_ROWS = 17
"""From so many samples at most the first magnitude of residuals is estimated."""


@part
def short_bits(width: int) -> int:
    """Bits of a fresh channel's octave, and of the length of its first sample."""
    return 5 if width == 16 else 6


@part
def start_fresh(x: I32, width: int, models: F32, states: I64, presets: F64, steps: Words, at: int) -> int:
    """Choose first magnitudes and weights of channels without a past, set their zeroed models and states.

    Args:
        x: (c, n) samples, n ≥ 1.

    Returns:
        The number of the next step, after plain bits that say what was chosen.
    """
    channels, n = x.shape
    short = short_bits(width)
    for c in range(channels):
        preset = preset_of(x[c], presets)
        first = i8(x[c, 0])
        # The first weights are changed at once, which costs more than they would: half as much again is best.
        missed = missed_by(x[c], presets, preset, min(n, MAGNITUDE_ROWS))
        octave = min(max(bit_length(u8(missed * 96.0)) - 1, 0), width + 7)
        group, lane = group_of(c, channels)
        start_state(models[group], lane, states[c], first, octave, preset, presets)
        folded = (first << 1) ^ (first >> 63)
        length = bit_length(u8(folded))
        at = put_plain(steps, at, length, short)
        at = put_plain(steps, at, folded, length - 1)
        at = put_plain(steps, at, octave, short)
        at = put_plain(steps, at, preset, i8(3))
    return at


@part
def take_fresh(
    width: int, models: F32, states: I64, presets: F64, x: Any, at: int, words: U32
) -> tuple[Any, int]:
    """Read what `start_fresh` wrote, setting zeroed models and states; at is -1 when it is not valid."""
    short = short_bits(width)
    word, least = words[u8(at)], least_of(at, words)
    channels = states.shape[0]
    for c in range(channels):
        bits, x, at, word, least = take_plain(x, at, word, least, words, short)
        length = i8(bits)
        if length > width:
            return x, -1
        bits, x, at, word, least = take_plain(x, at, word, least, words, length - 1)
        folded = bits | (u8(1) << u8(length - 1)) if length > 0 else u8(0)
        bits, x, at, word, least = take_plain(x, at, word, least, words, short)
        octave = i8(bits)
        bits, x, at, word, least = take_plain(x, at, word, least, words, i8(3))
        if octave > width + 7:
            return x, -1
        sample = i8(folded >> u8(1)) ^ -i8(folded & u8(1))
        group, lane = group_of(c, channels)
        start_state(models[group], lane, states[c], sample, octave, i8(bits), presets)
    return x, at
