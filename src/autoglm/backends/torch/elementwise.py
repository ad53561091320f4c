"""Element by element: arithmetic, comparison, logic, bits, rounding, running sums."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from autoglm.backends.torch.op import Kernel, Kind, Node, Op, Table, Versions, bare, move

_MIN64 = -(1 << 63)


def unsigned_divide(x: Tensor, y: Tensor) -> Tensor:
    """uint64 quotient of two int64 tensors that hold uint64 bits (Hacker's Delight, 9-3)."""
    big = (x ^ _MIN64) >= (y ^ _MIN64)
    shifted = (x >> 1) & 0x7FFF_FFFF_FFFF_FFFF
    safe = torch.where(y < 0, torch.ones_like(y), y)
    quotient = torch.div(shifted, safe, rounding_mode="trunc") << 1
    rest = x - quotient * safe
    quotient = quotient + ((rest ^ _MIN64) >= (safe ^ _MIN64)).to(x.dtype)
    return torch.where(y < 0, big.to(x.dtype), quotient)


def divide(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """Integers truncate toward zero."""
    if x.dtype.is_floating_point:
        return torch.div(x, y)
    if node.call.inputs[0] == "uint64":
        return unsigned_divide(x, y)
    return torch.div(x, y, rounding_mode="trunc")


def modulo(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """fmod=0: the sign of the divisor; fmod=1: the sign of the dividend."""
    if node.call.inputs[0] == "uint64":
        return x - unsigned_divide(x, y) * y
    if x.dtype in (torch.float16, torch.bfloat16):
        return modulo(node, x.float(), y.float()).to(x.dtype)
    return torch.fmod(x, y) if node["fmod"] else torch.remainder(x, y)


def power(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """The result has the base's dtype, whatever the exponent's is."""
    if x.dtype.is_floating_point or not y.dtype.is_floating_point:
        return torch.pow(x, y if x.dtype.is_floating_point else y.to(x.dtype)).to(x.dtype)
    return torch.pow(x.double(), y.double()).to(x.dtype)


def legacy(run: Kernel, node: Node, x: Tensor, y: Tensor) -> Tensor:
    """Before opset 7 the second operand broadcasts only on request, aligned at `axis`."""
    axis = node["axis"]
    if node["broadcast"] and axis is not None:
        axis = axis % x.ndim
        y = y.reshape(*y.shape, *[1] * (x.ndim - axis - y.ndim))
    result: Tensor = run(x, y)
    return result


def shift(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """Shifts fill with zeros; by the width or more, nothing is left."""
    if node["direction"] == "LEFT":
        return torch.where(y >= 64, torch.zeros_like(x), x << y.clamp(max=63))
    if node.call.inputs[0] != "uint64":
        return x >> y.clamp(max=63)
    once = (x >> 1) & 0x7FFF_FFFF_FFFF_FFFF
    return torch.where(y > 0, once >> (y - 1).clamp(0, 63), x)


def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Where the bounds cross, the upper one wins."""
    if low is not None:
        x = torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def clip_6(node: Node, x: Tensor) -> Tensor:
    """Bounds as attributes."""
    return torch.clamp(x, node["min"], node["max"])


def fold(run: Kernel, node: Node, *xs: Tensor) -> Tensor:
    """A variadic operator."""
    return reduce(run, xs)


def mean(node: Node, *xs: Tensor) -> Tensor:
    """Average over the inputs."""
    return reduce(torch.add, xs) / len(xs)


def is_inf(node: Node, x: Tensor) -> Tensor:
    """Either sign can be left out."""
    if x.dtype in (
        torch.float8_e4m3fn,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2,
        torch.float8_e5m2fnuz,
    ):
        x = x.float()
    empty = torch.zeros_like(x, dtype=torch.bool)
    positive = torch.isposinf(x) if node["detect_positive"] else empty
    return positive | (torch.isneginf(x) if node["detect_negative"] else empty)


def is_nan(node: Node, x: Tensor) -> Tensor:
    """fp8 too."""
    return torch.isnan(x.float() if x.element_size() == 1 else x)


def _running(run: Kernel, start: int, node: Node, x: Tensor, axis: Any) -> Tensor:
    axis = axis[0] if isinstance(axis, list) else axis
    if node["reverse"]:
        x = x.flip(axis)
    if node["exclusive"]:
        size = x.shape[axis]
        head = torch.full_like(x.narrow(axis, 0, min(size, 1)), start)
        x = torch.cat([head, x.narrow(axis, 0, max(size - 1, 0))], axis)
    result: Tensor = run(x, axis, dtype=x.dtype)
    return result.flip(axis) if node["reverse"] else result


def where(node: Node, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Choose by element."""
    return torch.where(condition, x, y)


def identity(node: Node, x: Any) -> Any:
    """The same value; sessions copy what leaves them."""
    return x


def absolute(node: Node, x: Tensor) -> Tensor:
    """Unsigned values are their own absolute."""
    return x if node.call.inputs[0].startswith("uint") else x.abs()


def sign(node: Node, x: Tensor) -> Tensor:
    """uint64 travels as int64, so zero is all there is to tell."""
    return (x != 0).to(x.dtype) if node.call.inputs[0].startswith("uint") else x.sign()


def _legacy(run: Kernel, modern: Op) -> Versions:
    return {1: Op(partial(legacy, run)), 7: modern}


_BOTH = Kind.ORDER

TABLE: Table = {
    "Add": _legacy(torch.add, bare(torch.add)),
    "Sub": _legacy(torch.sub, bare(torch.sub)),
    "Mul": _legacy(torch.mul, bare(torch.mul)),
    "Div": _legacy(torch.div, Op(divide)),
    "Mod": Op(modulo),
    "Pow": _legacy(torch.pow, Op(power)),
    "And": _legacy(torch.logical_and, bare(torch.logical_and)),
    "Or": _legacy(torch.logical_or, bare(torch.logical_or)),
    "Xor": _legacy(torch.logical_xor, bare(torch.logical_xor)),
    "Not": bare(torch.logical_not),
    "Equal": _legacy(torch.eq, bare(torch.eq)),
    "Greater": _legacy(torch.gt, bare(torch.gt, _BOTH)),
    "Less": _legacy(torch.lt, bare(torch.lt, _BOTH)),
    "GreaterOrEqual": bare(torch.ge, _BOTH),
    "LessOrEqual": bare(torch.le, _BOTH),
    "BitwiseAnd": bare(torch.bitwise_and),
    "BitwiseOr": bare(torch.bitwise_or),
    "BitwiseXor": bare(torch.bitwise_xor),
    "BitwiseNot": bare(torch.bitwise_not),
    "BitShift": Op(shift),
    "Max": Op(partial(fold, torch.maximum), kind=_BOTH),
    "Min": Op(partial(fold, torch.minimum), kind=_BOTH),
    "Sum": Op(partial(fold, torch.add)),
    "Mean": Op(mean),
    "Clip": {1: Op(clip_6), 11: Op(clip, kind=_BOTH)},
    "Where": move(where),
    "Identity": Op(identity, kind=Kind.NATIVE),
    "Abs": Op(absolute),
    "Sign": Op(sign),
    "Neg": bare(torch.neg),
    "Ceil": bare(torch.ceil),
    "Floor": bare(torch.floor),
    "Round": bare(torch.round),
    "Sqrt": bare(torch.sqrt),
    "Reciprocal": bare(torch.reciprocal),
    "Exp": bare(torch.exp),
    "Log": bare(torch.log),
    "Erf": bare(torch.erf),
    "Sin": bare(torch.sin),
    "Cos": bare(torch.cos),
    "Tan": bare(torch.tan),
    "Asin": bare(torch.asin),
    "Acos": bare(torch.acos),
    "Atan": bare(torch.atan),
    "Sinh": bare(torch.sinh),
    "Cosh": bare(torch.cosh),
    "Asinh": bare(torch.asinh),
    "Acosh": bare(torch.acosh),
    "Atanh": bare(torch.atanh),
    "IsInf": Op(is_inf, kind=Kind.NATIVE),
    "IsNaN": Op(is_nan, kind=Kind.NATIVE),
    "CumSum": Op(partial(_running, torch.cumsum, 0), host=(1,)),
    "CumProd": Op(partial(_running, torch.cumprod, 1), host=(1,)),
}
