"""Four float64 at once: what follows each decoded residual, side by side, in whole numbers below 2^53.

As in `lanes`, every operation is the machine's vector instruction, or a small array without compilation.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numpy.typing import NDArray

from edgecap.kernels.lanes import VectorType, define, place_in, register, same_in_all, unary

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Four = Any

WIDE = 4
SCALES_BEFORE = 8 * 4 * 1023
"""What `keep_scales` adds to every index."""
_VECTOR = ir.VectorType(ir.DoubleType(), WIDE)
_SINGLES = ir.VectorType(ir.FloatType(), WIDE)
_BITS = ir.VectorType(ir.IntType(64), WIDE)
_HALVES = (1.0, 0.5, 0.25, 0.125)
_WHOLE = 6755399441055744.0
"""1.5 · 2^52: the bits of its sum with a whole number below 2^51 end with that number's."""


class FourType(VectorType):
    """numba's name for four float64."""

    def __init__(self) -> None:
        super().__init__(name="Four")


_FOUR: Any = FourType()
register(
    FourType,
    _FOUR,
    _VECTOR,
    ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")),
)


def four(array: F64, at: int) -> Four:
    """Four numbers of `array` (n,) from `at` on."""
    return array[at : at + WIDE].copy()


def keep_four(array: F64, at: int, value: Four) -> None:
    """Put four numbers into `array` (n,) from `at` on."""
    array[at : at + WIDE] = value


def all_four(value: float) -> Four:
    """One number four times."""
    return np.full(WIDE, value, np.float64)


def falling_four(value: float) -> Four:
    """One number, and three times half of the one before."""
    return np.float64(value) * np.array(_HALVES)


def floor_four(value: Four) -> Four:
    """Rounded down."""
    return np.floor(value)


def size_four(value: Four) -> Four:
    """Without their signs."""
    return np.abs(value)


def least_four(a: Four, b: Four) -> Four:
    """The smaller of two numbers, four times."""
    return np.where(a < b, a, b)


def most_four(a: Four, b: Four) -> Four:
    """The larger of two numbers, four times."""
    return np.where(a > b, a, b)


def signs_below(what: Four, limit: Four) -> Four:
    """What `turn` shall do: change signs where `what` is below `limit`."""
    return np.where(what < limit, -1.0, 1.0)


def turn(value: Four, signs: Four) -> Four:
    """`value`, with some signs changed."""
    return value * signs


def foreseen(ahead: F32, at: int, w: F32, lane: int, latest: Four) -> Four:
    """The predictions of four lanes, rounded towards zero.

    Args:
        ahead: What is expected but for the share of the latest differences, from `at` on.
        w: Weights, from `lane` on those of the latest differences.
        latest: The latest differences, which are rounded to float32.
    """
    z = ahead[at : at + WIDE] + w[lane : lane + WIDE] * latest.astype(np.float32)
    return np.trunc(z).astype(np.float64)


def keep_single(array: F32, at: int, value: Four) -> None:
    """Put four numbers, rounded to float32, into `array` (n,) from `at` on."""
    array[at : at + WIDE] = value


def keep_scales(array: I64, at: int, magnitude: Four, y: Four, plus: I64) -> None:
    """Put four indices into `array` from `at` on.

    Args:
        magnitude: At least 1; an index is 8 times its quarter octave,
        y: plus the `eighth_of` this prediction,
        plus: plus SCALES_BEFORE, plus what this array has at the same places.
    """
    index = (magnitude.view(np.int64) >> 50) << 3 | (y.astype(np.int64) + 128) >> 5 & 7
    array[at : at + WIDE] = index + plus[at : at + WIDE]


def exceed(value: Four, limit: Four) -> bool:
    """Whether any of four numbers is beyond its limit."""
    return bool((value > limit).any())


def shift_in(value: Four, last: float) -> Four:
    """The last three numbers, and then another."""
    return np.append(value[1:], last)


def _all(value: float) -> Any:
    return ir.Constant(_VECTOR, [value] * WIDE)


def _bits(value: int) -> Any:
    return ir.Constant(_BITS, [value] * WIDE)


