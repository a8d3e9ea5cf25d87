"""Four float64 at once: a type for kernels whose operators are the machine's vector instructions.

Channels learn side by side, one in each of the four lanes, and numba does not turn loops of length four into
vectors. Every operation rounds as IEEE 754 says, lane by lane, and none is fused with another, so that the
results are the same on every machine. Without compilation the four numbers are a small array.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types
from numba.core import cgutils
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Four = Any

# numba's own functions have no types that mypy could check.
_type_callable: Any = extending.type_callable
_lower_builtin: Any = extending.lower_builtin
_register_model: Any = extending.register_model
_get_or_insert_function: Any = cgutils.get_or_insert_function

LANES = 4
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_INDEX = ir.IntType(32)


class FourType(types.Type):
    """numba's name for four float64."""

    def __init__(self) -> None:
        super().__init__(name="Four")


_FOUR: Any = FourType()


class _FourModel(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)  # type: ignore[no-untyped-call]


_register_model(FourType)(_FourModel)


def _operator(function: Any, instruction: str) -> None:
    def typed(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return _FOUR if isinstance(a, FourType) and isinstance(b, FourType) else None

        return typer

    def lowered(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)

    _type_callable(function)(typed)
    _lower_builtin(function, FourType, FourType)(lowered)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_function, _instruction)


def load(array: F64, at: int) -> Four:
    """Four numbers of `array` (n,) from `at` on."""
    return array[at : at + LANES].copy()


def store(array: F64, at: int, four: Four) -> None:
    """Put four numbers into `array` (n,) from `at` on."""
    array[at : at + LANES] = four


def same(value: float) -> Four:
    """One number in all four lanes."""
    return np.full(LANES, value)


def rounded_down(four: Four) -> Four:
    """The largest integers not above."""
    return np.floor(four)


def magnitudes(four: Four) -> Four:
    """Without their signs."""
    return np.abs(four)


def within(four: Four, limit: float) -> Four:
    """Zero in place of numbers beyond ± `limit` and of what is none."""
    return np.where(np.abs(four) <= limit, four, 0.0)


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _VECTOR.as_pointer())


def _broadcast(builder: Any, value: Any) -> Any:
    lane0 = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_INDEX, 0))
    mask = ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES)
    return builder.shuffle_vector(lane0, ir.Constant(_VECTOR, ir.Undefined), mask)


def _unary(builder: Any, name: str, four: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR])
    return builder.call(_get_or_insert_function(builder.module, kind, f"llvm.{name}.v4f64"), [four])


def _load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array, at = signature.args
    at = context.cast(builder, args[1], at, types.int64)
    return builder.load(_place(context, builder, array, args[0], at), align=8)


def _store(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array, at, _ = signature.args
    at = context.cast(builder, args[1], at, types.int64)
    builder.store(args[2], _place(context, builder, array, args[0], at), align=8)
    return context.get_dummy_value()


def _same(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return _broadcast(builder, args[0])


def _rounded_down(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return _unary(builder, "floor", args[0])


def _magnitudes(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return _unary(builder, "fabs", args[0])


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
    (load, _load, _FOUR, (types.Array, types.Integer)),
    (store, _store, types.void, (types.Array, types.Integer, FourType)),
    (same, _same, _FOUR, (types.Float,)),
    (rounded_down, _rounded_down, _FOUR, (FourType,)),
    (magnitudes, _magnitudes, _FOUR, (FourType,)),
    (within, _within, _FOUR, (FourType, types.Float)),
)
for _entry in _FUNCTIONS:
    _callable(*_entry)
