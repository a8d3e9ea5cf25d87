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


def quotient(x: Any, reciprocal: Any, more: Any, shift: Any) -> Any:
    """(x · reciprocal + more) // 2^(64 + shift) of uint64: with `reciprocals_of`, a division in less time."""
    return np.uint64((int(x) * int(reciprocal) + int(more)) >> 64 + int(shift))


def reciprocals_of(divisors: Words) -> tuple[Words, NDArray[np.uint8]]:
    """For each of `divisors` (n,) below 2^31 what makes `quotient` exact for every uint64.

    Returns:
        (n,) reciprocals, and (n,) uint8 shifts plus 128 where the reciprocal is added as well.

    Source: A. D. Robison, N-bit unsigned division via N-bit multiply-add (ARITH 2005), § 3.
    """
    shift = np.log2(divisors).astype(np.uint64)
    high, rest = np.divmod(np.uint64(1) << (shift + u8(32)), divisors)
    low, rest = np.divmod(rest << u8(32), divisors)
    down = high << u8(32) | low
    up = divisors - rest <= np.uint64(1) << shift
    power = divisors & (divisors - u8(1)) == 0
    # A power of two has a reciprocal of 65 bits: half of it serves, and for 1, all ones added once more.
    reciprocal = np.where(power, u8(1 << 63), down + up)
    shift = np.where(power & (divisors > 1), shift - u8(1), shift)
    reciprocal[divisors == 1] = (1 << 64) - 1
    add = ~up & ~power | (divisors == 1)
    return reciprocal, (shift | add.astype(np.uint64) << u8(7)).astype(np.uint8)


def _cttz(typingctx: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


def _ctlz(typingctx: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


def _divide(typingctx: Any, x: Any, reciprocal: Any, more: Any, shift: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        double = ir.IntType(128)
        x, reciprocal, more = (builder.zext(arg, double) for arg in args[:3])
        product = builder.add(builder.mul(x, reciprocal), more)
        high = builder.trunc(builder.lshr(product, ir.Constant(double, 64)), ir.IntType(64))
        return builder.lshr(high, args[3])

    return types.uint64(types.uint64, types.uint64, types.uint64, types.uint64), codegen


_count_trailing: Any = intrinsic(_cttz)
_divided: Any = intrinsic(_divide)
_count_leading: Any = intrinsic(_ctlz)


@overload(trailing_zeros)
def _trailing_zeros(word: Any) -> Any:
    def implementation(word: Any) -> Any:
        return types.int64(_count_trailing(types.uint64(word)))

    return implementation


@overload(quotient)
def _quotient(x: Any, reciprocal: Any, more: Any, shift: Any) -> Any:
    def implementation(x: Any, reciprocal: Any, more: Any, shift: Any) -> Any:
        return _divided(types.uint64(x), types.uint64(reciprocal), types.uint64(more), types.uint64(shift))

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
