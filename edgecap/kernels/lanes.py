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


class EightType(types.Type):
    """numba's name for eight float32."""

    def __init__(self) -> None:
        super().__init__(name="Eight")


_EIGHT: Any = EightType()


class _EightModel(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)  # type: ignore[no-untyped-call]


_register_model(EightType)(_EightModel)


def _operator(function: Any, instruction: str) -> None:
    def typed(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return _EIGHT if isinstance(a, EightType) and isinstance(b, EightType) else None

        return typer

    def lowered(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)

    _type_callable(function)(typed)
    _lower_builtin(function, EightType, EightType)(lowered)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_function, _instruction)


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


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _VECTOR.as_pointer())


def _broadcast(builder: Any, value: Any) -> Any:
    if value.type == ir.DoubleType():
        value = builder.fptrunc(value, ir.FloatType())
    lane0 = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_INDEX, 0))
    mask = ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES)
    return builder.shuffle_vector(lane0, ir.Constant(_VECTOR, ir.Undefined), mask)


def _unary(builder: Any, name: str, eight: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR])
    return builder.call(_get_or_insert_function(builder.module, kind, f"llvm.{name}.v8f32"), [eight])


def _load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array, at = signature.args
    at = context.cast(builder, args[1], at, types.int64)
    return builder.load(_place(context, builder, array, args[0], at), align=4)


def _store(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array, at, _ = signature.args
    at = context.cast(builder, args[1], at, types.int64)
    builder.store(args[2], _place(context, builder, array, args[0], at), align=4)
    return context.get_dummy_value()


def _same(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return _broadcast(builder, args[0])


def _within(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    most = _broadcast(builder, args[1])
    # An ordered comparison: it is false for what is not a number.
    inside = builder.fcmp_ordered("<=", _unary(builder, "fabs", args[0]), most)
    return builder.select(inside, args[0], ir.Constant(_VECTOR, [0.0] * LANES))


def _callable(function: Any, lowered: Any, result: Any, kinds: tuple[Any, ...]) -> None:
    """Let kernels call `function` with arguments of these kinds, as the instructions of `lowered`."""

    def typed(context: Any) -> Any:
        def typer1(a: Any) -> Any:
            return result if isinstance(a, kinds[0]) else None

        def typer2(a: Any, b: Any) -> Any:
            return result if isinstance(a, kinds[0]) and isinstance(b, kinds[1]) else None

        def typer3(a: Any, b: Any, c: Any) -> Any:
            return result if all(map(isinstance, (a, b, c), kinds)) else None

        return (typer1, typer2, typer3)[len(kinds) - 1]

    _type_callable(function)(typed)
    _lower_builtin(function, *kinds)(lowered)


_FUNCTIONS: tuple[tuple[Any, Any, Any, tuple[Any, ...]], ...] = (
    (load, _load, _EIGHT, (types.Array, types.Integer)),
    (store, _store, types.void, (types.Array, types.Integer, EightType)),
    (same, _same, _EIGHT, (types.Float,)),
    (within, _within, _EIGHT, (EightType, types.Float)),
)
for _entry in _FUNCTIONS:
    _callable(*_entry)
