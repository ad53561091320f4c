"""Element by element and along axes, for dtypes that engines leave out: 16-bit, unsigned, bf16."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np

from autoglm.backends.numpy.op import Array, Kernel, Op, Table, listed, plain, scalar
from autoglm.rewrite.program import Call


def _is_float(x: Array) -> bool:
    return bool(x.dtype.kind == "f" or x.dtype.name == "bfloat16")


def divide(call: Call, x: Array, y: Array) -> Array:
    """Integers truncate toward zero."""
    if _is_float(x):
        return np.asarray(x / y)
    if x.dtype.kind == "u":
        return np.asarray(x // y)
    quotient = np.abs(x) // np.abs(y)
    return np.where((x < 0) != (y < 0), -quotient, quotient).astype(x.dtype)


def modulo(call: Call, x: Array, y: Array) -> Array:
    """fmod=0: the sign of the divisor; fmod=1: the sign of the dividend."""
    return np.asarray(np.fmod(x, y) if call["fmod"] else np.mod(x, y))


def power(call: Call, x: Array, y: Array) -> Array:
    """The result has the base's dtype."""
    if _is_float(x) or _is_float(y):
        wide = np.float64 if x.dtype == np.float64 or not _is_float(x) else np.float32
        return np.asarray(np.power(x.astype(wide), y.astype(wide)), x.dtype)
    return np.asarray(np.power(x, y.astype(x.dtype)))


def legacy(run: Kernel, call: Call, x: Array, y: Array) -> Array:
    """Before opset 7 the second operand broadcasts only on request, aligned at `axis`."""
    if call["broadcast"] and call["axis"] is not None:
        axis = call["axis"] % x.ndim
        y = y.reshape(y.shape + (1,) * (x.ndim - axis - y.ndim))
    return np.asarray(run(call, x, y))


def fold(run: Callable[..., Any], call: Call, *xs: Array) -> Array:
    """A variadic operator."""
    return np.asarray(reduce(run, xs))


def mean(call: Call, *xs: Array) -> Array:
    """Average over the inputs."""
    return np.asarray(reduce(np.add, xs) / xs[0].dtype.type(len(xs)))


def clip(call: Call, x: Array, low: Any = None, high: Any = None) -> Array:
    """Where the bounds cross, the upper one wins."""
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def shift(call: Call, x: Array, y: Array) -> Array:
    """By the width or more, nothing is left but the sign."""
    width = 8 * x.dtype.itemsize
    if call["direction"] == "LEFT":
        moved = np.left_shift(x, np.minimum(y, width - 1))
        return np.asarray(np.where(y >= width, x.dtype.type(0), moved))
    moved = np.right_shift(x, np.minimum(y, width - 1))
    return np.asarray(np.where((y >= width) & (x >= 0), x.dtype.type(0), moved))


def running(run: Callable[..., Any], start: int, call: Call, x: Array, axis: Array) -> Array:
    """Cumulative sum or product, exclusive and backwards on request."""
    place = int(scalar(axis)) % x.ndim
    y = np.moveaxis(x, place, -1)
    y = y[..., ::-1] if call["reverse"] else y
    if call["exclusive"]:
        y = np.concatenate([np.full_like(y[..., :1], start), y[..., :-1]], -1)
    total = run(y, axis=-1, dtype=x.dtype)
    total = total[..., ::-1] if call["reverse"] else total
    return np.asarray(np.moveaxis(total, -1, place))


def swish(call: Call, x: Array) -> Array:
    """x sigmoid(alpha x)."""
    wide = x if x.dtype == np.float64 else x.astype(np.float32)
    return np.asarray(wide / (1 + np.exp(-call["alpha"] * wide)), x.dtype)


def swiglu(call: Call, gate: Array, value: Array) -> Array:
    """Swish of the gate, times the value."""
    return swish(call, gate) * value


def reduced(run: Callable[..., Any], empty: Any, call: Call, x: Array, axes: Any = None) -> Array:
    """Axes as an attribute or an input; none means all, unless noop_with_empty_axes."""
    chosen = listed(axes) if axes is not None else list(call["axes"] or ())
    if not chosen and call["noop_with_empty_axes"]:
        return x
    over = tuple(chosen) or tuple(range(x.ndim))
    keep = bool(call["keepdims"])
    if x.size == 0:
        shape = np.empty(x.shape, np.bool_).sum(over, keepdims=keep).shape
        return np.full(shape, empty(x.dtype), x.dtype)
    return np.asarray(run(x, axis=over, keepdims=keep)).astype(x.dtype)


def _least(dtype: Any) -> Any:
    if dtype.kind == "b":
        return False
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _greatest(dtype: Any) -> Any:
    if dtype.kind == "b":
        return True
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


def top_k(call: Call, x: Array, k: Array) -> tuple[Array, Array]:
    """Of equal values the lower index comes first."""
    axis, count = call["axis"] % x.ndim, int(scalar(k))
    order = np.argsort(x, axis, kind="stable")
    if call["largest"]:
        # Stable and descending: sort the reversed array, and turn order and indices round.
        back = np.argsort(np.flip(x, axis), axis, kind="stable")
        order = np.flip(x.shape[axis] - 1 - back, axis)
    index = np.take(order, np.arange(count), axis)
    return np.take_along_axis(x, index, axis), index.astype(np.int64)


def _legacy(op: Op) -> dict[int, Op]:
    return {1: Op(partial(legacy, op.run)), 7: op}


_BINARY: dict[str, Op] = {
    "Add": plain(np.add),
    "Sub": plain(np.subtract),
    "Mul": plain(np.multiply),
    "Div": Op(divide),
    "Pow": Op(power),
    "And": plain(np.logical_and),
    "Or": plain(np.logical_or),
    "Xor": plain(np.logical_xor),
    "Equal": plain(lambda x, y: np.equal(x, y).astype(np.bool_)),
    "Greater": plain(np.greater),
    "Less": plain(np.less),
}
TABLE: Table = {
    **{name: _legacy(op) for name, op in _BINARY.items()},
    "GreaterOrEqual": plain(np.greater_equal),
    "LessOrEqual": plain(np.less_equal),
    "Mod": Op(modulo),
    "Not": plain(np.logical_not),
    "BitwiseAnd": plain(np.bitwise_and),
    "BitwiseOr": plain(np.bitwise_or),
    "BitwiseXor": plain(np.bitwise_xor),
    "BitwiseNot": plain(np.bitwise_not),
    "BitShift": Op(shift),
    "Max": Op(partial(fold, np.maximum)),
    "Min": Op(partial(fold, np.minimum)),
    "Sum": Op(partial(fold, np.add)),
    "Mean": Op(mean),
    "Clip": {11: Op(clip)},
    "Abs": plain(np.abs),
    "Neg": plain(np.negative),
    "Sign": plain(np.sign),
    "Sqrt": plain(np.sqrt),
    "Exp": plain(np.exp),
    "Log": plain(np.log),
    "Tanh": plain(np.tanh),
    "Floor": plain(np.floor),
    "Ceil": plain(np.ceil),
    "Round": plain(np.rint),
    "CumSum": Op(partial(running, np.cumsum, 0)),
    "CumProd": Op(partial(running, np.cumprod, 1)),
    "Swish": Op(swish),
    "SwiGLU": Op(swiglu),
    "ReduceMax": Op(partial(reduced, np.max, _least)),
    "ReduceMin": Op(partial(reduced, np.min, _greatest)),
    "TopK": {10: Op(top_k)},
}
