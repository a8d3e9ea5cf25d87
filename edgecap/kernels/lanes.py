"""Eight float32 at once: a type for kernels whose operators are the machine's vector instructions.

Channels learn side by side, one in each of the eight lanes, and numba does not turn loops of length eight
into vectors. Every operation rounds as IEEE 754 says, lane by lane, and none is fused with another, so that
the results are the same on every machine. Without compilation the eight numbers are a small array.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types
from numba.core import cgutils
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Eight = Any

# numba's own functions have no types that mypy could check.
_type_callable: Any = extending.type_callable
_lower_builtin: Any = extending.lower_builtin
_register_model: Any = extending.register_model
_get_or_insert_function: Any = cgutils.get_or_insert_function

LANES = 8
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(32)


class VectorType(types.Type):
    """What kernels' vectors are for numba."""


class EightType(VectorType):
    """numba's name for eight float32."""

    def __init__(self) -> None:
        super().__init__(name="Eight")


_EIGHT: Any = EightType()


def _operator(function: Any, instruction: str, kind: Any, value: Any) -> None:
    def typed(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return value if isinstance(a, kind) and isinstance(b, kind) else None

        return typer

    def lowered(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)

    _type_callable(function)(typed)
    _lower_builtin(function, kind, kind)(lowered)


def register(kind: Any, value: Any, vector: Any, operators: tuple[tuple[Any, str], ...]) -> None:
    """Let kernels hold values of a vector type, and apply these operators as instructions of that name."""

    class Model(extending.models.PrimitiveModel):
        def __init__(self, manager: Any, its_kind: Any) -> None:
            super().__init__(manager, its_kind, vector)  # type: ignore[no-untyped-call]

    _register_model(kind)(Model)
    for function, instruction in operators:
        _operator(function, instruction, kind, value)


register(
    EightType,
    _EIGHT,
    _VECTOR,
    ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")),
)


def load(array: F32, at: int) -> Eight:
    """Eight numbers of `array` (n,) from `at` on."""
    return array[at : at + LANES].copy()


def store(array: F32, at: int, eight: Eight) -> None:
    """Put eight numbers into `array` (n,) from `at` on."""
    array[at : at + LANES] = eight


def same(value: float) -> Eight:
    """One number in all eight lanes."""
    return np.full(LANES, value, np.float32)


def within(eight: Eight, limit: float) -> Eight:
    """Zero in place of numbers beyond ± `limit` and of what is none."""
    return np.where(np.abs(eight) <= np.float32(limit), eight, np.float32(0))


def size(eight: Eight) -> Eight:
    """Without their signs."""
    return np.abs(eight)


def place_in(context: Any, builder: Any, kind: Any, array: Any, at: Any, vector: Any) -> Any:
    """Pointer to a vector in an array, from an int64 index on."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())


def same_in_all(builder: Any, value: Any, vector: Any) -> Any:
    """A vector of one number."""
    if value.type == ir.DoubleType() and vector.element == ir.FloatType():
        value = builder.fptrunc(value, ir.FloatType())
    lane0 = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_INDEX, 0))
    mask = ir.Constant(ir.VectorType(_INDEX, vector.count), [0] * vector.count)
    return builder.shuffle_vector(lane0, ir.Constant(vector, ir.Undefined), mask)


def unary(builder: Any, name: str, value: Any, vector: Any, suffix: str) -> Any:
    """What LLVM's function of this name makes of a vector."""
    kind = ir.FunctionType(vector, [vector])
    return builder.call(_get_or_insert_function(builder.module, kind, f"llvm.{name}.{suffix}"), [value])


def _load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array, at = signature.args
    at = context.cast(builder, args[1], at, types.int64)
    return builder.load(place_in(context, builder, array, args[0], at, _VECTOR), align=4)


def _store(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array, at, _ = signature.args
    at = context.cast(builder, args[1], at, types.int64)
    builder.store(args[2], place_in(context, builder, array, args[0], at, _VECTOR), align=4)
    return context.get_dummy_value()


def _same(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return same_in_all(builder, args[0], _VECTOR)


def _within(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    most = same_in_all(builder, args[1], _VECTOR)
    # An ordered comparison: it is false for what is not a number.
    inside = builder.fcmp_ordered("<=", unary(builder, "fabs", args[0], _VECTOR, "v8f32"), most)
    return builder.select(inside, args[0], ir.Constant(_VECTOR, [0.0] * LANES))


def _size(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return unary(builder, "fabs", args[0], _VECTOR, "v8f32")


def define(function: Any, lowered: Any, result: Any, kinds: tuple[Any, ...]) -> None:
    """Let kernels call `function` with arguments of these kinds, as the instructions of `lowered`."""

    def typed(context: Any) -> Any:
        def matched(*given: Any) -> Any:
            return result if len(given) == len(kinds) and all(map(isinstance, given, kinds)) else None

        def typer1(a: Any) -> Any:
            return matched(a)

        def typer2(a: Any, b: Any) -> Any:
            return matched(a, b)

        def typer3(a: Any, b: Any, c: Any) -> Any:
            return matched(a, b, c)

        def typer4(a: Any, b: Any, c: Any, d: Any) -> Any:
            return matched(a, b, c, d)

        def typer5(a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
            return matched(a, b, c, d, e)

        def typer6(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
            return matched(a, b, c, d, e, f)

        return {1: typer1, 2: typer2, 3: typer3, 4: typer4, 5: typer5, 6: typer6}[len(kinds)]

    _type_callable(function)(typed)
    _lower_builtin(function, *kinds)(lowered)


for _function, _lowered, _result, _kinds in (
    (load, _load, _EIGHT, (types.Array, types.Integer)),
    (store, _store, types.void, (types.Array, types.Integer, EightType)),
    (same, _same, _EIGHT, (types.Float,)),
    (within, _within, _EIGHT, (EightType, types.Float)),
    (size, _size, _EIGHT, (EightType,)),
):
    define(_function, _lowered, _result, _kinds)
