"""Counting zero bits as one machine instruction, and bits packed into words, lowest first."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from edgecap.kernels.compile import part

Words = NDArray[np.uint64]

PAD_WORDS = 3
"""Words that a buffer needs beyond its last bit, so that a symbol can be read or written in one go."""

i8: Any = np.int64
u8: Any = np.uint64
"""Casts inside kernels; typed loosely, since numpy's scalar types do not mix with int."""


def trailing_zeros(word: Any) -> int:
    """Number of zero bits below the lowest set bit of a uint64; 64 for zero."""
    value = int(word)
    return (value & -value).bit_length() - 1 if value else 64


def bit_length(word: Any) -> int:
    """Number of bits needed to write a uint64; 0 for zero."""
    return int(word).bit_length()


def _cttz(typingctx: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


def _ctlz(typingctx: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


_count_trailing: Any = intrinsic(_cttz)
_count_leading: Any = intrinsic(_ctlz)


@overload(trailing_zeros)
def _trailing_zeros(word: Any) -> Any:
    def implementation(word: Any) -> Any:
        return types.int64(_count_trailing(types.uint64(word)))

    return implementation


@overload(bit_length)
def _bit_length(word: Any) -> Any:
    def implementation(word: Any) -> Any:
        return 64 - types.int64(_count_leading(types.uint64(word)))

    return implementation


@part
def peek_bits(words: Words, at: int) -> Any:
    """The 64 bits from bit `at` on."""
    shift = u8(at & 63)
    word = at >> 6
    return (words[u8(word)] >> shift) | ((words[u8(word + 1)] << u8(1)) << (u8(63) - shift))