def _at(context: Any, builder: Any, signature: Any, args: Any, array: int, at: int, vector: Any) -> Any:
    index = context.cast(builder, args[at], signature.args[at], types.int64)
    return place_in(context, builder, signature.args[array], args[array], index, vector)


def _four(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.load(_at(context, builder, signature, args, 0, 1, _VECTOR), align=8)


def _keep_four(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    builder.store(args[2], _at(context, builder, signature, args, 0, 1, _VECTOR), align=8)
    return context.get_dummy_value()


def _all_four(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return same_in_all(builder, args[0], _VECTOR)


def _falling_four(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.fmul(same_in_all(builder, args[0], _VECTOR), ir.Constant(_VECTOR, list(_HALVES)))


def _floor_four(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return unary(builder, "floor", args[0], _VECTOR, "v4f64")


def _size_four(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return unary(builder, "fabs", args[0], _VECTOR, "v4f64")


def _least_four(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[0], args[1])


def _most_four(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1])


def _signs_below(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", *args), _all(-0.0), _all(0.0))


def _turn(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    value, signs = (builder.bitcast(arg, _BITS) for arg in args)
    return builder.bitcast(builder.xor(value, signs), _VECTOR)


def _foreseen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    ahead = builder.load(_at(context, builder, signature, args, 0, 1, _SINGLES), align=4)
    weight = builder.load(_at(context, builder, signature, args, 2, 3, _SINGLES), align=4)
    latest = builder.fptrunc(args[4], _SINGLES)
    z = builder.fadd(ahead, builder.fmul(weight, latest))
    return builder.fpext(unary(builder, "trunc", z, _SINGLES, "v4f32"), _VECTOR)


def _keep_single(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    single = builder.fptrunc(args[2], _SINGLES)
    builder.store(single, _at(context, builder, signature, args, 0, 1, _SINGLES), align=4)
    return context.get_dummy_value()


def _shift_in(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    last = builder.insert_element(undefined, args[1], ir.Constant(ir.IntType(32), 0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), WIDE), [1, 2, 3, 4])
    return builder.shuffle_vector(args[0], last, places)


def _exceed(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    beyond = builder.bitcast(builder.fcmp_ordered(">", *args), ir.IntType(WIDE))
    return builder.icmp_unsigned("!=", beyond, ir.Constant(ir.IntType(WIDE), 0))


def _keep_scales(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    quarters = builder.and_(builder.lshr(builder.bitcast(args[2], _BITS), _bits(47)), _bits(-8))
    plus = builder.load(_at(context, builder, signature, args, 4, 1, _BITS), align=8)
    within = builder.bitcast(builder.fadd(args[3], _all(_WHOLE + 128.0)), _BITS)
    within = builder.and_(builder.lshr(within, _bits(5)), _bits(7))
    # In this order, since predictions are known last.
    index = builder.add(builder.add(quarters, plus), within)
    builder.store(index, _at(context, builder, signature, args, 0, 1, _BITS), align=8)
    return context.get_dummy_value()


_A, _I = types.Array, types.Integer
for _function, _lowered, _result, _kinds in (
    (four, _four, _FOUR, (_A, _I)),
    (keep_four, _keep_four, types.void, (_A, _I, FourType)),
    (all_four, _all_four, _FOUR, (types.Float,)),
    (falling_four, _falling_four, _FOUR, (types.Float,)),
    (floor_four, _floor_four, _FOUR, (FourType,)),
    (size_four, _size_four, _FOUR, (FourType,)),
    (least_four, _least_four, _FOUR, (FourType, FourType)),
    (most_four, _most_four, _FOUR, (FourType, FourType)),
    (signs_below, _signs_below, _FOUR, (FourType, FourType)),
    (turn, _turn, _FOUR, (FourType, FourType)),
    (foreseen, _foreseen, _FOUR, (_A, _I, _A, _I, FourType)),
    (keep_single, _keep_single, types.void, (_A, _I, FourType)),
    (exceed, _exceed, types.boolean, (FourType, FourType)),
    (shift_in, _shift_in, _FOUR, (FourType, types.Float)),
    (keep_scales, _keep_scales, types.void, (_A, _I, FourType, FourType, _A)),
):
    define(_function, _lowered, _result, _kinds)
