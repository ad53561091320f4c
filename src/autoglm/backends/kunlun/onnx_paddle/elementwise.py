"""Element by element: arithmetic, comparison, logic, bits, rounding, running sums."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import paddle

from .op import (
    DTYPES,
    FLOATS,
    Node,
    Op,
    Refused,
    Run,
    Table,
    Value,
    Versions,
    axis_of,
    bare,
    full_like,
    name_of,
    rank,
    scalar,
    size,
)


def divide(node: Node, x: Value, y: Value) -> Value:
    """Integers truncate toward zero."""
    if name_of(x) in FLOATS or name_of(x).startswith("complex"):
        return paddle.divide(x, y)
    if name_of(x).startswith("uint"):
        return paddle.floor_divide(x, y)
    quotient = paddle.floor_divide(paddle.abs(x), paddle.abs(y))
    return paddle.where(paddle.less_than(x, _zero(x)) ^ paddle.less_than(y, _zero(y)),
                        paddle.scale(quotient, -1), quotient)  # fmt: skip


def _zero(x: Value) -> Value:
    return paddle.zeros_like(x)


def modulo(node: Node, x: Value, y: Value) -> Value:
    """fmod=0: the sign of the divisor; fmod=1: the sign of the dividend."""
    rest = paddle.remainder(x, y)
    if not node["fmod"]:
        return rest
    zero = _zero(rest)
    other = paddle.logical_xor(paddle.less_than(rest, zero), paddle.less_than(x, _zero(x)))
    wrong = paddle.logical_and(paddle.not_equal(rest, zero), other)
    return paddle.where(wrong, rest - y, rest)


def power(node: Node, x: Value, y: Value) -> Value:
    """The result has the base's dtype, whatever the exponent's is."""
    if name_of(x) == name_of(y):
        return paddle.pow(x, y)
    if name_of(x) in FLOATS:
        return paddle.pow(x, paddle.cast(y, x.dtype))
    wide = paddle.pow(paddle.cast(x, "float64"), paddle.cast(y, "float64"))
    return paddle.cast(wide, x.dtype)


def legacy(run: Run, node: Node, x: Value, y: Value) -> Value:
    """Before opset 7 the second operand broadcasts only on request, aligned at `axis`."""
    axis = node["axis"]
    if node["broadcast"] and axis is not None:
        tail = rank(x) - axis_of(axis, rank(x)) - rank(y)
        y = paddle.reshape(y, [size(y, i) for i in range(rank(y))] + [1] * tail)
    return run(x, y)


def shift(node: Node, x: Value, y: Value) -> Value:
    """By the width or more (a negative amount counts as such) every bit is shifted out."""
    width = {"uint8": 8, "int8": 8, "int16": 16, "int32": 32}.get(node.inputs[0], 64)
    zero = paddle.zeros_like(y)
    out = paddle.logical_or(y < zero, y >= paddle.full_like(y, width))
    if node["direction"] == "LEFT":
        moved = paddle.bitwise_left_shift(x, paddle.where(out, zero, y))
        return paddle.where(out, paddle.zeros_like(x), moved)
    if node.inputs[0].startswith("uint"):
        moved = paddle.bitwise_right_shift(x, paddle.where(out, zero, y))
        return paddle.where(out, paddle.zeros_like(x), moved)
    return paddle.bitwise_right_shift(x, paddle.where(out, paddle.full_like(y, width - 1), y))


def clip(node: Node, x: Value, low: Value = None, high: Value = None) -> Value:
    """Where the bounds cross, the upper one wins."""
    if low is not None:
        x = paddle.maximum(x, low)
    return x if high is None else paddle.minimum(x, high)


def clip_6(node: Node, x: Value) -> Value:
    """Bounds as attributes."""
    return paddle.clip(x, node["min"], node["max"])


def fold(run: Run, node: Node, *xs: Value) -> Value:
    """A variadic operator."""
    return reduce(run, xs) if len(xs) > 1 else paddle.assign(xs[0])


def mean(node: Node, *xs: Value) -> Value:
    """Average over the inputs."""
    return paddle.scale(fold(paddle.add, node, *xs), 1.0 / len(xs))


def is_inf(node: Node, x: Value) -> Value:
    """Either sign can be left out."""
    found = paddle.isinf(x)
    if not node["detect_positive"]:
        found = paddle.logical_and(found, paddle.less_than(x, _zero(x)))
    if not node["detect_negative"]:
        found = paddle.logical_and(found, paddle.greater_than(x, _zero(x)))
    return found


def round_half_even(x: Value) -> Value:
    """Paddle rounds halves away from zero, ONNX to the even neighbour."""
    tie = paddle.equal(paddle.abs(x - paddle.floor(x)), full_like(x, 0.5))
    even = paddle.scale(paddle.round(paddle.scale(x, 0.5)), 2.0)
    return paddle.where(tie, even, paddle.round(x))


def running(run: Run, start: float, node: Node, x: Value, axis: Any) -> Value:
    """Sums (or products) so far, of what lies before on request, from the end on request."""
    axis = axis_of(int(scalar(axis)), rank(x))
    x = paddle.flip(x, [axis]) if node["reverse"] else x
    if node["exclusive"]:
        count = size(x, axis)
        first = paddle.slice(x, [axis], [0], [1])
        rest = [paddle.slice(x, [axis], [0], [count - 1])] if count > 1 else []
        x = paddle.concat([paddle.full_like(first, start), *rest], axis)
    result = run(x, axis)
    return paddle.flip(result, [axis]) if node["reverse"] else result


def where(node: Node, condition: Value, x: Value, y: Value) -> Value:
    """Choose by element."""
    return paddle.where(condition, x, y)


def cast(node: Node, x: Value) -> Value:
    """To the dtype named by number."""
    return _cast(x, DTYPES.get(node["to"], ""))


def cast_like(node: Node, x: Value, like: Value) -> Value:
    """To the dtype of the second input."""
    return _cast(x, name_of(like))


def _cast(x: Value, target: str) -> Value:
    if not target:
        raise Refused("Paddle has no such dtype to cast to")
    if target == "bool":
        return paddle.not_equal(x, _zero(x)) if name_of(x) != "bool" else paddle.assign(x)
    return paddle.cast(x, target)


def negate(node: Node, x: Value) -> Value:
    """The other sign."""
    return paddle.scale(x, -1) if name_of(x) not in FLOATS else paddle.neg(x)


def absolute(node: Node, x: Value) -> Value:
    """Unsigned values are their own absolute."""
    return paddle.assign(x) if name_of(x).startswith("uint") else paddle.abs(x)


def _legacy(run: Run, modern: Op) -> Versions:
    return {1: Op(partial(legacy, run)), 7: modern}


TABLE: Table = {
    "Add": _legacy(paddle.add, bare(paddle.add, wide=True)),
    "Sub": _legacy(paddle.subtract, bare(paddle.subtract, wide=True)),
    "Mul": _legacy(paddle.multiply, bare(paddle.multiply, wide=True)),
    "Div": _legacy(paddle.divide, Op(divide, wide=True)),
    "Mod": Op(modulo, wide=True),
    "Pow": _legacy(paddle.pow, Op(power, wide=True)),
    "And": _legacy(paddle.logical_and, bare(paddle.logical_and)),
    "Or": _legacy(paddle.logical_or, bare(paddle.logical_or)),
    "Xor": _legacy(paddle.logical_xor, bare(paddle.logical_xor)),
    "Not": bare(paddle.logical_not),
    "Equal": _legacy(paddle.equal, bare(paddle.equal)),
    "Greater": _legacy(paddle.greater_than, bare(paddle.greater_than, wide=True)),
    "Less": _legacy(paddle.less_than, bare(paddle.less_than, wide=True)),
    "GreaterOrEqual": bare(paddle.greater_equal),
    "LessOrEqual": bare(paddle.less_equal),
    "BitwiseAnd": bare(paddle.bitwise_and),
    "BitwiseOr": bare(paddle.bitwise_or),
    "BitwiseXor": bare(paddle.bitwise_xor),
    "BitwiseNot": bare(paddle.bitwise_not),
    "BitShift": Op(shift, wide=True),
    "Max": Op(partial(fold, paddle.maximum), wide=True),
    "Min": Op(partial(fold, paddle.minimum), wide=True),
    "Sum": Op(partial(fold, paddle.add), wide=True),
    "Mean": Op(mean),
    "Clip": {1: Op(clip_6), 11: Op(clip, wide=True)},
    "Where": Op(where),
    "Identity": bare(paddle.assign),
    "Cast": Op(cast),
    "CastLike": Op(cast_like),
    "Abs": Op(absolute, wide=True),
    "Sign": bare(paddle.sign, wide=True),
    "Neg": Op(negate, wide=True),
    "Ceil": bare(paddle.ceil),
    "Floor": bare(paddle.floor),
    "Round": bare(round_half_even),
    "Sqrt": bare(paddle.sqrt),
    "Reciprocal": bare(paddle.reciprocal),
    "Exp": bare(paddle.exp),
    "Log": bare(paddle.log),
    "Erf": bare(paddle.erf),
    "Sin": bare(paddle.sin),
    "Cos": bare(paddle.cos),
    "Tan": bare(paddle.tan),
    "Asin": bare(paddle.asin),
    "Acos": bare(paddle.acos),
    "Atan": bare(paddle.atan),
    "Sinh": bare(paddle.sinh),
    "Cosh": bare(paddle.cosh),
    "Asinh": bare(paddle.asinh),
    "Acosh": bare(paddle.acosh),
    "Atanh": bare(paddle.atanh),
    "IsInf": Op(is_inf),
    "IsNaN": bare(paddle.isnan),
    "CumSum": Op(partial(running, paddle.cumsum, 0), host=(1,)),
    "CumProd": Op(partial(running, paddle.cumprod, 1), host=(1,)),
}
