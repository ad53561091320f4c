"""Integer quantisation, in arithmetic that every device has."""

from __future__ import annotations

from typing import Any

import paddle

from .conv import conv
from .elementwise import round_half_even
from .op import DTYPES, Node, Op, Refused, Table, Value, axis_of, full_like, name_of, rank, size

_RANGES = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "uint16": (0, (1 << 16) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
}


def _spread(node: Node, x: Value, vector: Value) -> Value:
    """A scale or zero point, shaped to broadcast against `x`: scalar or per axis."""
    if rank(vector) == 0:
        return vector
    if node["block_size"]:
        raise Refused(f"takes one scale per tensor or axis; found block_size={node['block_size']}")
    if size(vector, 0) == 1:
        return paddle.reshape(vector, [])
    axis = axis_of(1 if node["axis"] is None else node["axis"], rank(x))
    return paddle.reshape(vector, [-1 if i == axis else 1 for i in range(rank(x))])


def _target(node: Node) -> str:
    if node["output_dtype"]:
        return DTYPES.get(node["output_dtype"], "")
    given = node.inputs[2] if node.arity > 2 else ""
    return given or node.outputs[0] or "uint8"


def quantize(node: Node, x: Value, scale: Value, zero: Value = None) -> Value:
    """round(x / scale) + zero point, saturated."""
    ratio = paddle.cast(x, "float32") / paddle.cast(_spread(node, x, scale), "float32")
    return saturated(ratio, None if zero is None else _spread(node, x, zero), _target(node))


def saturated(ratio: Value, zero: Value, target: str) -> Value:
    """Round half to even, shift, and clamp into the integer's range."""
    if target not in _RANGES:
        raise Refused(f"quantises to {', '.join(_RANGES)}; found {target or 'another dtype'}")
    whole = round_half_even(ratio)
    if zero is not None:
        whole = whole + paddle.cast(zero, whole.dtype)
    low, high = _RANGES[target]
    held = paddle.cast(paddle.clip(whole, float(low), float(high)), "int32")
    return held if target == "int32" else paddle.cast(held, target)


def dequantize(node: Node, x: Value, scale: Value, zero: Value = None) -> Value:
    """(x - zero point) scale."""
    wide = paddle.cast(x, "int32")
    if zero is not None:
        wide = wide - paddle.cast(_spread(node, x, zero), "int32")
    return paddle.cast(wide, scale.dtype) * _spread(node, x, scale)


def dynamic_quantize(node: Node, x: Value) -> tuple[Value, Value, Value]:
    """uint8 over the range found, which includes zero."""
    nothing = full_like(x, 0.0)
    low, high = paddle.minimum(paddle.min(x), nothing), paddle.maximum(paddle.max(x), nothing)
    scale = (high - low) / full_like(x, 255.0)
    safe = paddle.where(paddle.equal(scale, nothing), paddle.ones_like(scale), scale)
    zero = round_half_even(paddle.clip(-low / safe, 0.0, 255.0))
    y = paddle.clip(round_half_even(x / safe) + zero, 0.0, 255.0)
    return paddle.cast(y, "uint8"), scale, paddle.cast(zero, "uint8")


def _exact(x: Value, zero: Value, axis: int) -> Value:
    """x minus its zero point in float64, where sums of products of bytes are exact."""
    wide = paddle.cast(x, "float64")
    return wide if zero is None else wide - paddle.cast(_column(zero, rank(x), axis), "float64")


def _column(vector: Value, dims: int, axis: int) -> Value:
    if rank(vector) != 1:
        return vector
    if size(vector, 0) == 1:
        return paddle.reshape(vector, [])
    return paddle.reshape(vector, [-1 if i == axis_of(axis, dims) else 1 for i in range(dims)])


def matmul_integer(node: Node, a: Value, b: Value, a_zero: Any = None, b_zero: Any = None) -> Value:
    """int32 product of shifted integers."""
    product = paddle.matmul(_exact(a, a_zero, -2), _exact(b, b_zero, -1))
    return paddle.cast(product, "int32")


def conv_integer(node: Node, x: Value, w: Value, x_zero: Any = None, w_zero: Any = None) -> Value:
    """int32 convolution of shifted integers."""
    return paddle.cast(conv(node, _exact(x, x_zero, 1), _exact(w, w_zero, 0)), "int32")


def qlinear_matmul(
    node: Node, a: Value, a_scale: Value, a_zero: Value, b: Value, b_scale: Value, b_zero: Value,
    y_scale: Value, y_zero: Value,
) -> Value:  # fmt: skip
    """Quantised in, quantised out."""
    sums = paddle.matmul(_exact(a, a_zero, -2), _exact(b, b_zero, -1))
    return _requantized(node, sums, a_scale, b_scale, y_scale, y_zero, -2, -1)


def qlinear_conv(
    node: Node, x: Value, x_scale: Value, x_zero: Value, w: Value, w_scale: Value, w_zero: Value,
    y_scale: Value, y_zero: Value, bias: Value = None,
) -> Value:  # fmt: skip
    """Quantised in, quantised out; the bias is int32 in units of x_scale w_scale."""
    sums = conv(node, _exact(x, x_zero, 1), _exact(w, w_zero, 0))
    if bias is not None:
        sums = sums + paddle.cast(_column(bias, rank(sums), 1), "float64")
    return _requantized(node, sums, x_scale, w_scale, y_scale, y_zero, 1, 1)


def _requantized(
    node: Node, sums: Value, first: Value, second: Value, scale: Value, zero: Value, row: int,
    column: int,
) -> Value:  # fmt: skip
    dims = rank(sums)
    wide = [
        paddle.cast(_column(v, dims, axis), "float64")
        for v, axis in ((first, row), (second, column), (scale, row))
    ]
    return saturated(sums * (wide[0] * wide[1] / wide[2]), _column(zero, dims, row), name_of(zero))


TABLE: Table = {
    "QuantizeLinear": Op(quantize),
    "DequantizeLinear": Op(dequantize),
    "DynamicQuantizeLinear": Op(dynamic_quantize),
    "MatMulInteger": Op(matmul_integer),
    "ConvInteger": Op(conv_integer),
    "QLinearMatMul": Op(qlinear_matmul),
    "QLinearConv": Op(qlinear_conv),
}
